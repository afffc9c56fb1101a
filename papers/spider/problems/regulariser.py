"""Regularisers of linear models, in closed form."""

from typing import Literal

import torch
from torch import Tensor

# sup |r'''| / alpha of w^2 / (1 + w^2), whose third derivative is 24 w (w^2 - 1) / (1 + w^2)^4;
# its extrema solve 5 w^4 - 10 w^2 + 1 = 0
_THIRD = 4.6686


class Regulariser:
    """Penalty r(w), a sum over the first `columns` of the last axis of a point.

    - none: 0
    - l2: (alpha / 2) ||w||^2
    - nonconvex: alpha sum_j w_j^2 / (1 + w_j^2), with second derivative
      2 alpha (1 - 3 w^2) / (1 + w^2)^3 in [-alpha / 2, 2 alpha]

    Args:
        kind, alpha: as above.
        columns: how many coordinates are penalised: all but a bias at the end.
    """

    def __init__(self, kind: Literal["none", "l2", "nonconvex"], alpha: float, columns: int) -> None:
        self.kind, self.alpha, self.columns = kind, alpha, columns

    @property
    def smoothness(self) -> float:
        """Least L of the penalty's gradient."""
        return {"none": 0.0, "l2": self.alpha, "nonconvex": 2 * self.alpha}[self.kind]

    @property
    def hessian_lipschitz(self) -> float:
        """Least Lipschitz constant of the penalty's Hessian."""
        return _THIRD * self.alpha if self.kind == "nonconvex" else 0.0

    def value(self, w: Tensor) -> Tensor:
        """r(w), summed over the last axis."""
        w = self._part(w)
        if self.kind == "l2":
            return self.alpha / 2 * w.square().sum(-1)
        if self.kind == "nonconvex":
            square = w.square()
            return self.alpha * (square / (1 + square)).sum(-1)
        return w.new_zeros(w.shape[:-1])

    def add_gradient(self, gradient: Tensor, w: Tensor, scale: float) -> Tensor:
        """gradient + scale * grad r(w), in place."""
        part, target = self._part(w), self._part(gradient)
        if self.kind == "l2":
            target.add_(part, alpha=scale * self.alpha)
        elif self.kind == "nonconvex":
            target.addcdiv_(part, part.square().add_(1.0).square_(), value=2 * scale * self.alpha)
        return gradient

    def _part(self, w: Tensor) -> Tensor:
        """The penalised columns, as a view."""
        return w if self.columns == w.shape[-1] else w[..., : self.columns]

    def hvp(self, w: Tensor, v: Tensor) -> Tensor:
        """Hess r(w) v."""
        product = torch.zeros_like(v)
        part, direction, target = self._part(w), self._part(v), self._part(product)
        if self.kind == "l2":
            target.copy_(self.alpha * direction)
        elif self.kind == "nonconvex":
            square = part.square()
            second = 2 * self.alpha * (1 - 3 * square) / (1 + square) ** 3
            target.copy_(second * direction)
        return product
