"""Families of random functions: the training functions and the new one are draws of the same process."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.objective import arms as space_of
from common.base.objective import box
from common.numerics.linalg import cholesky
from papers.meta_bo.transfer import FAMILY_SEED, MetaObjective

# function number s of a family has this seed: those of training are 0, 1, ..., those searched come after
TEST_FUNCTIONS = 10_000
# the grid on which a maximum in the plane is looked for, and how many of its points are refined
GRID, PEAKS = 201, 16
NEWTON_STEPS = 20


class GPArms(MetaObjective):
    """M arms, uniform in the unit square; functions drawn from a Gaussian process with an SE kernel.

    f ~ GP(m, k), k(x, x') = exp(-|x - x'|^2 / (2 l^2)), m itself a draw of the same process: an unknown
    prior. Training values have the noise of evaluations.

    Args:
        kind: must be `objective`.
        arms: M >= 2; their features are their places.
        functions: N >= 2 for training.
        lengthscale: l > 0.
        noise: standard deviation.
        portion, missing: see `MetaObjective`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "meta_gp_arms"

    def __init__(
        self,
        *,
        kind: str,
        arms: int,
        functions: int,
        lengthscale: float,
        noise: float,
        portion: float,
        missing: float,
    ) -> None:
        check("arms", arms, arms >= 2, "give at least 2")
        check("functions", functions, functions >= 2, "give at least 2")
        check("lengthscale", lengthscale, lengthscale > 0, "give a number > 0")
        places = torch.rand(arms, 2, generator=_generator(FAMILY_SEED), dtype=torch.float64)
        super().__init__(kind=kind, space=space_of(places), noise=noise, portion=portion, missing=missing)
        self.functions, self.lengthscale = functions, lengthscale
        self.covariance = torch.exp(-torch.cdist(places, places).square() / (2 * lengthscale**2))
        self.root = cholesky(self.covariance, f"the prior of dataset={self.NAME}")
        self.mean = self.root @ _normal(FAMILY_SEED + 1, arms)

    def draw(self, seeds: list[int]) -> None:
        drawn = [self.mean + self.root @ _normal(TEST_FUNCTIONS + s, len(self.mean)) for s in seeds]
        self.mine = torch.stack(drawn).to(self.device)

    def values(self, x: Tensor) -> Tensor:
        return self.mine.gather(1, x[..., 0].long())

    def optimum(self) -> Tensor:
        return self.mine.max(1).values

    def family(self) -> tuple[Tensor, None]:
        draws = _normal(FAMILY_SEED + 2, self.functions, len(self.mean))
        noise = self.noise * _normal(FAMILY_SEED + 3, self.functions, len(self.mean))
        return (self.mean + draws @ self.root.T + noise).to(self.device), None


class GP2d(MetaObjective):
    """Random functions on [-10, 10]^2: F cosines with weights from a correlated Gaussian.

    f(x) = sqrt(2/F) sum_j w_j cos(b_j . x + c_j), b_j ~ N(0, I), c_j ~ U(-pi, pi). The authors draw
    w ~ N(mu, R R') with mu ~ U(0, 1)^F and R ~ U(0, 1)^{F x 10F}; as every function has an R of its own, w is
    distributed (by the central limit theorem over 10 F terms) as

        w = mu + sqrt(10 F / 12) z + sqrt(10 F / 4) z_0 1,    z ~ N(0, I), z_0 ~ N(0, 1),

    with a factor that spreads by 0.7% on sqrt(10 F / 12), left out here. So f is nearly a sample of a
    Gaussian process with the kernel (10 F / 3) exp(-|x - x'|^2 / 2).

    Args:
        kind: must be `objective`.
        features: F; functions: N for training; points: m where they are evaluated, uniform, all at the same.
        noise: standard deviation of every evaluation.
        portion, missing: see `MetaObjective`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "meta_synth_gp2d"

    def __init__(
        self,
        *,
        kind: str,
        features: int,
        functions: int,
        points: int,
        noise: float,
        portion: float,
        missing: float,
    ) -> None:
        for key, value in {"features": features, "functions": functions, "points": points}.items():
            check(key, value, value >= 2, "give at least 2")
        super().__init__(kind=kind, space=box(2, -10.0, 10.0), noise=noise, portion=portion, missing=missing)
        self.features, self.functions, self.points = features, functions, points

    def _function(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """b [F, 2], c [F] and the weights sqrt(2/F) w [F] of one function."""
        F, generator = self.features, _generator(number)
        b = torch.randn(F, 2, generator=generator, dtype=torch.float64)
        uniform = torch.rand(2, F, generator=generator, dtype=torch.float64)
        z = torch.randn(F + 1, generator=generator, dtype=torch.float64)
        w = uniform[0] + (10 * F / 12) ** 0.5 * z[1:] + (10 * F / 4) ** 0.5 * z[0]
        return b, math.pi * (2 * uniform[1] - 1), (2 / F) ** 0.5 * w

    def draw(self, seeds: list[int]) -> None:
        parts = zip(*(self._function(TEST_FUNCTIONS + s) for s in seeds), strict=True)
        self.b, self.c, self.w = (torch.stack(part).to(self.device) for part in parts)
        self.best: Tensor | None = None

    def values(self, x: Tensor) -> Tensor:
        phase = x @ self.b.mT + self.c[:, None]
        return (phase.cos() @ self.w[..., None])[..., 0]

    def optimum(self) -> Tensor:
        """The best of a fine grid's peaks, each refined by Newton's method."""
        if self.best is None:
            self.best = torch.stack([self._maximum(r) for r in range(len(self.w))])
        return self.best

    def _maximum(self, r: int) -> Tensor:
        b, c, w = self.b[r], self.c[r], self.w[r]
        line = torch.linspace(-10.0, 10.0, GRID, dtype=torch.float64, device=b.device)
        # cos(b_1 x_1 + c + b_2 x_2) as the real part of a product over the two coordinates
        across = torch.polar(w.expand(GRID, -1), line[:, None] * b[:, 0] + c)
        along = torch.polar(torch.ones_like(across.real), line[:, None] * b[:, 1])
        grid = (across @ along.T).real
        padded = torch.nn.functional.max_pool2d(grid[None], 3, stride=1, padding=1)[0]
        peaks = torch.where(grid >= padded, grid, torch.full_like(grid, -torch.inf)).flatten()
        top = peaks.topk(PEAKS).indices
        x = torch.stack([line[top // GRID], line[top % GRID]], 1)
        return torch.maximum(grid.max(), self._refined(x, b, c, w).max())

    def _refined(self, x: Tensor, b: Tensor, c: Tensor, w: Tensor) -> Tensor:
        """f at local maxima near x [P, 2]: Newton's steps, no longer than the grid's spacing, in the box."""
        outer = b[:, :, None] * b[:, None]
        spacing = 20.0 / (GRID - 1)
        for _ in range(NEWTON_STEPS):
            phase = x @ b.T + c
            gradient = -(w * phase.sin()) @ b
            hessian = -torch.einsum("pf,fij->pij", w * phase.cos(), outer)
            curvature, axes = torch.linalg.eigh(hessian)
            along = (axes.mT @ gradient[..., None])[..., 0] / curvature.abs().clamp_min(1e-9)
            step = (axes @ along[..., None])[..., 0].clamp(-spacing, spacing)
            x = (x + step).clamp(-10.0, 10.0)
        return (w * (x @ b.T + c).cos()).sum(1)

    def family(self) -> tuple[Tensor, Tensor]:
        """Training functions 0, 1, ..., N - 1 at the shared points."""
        uniform = torch.rand(self.points, 2, generator=_generator(FAMILY_SEED), dtype=torch.float64)
        x = 20.0 * uniform - 10.0
        rows = []
        for number in range(int(self.portion * self.functions)):
            b, c, w = self._function(number)
            rows.append((x @ b.T + c).cos() @ w)
        y = torch.stack(rows) if rows else torch.zeros(0, self.points, dtype=torch.float64)
        # the functions that `portion` leaves out are never needed: they are not drawn
        rest = torch.full((self.functions - len(y), self.points), torch.nan, dtype=torch.float64)
        noise = self.noise * _normal(FAMILY_SEED + 1, self.functions, self.points)
        return (torch.cat([y, rest]) + noise).to(self.device), x.to(self.device)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)
