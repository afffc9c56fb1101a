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
"""

from dataclasses import dataclass
from typing import Literal

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

    Args:
        Phi: [T, N, D]; y: [T, N]; valid: which points are none of the padding, bool [T, N].
        alpha, beta: [T], positive.
    """
    Phi = Phi * valid[..., None]
    y = torch.where(valid, y, torch.zeros_like(y))
    count, ratio = valid.sum(1), beta / alpha
    inner = Phi.mT @ Phi if form == "primal" else Phi @ Phi.mT
    eye = torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
    L = torch.linalg.cholesky(eye + ratio[:, None, None] * inner)
    half_log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    if form == "primal":
        m = ratio[:, None] * torch.cholesky_solve(Phi.mT @ y[..., None], L)[..., 0]
        rest = (y - (Phi @ m[..., None])[..., 0]).square().sum(1)
        fit = 0.5 * (beta * rest + alpha * m.square().sum(1))
    else:
        e = torch.linalg.solve_triangular(L, y[..., None], upper=False)
        m = ratio[:, None] * (Phi.mT @ torch.linalg.solve_triangular(L.mT, e, upper=True))[..., 0]
        fit = 0.5 * beta * e.square().sum((1, 2))
    criterion = -0.5 * count * beta.log() + fit + half_log_det
    return Heads(form, criterion, m, L, Phi, alpha, ratio)
