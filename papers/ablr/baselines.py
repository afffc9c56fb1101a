"""What ABLR is compared with: Gaussian processes, DNGO and a BOHAMIANN-like network."""

import math
import warnings
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from common.base.errors import UserError
from common.base.limits import require
from common.search.searcher import Observations
from papers.ablr.features import Network
from papers.ablr.model import Points, SharedRegression
from papers.ablr.searcher import Belief, ModelSearch, Transform
from papers.ablr.tasks import TransferObjective

# of BOHAMIANN: numbers that stand for a task, friction of the sampler, kept samples
EMBEDDING, FRICTION, SAMPLES = 5, 0.05, 20


class GPSearch(ModelSearch):
    """A Gaussian process with a Matern-5/2 kernel and a lengthscale for each input, fitted by BoTorch.

    Args:
        warm_start: evaluations that are first made at the best points of the related tasks that are nearest
            in L1 distance of context (in order, where nothing describes a task).
        context: whether one process models all tasks by inputs and context together.
        transform, candidates: see `ModelSearch`.

    Raises:
        UserError: a value out of range; a context where tasks have none.
    """

    NAME: ClassVar = "gp"

    def __init__(self, *, warm_start: int, context: bool, transform: Transform, candidates: int) -> None:
        super().__init__(transform=transform, candidates=candidates)
        require("at least 0", "method", warm_start=warm_start)
        self.warm_start, self.context = warm_start, context

    def prepare(self) -> None:
        super().prepare()
        data = self.task.objective
        if self.context and not (isinstance(data, TransferObjective) and len(data.context(0))):
            raise UserError(
                f"method.context=true: nothing describes the tasks of dataset={data.NAME} (valid: false, or "
                "dataset=quadratics)"
            )
        self.first = [self._first(r) for r in range(self.task.replicates)]

    def _first(self, r: int) -> list[Tensor]:
        """The best points of the related tasks, nearest first."""
        tasks, data = self.related(r), self.task.objective
        if not self.warm_start or not tasks:
            return []
        if isinstance(data, TransferObjective) and len(data.context(r)):
            every = torch.stack([task.context for task in tasks])
            scale = every.std(0, correction=0).clamp_min(1e-12)
            distance = ((every - data.context(r)) / scale).abs().sum(1)
            tasks = [tasks[i] for i in distance.argsort().tolist()]
        return [task.x[task.y.argmax()] for task in tasks[: self.warm_start]]

    def propose(self, seen: Observations, q: int) -> Tensor:
        if seen.count >= len(self.first[0]) or q > 1:
            return super().propose(seen, q)
        points = [self._nearest(r, self.first[r][seen.count], seen.x[r]) for r in range(self.task.replicates)]
        return torch.stack(points)[:, None]

    def _nearest(self, r: int, wanted: Tensor, tried: Tensor) -> Tensor:
        """The point, or of a finite space the arm with the nearest inputs that was not tried."""
        space = self.task.objective.space
        if space.arms is None:
            return wanted
        distance = (self.encoded(r, torch.arange(space.arms)[:, None]) - wanted).abs().sum(1)
        distance[tried[:, 0].long()] = torch.inf
        return distance.argmin()[None].to(torch.float64)

    def belief(self, r: int, own: Points) -> Belief | None:
        points, context = [own], None
        if self.context:
            data = self.task.objective
            assert isinstance(data, TransferObjective)
            context = data.context(r)
            tasks = self.related(r)
            points = [Points(_joined(own.x, context), own.y)]
            points += [
                Points(_joined(p.x, task.context), p.y)
                for p, task in zip(self.related_points(r), tasks, strict=True)
            ]
        x, y = torch.cat([p.x for p in points]), torch.cat([p.y for p in points])
        if not len(y):
            return None
        model = fitted_gp(x, y)

        def predict(at: Tensor) -> tuple[Tensor, Tensor]:
            posterior = model.posterior(at if context is None else _joined(at, context))
            return posterior.mean[:, 0], posterior.variance[:, 0]

        return predict


def _joined(x: Tensor, context: Tensor) -> Tensor:
    return torch.cat([x, context.expand(len(x), -1)], 1)


def fitted_gp(x: Tensor, y: Tensor) -> Any:
    """BoTorch's SingleTaskGP with a Matern-5/2 ARD kernel on scaled inputs, by its marginal likelihood.

    Where the fit fails, the process with its first hyperparameters.
    """
    from botorch.exceptions.errors import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Normalize
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.mlls import ExactMarginalLogLikelihood

    dim = x.shape[1]
    with warnings.catch_warnings():
        # about inputs that hardly vary, and fits that stopped at their last iteration
        warnings.simplefilter("ignore")
        model = SingleTaskGP(
            x,
            y[:, None],
            covar_module=ScaleKernel(MaternKernel(2.5, ard_num_dims=dim)),
            input_transform=Normalize(dim) if len(y) > 1 else None,
            outcome_transform=None,
        )
        try:
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(model.likelihood, model),
                optimizer_kwargs={"options": {"maxiter": 100}},
            )
        except (ModelFittingError, RuntimeError):
            model.eval()
    return model


class DNGO(ModelSearch):
    """DNGO (Snoek et al. 2015): a network by squared error, then Bayesian regression on its last layer.

    Args:
        features: the network. transfer: whether it is trained on the related tasks too.
        steps: of Adam with lr, over all points; fits: iterations for alpha and beta.
        transform, candidates: see `ModelSearch`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "dngo"

    def __init__(
        self,
        *,
        features: Network,
        transfer: bool,
        steps: int,
        lr: float,
        fits: int,
        transform: Transform,
        candidates: int,
    ) -> None:
        super().__init__(transform=transform, candidates=candidates)
        require("at least 1", "method", steps=steps, fits=fits)
        require("positive", "method", lr=lr)
        self.features, self.transfer, self.steps, self.lr, self.fits = features, transfer, steps, lr, fits

    def belief(self, r: int, own: Points) -> Belief | None:
        others = self.related_points(r) if self.transfer else []
        tasks = [own, *others] if len(own.y) else others
        if not tasks:
            return None
        model = self.trained(tasks, Generator().manual_seed(self.task.seeds[r]))
        heads = [0] if len(own.y) else list(range(len(tasks)))

        def predict(x: Tensor) -> tuple[Tensor, Tensor]:
            mean, variance = model.predict(x, heads)
            return mean.mean(0), variance.mean(0)

        return predict

    def trained(self, tasks: list[Points], generator: Generator) -> SharedRegression:
        """The network by squared error with one linear output a task, then alpha and beta of each."""
        model = SharedRegression(self.features, tasks, generator)
        T, D = len(tasks), self.features.dim
        z = model.z.clone().requires_grad_()
        w = (torch.randn(T, D, generator=generator, dtype=torch.float64) / D**0.5).requires_grad_()
        which = torch.repeat_interleave(torch.arange(T), torch.tensor([len(task.y) for task in tasks]))
        x, y = torch.cat([task.x for task in tasks]), torch.cat([task.y for task in tasks])
        optimizer = torch.optim.Adam([z, w], lr=self.lr)
        for _ in range(self.steps):
            optimizer.zero_grad()
            rest = (model.features.map(z, x) * w[which]).sum(1) - y
            rest.square().mean().backward()
            optimizer.step()
        model.z = z.detach()
        model.fit_heads(self.fits)
        return model


class Bohamiann(ModelSearch):
    """A BOHAMIANN-like model (Springenberg et al. 2016): a network whose weights are sampled by SGHMC.

    Inputs are a point and numbers that stand for its task, which are sampled too. Mean and variance are
    those over kept samples. Weights have a standard normal prior (scaled by fan-in), noise of a fixed level.

    Args:
        width, layers: of the tanh network. transfer: whether related tasks are in the data.
        burn_in, thinning: steps before the first kept sample, and between samples. lr: step size.
        batch: points of a step. noise: standard deviation of a standardised observation.
        transform, candidates: see `ModelSearch`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "bohamiann"

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        transfer: bool,
        burn_in: int,
        thinning: int,
        lr: float,
        batch: int,
        noise: float,
        transform: Transform,
        candidates: int,
    ) -> None:
        super().__init__(transform=transform, candidates=candidates)
        require("at least 1", "method", width=width, layers=layers, thinning=thinning, batch=batch)
        require("at least 0", "method", burn_in=burn_in)
        require("positive", "method", lr=lr, noise=noise)
        self.width, self.layers, self.transfer = width, layers, transfer
        self.burn_in, self.thinning, self.lr = burn_in, thinning, lr
        self.batch, self.noise = batch, noise

    def belief(self, r: int, own: Points) -> Belief | None:
        others = self.related_points(r) if self.transfer else []
        tasks = [own, *others] if len(own.y) else others
        if not tasks:
            return None
        samples = self.sampled(tasks, Generator().manual_seed(self.task.seeds[r]))
        wanted = [0] if len(own.y) else list(range(len(tasks)))

        def predict(x: Tensor) -> tuple[Tensor, Tensor]:
            outputs = torch.stack([sample(x, torch.full((len(x),), t)) for sample in samples for t in wanted])
            return outputs.mean(0), outputs.var(0) if len(outputs) > 1 else torch.zeros_like(outputs[0])

        return predict

    def sampled(self, tasks: list[Points], generator: Generator) -> list["TaskNetwork"]:
        """Networks drawn by SGHMC: v <- (1 - c) v - lr grad U + sqrt(2 c lr) N(0, 1), theta <- theta + v."""
        x, y = torch.cat([task.x for task in tasks]), torch.cat([task.y for task in tasks])
        which = torch.repeat_interleave(torch.arange(len(tasks)), torch.tensor([len(t.y) for t in tasks]))
        network = TaskNetwork(x.shape[1], len(tasks), self.width, self.layers, generator)
        own = list(network.parameters())
        speed = [torch.zeros_like(p) for p in own]
        lr, samples = self.lr / len(y), []
        for step in range(self.burn_in + SAMPLES * self.thinning):
            drawn = torch.randint(len(y), (min(self.batch, len(y)),), generator=generator)
            rest = network(x[drawn], which[drawn]) - y[drawn]
            energy = len(y) * rest.square().mean() / (2 * self.noise**2) + network.log_prior()
            for p, v, g in zip(own, speed, torch.autograd.grad(energy, own), strict=True):
                push = torch.randn(p.shape, generator=generator, dtype=p.dtype)
                # a slope that is too steep for the step is cut
                v.mul_(1 - FRICTION).sub_(lr * g.clamp(-1e4, 1e4)).add_(
                    push, alpha=math.sqrt(2 * FRICTION * lr)
                )
                p.data.add_(v)
            if step >= self.burn_in and (step - self.burn_in) % self.thinning == 0:
                samples.append(network.copied())
        return samples


class TaskNetwork(nn.Module):
    """A tanh network of points and numbers of their task, with one output [n]."""

    def __init__(self, inputs: int, tasks: int, width: int, layers: int, generator: Generator) -> None:
        super().__init__()
        self.sizes = (inputs, tasks, width, layers)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.tasks = normal(tasks, EMBEDDING)
        sizes = [inputs + EMBEDDING, *[width] * layers, 1]
        self.weights = nn.ParameterList([normal(a, b) for a, b in pairwise(sizes)])
        self.biases = nn.ParameterList([normal(b) for b in sizes[1:]])

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        h = torch.cat([x, self.tasks[task]], 1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = h @ weight / weight.shape[0] ** 0.5 + bias
            h = torch.tanh(h) if i < len(self.weights) - 1 else h
        return h[:, 0]

    def log_prior(self) -> Tensor:
        """Minus the logarithm of the standard normal prior, up to a constant."""
        return 0.5 * torch.stack([p.square().sum() for p in self.parameters()]).sum()

    def copied(self) -> "TaskNetwork":
        """The same network, for good."""
        other = TaskNetwork(*self.sizes, Generator().manual_seed(0))
        other.load_state_dict(self.state_dict())
        return other.requires_grad_(False)
