"""No data at all: for entries that compute something from formulas alone."""

from typing import ClassVar

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.objective import Objective, box


class NoData(Objective):
    """d numbers without a meaning, in [-1/2, 1/2]^d; evaluating them is an error of the caller's.

    Args:
        kind: must be `no_data`.
        dim: d >= 1.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "no_data"
    KIND: ClassVar = "no_data"

    def __init__(self, *, kind: str, dim: int) -> None:
        check("kind", kind, kind == "no_data", "must be no_data")
        check("dim", dim, dim >= 1, "give at least 1")
        super().__init__(kind="objective", space=box(dim, -0.5, 0.5), noise=0.0)

    def draw(self, seeds: list[int]) -> None:
        """Nothing."""

    def values(self, x: Tensor) -> Tensor:
        return torch.full(x.shape[:2], torch.nan, dtype=torch.float64, device=x.device)

    def optimum(self) -> None:
        return None
