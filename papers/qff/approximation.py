"""What feature maps get wrong, and how long a step takes: modules without a search."""

import time
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.base.objective import Objective
from common.numerics.linalg import cholesky
from common.numerics.sampling import ReplicateSampler
from common.search.module import STREAMS
from common.search.surrogate import Surrogate
from papers.qff.basis import profile
from papers.qff.error import LARGE, advice, kernel_error
from papers.qff.features import QFF, Exact, FeatureFamily, FourierFeatures
from papers.qff.posterior import WeightPosterior
from papers.qff.quadrature import SpectralKernel, hermite_error_bound
from papers.qff.search import spectral

# points on each axis at whose pairs the kernel is compared, by dimension
KERNEL_GRID = {1: 257, 2: 25}
# points of [-1/2, 1/2] at which posteriors are compared
POSTERIOR_GRID = 201
# where the data of the posterior ends
DATA_END = 0.0
# how far beyond the data `far_variance` is taken
FAR = 0.4
# points predicted in a timed step
PREDICTED = 100


class Measurement(PaperModule):
    """One measurement a step, `rounds` of them."""

    data: Objective

    def __init__(self, data: Objective, model: Surrogate, seed: int, rounds: int) -> None:
        super().__init__()
        self.data, self.model, self.seed = data, model, seed
        self.rounds, self.made = rounds, 0
        self.found: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        self.data.setup(stage)

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def on_fit_start(self) -> None:
        self.data.move(torch.device(self.device))
        self.data.draw([self.seed])

    @torch.no_grad()
    def training_step(self, batch: int, batch_idx: int) -> None:
        if self.made < self.rounds:
            self.measure()
            self.made += 1
        self.trainer.should_stop = self.made >= self.rounds

    @abstractmethod
    def measure(self) -> None:
        """Put what is measured into `found`."""

    def progress(self) -> Progress:
        return Progress(self.made, self.rounds, "measurements", "")

    def results(self) -> dict[str, Any]:
        return dict(self.found)

    def search_state(self) -> dict[str, Any]:
        return {"made": self.made, "found": dict(self.found)}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.made, self.found = state["made"], dict(state["found"])

    def kernel(self) -> tuple[SpectralKernel, Tensor]:
        """The surrogate's kernel, and its lengthscales [d]."""
        given = self.value("lengthscale")
        gamma = torch.as_tensor(given, dtype=torch.float64, device=self.device).expand(self.model.dim)
        return spectral(self.model.kernel, gamma, self.model.dim)

    def value(self, name: str) -> Any:
        """A hyperparameter of the surrogate, or the objective's own."""
        given = getattr(self.model, name)
        found = given if given is not None else getattr(self.data, name, None)
        if found is None:
            raise UserError(f"model.{name}=null: dataset={self.data.NAME} says none; valid: a number")
        return found

    def features(self, family: FeatureFamily, repeats: int) -> FourierFeatures:
        """Maps of all coordinates together, [R or 1, 1, m, d]."""
        random = ReplicateSampler(self.seed, repeats, None, torch.device(self.device), torch.float64)
        kernel, gamma = self.kernel()
        return family.build(kernel, gamma[None], random)

    def measure_kernel(self, features: FourierFeatures, family: FeatureFamily) -> float:
        """`kernel_error` on [-1/2, 1/2]^d; says so where quadrature does not resolve the kernel there."""
        kernel, gamma = self.kernel()
        gamma, width = gamma[None], torch.ones_like(gamma[None])
        error = kernel_error(features, kernel, gamma, width)
        if isinstance(family, QFF) and error > LARGE:
            print(f"[{family.NAME}] {advice(family, kernel, gamma, width, error)}")
        return error

    def tell(self, name: str, values: Tensor) -> None:
        """The mean of replicates, with its standard error where there are several."""
        self.found[name] = float(values.mean())
        if len(values) > 1:
            self.found[f"{name}_sem"] = float(values.std()) / len(values) ** 0.5


class KernelError(Measurement):
    """max |Phi(x) . Phi(y) - k(x - y)| over pairs of grid points of [-1/2, 1/2]^d.

    Args:
        data, model, family, seed: dataset, kernel, features, seed of the first replicate.
        repeats: R draws of random features.
    """

    def __init__(
        self, *, data: Objective, model: Surrogate, family: FeatureFamily, seed: int, repeats: int
    ) -> None:
        super().__init__(data, model, seed, rounds=1)
        if model.dim not in KERNEL_GRID:
            raise UserError(f"dataset.dim={model.dim}: kernels are compared in 1 or 2 dimensions")
        self.family, self.repeats = family, repeats

    def measure(self) -> None:
        """sup_error, of QFF for se with its error_bound; features: m; diagonal_error: max |k(x, x) - 1|."""
        axis = torch.linspace(-0.5, 0.5, KERNEL_GRID[self.model.dim], dtype=torch.float64, device=self.device)
        x = torch.cartesian_prod(*[axis] * self.model.dim).reshape(-1, self.model.dim)
        features = self.features(self.family, self.repeats)
        self.measure_kernel(features, self.family)
        phi = features(x)[:, 0]
        exact = covariance(*self.kernel(), x, x)
        # one replicate at a time: a matrix of all pairs is large
        errors = torch.stack([(one @ one.mT - exact).abs().max() for one in phi])
        self.tell("sup_error", errors)
        self.tell("diagonal_error", (phi.square().sum(-1) - 1.0).abs().amax(1))
        self.found["features"] = features.size
        kernel, gamma = self.kernel()
        if isinstance(self.family, QFF) and kernel == "se":
            bound = hermite_error_bound(torch.ones_like(gamma), gamma, self.family.nodes)
            self.found["error_bound"] = float(bound)


class PosteriorError(Measurement):
    """The posterior on features beside the exact one, given noisy data on the left half of [-1/2, 1/2].

    Args:
        data, model, family, seed: the function, the prior, features, seed of the first replicate.
        repeats: R, each with data and random features of its own.
        points: of data, uniform on [-1/2, 0].
    """

    def __init__(
        self,
        *,
        data: Objective,
        model: Surrogate,
        family: FeatureFamily,
        seed: int,
        repeats: int,
        points: int,
    ) -> None:
        super().__init__(data, model, seed, rounds=1)
        if points < 1:
            raise UserError(f"paper.points={points}; valid: at least 1")
        self.family, self.repeats, self.points = family, repeats, points

    def measure(self) -> None:
        """Errors are largest differences over 201 points of [-1/2, 1/2].

        mean_error, var_error; max_mean_deviation: of means on (0, 1/2]; far_variance, exact_far_variance: the
        variances of f at 0.4; kernel_error: see `papers.qff.error`.
        """
        random = ReplicateSampler(
            self.seed + STREAMS, self.repeats, None, torch.device(self.device), torch.float64
        )
        x = (random.uniform(self.points) - 1.0)[..., None] / 2.0 + DATA_END
        y = self.data.values(x) + random.normal((self.points,)) * self.data.noise
        noise, amplitude = float(self.value("noise")), float(self.value("variance")) ** 0.5
        at = torch.linspace(-0.5, 0.5, POSTERIOR_GRID, dtype=torch.float64, device=self.device)[:, None]
        plain = self.features(self.family, self.repeats)
        features = plain.times(amplitude)
        posterior = WeightPosterior.fit(features(x[:, None])[:, 0], y - self.value("mean"), noise)
        phi = features(at)[:, 0]
        mean = posterior.mean_at(phi)
        variance = posterior.variance_at(phi)
        exact_mean, exact_variance = exact_posterior(
            *self.kernel(), amplitude**2, noise, x, y - self.value("mean"), at
        )
        deviation, beyond = (mean - exact_mean).abs(), at[:, 0] > DATA_END
        self.tell("mean_error", deviation.amax(1))
        self.tell("max_mean_deviation", deviation[:, beyond].amax(1))
        self.tell("var_error", (variance - exact_variance).abs().amax(1))
        far = int((at[:, 0] - FAR).abs().argmin())
        self.tell("far_variance", variance[:, far])
        self.tell("exact_far_variance", exact_variance[:, far])
        self.found["features"] = features.size
        self.found["kernel_error"] = self.measure_kernel(plain, self.family)


class StepSeconds(Measurement):
    """Seconds of one step of a search with n observations: take one more, predict 100 points.

    On features: a rank-one update and 100 means and variances. Exactly: a Cholesky factor of the n + 1
    observations' covariance, and the same predictions.

    Args:
        data, model, family, seed: dataset, prior, features or `Exact`, seed of the points.
        points: n.
        timed_steps: how many steps are timed; `seconds` is the median.
    """

    def __init__(
        self,
        *,
        data: Objective,
        model: Surrogate,
        family: FeatureFamily | Exact,
        seed: int,
        points: int,
        timed_steps: int,
    ) -> None:
        super().__init__(data, model, seed, rounds=timed_steps)
        for name, value in {"points": points, "timed_steps": timed_steps}.items():
            if value < 1:
                raise UserError(f"paper.{name}={value}; valid: at least 1")
        self.family, self.points = family, points
        self.times: list[float] = []

    def on_fit_start(self) -> None:
        """Draw points and values (of the noise alone: time does not depend on them)."""
        super().on_fit_start()
        device = torch.device(self.device)
        random = ReplicateSampler(self.seed, 1, None, device, torch.float64)
        count, dim = self.points + self.rounds, self.model.dim
        self.x = self.data.space.scaled(random.uniform(count * dim).reshape(1, count, dim))
        self.y = random.normal((count,))
        self.at = self.data.space.scaled(random.uniform(PREDICTED * dim).reshape(PREDICTED, dim))
        if not isinstance(self.family, Exact):
            self.map = self.features(self.family, 1).times(float(self.value("variance")) ** 0.5)
            n = self.points + self.made
            phi = self.map(self.x[:, None, :n])[:, 0]
            self.posterior = WeightPosterior.fit(phi, self.y[:, :n], float(self.value("noise")))

    def measure(self) -> None:
        """seconds: the median of the steps so far."""
        n = self.points + self.made
        start = time.perf_counter()
        if isinstance(self.family, Exact):
            exact_posterior(
                *self.kernel(),
                float(self.value("variance")),
                float(self.value("noise")),
                self.x[:, : n + 1],
                self.y[:, : n + 1],
                self.at,
            )
        else:
            self.posterior.update(self.map(self.x[:, None, n : n + 1])[:, 0, 0], self.y[:, n])
            phi = self.map(self.at)[:, 0]
            self.posterior.mean_at(phi)
            self.posterior.variance_at(phi)
        self.times.append(time.perf_counter() - start)
        self.found = {"seconds": float(torch.tensor(self.times).median()), "observations": self.points}

    def search_state(self) -> dict[str, Any]:
        return super().search_state() | {"times": list(self.times)}

    def load_search_state(self, state: dict[str, Any]) -> None:
        super().load_search_state(state)
        self.times = list(state["times"])


def covariance(kernel: SpectralKernel, lengthscale: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """k(x - y) of points [..., n, d] and [..., l, d]: [..., n, l]."""
    r = (x[..., :, None, :] - y[..., None, :, :]) / lengthscale
    return profile(kernel, r).prod(-1)


def exact_posterior(
    kernel: SpectralKernel,
    lengthscale: Tensor,
    variance: float,
    noise: float,
    x: Tensor,
    y: Tensor,
    at: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of f by Cholesky, data x [R, n, d] and y [R, n], at points [N, d]: [R, N] each."""
    K = variance * covariance(kernel, lengthscale, x, x)
    K.diagonal(dim1=-2, dim2=-1).add_(noise**2)
    L = cholesky(K, "the covariance of the observations")
    cross = variance * covariance(kernel, lengthscale, x, at.expand(len(x), *at.shape))
    solved = torch.linalg.solve_triangular(L, cross, upper=False)
    whitened = torch.linalg.solve_triangular(L, y[..., None], upper=False)
    mean = (solved * whitened).sum(-2)
    return mean, variance - solved.square().sum(-2)
