"""Bayesian linear regression of many tasks at once, in its two forms.

    y | w ~ N(Phi w, I / beta),   w ~ N(0, I / alpha),   r = beta / alpha,   Phi [N, D]

primal, K = I_D + r Phi'Phi = L L', e = L^-1 Phi'y, m = r L^-T e:
    criterion   -N/2 log beta + 1/2 (beta |y - Phi m|^2 + alpha |m|^2) + sum log L_ii
    mean        phi(x)'m          variance   |L^-1 phi(x)|^2 / alpha
dual,   K = I_N + r Phi Phi' = L L', e = L^-1 y, m = r Phi' L^-T e:
    criterion   -N/2 log beta + beta/2 |e|^2 + sum log L_ii
    mean        phi(x)'m          variance   (|phi(x)|^2 - r |L^-1 Phi phi(x)|^2) / alpha

The criterion is the negative log evidence without N/2 log(2 pi). Both forms are the same numbers, at
O(N D^2 + D^3) and O(N^2 D + N^3). In the primal |y|^2 - r |e|^2 would cancel for large r: the sum of squares
above is the same, and never negative. All is float64.

Gradients are those of the formulas, not of their steps. With a = y - Phi m (dual: K^-1 y) and c the trace of
I - K^-1, in both forms
    d/dPhi = r Phi K^-1 - beta a m'  (dual: r K^-1 Phi - beta a m')     d/dy = beta a
    beta d/dbeta = -N/2 + beta |a|^2 / 2 + c/2        alpha d/dalpha = alpha |m|^2 / 2 - c/2
as m minimises beta |y - Phi m|^2 + alpha |m|^2, so that its own change counts for nothing.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Form = Literal["primal", "dual"]


@dataclass(frozen=True)
class Heads:
    """The posteriors of T tasks.

    Attributes:
        criterion: [T]; mean: of the weights, m [T, D].
        form, L, Phi: of the posterior's variance, see above. alpha, ratio: alpha and r, [T].
    """

    form: Form
    criterion: Tensor
    mean: Tensor
    L: Tensor
    Phi: Tensor
    alpha: Tensor
    ratio: Tensor

    def predict(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each task's function (without noise) at features phi [C, D]: [T, C] each."""
        points = phi.expand(len(self.alpha), -1, -1)
        mean = (points @ self.mean[..., None])[..., 0]
        right = points.mT if self.form == "primal" else self.Phi @ points.mT
        spread = torch.linalg.solve_triangular(self.L, right, upper=False).square().sum(1)
        if self.form == "primal":
            return mean, spread / self.alpha[:, None]
        squares = points.square().sum(-1)
        return mean, ((squares - self.ratio[:, None] * spread) / self.alpha[:, None]).clamp_min(0.0)


def heads(Phi: Tensor, y: Tensor, valid: Tensor, alpha: Tensor, beta: Tensor, form: Form) -> Heads:
    """The posteriors of T tasks whose points are padded to one number.

    The criterion can be differentiated once in Phi, y, alpha and beta; mean and L are constants to autograd.

    Args:
        Phi: [T, N, D]; y: [T, N]; valid: which points are none of the padding, bool [T, N].
        alpha, beta: [T], positive.
    """
    if not bool(valid.all()):
        Phi = torch.where(valid[..., None], Phi, torch.zeros((), dtype=Phi.dtype))
        y = torch.where(valid, y, torch.zeros((), dtype=y.dtype))
    criterion, m, L = _Evidence.apply(Phi, y, valid.sum(1), alpha, beta, form)
    return Heads(form, criterion, m, L, Phi, alpha, beta / alpha)


class _Evidence(torch.autograd.Function):
    """The criterion [T], the mean of the weights [T, D] and L; see the head of the module."""

    @staticmethod
    def forward(
        ctx: Any, Phi: Tensor, y: Tensor, count: Tensor, alpha: Tensor, beta: Tensor, form: Form
    ) -> tuple[Tensor, Tensor, Tensor]:
        ratio = beta / alpha
        K = ratio[:, None, None] * (Phi.mT @ Phi if form == "primal" else Phi @ Phi.mT)
        K.diagonal(dim1=-2, dim2=-1).add_(1.0)
        L = torch.linalg.cholesky(K)
        if form == "primal":
            m = ratio[:, None] * torch.cholesky_solve(Phi.mT @ y[..., None], L)[..., 0]
            rest = y - (Phi @ m[..., None])[..., 0]
            fit = 0.5 * (beta * rest.square().sum(1) + alpha * m.square().sum(1))
        else:
            e = torch.linalg.solve_triangular(L, y[..., None], upper=False)
            rest = torch.linalg.solve_triangular(L.mT, e, upper=True)[..., 0]
            m = ratio[:, None] * (Phi.mT @ rest[..., None])[..., 0]
            fit = 0.5 * beta * e.square().sum((1, 2))
        ctx.form = form
        ctx.save_for_backward(Phi, rest, m, L, count, alpha, beta)
        ctx.mark_non_differentiable(m, L)
        half_log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * count * beta.log() + fit + half_log_det, m, L

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        Phi, rest, m, L, count, alpha, beta = ctx.saved_tensors
        by, inverse = grads[0], torch.cholesky_inverse(L)
        scaled = (by * beta / alpha)[:, None, None] * inverse
        by_y = (by * beta)[:, None] * rest
        by_Phi = Phi @ scaled if ctx.form == "primal" else scaled @ Phi
        by_Phi.baddbmm_(by_y[..., None], m[:, None], alpha=-1.0)
        half_trace = 0.5 * (L.shape[-1] - inverse.diagonal(dim1=-2, dim2=-1).sum(-1))
        by_alpha = by * (0.5 * m.square().sum(1) - half_trace / alpha)
        by_beta = by * (0.5 * rest.square().sum(1) + (half_trace - 0.5 * count) / beta)
        return by_Phi, by_y, None, by_alpha, by_beta, None
