"""Additive Gaussian processes, f = sum_j f_j(x_{S_j}), given observations: on Fourier features, or exactly.

k = sum_j a k_j with a = variance / G (`scale_groups: mean`) or variance (`sum`). Both models take
observations one by one, hand out functions to maximise (a Thompson sample; mu_j + sqrt(beta) sigma_j by
group) and keep sigma_j^2 on the groups' grids, which an observation lowers by a square: O(grid m).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from common.base.errors import UserError
from common.numerics.linalg import cholesky
from common.numerics.sampling import ReplicateSampler
from papers.qff.basis import Axes, CovarianceBasis, FourierBasis, Grid
from papers.qff.error import kernel_error
from papers.qff.features import QFF, FeatureFamily, FourierFeatures
from papers.qff.maximise import Box, GroupFunction, Part, Spread, axes_of
from papers.qff.posterior import WeightPosterior
from papers.qff.quadrature import SpectralKernel, hermite_error_bound

# features of all groups together: their square is kept for each replicate
MAX_FEATURES = 8192
# grid points whose features are made at once
CHUNK = 1024
# nodes a coordinate of the prior draws of exact Thompson sampling, and the kernel error that is let pass
PRIOR_NODES = (16, 32, 64, 128, 256)
PRIOR_ERROR = 1e-12


@dataclass(frozen=True)
class Prior:
    """An additive Gaussian process with mean 0.

    Attributes:
        groups: coordinates of each part.
        kernel: of every part.
        lengthscale: of the coordinates, [d].
        amplitude: the variance of each part.
        noise: rho > 0.
    """

    groups: Sequence[Sequence[int]]
    kernel: SpectralKernel
    lengthscale: Tensor
    amplitude: float
    noise: float

    @property
    def deviation(self) -> float:
        """The standard deviation of f."""
        return (len(self.groups) * self.amplitude) ** 0.5

    def blocks(self) -> list[Tensor]:
        """The groups of each size, int64 [G, p], in order of size."""
        sizes = sorted({len(group) for group in self.groups})
        device = self.lengthscale.device
        of_size = [[list(group) for group in self.groups if len(group) == p] for p in sizes]
        return [torch.tensor(groups, device=device) for groups in of_size]


def gathered(x: Tensor, index: Tensor) -> Tensor:
    """The coordinates of groups [G, p] of points [R, n, d]: [R, G, n, p]."""
    return x[..., index].movedim(2, 1)


class AdditiveModel(ABC):
    """What a search knows of f.

    Args:
        prior, box: of f.
        replicates: R.
        grid, grid_2d: points of the grids of groups of one coordinate, and on each axis of those of two.
        spread: whether sigma_j is asked for (by `optimistic`).
    """

    grid_variances: list[Tensor]

    def __init__(
        self, prior: Prior, box: Box, replicates: int, grid: int, grid_2d: int, spread: bool
    ) -> None:
        self.prior, self.box, self.replicates, self.spread = prior, box, replicates, spread
        self.indices = prior.blocks()
        self.axes = [axes_of(index, box, grid, grid_2d) for index in self.indices]

    @abstractmethod
    def observe(self, x: Tensor, y: Tensor) -> None:
        """Take one observation a replicate, x [R, d] and y [R]; NaN: none."""

    @abstractmethod
    def thompson(self, random: ReplicateSampler) -> list[GroupFunction]:
        """A draw of f from the posterior."""

    @abstractmethod
    def optimistic(self, beta: Tensor) -> list[GroupFunction]:
        """mu_j + sqrt(beta) sigma_j, beta [R]."""

    @property
    @abstractmethod
    def information(self) -> Tensor:
        """log |I + K / rho^2| of the points so far, [R]: twice the information gain."""


class FourierModel(AdditiveModel):
    """On Fourier features: the cost of an observation and of a proposal does not depend on their number.

    Attributes:
        kernel_error: by how much the kernel of a group differs from the features', at most, relative to its
            variance: measured in the box (`papers.qff.error`); of random features in the first replicate.

    Args:
        family: of features.
        random: streams from which random features are drawn.
    """

    def __init__(
        self,
        prior: Prior,
        box: Box,
        replicates: int,
        *,
        family: FeatureFamily,
        random: ReplicateSampler,
        grid: int,
        grid_2d: int,
        spread: bool,
    ) -> None:
        super().__init__(prior, box, replicates, grid, grid_2d, spread)
        self.bases = []
        self.kernel_error = 0.0
        for index in self.indices:
            features = family.build(prior.kernel, prior.lengthscale[index], random)
            self.bases.append(FourierBasis(features.times(prior.amplitude**0.5)))
            self._measure(features, index)
        self.sizes = [
            len(index) * basis.features.size for index, basis in zip(self.indices, self.bases, strict=True)
        ]
        if (size := sum(self.sizes)) > MAX_FEATURES:
            raise UserError(
                f"{size} features in all; valid: at most {MAX_FEATURES} (fewer nodes, smaller groups or more "
                "pruning)"
            )
        self.grids = [basis.grid(axes) for basis, axes in zip(self.bases, self.axes, strict=True)]
        self.posterior = WeightPosterior(replicates, size, prior.noise, box.lower.device)
        if spread:
            self.grid_variances = [
                _prior_variance(basis.features, axes).expand(replicates, len(index), -1).clone()
                for index, basis, axes in zip(self.indices, self.bases, self.axes, strict=True)
            ]

    def _measure(self, features: FourierFeatures, index: Tensor) -> None:
        """Of groups that share features and box, one."""
        gamma, width = self.prior.lengthscale[index], (self.box.upper - self.box.lower)[index]
        if features.frequencies.shape[1] == 1 and bool((width == width[:1]).all()):
            gamma, width = gamma[:1], width[:1]
        found = kernel_error(features, self.prior.kernel, gamma, width)
        self.kernel_error = max(self.kernel_error, found)

    def features(self, x: Tensor) -> Tensor:
        """Phi of points [R, n, d]: [R, n, m], the groups' one after the other."""
        parts = [
            basis.value(gathered(x, index)).movedim(1, 2).flatten(2)
            for index, basis in zip(self.indices, self.bases, strict=True)
        ]
        return torch.cat(parts, -1)

    def _split(self, weights: Tensor) -> list[Tensor]:
        """Weights [R, m, ...] by block: [R, G, m_j, ...]."""
        parts = weights.split(self.sizes, 1)
        return [part.unflatten(1, (len(index), -1)) for part, index in zip(parts, self.indices, strict=True)]

    def observe(self, x: Tensor, y: Tensor) -> None:
        fallen = self.posterior.update(self.features(x[:, None])[:, 0], y)
        if self.spread:
            for variance, grid, weights in zip(
                self.grid_variances, self.grids, self._split(fallen), strict=True
            ):
                variance.sub_(grid.linear(weights).square())

    def _functions(self, weights: Tensor) -> list[GroupFunction]:
        return [
            GroupFunction(index, [Part(basis, grid, own)], None, self.prior.deviation)
            for index, basis, grid, own in zip(
                self.indices, self.bases, self.grids, self._split(weights), strict=True
            )
        ]

    def thompson(self, random: ReplicateSampler) -> list[GroupFunction]:
        """theta from N(mean, A^-1)."""
        return self._functions(self.posterior.sample(random.normal((sum(self.sizes),))))

    def mean(self) -> list[GroupFunction]:
        """The posterior mean of f."""
        return self._functions(self.posterior.mean)

    def optimistic(self, beta: Tensor) -> list[GroupFunction]:
        roots = self._split(self.posterior.root)
        return [
            replace(plain, spread=Spread(basis, root, 0.0, 1.0, variance, beta.sqrt()))
            for plain, basis, root, variance in zip(
                self.mean(), self.bases, roots, self.grid_variances, strict=True
            )
        ]

    @property
    def information(self) -> Tensor:
        return self.posterior.log_determinant


def _prior_variance(features: FourierFeatures, axes: Axes) -> Tensor:
    """|Phi|^2 at the points, [1 or R, 1 or G, N]."""
    return torch.cat([features(part).square().sum(-1) for part in axes.points.split(CHUNK, 2)], 2)


class ExactModel(AdditiveModel):
    """The exact Gaussian process by Cholesky: O(n^3) an observation.

    A Thompson sample is Matheron's: a draw of the prior plus k(., X) (K + rho^2 I)^-1 (y - that draw at X -
    noise). The draw is a random function on as many quadrature nodes as make its covariance the kernel to
    1e-12, so it is a draw of the process itself but for rounding.
    """

    def __init__(
        self, prior: Prior, box: Box, replicates: int, *, grid: int, grid_2d: int, spread: bool
    ) -> None:
        super().__init__(prior, box, replicates, grid, grid_2d, spread)
        device = box.lower.device
        self.x = torch.zeros(replicates, 0, len(box.lower), dtype=torch.float64, device=device)
        self.y = self.x[..., 0]
        self.failed = self.y.isnan()
        self.prior_bases: list[tuple[FourierBasis, Grid]] | None = None
        self._solve()
        if spread:
            self.grid_variances = [
                self.x.new_full((replicates, len(index), axes.points.shape[2]), prior.amplitude)
                for index, axes in zip(self.indices, self.axes, strict=True)
            ]

    def covariance(self, x: Tensor, failed: Tensor) -> Tensor:
        """k of points [R, l, d] with the observed ones, 0 with failed ones: [R, l, n]."""
        total = x.new_zeros(*x.shape[:2], self.x.shape[1])
        for index, basis in zip(self.indices, self._bases(failed), strict=True):
            total = total + basis.value(gathered(x, index)).sum(1)
        return total

    def _bases(self, failed: Tensor) -> list[CovarianceBasis]:
        prior = self.prior
        return [
            CovarianceBasis(
                prior.kernel, prior.lengthscale[index], prior.amplitude, gathered(self.x, index), failed
            )
            for index in self.indices
        ]

    def _solve(self) -> None:
        K = self.covariance(self.x, self.failed).masked_fill(self.failed[..., None], 0.0)
        K.diagonal(dim1=-2, dim2=-1).add_(self._noise().square())
        self.factor = cholesky(K, "the covariance of the observations")
        self.alpha = self._solved(self.y)

    def _noise(self) -> Tensor:
        """rho of each observation, [R, n]; of a failed one 1, with which its row of K is that of I."""
        return torch.full_like(self.y, self.prior.noise).masked_fill(self.failed, 1.0)

    def _solved(self, right: Tensor) -> Tensor:
        """(K + rho^2 I)^-1 times [R, n]."""
        return torch.cholesky_solve(right[..., None], self.factor)[..., 0]

    def observe(self, x: Tensor, y: Tensor) -> None:
        failed = ~y.isfinite()
        known = torch.where(failed, 0.0, y)
        if self.spread:
            fallen = self._fall(x, failed)
        self.x = torch.cat([self.x, x[:, None]], 1)
        self.y = torch.cat([self.y, known[:, None]], 1)
        self.failed = torch.cat([self.failed, failed[:, None]], 1)
        if self.spread:
            for variance, basis, axes in zip(
                self.grid_variances, self._bases(self.failed), self.axes, strict=True
            ):
                variance.sub_(basis.grid(axes).linear(fallen).square())
        self._solve()

    def _fall(self, x: Tensor, failed: Tensor) -> Tensor:
        """Weights [R, 1, n + 1] of covariances with the points and x, whose sum squared sigma^2 falls by."""
        k = self.covariance(x[:, None], self.failed)[:, 0]
        solved = self._solved(k)
        variance = len(self.prior.groups) * self.prior.amplitude + self.prior.noise**2 - (k * solved).sum(-1)
        weights = torch.cat([-solved, torch.ones_like(solved[:, :1] if solved.shape[1] else x[:, :1])], 1)
        weights = weights / variance.clamp_min(self.prior.noise**2).sqrt()[:, None]
        return weights.masked_fill(failed[:, None], 0.0)[:, None]

    def _parts(self, alpha: Tensor) -> list[Part]:
        return [
            Part(basis, basis.grid(axes), alpha[:, None].expand(-1, len(index), -1))
            for index, basis, axes in zip(self.indices, self._bases(self.failed), self.axes, strict=True)
        ]

    def thompson(self, random: ReplicateSampler) -> list[GroupFunction]:
        if self.prior_bases is None:
            self.prior_bases = self._make_prior_bases(random)
        drawn, at_points = [], torch.zeros_like(self.y)
        for index, (basis, grid) in zip(self.indices, self.prior_bases, strict=True):
            # a copy: what a stream gives lasts until it is asked again
            weights = random.normal((len(index), basis.features.size)).clone()
            drawn.append(Part(basis, grid, weights))
            phi = basis.value(gathered(self.x, index))
            at_points = at_points + (phi * weights[:, :, None]).sum((1, 3))
        noise = random.normal((self.x.shape[1],)) * self.prior.noise
        residual = torch.where(self.failed, 0.0, self.y - at_points - noise)
        parts = self._parts(self._solved(residual))
        return [
            GroupFunction(index, [first, second], None, self.prior.deviation)
            for index, first, second in zip(self.indices, drawn, parts, strict=True)
        ]

    def _make_prior_bases(self, random: ReplicateSampler) -> list[tuple[FourierBasis, Grid]]:
        width = self.box.upper - self.box.lower
        found = []
        for index, axes in zip(self.indices, self.axes, strict=True):
            gamma = self.prior.lengthscale[index]
            family = QFF(
                nodes=_prior_nodes(self.prior.kernel, width[index], gamma),
                prune=PRIOR_ERROR / 100,
                rule="legendre",
                stretch=1.0,
            )
            features = family.build(self.prior.kernel, gamma, random)
            basis = FourierBasis(features.times(self.prior.amplitude**0.5))
            found.append((basis, basis.grid(axes)))
        return found

    def optimistic(self, beta: Tensor) -> list[GroupFunction]:
        n = self.x.shape[1]
        identity = torch.eye(n, dtype=torch.float64, device=self.x.device).expand(len(self.x), n, n)
        root = torch.linalg.solve_triangular(self.factor, identity, upper=False).mT[:, None]
        return [
            GroupFunction(
                index,
                [part],
                Spread(part.basis, root, self.prior.amplitude, -1.0, variance, beta.sqrt()),
                self.prior.deviation,
            )
            for index, part, variance in zip(
                self.indices, self._parts(self.alpha), self.grid_variances, strict=True
            )
        ]

    @property
    def information(self) -> Tensor:
        diagonal = self.factor.diagonal(dim1=-2, dim2=-1)
        return 2.0 * (diagonal / self._noise()).log().sum(-1)


def _prior_nodes(kernel: SpectralKernel, width: Tensor, lengthscale: Tensor) -> int:
    """The least number of nodes with an error bound below `PRIOR_ERROR` over the box.

    Raises:
        UserError: there is none of a fair size.
    """
    if kernel == "se":
        for nodes in PRIOR_NODES:
            if bool((hermite_error_bound(width, lengthscale, nodes) < PRIOR_ERROR).all()):
                return nodes
    raise UserError(
        f"model.kernel={kernel}: exact Thompson sampling draws from the prior by quadrature, which is "
        f"exact to {PRIOR_ERROR:g} within {PRIOR_NODES[-1]} nodes for se alone, with a lengthscale not far "
        "below the box; valid: that, or method=search/exact_gp_ucb"
    )
