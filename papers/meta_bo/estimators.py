"""PEM-BO's estimators of an unknown Gaussian process prior and of the posterior under it (Section 4).

From N training functions the mean is the sample mean and the covariance the sample covariance, which holds
the noise sigma^2 inside. After t observations y at I

    mu_t(x)  = mu(x) + K[x, I] K[I, I]^-1 (y - mu[I])
    K_t(x)   = (N - 1) / (N - t - 1) (K[x, x] - K[x, I] K[I, I]^-1 K[I, x])

are unbiased estimators of the posterior mean and of the posterior variance plus sigma^2. No matrix K of all
arms is ever formed: with the centred functions Z [N, M], K[:, i] = Z' Z[:, i] / (N - 1).
"""

from typing import Literal

import torch
from torch import Tensor

from common.numerics.linalg import cholesky

Correction = Literal["once", "recursive"]
# below this fraction of its scale a variance, or an eigenvalue, is roundoff
RELATIVE_ZERO = 1e-11


def correction_factor(tau: Tensor | float, N: Tensor | float, kind: Correction) -> Tensor:
    """What makes the variance after tau observations unbiased: (N - 1) / (N - tau - 1).

    `recursive`, as in the authors' code for arms, multiplies by it at every step: prod_{s <= tau} of
    (N - 1) / (N - s - 1).
    """
    tau, N = torch.as_tensor(tau, dtype=torch.float64), torch.as_tensor(N, dtype=torch.float64)
    if kind == "once":
        return (N - 1) / (N - tau - 1)
    steps = torch.arange(1, int(tau.max()) + 1, dtype=torch.float64, device=tau.device)
    factors = (N[..., None] - 1) / (N[..., None] - steps - 1)
    return torch.where(steps <= tau[..., None], factors, torch.ones_like(factors)).prod(-1)


def weighted(weights: Tensor, z: Tensor) -> Tensor:
    """Sums over functions with weights [R, N], of z [N, M] or of each replicate's z [R, N, M]: [R, M]."""
    return weights @ z if z.ndim == 2 else (weights[:, None] @ z)[:, 0]


class ArmsPrior:
    """Sample mean and covariance over M arms, for R replicates that learn from different functions.

    Args:
        y: complete evaluations, [N, M] shared by the replicates, or [R, N, M] of each.
        kept: which functions each replicate learns from, bool [R, N].

    Attributes:
        N: functions of each replicate, float64 [R]; at least 2.
        mean, variance: [R, M], the variance with the factor 1 / (N - 1).
        constant: bool [R, M], arms at which all functions of a replicate agree; their variance is exactly 0.
    """

    def __init__(self, y: Tensor, kept: Tensor) -> None:
        self.kept = kept.to(torch.float64)
        self.N = self.kept.sum(1)
        # an offset costs digits; about its mean, sums of squares keep theirs
        offset = y.mean(-2)
        self.z = y - offset.unsqueeze(-2)
        first = kept.to(torch.uint8).argmax(1)
        rows = torch.arange(len(first), device=first.device)
        one = y[first] if y.ndim == 2 else y[rows, first]
        # a column that is constant must be so exactly: no sum over it is
        self.constant = self._unlike(y, first) == 0
        self.centre = weighted(self.kept, self.z) / self.N[:, None]
        squares = weighted(self.kept, self.z.square()) - self.N[:, None] * self.centre.square()
        self.variance = (squares / (self.N[:, None] - 1)).clamp_min(0).masked_fill(self.constant, 0.0)
        self.mean = torch.where(self.constant, one, self.centre + offset)

    def _unlike(self, y: Tensor, first: Tensor) -> Tensor:
        """How many of a replicate's functions differ from its first one, at each arm: [R, M]."""
        if y.ndim == 3:
            rows = torch.arange(len(first), device=first.device)
            return weighted(self.kept, (y != y[rows, first][:, None]).to(y.dtype))
        counts = y.new_zeros(len(first), y.shape[1])
        # leaving one out, the first function is one of two
        for row in first.unique():
            same = first == row
            counts[same] = weighted(self.kept[same], (y != y[row]).to(y.dtype))
        return counts

    def columns(self, arm: Tensor) -> Tensor:
        """K[:, arm] of each replicate's own arm [R]: [R, M], by one product with the functions."""
        rows = torch.arange(len(arm), device=arm.device)
        own = self.z[:, arm].T if self.z.ndim == 2 else self.z[rows, :, arm]
        weights = (own - self.centre[rows, arm, None]) * self.kept / (self.N[:, None] - 1)
        columns = weighted(weights, self.z)
        flat = self.constant | self.constant[rows, arm][:, None]
        return columns.masked_fill(flat, 0.0)


class ArmsPosterior:
    """The posterior over M arms of R replicates, one observation of each at a time.

    Conditioning is by Schur updates, O(M t) each. Where K[I, I] becomes singular (more observations than K
    has rank, an arm observed twice) a replicate goes over to the pseudo-inverse, so that observations that
    contradict each other are averaged and none is lost. An arm without variance tells nothing of the others.

    Attributes:
        mean: mu_t, [R, M].
        variance: K_t before its correction, [R, M].
        count: t, the observations that had a value, [R].
        singular: bool [R].
    """

    def __init__(self, prior: ArmsPrior) -> None:
        self.prior = prior
        self.mean, self.variance = prior.mean.clone(), prior.variance.clone()
        replicates, arms = self.mean.shape
        self.count = torch.zeros_like(prior.N)
        self.singular = torch.zeros(replicates, dtype=torch.bool, device=self.mean.device)
        self.arms = torch.zeros(replicates, 0, dtype=torch.long, device=self.mean.device)
        self.valid = self.arms.bool()
        self.residuals = self.mean.new_zeros(replicates, 0)
        # K[I, :] and its whitened rows L^-1 K[I, :], with L^-1 (y - mu[I])
        self.rows = self.mean.new_zeros(replicates, 0, arms)
        self.white, self.innovations = self.rows, self.residuals

    def observe(self, arm: Tensor, value: Tensor) -> None:
        """Condition on one more value of each replicate, arm int64 [R], value [R] (NaN: a failed one)."""
        valid = value.isfinite()
        column = torch.where(valid[:, None], self.prior.columns(arm), 0.0)
        own = arm[:, None]
        residual = torch.where(valid, value - self.prior.mean.gather(1, own)[:, 0], 0.0)
        at_arm = self.white.gather(2, own[:, None].expand(-1, self.white.shape[1], 1))
        left = column - (at_arm * self.white).sum(1)
        scale, pivot = column.gather(1, own)[:, 0], left.gather(1, own)[:, 0]
        regular = pivot > RELATIVE_ZERO * scale
        root = torch.where(regular, pivot, 1.0).sqrt()
        white = torch.where(regular[:, None], left / root[:, None], 0.0)
        surprise = (residual - (at_arm[..., 0] * self.innovations).sum(1)) / root
        innovation = torch.where(regular, surprise, 0.0)
        self.white = torch.cat([self.white, white[:, None]], 1)
        self.innovations = torch.cat([self.innovations, innovation[:, None]], 1)
        self.mean = self.mean + innovation[:, None] * white
        self.variance = self.variance - white.square()
        self.count = self.count + valid
        self.arms = torch.cat([self.arms, own], 1)
        self.valid = torch.cat([self.valid, valid[:, None]], 1)
        self.rows = torch.cat([self.rows, column[:, None]], 1)
        self.residuals = torch.cat([self.residuals, residual[:, None]], 1)
        self.singular = self.singular | (~regular & (scale > 0))
        for r in self.singular.nonzero()[:, 0].tolist():
            self._pseudo_inverse(r)
        scale = self.prior.variance
        self.variance = torch.where(self.variance > RELATIVE_ZERO * scale, self.variance, 0.0)

    def _pseudo_inverse(self, r: int) -> None:
        """Condition one replicate on all its observations at once, with K[I, I]^+; I has no failed ones."""
        valid = self.valid[r]
        rows = self.rows[r, valid]
        values, vectors = torch.linalg.eigh(rows[:, self.arms[r, valid]])
        kept = values > RELATIVE_ZERO * values[-1]
        basis = vectors[:, kept] / values[kept].sqrt()
        white = basis.T @ rows
        self.mean[r] = self.prior.mean[r] + (self.residuals[r, valid] @ basis) @ white
        self.variance[r] = self.prior.variance[r] - white.square().sum(0)


class BasisPrior:
    """Sample mean and covariance of the weights of functions f_i(x) = Phi(x) . W_i.

    The covariance Sigma = A' A is kept as its factor A = (W - u) / sqrt(N - 1), [N, K].

    Args:
        W: weights, [N, K], N >= 2.

    Attributes:
        u: their mean, [K]; A: the factor.
    """

    def __init__(self, W: Tensor) -> None:
        self.N = len(W)
        self.u = W.mean(0)
        self.A = (W - self.u) / (self.N - 1) ** 0.5

    def posterior(self, features: Tensor, y: Tensor, jitter: float) -> "BasisPosterior":
        """Condition on t observations, features Phi_t [t, K], y [t], t < K."""
        return BasisPosterior(self, features, y, jitter)


class BasisPosterior:
    """The posterior over weights after t observations, O(N K t + t^3):

        u_t     = u + Sigma Phi_t (Phi_t' Sigma Phi_t + jitter I)^-1 (y - Phi_t' u)
        Sigma_t = Sigma - Sigma Phi_t (Phi_t' Sigma Phi_t + jitter I)^-1 Phi_t' Sigma

    (before the correction). With A Phi(x) = a and A Phi_t = G [N, t] all is said in R^N: the variance at x is
    |a|^2 - |L^-1 G' a|^2 with L L' = G' G + jitter I.

    Raises:
        UserError: G' G is singular beyond repair.
    """

    def __init__(self, prior: BasisPrior, features: Tensor, y: Tensor, jitter: float) -> None:
        self.prior = prior
        G = prior.A @ features.T
        eye = torch.eye(len(y), dtype=y.dtype, device=y.device)
        L = cholesky(G.T @ G + jitter * eye, "the covariance of the observations") if len(y) else eye
        self.B = torch.linalg.solve_triangular(L, G.T, upper=False)
        innovation = torch.linalg.solve_triangular(L, (y - features @ prior.u)[:, None], upper=False)
        self.u = prior.u + prior.A.T @ (self.B.T @ innovation)[:, 0]

    def predict(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and uncorrected variance at points with features [..., K]."""
        a = features @ self.prior.A.T
        left = a.square().sum(-1) - (a @ self.B.T).square().sum(-1)
        return features @ self.u, left.clamp_min(0)

    def gradients(self, features: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both at one point, with features [K] and d features / dx [K, d]: [d] each."""
        a = self.prior.A @ features
        left = a - self.B.T @ (self.B @ a)
        return slopes.T @ self.u, 2 * slopes.T @ (self.prior.A.T @ left)
