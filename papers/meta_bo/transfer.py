"""Objectives that come with training functions of their own family, evaluated before the search."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.objective import Objective, Space

# the seed of what is drawn once for a family: training functions, which entries are missing
FAMILY_SEED = 20_181


@dataclass(frozen=True)
class TrainingFunctions:
    """Evaluations of N functions at the same m points.

    Attributes:
        y: noisy values, float64 [N, m]; NaN where one is missing.
        x: the points, [m, d]; None: all arms of the space, m = M.
        kept: which functions a replicate may learn from, bool [R, N]; None: all of them, every replicate.
    """

    y: Tensor
    x: Tensor | None
    kept: Tensor | None

    def counts(self, replicates: int) -> list[int]:
        """How many functions each replicate has."""
        if self.kept is None:
            return [len(self.y)] * replicates
        return [int(count) for count in self.kept.sum(1)]


class MetaObjective(Objective):
    """Functions of a family, of which N' others were evaluated before.

    Args:
        kind, space, noise: as for every objective.
        portion: a replicate learns from the first int(portion N') of its N' training functions.
        missing: each training value is missing with this probability (by a fixed seed).

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, *, kind: str, space: Space, noise: float, portion: float, missing: float) -> None:
        super().__init__(kind=kind, space=space, noise=noise)
        check("portion", portion, 0 < portion <= 1, "give a number above 0, at most 1")
        check("missing", missing, 0 <= missing < 1, "give a number from 0 to below 1")
        self.portion, self.missing = portion, missing

    @abstractmethod
    def family(self) -> tuple[Tensor, Tensor | None]:
        """All evaluations of training functions, y [N, m], and their points as in `TrainingFunctions`."""

    def left_out(self) -> list[int] | None:
        """Of each replicate, the row of `family` that is its own function; None where there are none."""
        return None

    def training(self) -> TrainingFunctions:
        """What each replicate may learn from: without its own function, the first part, with gaps."""
        y, x = self.family()
        if self.missing:
            y = y.masked_fill(self._gaps(y), torch.nan)
        own = self.left_out()
        if own is None:
            y, kept = y[: int(self.portion * len(y))], None
        else:
            kept = _leave_one_out(len(y), own, self.portion).to(y.device)
            used = kept.any(0)
            y, kept = y[used], kept[:, used]
        return TrainingFunctions(y, x, kept)

    def _gaps(self, y: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(FAMILY_SEED)
        return (torch.rand(y.shape, generator=generator) < self.missing).to(y.device)


def _leave_one_out(count: int, own: list[int], portion: float) -> Tensor:
    """bool [R, N]: the first int(portion (N - 1)) rows of those that are not row own[r]."""
    rows = torch.arange(count).expand(len(own), count)
    others = rows != torch.tensor(own)[:, None]
    return others & (others.cumsum(1) <= int(portion * (count - 1)))
