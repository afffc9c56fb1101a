"""A surrogate of functions of which nothing is known: standardised values, all hyperparameters by a MAP fit.

The paper's own fit (`papers.maxacq.fit`) takes f to have mean 0 and a scale near 1; the loss of a training
run has neither. The priors are those of Hvarfner et al. (2024), BoTorch's defaults too:

    y = level + scale (mean + f(x) + noise),  level and scale: mean and standard deviation of the observations
    f ~ GP(0, k), of variance 1;  log lengthscale_i ~ N(sqrt 2 + log(d) / 2, 3), at least 0.025
    log noise variance ~ N(-4, 1), at least 1e-4;  mean flat

What lengthscales are plausible grows with the dimension, so that the function does not become more complex.
"""

import math

import numpy as np
import torch
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize
from torch import Tensor

from common.numerics.outliers import drawn_in
from papers.maxacq.posterior import Kernel, Prior

LEAST_LENGTHSCALE, LEAST_NOISE = 0.025, 1e-4
MOST_LENGTHSCALE, MOST_NOISE = 1e3, 10.0
# of the normal priors of their logarithms
LENGTHSCALE_VARIANCE, NOISE_LEVEL, NOISE_VARIANCE = 3.0, -4.0, 1.0
STEPS = 200
# a spread below this share of the values is rounding error
SAME = 1e-12


def fit_standardised(kernel: Kernel, x: Tensor, y: Tensor) -> Prior:
    """The prior of R = 1 replicate for y [n], all finite, at x [n, d], n >= 1.

    L-BFGS-B from the modes of the priors.

    Returns:
        The prior in the units of y; that of y times c, or plus c, is this one times c, or plus c.
    """
    level = y.mean()
    scale = y.std() if len(y) > 1 else torch.zeros_like(level)
    scale = torch.where(scale > SAME * y.abs().max(), scale, torch.ones_like(scale))
    objective = _Objective(kernel, x.cpu().numpy(), ((y - level) / scale).cpu().numpy())
    found = minimize(
        objective, objective.start(), jac=True, method="L-BFGS-B", bounds=objective.bounds(),
        options={"maxiter": STEPS},
    )  # fmt: skip
    best = torch.from_numpy(found.x if np.isfinite(found.x).all() else objective.start()).to(y)
    lengthscale, noise, mean = best[:-2].exp(), best[-2].exp(), best[-1]
    variance = scale.square()
    return Prior(
        kernel, lengthscale[None], variance[None], (level + scale * mean)[None], (variance * noise)[None]
    )


def fit_each(prior: Prior, x: Tensor, y: Tensor) -> tuple[Prior, Tensor]:
    """Of each replicate the fitted prior, and its values y [R, n] without outliers; x [R, n, d].

    Values that are not finite are left out. A replicate without any keeps its part of `prior`.
    """
    found: list[Prior] = []
    values = y.clone()
    for r in range(len(y)):
        ok = y[r].isfinite()
        if not bool(ok.any()):
            row = slice(r, r + 1)
            parts = (prior.lengthscale, prior.variance, prior.mean, prior.noise_variance)
            found.append(Prior(prior.kernel, *(part[row] for part in parts)))
            continue
        values[r, ok] = drawn_in(y[r, ok])
        found.append(fit_standardised(prior.kernel, x[r, ok], values[r, ok]))
    joined = Prior(
        prior.kernel,
        torch.cat([one.lengthscale for one in found]),
        torch.cat([one.variance for one in found]),
        torch.cat([one.mean for one in found]),
        torch.cat([one.noise_variance for one in found]),
    )
    return joined, values


class _Objective:
    """The negative log posterior of theta = (log lengthscales [d], log noise variance, mean), with gradient.

    -log p(z | theta) = 1/2 r' K^-1 r + 1/2 log |K| + n/2 log 2 pi, r = z - mean, K = k(x, x) + noise I, whose
    derivative is 1/2 tr((K^-1 - a a') dK), a = K^-1 r; less the log-normal densities of the lengthscales and
    of the noise variance.
    """

    def __init__(self, kernel: Kernel, x: np.ndarray, z: np.ndarray) -> None:
        self.kernel, self.z = kernel, z
        # (x_i - x_j)^2 of each coordinate, [d, n, n]
        self.apart = np.square(x.T[:, :, None] - x.T[:, None, :])
        self.dim = x.shape[1]
        self.level = math.sqrt(2) + 0.5 * math.log(self.dim)

    def start(self) -> np.ndarray:
        """The modes of the priors: level - variance, in logarithms."""
        lengthscale = max(self.level - LENGTHSCALE_VARIANCE, math.log(LEAST_LENGTHSCALE))
        return np.array([lengthscale] * self.dim + [NOISE_LEVEL - NOISE_VARIANCE, 0.0])

    def bounds(self) -> list[tuple[float | None, float | None]]:
        """Of theta."""
        scales = (math.log(LEAST_LENGTHSCALE), math.log(MOST_LENGTHSCALE))
        return [scales] * self.dim + [(math.log(LEAST_NOISE), math.log(MOST_NOISE)), (None, None)]

    def __call__(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        inverse_squares = np.exp(-2 * theta[: self.dim])
        noise, mean = math.exp(theta[-2]), theta[-1]
        s = np.tensordot(inverse_squares, self.apart, 1)
        k, slope = _correlation(self.kernel, s)
        n = len(self.z)
        L = cholesky(k + noise * np.eye(n), lower=True, check_finite=False)
        inverse = cho_solve((L, True), np.eye(n), check_finite=False)
        residual = self.z - mean
        a = inverse @ residual
        value = 0.5 * residual @ a + np.log(np.diagonal(L)).sum() + 0.5 * n * math.log(2 * math.pi)
        weight = 0.5 * (inverse - np.outer(a, a))
        # d s / d log lengthscale_j = -2 apart_j / lengthscale_j^2
        scales = -2 * inverse_squares * np.tensordot(self.apart, weight * slope, 2)
        gradient = np.append(scales, [noise * np.trace(weight), -a.sum()])
        levels = np.array([self.level] * self.dim + [NOISE_LEVEL])
        spreads = np.array([LENGTHSCALE_VARIANCE] * self.dim + [NOISE_VARIANCE])
        off = (theta[:-1] - levels) / spreads
        value += 0.5 * (off * (theta[:-1] - levels)).sum() + theta[:-1].sum()
        gradient[:-1] += off + 1.0
        return float(value), gradient


def _correlation(kernel: Kernel, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k of s = r^2 and its derivative."""
    if kernel == "se":
        k = np.exp(-0.5 * s)
        return k, -0.5 * k
    t = np.sqrt(5.0 * s)
    decay = np.exp(-t)
    return (1.0 + t + t * t / 3.0) * decay, (-5.0 / 6.0) * (1.0 + t) * decay
