"""What the model says of a new data set after some evaluations, and which pipeline to try next."""

import math

import torch
from torch import Tensor

from common.numerics.linalg import cholesky
from papers.pmf_automl.gp_lvm import Kernel

# xi of the expected improvement, and what is added to a standard deviation, as in the authors' code
XI, LEAST_DEVIATION = 0.01, 1e-12


class GrowingPosterior:
    """The posterior over N pipelines of one data set, whose Cholesky factor grows by a row a time.

        m(x) = m0(x) + k(x)' C^-1 (y - m0),   var(x) = prior - k(x)' C^-1 k(x),   C = K + (w + s2) I

    Kept is V = L^-1 K(observed, all) [n, N]: another observation adds one row, m and var change by that row
    alone, and it costs O(n N).

    Args:
        X: latent points [N, Q]; kernel: of the model; mean: m0 [N].
        white: whether `prior` is v + w, as in the authors' code, or v alone.
        capacity: observations that there is room for at first.

    Attributes:
        mean, variance: of all pipelines, [N].
    """

    def __init__(self, X: Tensor, kernel: Kernel, mean: Tensor, white: bool, capacity: int = 16) -> None:
        self.X, self.kernel = X, kernel
        prior = kernel.variance + kernel.white if white else kernel.variance
        self.prior_mean, self.mean = mean, mean.clone()
        self.variance = prior.expand(len(X)).clone()
        self.V = X.new_empty(capacity, len(X))
        self.z = X.new_empty(0)

    @property
    def count(self) -> int:
        """n, the number of observations."""
        return len(self.z)

    def observe(self, pipeline: int, value: float) -> None:
        """Add y of one pipeline, finite."""
        self.observe_all(torch.tensor([pipeline]), torch.tensor([value], dtype=self.V.dtype))

    def observe_all(self, pipelines: Tensor, values: Tensor) -> None:
        """Add finite y [k] of k pipelines, int64 [k], at once: O(k n N + k^2 N)."""
        n, k = self.count, len(pipelines)
        while n + k > len(self.V):
            self.V = torch.cat([self.V, torch.empty_like(self.V)])
        total = self.kernel.variance + self.kernel.white + self.kernel.noise
        cross = self.kernel.cross(self.X[pipelines], self.X)
        known = self.V[:n, pipelines].T
        rest = cross[:, pipelines] - known @ known.T
        rest = rest + (self.kernel.white + self.kernel.noise) * torch.eye(k, dtype=rest.dtype)
        # equal pipelines without noise would make it singular
        L = cholesky(rest, "the covariance of the observed scores", total)
        self.V[n : n + k] = torch.linalg.solve_triangular(L, cross - known @ self.V[:n], upper=False)
        centred = values - self.prior_mean[pipelines] - known @ self.z
        z = torch.linalg.solve_triangular(L, centred[:, None], upper=False)[:, 0]
        self.z = torch.cat([self.z, z])
        self.mean += z @ self.V[n : n + k]
        self.variance -= self.V[n : n + k].square().sum(0)


def expected_improvement(mean: Tensor, variance: Tensor, best: float, xi: float = XI) -> Tensor:
    """sd (g Phi(g) + phi(g)), g = (mean - best - xi) / sd, sd = sqrt(variance) + 1e-12: to be maximised."""
    deviation = variance.clamp_min(0.0).sqrt() + LEAST_DEVIATION
    g = (mean - best - xi) / deviation
    density = torch.exp(-0.5 * g.square()) / math.sqrt(2 * math.pi)
    return (deviation * (g * torch.special.ndtr(g) + density)).clamp_min(0.0)


def most_promising(mean: Tensor, variance: Tensor, candidates: Tensor, best: float, xi: float) -> int:
    """The first of the candidates (bool [N], at least one) with the largest expected improvement.

    Where it is 0 for all, as far below `best`, the one with the largest g, by which improvement falls.
    """
    score = expected_improvement(mean, variance, best, xi)
    if not bool((score[candidates] > 0).any()):
        score = (mean - best - xi) / (variance.clamp_min(0.0).sqrt() + LEAST_DEVIATION)
    return int(torch.where(candidates, score, torch.full_like(score, -torch.inf)).argmax())
