"""Functions on the unit cube with a known or searched-for optimum: Levy, Hartmann-6, draws of a GP."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from botorch.test_functions import Hartmann, Levy
from botorch.test_functions.synthetic import SyntheticTestFunction
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Generator, Tensor

from common.base.dataset import check
from common.base.objective import Objective, box

# points of one call, and starts of one L-BFGS-B, in a search for an optimum
SHARD, STARTS = 1024, 32


class TestFunction(Objective):
    """One of BoTorch's test functions, its box scaled to [0, 1]^d, negated: the same for all replicates.

    Args:
        kind: must be `objective`.
        noise: standard deviation.
    """

    # pytest: this is no test
    __test__ = False

    def __init__(self, *, kind: str, function: SyntheticTestFunction, noise: float) -> None:
        super().__init__(kind=kind, space=box(function.dim, 0.0, 1.0), noise=noise)
        self.function = function.double()

    def draw(self, seeds: list[int]) -> None:
        self.replicates = len(seeds)

    def move(self, device: torch.device | str) -> None:
        super().move(device)
        self.function = self.function.to(device)

    def values(self, x: Tensor) -> Tensor:
        bounds: Any = self.function.bounds
        lower, upper = bounds[0], bounds[1]
        return self.function(lower + x * (upper - lower), noise=False)

    def optimum(self) -> Tensor:
        best = self.function.optimal_value
        return torch.full((self.replicates,), best, dtype=torch.float64, device=self.device)


class LevyFunction(TestFunction):
    """Levy's function of d variables on [-10, 10]^d, whose largest value 0 is at 0.55 in the unit cube.

    Args:
        kind, noise: see `TestFunction`.
        dim: d >= 1.
    """

    NAME: ClassVar = "levy"

    def __init__(self, *, kind: str, dim: int, noise: float) -> None:
        check("dim", dim, dim >= 1, "give at least 1")
        super().__init__(kind=kind, function=Levy(dim=dim, negate=True), noise=noise)


class Hartmann6(TestFunction):
    """Hartmann's function of 6 variables, whose largest value is 3.32237.

    Args:
        kind, noise: see `TestFunction`.
    """

    NAME: ClassVar = "hartmann6"

    def __init__(self, *, kind: str, noise: float) -> None:
        super().__init__(kind=kind, function=Hartmann(dim=6, negate=True), noise=noise)


@dataclass(frozen=True)
class Cosines:
    """f(x) = sqrt(2 / F) sum_i weights_i cos(frequencies_i . x + phases_i): a draw of a stationary GP.

    Attributes:
        frequencies: [F, d]; phases, weights: [F].
    """

    frequencies: Tensor
    phases: Tensor
    weights: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """[..., d] -> [...]."""
        return torch.cos(x @ self.frequencies.T + self.phases) @ self.weights * self._scale

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The values [...] and their gradients [..., d]."""
        angles = x @ self.frequencies.T + self.phases
        slopes = (-torch.sin(angles) * self.weights) @ self.frequencies
        return torch.cos(angles) @ self.weights * self._scale, slopes * self._scale

    def mean(self) -> Tensor:
        """The integral over [0, 1]^d: each cosine's is cos(phase + sum w_j / 2) prod sinc(w_j / 2)."""
        halves = self.frequencies / 2
        products = torch.special.sinc(halves / math.pi).prod(-1)
        return (torch.cos(self.phases + halves.sum(-1)) * products) @ self.weights * self._scale

    def to(self, device: torch.device) -> "Cosines":
        """The same on a device."""
        return Cosines(self.frequencies.to(device), self.phases.to(device), self.weights.to(device))

    @property
    def _scale(self) -> float:
        return math.sqrt(2 / len(self.phases))


def draw_matern52(dim: int, lengthscale: float, features: int, generator: Generator) -> Cosines:
    """A draw of a GP with unit variance and Matern-5/2 kernel, by random features (Rahimi, Recht 2007).

    The spectral density is a multivariate t with 5 degrees of freedom, so a frequency is a normal over
    lengthscale times sqrt(chi^2_5 / 5). Frequencies come in pairs w, -w with independent phases.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    half = features // 2
    widths = (normal(half, 5).square().mean(1, keepdim=True)).sqrt()
    frequencies = normal(half, dim) / lengthscale / widths
    phases = 2 * math.pi * torch.rand(features, generator=generator, dtype=torch.float64)
    return Cosines(torch.cat([frequencies, -frequencies]), phases, normal(features))


class GPDraws(Objective):
    """Draws of a Gaussian process with a Matern-5/2 kernel and unit variance, another for each seed.

    The optimum is the best value that L-BFGS-B finds from the best of many uniform points.

    Args:
        kind: must be `objective`.
        dim: d.
        noise: standard deviation.
        lengthscale: null: sqrt(d) / 4.
        features: F, even: cosines of which a draw is made.
        optimum_points, optimum_starts: of the search for the optimum.

    Attributes:
        lengthscale, variance: of the process; mean: of each draw over the cube, [R].

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "rfgp"

    def __init__(
        self,
        *,
        kind: str,
        dim: int,
        noise: float,
        lengthscale: float | None,
        features: int,
        optimum_points: int,
        optimum_starts: int,
    ) -> None:
        check("dim", dim, dim >= 1, "give at least 1")
        super().__init__(kind=kind, space=box(dim, 0.0, 1.0), noise=noise)
        check("features", features, features >= 2 and features % 2 == 0, "give an even number")
        check("lengthscale", lengthscale, lengthscale is None or lengthscale > 0, "greater than 0, or null")
        check("optimum_starts", optimum_starts, optimum_starts >= 1, "give at least 1")
        enough = optimum_points >= optimum_starts
        check("optimum_points", optimum_points, enough, f"give at least optimum_starts={optimum_starts}")
        self.lengthscale = math.sqrt(dim) / 4 if lengthscale is None else lengthscale
        self.variance, self.features = 1.0, features
        self.optimum_points, self.optimum_starts = optimum_points, optimum_starts
        self.best: Tensor | None = None

    def draw(self, seeds: list[int]) -> None:
        dim = self.space.dim
        generators = [Generator().manual_seed(seed) for seed in seeds]
        drawn = [draw_matern52(dim, self.lengthscale, self.features, g) for g in generators]
        self.functions = [function.to(self.device) for function in drawn]
        self.pools = [
            torch.rand(self.optimum_points, dim, generator=g, dtype=torch.float64) for g in generators
        ]
        self.mean = torch.stack([function.mean() for function in self.functions])
        self.best = None

    def values(self, x: Tensor) -> Tensor:
        return torch.stack([f(points) for f, points in zip(self.functions, x, strict=True)])

    def optimum(self) -> Tensor:
        if self.best is None:
            found = [
                largest(f, pool.to(self.device), self.optimum_starts)
                for f, pool in zip(self.functions, self.pools, strict=True)
            ]
            self.best = torch.tensor(found, dtype=torch.float64, device=self.device)
        return self.best


def largest(f: Cosines, pool: Tensor, starts: int) -> float:
    """The largest value of f on the unit cube, by L-BFGS-B from the best `starts` of the points [P, d]."""
    values = torch.cat([f(part) for part in pool.split(SHARD)])
    best = float(values.max())
    for x in pool[values.topk(starts).indices].split(STARTS):
        best = max(best, float(f(_climb(f, x)).max()))
    return best


def _climb(f: Cosines, x: Tensor) -> Tensor:
    """Where L-BFGS-B on the sum of f at points x [S, d] of the unit cube ends."""

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = f.gradient(torch.from_numpy(flat).to(x).reshape(x.shape))
        return -float(value.sum()), -slope.flatten().cpu().numpy()

    found = minimize(
        loss,
        x.flatten().cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, 1.0)] * x.numel(),
        options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-8},
    ).x
    return torch.from_numpy(found).to(x).reshape(x.shape)
