"""What the model says of a new data set after some evaluations, and which pipeline to try next."""

import torch
from torch import Tensor

from common.numerics.improvement import expected_improvement
from common.numerics.linalg import cholesky
from papers.pmf_automl.gp_lvm import Kernel

# added to a standard deviation, as in the authors' code
LEAST_DEVIATION = 1e-12
# numbers that are worked on at once, so that they stay in the processor's cache
BLOCK = 1 << 16


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
        where = torch.tensor([pipeline], device=self.V.device)
        self.observe_all(where, self.V.new_tensor([value]))

    def observe_all(self, pipelines: Tensor, values: Tensor) -> None:
        """Add finite y [k] of k pipelines, int64 [k], at once: O(k n N + k^2 N), by blocks of the N."""
        n, k = self.count, len(pipelines)
        while n + k > len(self.V):
            self.V = torch.cat([self.V, torch.empty_like(self.V)])
        total = self.kernel.variance + self.kernel.white + self.kernel.noise
        points, known = self.X[pipelines], self.V[:n, pipelines].T
        rest = self.kernel.cross(points, points) - known @ known.T
        rest = rest + (self.kernel.white + self.kernel.noise) * torch.eye(k).to(rest)
        # equal pipelines without noise would make it singular
        L = cholesky(rest, "the covariance of the observed scores", total)
        centred = values - self.prior_mean[pipelines] - known @ self.z
        z = torch.linalg.solve_triangular(L, centred[:, None], upper=False)[:, 0]
        width = max(BLOCK // k, 1)
        for start in range(0, len(self.X), width):
            own = slice(start, start + width)
            cross = self.kernel.cross(points, self.X[own])
            if n:
                cross.addmm_(known, self.V[:n, own], alpha=-1.0)
            rows = torch.linalg.solve_triangular(L, cross, upper=False)
            self.V[n : n + k, own] = rows
            self.mean[own] += z @ rows
            self.variance[own] -= rows.square_().sum(0)
        self.z = torch.cat([self.z, z])


def most_promising(mean: Tensor, variance: Tensor, candidates: Tensor, best: float, xi: float) -> int:
    """The first of the candidates (bool [N], at least one) with the largest expected improvement.

    Where it is 0 for all, as far below `best`, the one with the largest (mean - best - xi) / sd, by which it
    falls.

    Args:
        mean, variance: of all pipelines, [N]; best: the largest score so far; xi: an improvement begins so
            far above it.
    """
    deviation = variance.clamp_min(0.0).sqrt() + LEAST_DEVIATION
    score = expected_improvement(mean, deviation, best + xi)
    if not bool((score[candidates] > 0).any()):
        score = (mean - best - xi) / deviation
    return int(torch.where(candidates, score, torch.full_like(score, -torch.inf)).argmax())
