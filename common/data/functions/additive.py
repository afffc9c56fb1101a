"""Functions for additive Bayesian optimisation, on [-1/2, 1/2]^d, with their largest values.

Formulas of the benchmarks as in the authors' later library (`Mojusko/stpy`), maximised. `lengthscale`,
`variance` and `mean` are what a surrogate may assume.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b
from scipy.stats import qmc
from torch import Tensor

from common.base.dataset import check
from common.base.objective import Objective, box
from common.numerics.linalg import cholesky

FloatArray = NDArray[np.float64]

# the grid on which maxima of one variable are looked for, and how often it is refined around the best point
LINE = 4001
ZOOMS = 7
ZOOM_POINTS = 41
# starts of the search for maxima of several variables
SOBOL_POINTS = 2**14
LOCAL_STARTS = 48


class Known(Objective):
    """One function, the same for all replicates.

    Args:
        kind: must be `objective`.
        dim: d.
        noise: standard deviation of evaluations.
        lengthscale, variance, mean: what a surrogate may assume of it.

    Raises:
        UserError: a value out of range.
    """

    LEAST_DIM: ClassVar = 1

    def __init__(
        self, *, kind: str, dim: int, noise: float, lengthscale: float, variance: float, mean: float
    ) -> None:
        check("dim", dim, dim >= self.LEAST_DIM, f"give at least {self.LEAST_DIM}")
        check("lengthscale", lengthscale, lengthscale > 0, "give a number > 0")
        check("variance", variance, variance > 0, "give a number > 0")
        super().__init__(kind=kind, space=box(dim, -0.5, 0.5), noise=noise)
        self.lengthscale, self.variance, self.mean = lengthscale, variance, mean

    def draw(self, seeds: list[int]) -> None:
        self.replicates = len(seeds)

    @abstractmethod
    def values(self, x: Tensor) -> Tensor:
        """f at x [..., d]: [...]."""

    @abstractmethod
    def largest(self) -> float:
        """max f."""

    def optimum(self) -> Tensor:
        return torch.full((self.replicates,), self.largest(), dtype=torch.float64, device=self.device)


class Camelback(Known):
    """-((4 - 2.1 a^2 + a^4 / 3) a^2 + a b + (-4 + 4 b^2) b^2) / 5 with a = 4 x_1, b = 2 x_2."""

    NAME: ClassVar = "camelback"

    def __init__(self, *, kind: str, noise: float, lengthscale: float, variance: float, mean: float) -> None:
        super().__init__(kind=kind, dim=2, noise=noise, lengthscale=lengthscale, variance=variance, mean=mean)

    def values(self, x: Tensor) -> Tensor:
        a, b = 4.0 * x[..., 0], 2.0 * x[..., 1]
        bowl = (4.0 - 2.1 * a**2 + a**4 / 3.0) * a**2 + a * b + (4.0 * b**2 - 4.0) * b**2
        return -bowl / 5.0

    def largest(self) -> float:
        """At a = 0.0898420, b = -0.7126564 and its mirror image."""
        return 1.031628453489877 / 5.0


class StyblinskiTang(Known):
    """-(sum_i (z_i^4 - 16 z_i^2 + 5 z_i) / (400 d) + 1/2), z = 8 x: a sum over coordinates."""

    NAME: ClassVar = "stybtang"

    def values(self, x: Tensor) -> Tensor:
        z = 8.0 * x
        return -(0.5 * (z**4 - 16.0 * z**2 + 5.0 * z).mean(-1) / 200.0 + 0.5)

    def largest(self) -> float:
        """At the least root of 4 z^3 - 32 z + 5, z = -2.903534, in each coordinate."""
        z = float(np.roots([4.0, 0.0, -32.0, 5.0]).real.min())
        return -(0.5 * (z**4 - 16.0 * z**2 + 5.0 * z) / 200.0 + 0.5)


class Michalewicz(Known):
    """sum_i sin(z_i) sin(i z_i / pi)^(2 d), z = pi (y / 0.75 + 1/2): a sum over coordinates of y = R x.

    The classic function has sin(i z_i^2 / pi).

    Args:
        rotation: seed of a random rotation R, with which it is no sum over coordinates; null: R = I.
    """

    NAME: ClassVar = "michalewicz"

    def __init__(
        self,
        *,
        kind: str,
        dim: int,
        noise: float,
        rotation: int | None,
        lengthscale: float,
        variance: float,
        mean: float,
    ) -> None:
        super().__init__(
            kind=kind, dim=dim, noise=noise, lengthscale=lengthscale, variance=variance, mean=mean
        )
        self.rotation = None if rotation is None else rotation_of(dim, rotation)
        self.known: float | None = None

    def values(self, x: Tensor) -> Tensor:
        y = x if self.rotation is None else x @ self.rotation.to(x).mT
        return self._terms(y).sum(-1)

    def _terms(self, y: Tensor) -> Tensor:
        z = math.pi * (y / 0.75 + 0.5)
        i = torch.arange(1, self.space.dim + 1, dtype=y.dtype, device=y.device)
        return z.sin() * (i * z / math.pi).sin() ** (2 * self.space.dim)

    def largest(self) -> float:
        """Coordinate by coordinate; with a rotation the best that 48 local searches find."""
        if self.known is None:
            if self.rotation is None:
                self.known = float(line_maximum(lambda t: self._terms(t.mT).mT, self.space.dim).sum())
            else:
                self.known = box_maximum(self.values, self.space.dim)
        return self.known


def rotation_of(dim: int, seed: int) -> Tensor:
    """A Haar-distributed rotation or reflection, [d, d]."""
    normals = torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    Q, upper = torch.linalg.qr(normals)
    return Q * upper.diagonal().sign()


class Overlap(Known):
    """sum_i exp(-((x_{i+1} - x_i) / 0.25)^2) / 2: groups {i, i + 1}; largest on the diagonal."""

    NAME: ClassVar = "overlap"
    LEAST_DIM: ClassVar = 2

    def values(self, x: Tensor) -> Tensor:
        return 0.5 * (-((x[..., 1:] - x[..., :-1]) / 0.25).square()).exp().sum(-1)

    def largest(self) -> float:
        return (self.space.dim - 1) / 2.0


class Fel(Known):
    """A stand-in for the free-electron laser of the paper, whose measurements may not be redistributed.

    The posterior mean of a Gaussian process (squared exponential, a lengthscale a coordinate) given 60 points
    of its own prior, divided by the largest value there: as the authors' simulator is made from measurements.

    Args:
        points: how many; design_seed: of points, lengthscales (0.2 to 0.6) and values.
        measured_noise: standard deviation of the values, relative to the largest.
        variance, mean: what a surrogate may assume; `lengthscale` is the least of the coordinates.
    """

    NAME: ClassVar = "fel"

    def __init__(
        self,
        *,
        kind: str,
        dim: int,
        noise: float,
        points: int,
        measured_noise: float,
        design_seed: int,
        variance: float,
        mean: float,
    ) -> None:
        check("points", points, points >= 1, "give at least 1")
        check("measured_noise", measured_noise, measured_noise > 0, "give a number > 0")
        generator = torch.Generator().manual_seed(design_seed)
        scales = 0.2 + 0.4 * torch.rand(dim, generator=generator, dtype=torch.float64)
        super().__init__(
            kind=kind, dim=dim, noise=noise, lengthscale=float(scales.min()), variance=variance, mean=mean
        )
        self.scales = scales
        self.centres = torch.rand(points, dim, generator=generator, dtype=torch.float64) - 0.5
        K = self._covariance(self.centres)
        normals = torch.randn(2, points, generator=generator, dtype=torch.float64)
        what = "the covariance of the measurements"
        y = cholesky(K, what) @ normals[0] + measured_noise * normals[1]
        y = y / y.abs().max()
        K.diagonal().add_(measured_noise**2)
        self.weights = torch.cholesky_solve(y[:, None], cholesky(K, what))[:, 0]
        self.known: float | None = None

    def _covariance(self, x: Tensor) -> Tensor:
        squares = ((x[..., None, :] - self.centres.to(x.device)) / self.scales.to(x.device)).square().sum(-1)
        return (-0.5 * squares).exp()

    def values(self, x: Tensor) -> Tensor:
        return self._covariance(x) @ self.weights.to(x.device)

    def largest(self) -> float:
        """The best that 48 local searches find."""
        if self.known is None:
            self.known = box_maximum(self.values, self.space.dim)
        return self.known


class Sine(Known):
    """sin(2 pi x_1): smooth data of one variable."""

    NAME: ClassVar = "sine_1d"

    def __init__(self, *, kind: str, noise: float, lengthscale: float, variance: float, mean: float) -> None:
        super().__init__(kind=kind, dim=1, noise=noise, lengthscale=lengthscale, variance=variance, mean=mean)

    def values(self, x: Tensor) -> Tensor:
        return (2.0 * math.pi * x[..., 0]).sin()

    def largest(self) -> float:
        return 1.0


class GpSample(Objective):
    """Draws of the additive prior f = sum_j f_j(x_j) with squared exponential parts, one a seed.

    f_j(t) = sqrt(variance / d) sum_a sqrt(v_a) (c_a cos(omega_a t) + s_a sin(omega_a t)) with Gauss-Hermite
    frequencies and standard normal c, s: its covariance is the kernel to rounding while nodes are far more
    than (1 / lengthscale)^2 / 2.

    Args:
        kind: must be `objective`.
        dim: d.
        noise: standard deviation of evaluations.
        lengthscale, variance: of the prior.
        nodes: frequencies and their negatives.
    """

    NAME: ClassVar = "gp_sample"

    def __init__(
        self, *, kind: str, dim: int, noise: float, lengthscale: float, variance: float, nodes: int
    ) -> None:
        check("dim", dim, dim >= 1, "give at least 1")
        check("lengthscale", lengthscale, lengthscale > 0, "give a number > 0")
        check("variance", variance, variance > 0, "give a number > 0")
        check("nodes", nodes, 2 <= nodes <= 350 and nodes % 2 == 0, "give an even number from 2 to 350")
        super().__init__(kind=kind, space=box(dim, -0.5, 0.5), noise=noise)
        self.lengthscale, self.variance, self.mean = lengthscale, variance, 0.0
        u, w = (np.array(part) for part in np.polynomial.hermite.hermgauss(nodes))
        positive = u > 0
        self.omega = torch.tensor(math.sqrt(2.0) * u[positive] / lengthscale)
        self.scale = torch.tensor(np.sqrt(2.0 * w[positive] / w.sum() * variance / dim))

    def draw(self, seeds: list[int]) -> None:
        shape = (self.space.dim, 2, len(self.omega))
        draws = [
            torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            for seed in seeds
        ]
        self.omega, self.scale = self.omega.to(self.device), self.scale.to(self.device)
        self.weights = torch.stack(draws).to(self.device) * self.scale
        self.best = line_maximum(self._parts, self.space.dim, self.device).sum(1)

    def _parts(self, t: Tensor) -> Tensor:
        """f_j(t_j) of every replicate, at t [d, n], or its own [R, d, n]: [R, d, n]."""
        angle = t[..., None] * self.omega
        cosines, sines = self.weights.unbind(2)
        product = "dnf,rdf->rdn" if t.dim() == 2 else "rdnf,rdf->rdn"
        return torch.einsum(product, angle.cos(), cosines) + torch.einsum(product, angle.sin(), sines)

    def values(self, x: Tensor) -> Tensor:
        return self._parts(x.mT).sum(1)

    def optimum(self) -> Tensor:
        return self.best


def line_maximum(parts: Callable[[Tensor], Tensor], dim: int, device: torch.device | None = None) -> Tensor:
    """The largest values of functions of one variable on [-1/2, 1/2], by a grid that closes in on the best.

    Args:
        parts: d functions at t [..., d, n]: [..., d, n].
        device: where t is.

    Returns:
        [..., d].
    """
    t = torch.linspace(-0.5, 0.5, LINE, dtype=torch.float64, device=device).expand(dim, LINE)
    step = 1.0 / (LINE - 1)
    window = torch.linspace(-1.0, 1.0, ZOOM_POINTS, dtype=torch.float64, device=device)
    for _ in range(ZOOMS):
        values = parts(t)
        at = values.argmax(-1, keepdim=True)
        best = t.expand(values.shape).gather(-1, at)
        t = (best + step * window).clamp(-0.5, 0.5)
        step *= 2.0 / (ZOOM_POINTS - 1)
    return parts(t).max(-1).values


def box_maximum(f: Callable[[Tensor], Tensor], dim: int) -> float:
    """The largest value on [-1/2, 1/2]^d that L-BFGS-B finds from the best of many Sobol points."""

    def negative(point: FloatArray) -> tuple[float, FloatArray]:
        x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
        value = -f(x[None])[0]
        (slope,) = torch.autograd.grad(value, x)
        return float(value.detach()), slope.numpy()

    starts = torch.tensor(qmc.Sobol(dim, scramble=False).random(SOBOL_POINTS)) - 0.5
    kept = starts[f(starts).topk(LOCAL_STARTS).indices]
    bounds = [(-0.5, 0.5)] * dim
    with torch.enable_grad():
        found = [fmin_l_bfgs_b(negative, x.numpy(), bounds=bounds, factr=10.0, pgtol=1e-10) for x in kept]
    return max(-float(result[1]) for result in found)
