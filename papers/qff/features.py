"""Fourier features: maps Phi with Phi(x) . Phi(y) close to k(x - y), by quadrature or by random frequencies.

All maps are of one form, features a_k cos(omega_k . x + b_k) followed by features a_k sin(omega_k . x), so
that values, derivatives and sums on product grids are written once. Batched in front: [..., m, p] frequencies
are independent maps. Sources: quadrature (QFF): Mutny & Krause, NeurIPS 2018; random (RFF): Rahimi & Recht,
NIPS 2007; quasi-random (Halton): Avron et al., JMLR 2016; orthogonal (ORF): Yu et al., NIPS 2016.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from scipy.stats import qmc
from scipy.stats import t as student
from torch import Tensor

from common.base.errors import UserError
from common.numerics.sampling import ReplicateSampler
from papers.qff.quadrature import POWERS, Rule, SpectralKernel, half_grid, rule_of

Form = Literal["paired", "bias", "unpaired"]
# the least uniform number, whose quantile is finite
LEAST_UNIFORM = 2.0**-54


@dataclass(frozen=True)
class FourierFeatures:
    """Phi(x) = [a_k cos(omega_k . x + b_k)]_k ++ [a_k sin(omega_k . x)]_k.

    Attributes:
        frequencies: omega, [..., m, p], those of the cosines first.
        scale: a, [..., m].
        sines: how many of the m are sines.
        phase: b of the cosines, [..., m - sines]; None: 0.
    """

    frequencies: Tensor
    scale: Tensor
    sines: int
    phase: Tensor | None = None

    @property
    def size(self) -> int:
        """m."""
        return self.frequencies.shape[-2]

    def __call__(self, x: Tensor) -> Tensor:
        """Phi at x [..., n, p]: [..., n, m]."""
        return self.waves(x)[0]

    def waves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Phi at x [..., n, p], and its derivative in the argument of cosines and sines; [..., n, m] each."""
        cosines, sines = self._arguments(x @ self.frequencies.mT)
        scale = self.scale[..., None, :]
        value = torch.cat([cosines.cos(), sines.sin()], -1) * scale
        slope = torch.cat([-cosines.sin(), sines.cos()], -1) * scale
        return value, slope

    def _arguments(self, z: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = z.split([self.size - self.sines, self.sines], -1)
        return (cosines if self.phase is None else cosines + self.phase[..., None, :]), sines

    def kernel(self, x: Tensor, y: Tensor) -> Tensor:
        """Phi(x) . Phi(y) at x [..., n, p], y [..., l, p]: [..., n, l]."""
        return self(x) @ self(y).mT

    def times(self, amplitude: float) -> "FourierFeatures":
        """The map amplitude * Phi."""
        return replace(self, scale=self.scale * amplitude)


def qff(
    kernel: SpectralKernel, lengthscale: Tensor, *, nodes: int, prune: float, rule: Rule, stretch: float
) -> FourierFeatures:
    """Quadrature Fourier features: Phi(x) . Phi(y) = prod_i sum_a v_a cos(u_a (x_i - y_i) / gamma_i).

    Args:
        kernel: any with a product spectral density.
        lengthscale: gamma, [..., p], p at most 4.
        nodes: q a coordinate; q^p features (fewer with `prune`).
        prune: leave out grid points with a smaller weight; `HalfGrid.pruning_error` bounds the change.
        rule, stretch: of kernels other than se (`quadrature.cotangent`).

    Raises:
        UserError: a value out of range.
    """
    grid = half_grid(*rule_of(kernel, nodes, rule, stretch), lengthscale.shape[-1], prune)
    first_sine = int(grid.has_zero)
    u = torch.cat([grid.frequencies, grid.frequencies[first_sine:]]).to(lengthscale)
    scale = torch.cat([grid.weights, grid.weights[first_sine:]]).sqrt().to(lengthscale)
    frequencies = u / lengthscale[..., None, :]
    return FourierFeatures(frequencies, scale.expand(frequencies.shape[:-1]), len(grid.weights) - first_sine)


def rff_paired(frequencies: Tensor) -> FourierFeatures:
    """RFF with cosine and sine of each frequency [..., M, p]: 2 M features sqrt(1/M); k(x, x) = 1."""
    count = frequencies.shape[-2]
    scale = frequencies.new_full((*frequencies.shape[:-2], 2 * count), math.sqrt(1.0 / count))
    return FourierFeatures(torch.cat([frequencies, frequencies], -2), scale, count)


def rff_bias(frequencies: Tensor, phase: Tensor) -> FourierFeatures:
    """RFF sqrt(2/m) cos(omega . x + b) with frequencies [..., m, p] and b [..., m] uniform on (0, 2 pi)."""
    scale = torch.full_like(phase, math.sqrt(2.0 / phase.shape[-1]))
    return FourierFeatures(frequencies, scale, 0, phase)


def rff_unpaired(frequencies: Tensor) -> FourierFeatures:
    """The authors' code: cosines of the first half of the frequencies [..., m, p], sines of the OTHER half.

    Scale sqrt(2/m). Not the usual estimator: k(x, x) is 1 on average only.
    """
    count = frequencies.shape[-2]
    scale = frequencies.new_full(frequencies.shape[:-1], math.sqrt(2.0 / count))
    return FourierFeatures(frequencies, scale, count // 2)


def quantile(kernel: SpectralKernel, uniform: Tensor) -> Tensor:
    """Frequencies of a kernel with unit lengthscale from uniform numbers, coordinate by coordinate.

    se: standard normal; nu of Laplace and modified Matern: Student's t with 2 nu - 1 degrees of freedom over
    the root of those.
    """
    u = uniform.clamp(LEAST_UNIFORM, 1.0 - 2.0**-53)
    if kernel == "se":
        return torch.special.ndtri(u)
    freedom = 2 * POWERS[kernel] - 1
    found = student.ppf(u.cpu().numpy(), freedom) / math.sqrt(freedom)
    return torch.as_tensor(found, dtype=uniform.dtype, device=uniform.device)


def halton(count: int, dim: int) -> Tensor:
    """The first points of the Halton sequence (bases 2, 3, 5, ...) after its zero point, [count, dim]."""
    engine = qmc.Halton(dim, scramble=False)
    engine.fast_forward(1)
    return torch.tensor(engine.random(count), dtype=torch.float64)


def orthogonal(normals: Tensor, lengths: Tensor) -> Tensor:
    """Frequencies of orthogonal random features for unit lengthscale, [..., B p, p].

    Args:
        normals: standard normal blocks [..., B, p, p]; the rows of a block become a Haar-distributed basis.
        lengths: standard normals [..., B, p, p] of their own, whose rows' norms (chi, p degrees) are theirs.
    """
    Q, upper = torch.linalg.qr(normals)
    Q = Q * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    rows = Q.mT * torch.linalg.vector_norm(lengths, dim=-1, keepdim=True)
    return rows.flatten(-3, -2)


class FeatureFamily(ABC):
    """A way to make features for groups of p coordinates: `nodes`^p of them a group, whatever the way.

    Args:
        nodes: features a coordinate.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar[str]

    def __init__(self, *, nodes: int) -> None:
        if nodes < 1:
            raise UserError(f"method {self.NAME}: nodes={nodes}; valid: at least 1")
        self.nodes = nodes

    @abstractmethod
    def build(self, kernel: SpectralKernel, lengthscale: Tensor, random: ReplicateSampler) -> FourierFeatures:
        """Maps for G groups of p coordinates with lengthscales [G, p].

        Returns:
            Frequencies [R, G, m, p], one map for each replicate and group, or [1, 1, m, p] or [1, G, m, p]
            where they share theirs.
        """

    def _count(self, dim: int) -> int:
        """An even number of features of a group."""
        count = self.nodes**dim
        if count % 2:
            raise UserError(f"method {self.NAME}: nodes={self.nodes}; valid: an even number, to make pairs")
        return count


def shared(lengthscale: Tensor) -> Tensor:
    """Lengthscales [G, p], or [1, p] where those of all groups are equal."""
    return lengthscale[:1] if bool((lengthscale == lengthscale[:1]).all()) else lengthscale


class QFF(FeatureFamily):
    """Quadrature Fourier features; see `qff` for the arguments."""

    NAME: ClassVar = "qff"

    def __init__(self, *, nodes: int, prune: float, rule: Rule, stretch: float) -> None:
        super().__init__(nodes=nodes)
        self.prune, self.rule, self.stretch = prune, rule, stretch

    def build(self, kernel: SpectralKernel, lengthscale: Tensor, random: ReplicateSampler) -> FourierFeatures:
        return qff(
            kernel,
            shared(lengthscale)[None],
            nodes=self.nodes,
            prune=self.prune,
            rule=self.rule,
            stretch=self.stretch,
        )


class RFF(FeatureFamily):
    """Random Fourier features.

    Args:
        nodes: features a coordinate.
        form: `paired` (cosine and sine of each frequency), `bias` (random phases) or `unpaired` (the authors'
            code).
    """

    NAME: ClassVar = "rff"

    def __init__(self, *, nodes: int, form: Form) -> None:
        super().__init__(nodes=nodes)
        self.form = form

    def build(self, kernel: SpectralKernel, lengthscale: Tensor, random: ReplicateSampler) -> FourierFeatures:
        groups, dim = lengthscale.shape
        count = self._count(dim) // 2 if self.form == "paired" else self._count(dim)
        uniform = random.uniform(groups * count * dim).reshape(-1, groups, count, dim)
        frequencies = quantile(kernel, uniform) / lengthscale[:, None]
        if self.form == "paired":
            return rff_paired(frequencies)
        if self.form == "unpaired":
            return rff_unpaired(frequencies)
        phase = 2.0 * math.pi * random.uniform(groups * count).reshape(-1, groups, count)
        return rff_bias(frequencies, phase)


class Halton(FeatureFamily):
    """Quasi-random features: the Halton sequence in place of random numbers, paired."""

    NAME: ClassVar = "halton"

    def build(self, kernel: SpectralKernel, lengthscale: Tensor, random: ReplicateSampler) -> FourierFeatures:
        chosen = shared(lengthscale)
        points = halton(self._count(chosen.shape[1]) // 2, chosen.shape[1]).to(chosen)
        return rff_paired((quantile(kernel, points) / chosen[:, None])[None])


class ORF(FeatureFamily):
    """Orthogonal random features, paired: frequencies orthogonal in blocks of p."""

    NAME: ClassVar = "orf"

    def build(self, kernel: SpectralKernel, lengthscale: Tensor, random: ReplicateSampler) -> FourierFeatures:
        if kernel != "se":
            raise UserError(f"model.kernel={kernel}: method orf needs an isotropic density; valid: se")
        groups, dim = lengthscale.shape
        count = self._count(dim) // 2
        blocks = math.ceil(count / dim)
        normals, lengths = random.normal((2, groups, blocks, dim, dim)).unbind(1)
        frequencies = orthogonal(normals, lengths)[..., :count, :] / lengthscale[:, None]
        return rff_paired(frequencies)


class Exact:
    """No features: the exact Gaussian process, as a yardstick for the others."""

    NAME: ClassVar = "exact"


def fixed_features(
    family: FeatureFamily, kernel: SpectralKernel, lengthscale: Sequence[float], seed: int
) -> FourierFeatures:
    """The map of one group for use by itself: frequencies [m, p], random ones from a seed.

    Args:
        lengthscale: gamma of the p coordinates.
    """
    gamma = torch.tensor(np.asarray(lengthscale)[None], dtype=torch.float64)
    found = family.build(kernel, gamma, ReplicateSampler(seed, 1, None, gamma.device, torch.float64))
    phase = None if found.phase is None else found.phase[0, 0]
    return FourierFeatures(found.frequencies[0, 0], found.scale[0, 0], found.sines, phase)
