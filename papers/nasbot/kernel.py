"""A Gaussian process over networks by distances between them (section 4 of the paper).

    k(x, x') = alpha exp(-sum_i beta_i d_i) + alpha' exp(-sum_i beta'_i d'_i^2)

over the structural weights i, with d OTMANN and d' the normalised distance. Such a k need not be positive
semi-definite: the matrix over the observations is projected on the cone (eigenvalues below 0 become 0) before
the noise is added. Hyperparameters are drawn from a box, uniformly in logarithms, and weighted by the
marginal likelihood; one of them is drawn by these weights for each round. Ranges are those of the released
code.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.base.errors import UserError

Distances = Literal["both", "d", "normalised"]
Form = Literal["sum", "product"]

# of the box, from low to high; noise variance and scales in variances of y
NOISE, SCALE, BETA, NORMALISED_BETA = (0.005, 0.2), (0.01, 100.0), (1e-9, 1e-3), (0.1, 100.0)
# powers of d and of the normalised distance
POWER, NORMALISED_POWER = 1, 2
# draws of hyperparameters: at least so many, and so many for each of them
LEAST_DRAWS, DRAWS_EACH = 500, 400
# a matrix counts as positive semi-definite whose eigenvalues are at least minus this share of its trace: what
# rounding makes of eigenvalues that are 0
ROUNDING = 1e-13
# numbers of the kernel matrices that are made at once
BLOCK = 1_000_000
# the least posterior variance, as a share of the noise variance
FLOOR = 0.05


@dataclass(frozen=True)
class KernelForm:
    """Which distances a kernel uses, and how.

    Attributes:
        distances: `both`, `d` alone, or `normalised` alone.
        form: of both: the `sum` of two exponentials, or their `product`, which has one scale.
        weights: how many structural weights there are.
    """

    distances: Distances
    form: Form
    weights: int

    @property
    def scales(self) -> int:
        """How many scales alpha there are."""
        return 2 if self.distances == "both" and self.form == "sum" else 1

    @property
    def betas(self) -> int:
        """How many coefficients of distances there are."""
        return self.weights * (2 if self.distances == "both" else 1)

    @property
    def size(self) -> int:
        """Hyperparameters: noise variance, scales, coefficients."""
        return 1 + self.scales + self.betas

    def box(self, variance: float) -> np.ndarray:
        """Low and high of each hyperparameter, [size, 2], in the order noise, scales, beta, normalised
        beta."""
        rows = [np.multiply(NOISE, variance), *[np.multiply(SCALE, variance)] * self.scales]
        rows += [BETA] * self.weights * (self.distances != "normalised")
        rows += [NORMALISED_BETA] * self.weights * (self.distances != "d")
        return np.array(rows, dtype=np.float64)

    def values(self, theta: Tensor, d: Tensor, normalised: Tensor) -> Tensor:
        """Kernel values for each of D draws at pairs of networks.

        Args:
            theta: [D, size].
            d, normalised: [weights, ...], of the pairs.

        Returns:
            [D, ...].
        """
        parts = [d**POWER, normalised**NORMALISED_POWER]
        used = {"both": parts, "d": parts[:1], "normalised": parts[1:]}[self.distances]
        flat = [part.reshape(self.weights, -1) for part in used]
        first = 1 + self.scales
        betas = [theta[:, first + k * self.weights :][:, : self.weights] for k in range(len(used))]
        exponents = [-beta @ part for beta, part in zip(betas, flat, strict=True)]
        if self.scales == 2:
            found = theta[:, 1:2] * exponents[0].exp_() + theta[:, 2:3] * exponents[1].exp_()
        else:
            found = theta[:, 1:2] * torch.stack(exponents).sum(0).exp_()
        return found.reshape(len(theta), *d.shape[1:])


def projected(K: Tensor, floor: float = 0.0) -> Tensor:
    """The nearest symmetric matrix (in the Frobenius norm) with no eigenvalue below `floor`: [..., n, n]."""
    values, vectors = torch.linalg.eigh(K)
    return (vectors * values.clamp_min(floor)[..., None, :]) @ vectors.mT


def log_marginal_likelihoods(K: Tensor, noise: Tensor, residual: Tensor) -> Tensor:
    """log N(residual | 0, projected(K) + noise I) of each of D matrices.

    A matrix that a Cholesky decomposition shows to be positive semi-definite, up to rounding, is its own
    projection: its eigenvalues are not needed, which is seven times as fast.

    Args:
        K: [D, n, n], symmetric; only the lower triangles are read, and the diagonals are overwritten.
        noise: [D], positive.
        residual: [n], y less the mean.
    """
    n, diagonal = len(residual), K.diagonal(dim1=1, dim2=2)
    slack = ROUNDING * diagonal.sum(1)
    diagonal += slack[:, None]
    _, failed = torch.linalg.cholesky_ex(K)
    diagonal += (noise - slack)[:, None]
    L, broken = torch.linalg.cholesky_ex(K)
    whitened = torch.linalg.solve_triangular(L, residual[:, None].expand(len(K), n, 1), upper=False)
    quadratic = whitened.square().sum((1, 2))
    log_det = 2 * L.diagonal(dim1=1, dim2=2).log().sum(1)
    negative = (failed != 0) | (broken != 0)
    if bool(negative.any()):
        values, vectors = torch.linalg.eigh(K[negative])
        # those of K + noise I
        spectrum = torch.maximum(values, noise[negative, None])
        quadratic[negative] = ((residual @ vectors).square() / spectrum).sum(1)
        log_det[negative] = spectrum.log().sum(1)
    return -0.5 * (quadratic + log_det + n * math.log(2 * math.pi))


def draw_thetas(form: KernelForm, variance: float, draws: int, random: np.random.Generator) -> Tensor:
    """Hyperparameters, uniform in logarithms in the box, [draws, size]."""
    low, high = np.log(form.box(variance)).T
    return torch.from_numpy(np.exp(low + (high - low) * random.random((draws, form.size))))


def draws_for(form: KernelForm) -> int:
    """How many hyperparameters are drawn: 400 for each, at least 500."""
    return max(LEAST_DRAWS, DRAWS_EACH * form.size)


@dataclass(frozen=True)
class Fit:
    """Draws of hyperparameters with the weights of their marginal likelihood.

    Attributes:
        thetas: [D, size].
        weights: [D], sum 1.
    """

    thetas: Tensor
    weights: np.ndarray

    def draw(self, random: np.random.Generator) -> Tensor:
        """One of them by its weight, [size]."""
        return self.thetas[int(random.choice(len(self.weights), p=self.weights))]


def fit(
    form: KernelForm,
    d: np.ndarray,
    normalised: np.ndarray,
    y: np.ndarray,
    random: np.random.Generator,
    draws: int | None = None,
) -> Fit:
    """Draw and weight hyperparameters; of y times c the noise and the scales are times c^2, no more.

    The largest log likelihood is subtracted before weights are made: none overflows, and not all are 0.

    Args:
        d, normalised: [weights, n, n].
        y: [n], finite.
        draws: None for `draws_for`.
    """
    count = draws_for(form) if draws is None else draws
    thetas = draw_thetas(form, spread(y), count, random)
    residual = torch.from_numpy(y - np.median(y))
    n = len(y)
    rows, columns = np.tril_indices(n)
    lower = [torch.from_numpy(part[:, rows, columns]) for part in (d, normalised)]
    places = torch.from_numpy(rows * n + columns)
    parts = []
    for block in thetas.split(max(1, BLOCK // (n * n))):
        K = torch.zeros(len(block), n * n, dtype=torch.float64)
        K.index_copy_(1, places, form.values(block, *lower))
        parts.append(log_marginal_likelihoods(K.reshape(-1, n, n), block[:, 0], residual))
    likelihood = torch.cat(parts).numpy()
    weights = np.exp(likelihood - likelihood.max())
    return Fit(thetas, weights / weights.sum())


def spread(y: np.ndarray) -> float:
    """The variance of y; of equal values the square of their size, so that units do not matter; of zeros
    1."""
    variance = float(np.var(y))
    if variance > 1e-24 * float(np.max(np.square(y))):
        return variance
    return float(np.max(np.square(y))) or 1.0


class Posterior:
    """f given observations y = f + noise, with mean median(y), under one vector of hyperparameters.

    Args:
        form, theta: of the kernel, see `KernelForm`; theta [size].
        d, normalised: between the observed networks, [weights, n, n].
        y: [n].
    """

    def __init__(
        self, form: KernelForm, theta: Tensor, d: np.ndarray, normalised: np.ndarray, y: np.ndarray
    ) -> None:
        self.form, self.theta, self.noise = form, theta[None], float(theta[0])
        if len(y) != d.shape[1]:
            raise UserError(f"{len(y)} values for {d.shape[1]} networks; valid: one for each")
        self.mean = float(np.median(y))
        K = projected(self._kernel(d, normalised))
        n = len(y)
        self.L = torch.linalg.cholesky(K + self.noise * torch.eye(n, dtype=K.dtype))
        self.weights = torch.cholesky_solve(torch.from_numpy(y - self.mean)[:, None], self.L)[:, 0]

    def _kernel(self, d: np.ndarray, normalised: np.ndarray) -> Tensor:
        return self.form.values(self.theta, torch.from_numpy(d), torch.from_numpy(normalised))[0]

    @property
    def prior_variance(self) -> float:
        """k(x, x), the sum of the scales."""
        return float(self.theta[0, 1 : 1 + self.form.scales].sum())

    def marginal(self, d: np.ndarray, normalised: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of f at m networks, [m] each.

        A variance is at least 0.05 of the noise variance.

        Args:
            d, normalised: from the m networks to the observed ones, [weights, m, n].
        """
        cross = self._kernel(d, normalised)
        whitened = torch.linalg.solve_triangular(self.L, cross.mT, upper=False)
        variance = self.prior_variance - whitened.square().sum(0)
        mean = self.mean + cross @ self.weights
        return mean.numpy(), variance.clamp_min(FLOOR * self.noise).sqrt().numpy()

    def covariance(
        self, d: np.ndarray, normalised: np.ndarray, own: np.ndarray, own_normalised: np.ndarray
    ) -> np.ndarray:
        """The covariance of f at m networks, [m, m], its eigenvalues at least 0.05 of the noise variance.

        Args:
            d, normalised: as in `marginal`.
            own, own_normalised: between the m networks, [weights, m, m].
        """
        whitened = torch.linalg.solve_triangular(self.L, self._kernel(d, normalised).mT, upper=False)
        found = self._kernel(own, own_normalised) - whitened.mT @ whitened
        return projected(found, FLOOR * self.noise).numpy()
