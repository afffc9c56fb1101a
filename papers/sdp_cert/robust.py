"""The three trainings of the paper's networks, as methods of supervised training: Grad-NN, LP-NN, PGD-NN."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.method import TrainingMethod
from papers.sdp_cert.bounds import Interval, crown_objective, interval_bounds, margins
from papers.sdp_cert.network import ReluNetwork, read_network


class RobustTraining(TrainingMethod):
    """What the three share: the student's matrices with their gradients, and a warm-up of eps.

    Args:
        optimizer: of the student.
        eps: radius of the attack, in the units of the inputs.
        clip_input: whether attacked inputs stay in [0, 1].
        warmup: eps rises linearly from 0 over this fraction of the run.

    Raises:
        UserError: eps below 0 or not finite, warmup outside [0, 1].
    """

    ONE_PASS = False

    done: Tensor

    def __init__(
        self, *, optimizer: Callable[..., torch.optim.Optimizer], eps: float, clip_input: bool, warmup: float
    ) -> None:
        super().__init__(optimizer=optimizer)
        if not 0 <= eps < float("inf"):
            raise UserError(f"method.eps={eps}; valid: a finite number >= 0")
        if not 0 <= warmup <= 1:
            raise UserError(f"method.warmup={warmup}; valid: a fraction from 0 to 1")
        self.full_eps, self.clip_input, self.warmup = eps, clip_input, warmup
        # a buffer: it must survive a kill
        self.register_buffer("done", torch.zeros((), dtype=torch.float64))

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """Check that the student can be certified at all.

        Raises:
            UserError: a layer that cannot, or inputs that are not in [0, 1].
        """
        if data.normalise != "unit_interval":
            raise UserError(
                f"dataset.normalise={data.normalise}: eps is in pixels of [0, 1] (valid: unit_interval)"
            )
        read_network(student, data.shape)
        return student

    @property
    def eps(self) -> float:
        """The radius now."""
        return self.full_eps * min(1.0, float(self.done) / self.warmup if self.warmup else 1.0)

    def end_step(self, student: nn.Module, done: float) -> None:
        self.done.fill_(done)

    def box(self, inputs: Tensor) -> Interval:
        """The attack's box around a batch, flattened."""
        x = inputs.flatten(1)
        lower, upper = x - self.eps, x + self.eps
        return Interval(lower.clamp_min(0), upper.clamp_max(1)) if self.clip_input else Interval(lower, upper)


def live_network(student: nn.Module) -> ReluNetwork:
    """The matrices of a fully connected network, still attached to its parameters.

    Raises:
        UserError: it has other layers with weights.
    """
    layers = [layer for layer in student.modules() if not list(layer.children())]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    other = next((x for x in layers if not isinstance(x, nn.Linear) and list(x.parameters())), None)
    if other is not None:
        raise UserError(f"{type(other).__name__}: this training is for fully connected networks (valid: mlp)")
    biases = (x.weight.new_zeros(x.out_features) if x.bias is None else x.bias for x in linear)
    return ReluNetwork(tuple(x.weight for x in linear), tuple(biases))


def check_live_network(student: nn.Module, shape: tuple[int, ...]) -> None:
    """Check that `live_network` is the network that the module computes.

    Raises:
        UserError: its layers are not registered in the order of their use with a ReLU between any two, or it
            does more than they do.
    """
    live, read = live_network(student), read_network(student, shape)
    pairs = list(zip((*live.weights, *live.biases), (*read.weights, *read.biases), strict=False))
    same = live.hidden_layers == read.hidden_layers and all(
        a.shape == b.shape and torch.equal(a.detach().double().cpu(), b) for a, b in pairs
    )
    if not same:
        raise UserError(
            f"{type(student).__name__}: this training is for fully connected networks whose layers are "
            "registered in the order of their use, with a ReLU between any two (valid: mlp)"
        )


class AdversarialTraining(RobustTraining):
    """PGD-NN (Madry et al. 2018): (1 - weight) CE(x) + weight CE(x'), x' by signed gradient ascent on CE.

    Args:
        steps, step_size: of the ascent, the latter in the units of the inputs; it starts at a random point.
        weight: of attacked inputs, in [0, 1].
        The others as in RobustTraining.
    """

    def __init__(
        self,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        eps: float,
        clip_input: bool,
        warmup: float,
        steps: int,
        step_size: float,
        weight: float,
    ) -> None:
        super().__init__(optimizer=optimizer, eps=eps, clip_input=clip_input, warmup=warmup)
        if not 0 <= weight <= 1:
            raise UserError(f"method.weight={weight}; valid: 0 to 1")
        self.steps, self.step_size, self.weight = steps, step_size, weight

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        attacked = F.cross_entropy(student(self._attack(student, inputs, targets)), targets)
        if self.weight == 1:
            return attacked
        return self.weight * attacked + (1 - self.weight) * F.cross_entropy(student(inputs), targets)

    def _attack(self, student: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        box = self.box(inputs)
        lower, upper = (bound.view_as(inputs) for bound in (box.lower, box.upper))
        x = lower + torch.rand_like(inputs) * (upper - lower)
        for _ in range(self.steps):
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(student(x), targets), x)
            x = (x.detach() + self.step_size * slope.sign()).maximum(lower).minimum(upper)
        return x.detach()


class LinearTraining(RobustTraining):
    """LP-NN (Wong and Kolter 2018): cross-entropy of the worst logits that the LP's dual bound allows."""

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """Check that the bound is of the student itself.

        Raises:
            UserError: see `RobustTraining.attach` and `check_live_network`.
        """
        student = super().attach(student, make_model, data)
        check_live_network(student, data.shape)
        return student

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        network, box = live_network(student), self.box(inputs)
        goal = margins(network, targets)
        worst = crown_objective(network, interval_bounds(network, box), box, goal, "parallel")
        # the true class has margin 0 against itself
        return torch.logsumexp(F.pad(worst, (1, 0)), dim=1).mean()


class GradTraining(RobustTraining):
    """Grad-NN (Raghunathan et al., ICLR 2018): hinge loss and the dual of Grad-cert's SDP for pairs of
    classes.

    The dual of one pair is sum c + n max(0, lambda_max(M - diag c)); its c >= 0 are trained along, so that it
    need not be solved at any step.

    Args:
        strength: weight of the regulariser.
        pairs: random pairs of classes a step, of the classes (classes - 1)/2.
        The others as in RobustTraining.

    Raises:
        UserError: as RobustTraining; a network with more than one hidden layer.
    """

    c: Tensor

    def __init__(
        self,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        eps: float,
        clip_input: bool,
        warmup: float,
        strength: float,
        pairs: int,
    ) -> None:
        super().__init__(optimizer=optimizer, eps=eps, clip_input=clip_input, warmup=warmup)
        if pairs < 1 or strength < 0:
            raise UserError(f"method.pairs={pairs}, method.strength={strength}; valid: >= 1, >= 0")
        self.strength, self.count = strength, pairs

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """Start c at the row sums of |M|, at which M - diag c has no positive eigenvalue.

        Raises:
            UserError: see the class.
        """
        student = super().attach(student, make_model, data)
        check_live_network(student, data.shape)
        network = live_network(student)
        if network.hidden_layers != 1:
            raise UserError(
                f"robust/grad needs one hidden layer, not {network.hidden_layers} (valid: robust/pgd)"
            )
        self.pairs = torch.combinations(torch.arange(network.classes))
        with torch.no_grad():
            start = self._matrices(network, self.pairs).abs().sum(2)
        self.c = nn.Parameter(start)
        return student

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        logits = student(inputs)
        hinge = (1 + logits - logits.gather(1, targets[:, None])).clamp_min(0)
        hinge = (hinge.sum(1) - 1).mean()
        some = torch.randperm(len(self.pairs))[: self.count]
        M = self._matrices(live_network(student), self.pairs[some])
        c = self.c[some].clamp_min(0)
        largest = torch.linalg.eigvalsh(M - torch.diag_embed(c))[:, -1]
        dual = c.sum(1) + c.shape[1] * largest.clamp_min(0)
        return hinge + self.strength * self.eps / 4 * dual.mean()

    @staticmethod
    def _matrices(network: ReluNetwork, pairs: Tensor) -> Tensor:
        """M of Grad-cert for each pair, [p, n, n]; see grad_cert.py."""
        W, V = network.weights
        v = V[pairs[:, 0]] - V[pairs[:, 1]]
        m, d = W.shape
        first = F.pad((v @ W)[:, None], (1, m))
        block = F.pad(W.T * v[:, None], (1 + d, 0))
        upper = F.pad(torch.cat([first, block], 1), (0, 0, 0, m))
        return upper + upper.mT
