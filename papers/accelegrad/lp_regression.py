"""Linear regression in the p-norm: the objective of a convex programme, as a module."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.shapes import require_no_classes


class LpRegression(nn.Module):
    """f(x) = sum_i |a_i'x - b_i|^p from x = 0, in float64; the parameter is the point.

    Args:
        shape: (d,).
        classes: None.
        p: 1 (least absolute deviations, not smooth) or 2 (least squares).

    Raises:
        UserError: classes, or another p.
    """

    task: ClassVar[Literal["convex"]] = "convex"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, p: int) -> None:
        super().__init__()
        require_no_classes("lp_regression", classes)
        if len(shape) != 1:
            raise UserError(f"model: lp_regression takes rows of numbers, not inputs of shape {shape}")
        if p not in (1, 2):
            raise UserError(f"model.p={p}; valid: 1 or 2")
        self.p = p
        self.x = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [b, d] to a_i'x: [b]."""
        return rows.to(self.x.dtype) @ self.x

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """sum |prediction - target|^p, both [b]; a scalar."""
        return (prediction - target).abs().pow(self.p).sum()
