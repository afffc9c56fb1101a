"""Exact Gaussian process beliefs of R replicates at once, at many sets of points, in hand-written algebra.

K + noise is factored once a round. What is left for each set of points is two matrix products with the
inverse factor and a q x q Cholesky, so thousands of sets cost little more than one. Points are kept in units
of the lengthscale; everything is float64.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from common.numerics.linalg import cholesky

Kernel = Literal["matern52", "se"]
KERNELS: tuple[Kernel, ...] = ("matern52", "se")
# a conditional variance below this share of the prior's is rounding error
FLOOR = 1e-10


@dataclass(frozen=True)
class Prior:
    """f ~ GP(mean, variance k(|x - x'| / lengthscale)), observed with noise; one of each replicate.

    Attributes:
        kernel: matern52, k(r) = (1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r); se, k(r) = exp(-r^2 / 2).
        lengthscale: [R, d]; variance, mean, noise_variance: [R].
    """

    kernel: Kernel
    lengthscale: Tensor
    variance: Tensor
    mean: Tensor
    noise_variance: Tensor

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """Prior covariances of points in units of the lengthscale, [R, ..., p, d] and [R, ..., n, d]."""
        variance = self.variance.reshape(-1, *[1] * (a.dim() - 1))
        return variance * _correlation(self.kernel, squared_distances(a, b))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2, [..., p, d] and [..., n, d] -> [..., p, n]: [-2 a, |a|^2, 1] times [b, 1, |b|^2]."""
    ones = torch.ones_like(a[..., :1])
    left = torch.cat([-2 * a, a.square().sum(-1, keepdim=True), ones], -1)
    ones = torch.ones_like(b[..., :1])
    right = torch.cat([b, ones, b.square().sum(-1, keepdim=True)], -1)
    return (left @ right.mT).clamp_min(0.0)


class _Matern52(torch.autograd.Function):
    """k of s = r^2, whose derivative -5/6 (1 + sqrt(5 s)) exp(-sqrt(5 s)) is finite at 0."""

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        t = (5.0 * s).sqrt_()
        decay = torch.exp(-t)
        first = (1.0 + t).mul_(decay)
        ctx.save_for_backward(first)
        return t.square_().mul_(decay).div_(3.0).add_(first)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (first,) = ctx.saved_tensors
        return grads[0] * first * (-5.0 / 6.0)


def _correlation(kernel: Kernel, s: Tensor) -> Tensor:
    return _Matern52.apply(s) if kernel == "matern52" else torch.exp(-0.5 * s)


class _Root(torch.autograd.Function):
    """L with L L' = S for many small matrices; its gradient by products instead of many tiny solves.

    S-bar = sym(L^-T Phi(L' L-bar) L^-1), Phi the lower triangle with half of the diagonal (Murray 2016).
    """

    @staticmethod
    def forward(ctx: Any, S: Tensor, variance: Tensor) -> Tensor:
        L = cholesky(S, "the covariance of a proposal", variance)
        ctx.save_for_backward(L)
        return L

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (L,) = ctx.saved_tensors
        eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
        inverse = torch.linalg.solve_triangular(L, eye.expand_as(L), upper=False)
        phi = (L.mT @ grads[0]).tril()
        phi = phi - 0.5 * torch.diag_embed(phi.diagonal(dim1=-2, dim2=-1))
        S = inverse.mT @ phi @ inverse
        return 0.5 * (S + S.mT), None


def root(S: Tensor, variance: Tensor) -> Tensor:
    """The Cholesky factor of covariances [R, ..., q, q] under priors with this variance [R].

    Of single points `FLOOR` of it is the least variance; of several it is the unit of the jitter.
    """
    variance = variance.reshape(-1, *[1] * (S.dim() - 3))
    if S.shape[-1] == 1:
        return S.clamp_min(FLOOR * variance[..., None, None]).sqrt()
    return _Root.apply(S, variance.expand(S.shape[:-2]))


class _Largest(torch.autograd.Function):
    """max_i (mean_i + root_i z) of sets by one product, whose memory then holds which point it was.

    Points that tie share the gradient. Shapes: [R, S, q], [R, S, q, w], [R, w, m] -> [R, S, m].
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, rows: Tensor, z: Tensor) -> Tensor:
        R, S, q, w = rows.shape
        draws = torch.cat([torch.ones_like(z[:, :1]), z], 1)
        y = torch.cat([mean[..., None], rows], -1).reshape(R, S * q, w + 1) @ draws
        y = y.reshape(R, S, q, -1)
        best = y.amax(2)
        ctx.save_for_backward(y.sub_(best[:, :, None]).eq_(0.0), draws)
        return best

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        chosen, draws = ctx.saved_tensors
        R, S, q, m = chosen.shape
        share = grads[0] / chosen.sum(2) if q > 1 else grads[0]
        both = (chosen * share[:, :, None]).reshape(R, S * q, m) @ draws.mT
        both = both.reshape(R, S, q, -1)
        return both[..., 0], both[..., 1:], None


@dataclass(frozen=True)
class Belief:
    """y = mean + root z at sets of q points, given the outcomes of p pending points by the same z.

    Attributes:
        mean: [R, S, q].
        root: [R, S, q, p + q]: the rows of the joint factor of pending and new points that belong to the new
            ones.
    """

    mean: Tensor
    root: Tensor

    def deviations(self, z: Tensor) -> Tensor:
        """root z, z [R, p + q, m] -> [R, S, q, m]."""
        R, S, q, width = self.root.shape
        return (self.root.reshape(R, S * q, width) @ z).reshape(R, S, q, -1)

    def largest(self, z: Tensor) -> Tensor:
        """max_i y_i of each set, z [R, p + q, m] -> [R, S, m]."""
        return _Largest.apply(self.mean, self.root, z)


@dataclass(frozen=True)
class Posterior:
    """A prior given n noisy observations, and p pending points whose (noise-free) outcomes are random.

    Attributes:
        points: observed, then pending, in units of the lengthscale, [R, n + p, d].
        inverse: L^-1 of their covariance L L', [R, n + p, n + p].
        whitened: L^-1 (y - mean), zero for pending points, [R, n + p].
        pending_mean, pending_root: of the pending outcomes mean + root z, [R, p] and [R, p, p].
    """

    prior: Prior
    points: Tensor
    inverse: Tensor
    whitened: Tensor
    pending_mean: Tensor
    pending_root: Tensor

    @property
    def pending(self) -> int:
        """p."""
        return self.pending_mean.shape[1]

    @property
    def floor(self) -> Tensor:
        """The least variance of a point, [R]."""
        return FLOOR * self.prior.variance

    def belief(self, X: Tensor) -> Belief:
        """At sets of points X [R, S, q, d]."""
        mean, S, W = self._moments(X)
        new = root(S, self.prior.variance)
        old = W[..., W.shape[-1] - self.pending :]
        return Belief(mean, torch.cat([old, new], -1) if self.pending else new)

    def moments(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [R, S, q] and covariance [R, S, q, q] at sets X [R, S, q, d], pending outcomes being known."""
        return self._moments(X)[:2]

    def _moments(self, X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        X = X / self.prior.lengthscale[:, None, None]
        W, mean = self._project(X)
        return mean, self.prior.covariance(X, X) - W @ W.mT, W

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at points x [R, P, d], [R, P] each; pending outcomes at their means are known."""
        W, mean = self._project(x[:, :, None] / self.prior.lengthscale[:, None, None])
        variance = self.prior.variance[:, None] - W[:, :, 0].square().sum(-1)
        return mean[..., 0], torch.maximum(variance, self.floor[:, None])

    def cross(self, X: Tensor, b: Tensor) -> Tensor:
        """Posterior covariances of sets X [R, S, q, d] with points b [R, B, d]: [R, S, q, B]."""
        scale = self.prior.lengthscale
        X, b = X / scale[:, None, None], b / scale[:, None]
        W, _ = self._project(X)
        V, _ = self._project(b[:, None])
        R, S, q, _ = X.shape
        flat = self.prior.covariance(X.reshape(R, S * q, -1), b) - W.reshape(R, S * q, -1) @ V[:, 0].mT
        return flat.reshape(R, S, q, -1)

    def _project(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Of scaled sets: W = k(X, points) L^-T [R, S, q, n + p], and the mean [R, S, q]."""
        R, S, q, d = X.shape
        W = self.prior.covariance(X.reshape(R, S * q, d), self.points) @ self.inverse.mT
        mean = self.prior.mean[:, None, None] + (W @ self.whitened[..., None]).reshape(R, S, q)
        return W.reshape(R, S, q, W.shape[-1]), mean

    def with_pending(self, x: Tensor) -> "Posterior":
        """With one more pending point x [R, d]."""
        belief = self.belief(x[:, None, None])
        scaled = (x / self.prior.lengthscale)[:, None]
        W, _ = self._project(scaled[:, None])
        pivot = belief.root[:, 0, :, -1:]
        row = torch.cat([-(W[:, 0] @ self.inverse) / pivot, 1 / pivot], -1)
        column = torch.zeros_like(self.points[..., :1])
        inverse = torch.cat([torch.cat([self.inverse, column], -1), row], 1)
        old = torch.cat([self.pending_root, torch.zeros_like(self.pending_mean)[..., None]], -1)
        return replace(
            self,
            points=torch.cat([self.points, scaled], 1),
            inverse=inverse,
            whitened=torch.cat([self.whitened, torch.zeros_like(belief.mean[:, 0])], 1),
            pending_mean=torch.cat([self.pending_mean, belief.mean[:, 0]], 1),
            pending_root=torch.cat([old, belief.root[:, 0]], 1),
        )


def condition(prior: Prior, x: Tensor, y: Tensor) -> Posterior:
    """The posterior given y [R, n] at x [R, n, d]; a y that is not finite counts as not observed.

    Raises:
        UserError: the covariance of the observations is singular beyond a jitter of 1e-3 (noise 0 and
            repeated points).
    """
    valid = y.isfinite()
    points = x / prior.lengthscale[:, None]
    K = prior.covariance(points, points) + torch.diag_embed(prior.noise_variance[:, None].expand_as(y))
    both = valid[:, :, None] & valid[:, None, :]
    eye = torch.eye(y.shape[1], dtype=x.dtype, device=x.device)
    L = cholesky(torch.where(both, K, eye), "the covariance of the observations")
    inverse = torch.linalg.solve_triangular(L, eye.expand_as(L), upper=False) * both
    residual = torch.where(valid, y - prior.mean[:, None], torch.zeros_like(y))
    whitened = (inverse @ residual[..., None])[..., 0]
    return Posterior(prior, points, inverse, whitened, y[:, :0], y.new_zeros(len(y), 0, 0))
