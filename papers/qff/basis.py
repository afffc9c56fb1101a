"""Functions sum_k w_k phi_k(z) on the coordinates of a group: values, derivatives, values on grids.

Two bases: Fourier features, and covariances with the observed points (the exact Gaussian process). Shapes:
R replicates (or 1), G groups of p coordinates (or 1), s or N points z [R, G, s, p], m basis functions.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from common.base.errors import UserError
from papers.qff.features import FourierFeatures
from papers.qff.quadrature import SpectralKernel

# k of the modified Matern kernels: a polynomial of a = |r| / gamma with these coefficients, times exp(-a)
POLYNOMIALS: dict[str, tuple[float, ...]] = {
    "laplace": (1.0,),
    "modified_matern_2": (1.0, 1.0),
    "modified_matern_3": (1.0, 1.0, 1 / 3),
    "modified_matern_4": (1.0, 1.0, 2 / 5, 1 / 15),
}


class Jet(ABC):
    """All basis functions near points: values [R, G, s, m] and two derivatives, contracted with weights."""

    value: Tensor

    @abstractmethod
    def gradient(self, weights: Tensor) -> Tensor:
        """sum_k w_k grad phi_k with w [R, G, s or 1, m]: [R, G, s, p]."""

    @abstractmethod
    def hessian(self, weights: Tensor) -> Tensor:
        """sum_k w_k Hess phi_k: [R, G, s, p, p]."""

    @abstractmethod
    def jacobian(self) -> Tensor:
        """grad phi_k: [R, G, s, m, p]."""


class Grid(ABC):
    """Fixed candidate points of each group.

    Attributes:
        points: [1, G or 1, N, p].
    """

    points: Tensor

    @abstractmethod
    def linear(self, weights: Tensor) -> Tensor:
        """sum_k w_k phi_k at the points, w [R, G, m]: [R, G, N]."""


class Basis(ABC):
    """Basis functions of the groups of one size."""

    @abstractmethod
    def value(self, z: Tensor) -> Tensor:
        """phi at z: [R, G, s, m]."""

    @abstractmethod
    def jet(self, z: Tensor) -> Jet:
        """phi and its derivatives at z."""

    @abstractmethod
    def grid(self, axes: "Axes") -> Grid:
        """phi at fixed points."""


@dataclass(frozen=True)
class Axes:
    """Fixed points of groups: all N of them, or those on each of two axes whose product they are.

    Attributes:
        points: [1, G or 1, N, p].
        lines: of a product grid (p = 2), the two axes [1, G or 1, g] each, N = g^2, the second one fastest.
    """

    points: Tensor
    lines: tuple[Tensor, Tensor] | None


# Fourier features


@dataclass(frozen=True)
class FourierJet(Jet):
    """Sines and cosines: the second derivative is the function itself, times -omega omega'."""

    value: Tensor
    slope: Tensor
    frequencies: Tensor

    def gradient(self, weights: Tensor) -> Tensor:
        return (weights * self.slope) @ self.frequencies

    def hessian(self, weights: Tensor) -> Tensor:
        W = self.frequencies
        squares = (W[..., :, None] * W[..., None, :]).flatten(-2)
        found = -(weights * self.value) @ squares
        return found.unflatten(-1, (W.shape[-1], W.shape[-1]))

    def jacobian(self) -> Tensor:
        return self.slope[..., None] * self.frequencies[..., None, :, :]


class FourierBasis(Basis):
    """Fourier features [1 or R, 1 or G, m, p]."""

    def __init__(self, features: FourierFeatures) -> None:
        self.features = features

    def value(self, z: Tensor) -> Tensor:
        return self.features(z)

    def jet(self, z: Tensor) -> FourierJet:
        return FourierJet(*self.features.waves(z), self.features.frequencies)

    def grid(self, axes: Axes) -> Grid:
        if axes.lines is None:
            return _FourierPoints(self.features, axes)
        return _FourierProduct(self.features, axes)


class _FourierPoints(Grid):
    """The features themselves at the points."""

    def __init__(self, features: FourierFeatures, axes: Axes) -> None:
        self.points, self.phi = axes.points, features(axes.points)

    def linear(self, weights: Tensor) -> Tensor:
        return contract(weights, self.phi)


class _FourierProduct(Grid):
    """A product grid of two coordinates without its g^2 x m features: two products of [g, m] matrices.

    cos(a + c) = cos a cos c - sin a sin c, and so for sines, with a = omega_1 t_1 + b and c = omega_2 t_2.
    """

    def __init__(self, features: FourierFeatures, axes: Axes) -> None:
        assert axes.lines is not None
        first, second = axes.lines
        self.points = axes.points
        split = [features.size - features.sines, features.sines]
        cosines, sines = (first[..., None] * features.frequencies[..., None, :, 0]).split(split, -1)
        if features.phase is not None:
            cosines = cosines + features.phase[..., None, :]
        scale = features.scale[..., None, :]
        self.value = torch.cat([cosines.cos(), sines.sin()], -1) * scale
        self.slope = torch.cat([-cosines.sin(), sines.cos()], -1) * scale
        angle = second[..., None] * features.frequencies[..., None, :, 1]
        self.cos, self.sin = angle.cos(), angle.sin()

    def linear(self, weights: Tensor) -> Tensor:
        w = weights[..., None, :]
        found = (self.value * w) @ self.cos.mT + (self.slope * w) @ self.sin.mT
        return found.flatten(-2)


def contract(weights: Tensor, phi: Tensor) -> Tensor:
    """weights [R, G, m] . phi [1 or R, 1 or G, N, m]: [R, G, N], one matrix product where phi is shared."""
    if phi.shape[:2] == (1, 1):
        return weights @ phi[0, 0].mT
    return (phi @ weights[..., None])[..., 0]


# covariances


@dataclass(frozen=True)
class CovarianceJet(Jet):
    """Covariances and their derivatives, kept whole: s and p are small here."""

    value: Tensor
    first: Tensor
    second: Tensor

    def gradient(self, weights: Tensor) -> Tensor:
        return (weights[..., None] * self.first).sum(-2)

    def hessian(self, weights: Tensor) -> Tensor:
        return (weights[..., None, None] * self.second).sum(-3)

    def jacobian(self) -> Tensor:
        return self.first


class CovarianceBasis(Basis):
    """phi_i(z) = a k(z - z_i): covariances of a group's part of f with points seen.

    Args:
        kernel: a product over coordinates.
        lengthscale: gamma, [G, p].
        amplitude: a, the variance of the part.
        centres: z_i, [R, G, n, p].
        weightless: bool [R, n]: points that count for nothing (failed evaluations).
    """

    def __init__(
        self,
        kernel: SpectralKernel,
        lengthscale: Tensor,
        amplitude: float,
        centres: Tensor,
        weightless: Tensor,
    ) -> None:
        self.kernel, self.amplitude = kernel, amplitude
        self.gamma = lengthscale[:, None]
        self.scaled = centres / self.gamma
        self.factor = (~weightless).to(lengthscale.dtype)[:, None, None] * amplitude

    def value(self, z: Tensor) -> Tensor:
        r = (z / self.gamma)[..., None, :] - self.scaled[..., None, :, :]
        return profile(self.kernel, r).prod(-1) * self.factor

    def jet(self, z: Tensor) -> CovarianceJet:
        gamma = self.gamma[..., None, :]
        r = (z / self.gamma)[..., None, :] - self.scaled[..., None, :, :]
        k, first, second = profile_derivatives(self.kernel, r)
        p = r.shape[-1]
        slopes = [_product(k, {i: first}) for i in range(p)]
        rows = [
            torch.stack([_product(k, {i: second} if i == l else {i: first, l: first}) for l in range(p)], -1)  # noqa: E741
            for i in range(p)
        ]
        jacobian = torch.stack(slopes, -1) / gamma * self.factor[..., None]
        hessian = torch.stack(rows, -2) / (gamma[..., :, None] * gamma[..., None, :])
        return CovarianceJet(k.prod(-1) * self.factor, jacobian, hessian * self.factor[..., None, None])

    def grid(self, axes: Axes) -> Grid:
        return _CovarianceGrid(self, axes)

    def line(self, t: Tensor, i: int) -> Tensor:
        """The factor of coordinate i at t [1, G or 1, g]: [R, G, g, n]."""
        r = (t / self.gamma[..., i])[..., None] - self.scaled[..., None, :, i]
        return profile(self.kernel, r)


class _CovarianceGrid(Grid):
    def __init__(self, basis: CovarianceBasis, axes: Axes) -> None:
        self.points, self.basis, self.axes = axes.points, basis, axes

    def linear(self, weights: Tensor) -> Tensor:
        w = weights[..., None, :] * self.basis.factor
        if self.axes.lines is None:
            r = self.basis.value(self.points)
            return (r @ weights[..., None])[..., 0]
        first, second = (self.basis.line(t, i) for i, t in enumerate(self.axes.lines))
        return ((first * w) @ second.mT).flatten(-2)


def _product(k: Tensor, changed: dict[int, Tensor]) -> Tensor:
    """prod_i k_i with the factors of some coordinates changed."""
    return torch.stack([changed.get(i, k)[..., i] for i in range(k.shape[-1])], -1).prod(-1)


def profile(kernel: SpectralKernel, r: Tensor) -> Tensor:
    """k of one coordinate at r in units of its lengthscale.

    Raises:
        UserError: an unknown kernel.
    """
    if kernel == "se":
        return (-0.5 * r.square()).exp()
    if kernel not in POLYNOMIALS:
        raise UserError(f"model.kernel={kernel}; valid here: se, {', '.join(POLYNOMIALS)}")
    a = r.abs()
    return _horner(POLYNOMIALS[kernel], a) * (-a).exp()


def profile_derivatives(kernel: SpectralKernel, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k, k' and k'' of one coordinate at r in units of its lengthscale (of `laplace` beside its kink)."""
    k = profile(kernel, r)
    if kernel == "se":
        return k, -r * k, (r.square() - 1.0) * k
    once = _exponential_derivative(POLYNOMIALS[kernel])
    a, decay = r.abs(), (-r.abs()).exp()
    return k, _horner(once, a) * decay * r.sign(), _horner(_exponential_derivative(once), a) * decay


def _exponential_derivative(c: tuple[float, ...]) -> tuple[float, ...]:
    """The polynomial q with (p(a) exp(-a))' = q(a) exp(-a): q = p' - p."""
    return tuple((i + 1) * c[i + 1] - c[i] if i + 1 < len(c) else -c[i] for i in range(len(c)))


def _horner(c: tuple[float, ...], a: Tensor) -> Tensor:
    found = torch.full_like(a, c[-1])
    for coefficient in reversed(c[:-1]):
        found = found * a + coefficient
    return found
