"""What searches have tried, and the curves that follow: the mean of the ten best, the best so far."""

import bisect
import math
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Trials:
    """All trials of R replicates in their order.

    Attributes:
        tasks: int64 [R, t].
        codes: int64 [R, t, L].
        scores: validation and test, float64 [R, t, 2]; NaN where a trial failed.
    """

    tasks: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    codes: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, dtype=torch.int64))
    scores: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 2, dtype=torch.float64))
    # batches that are not joined yet
    waiting: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, tasks: Tensor, codes: Tensor, scores: Tensor) -> None:
        """Append a batch [R, B]."""
        self.waiting.append((tasks, codes, scores))

    def joined(self) -> "Trials":
        """The same with all batches in its tensors."""
        if self.waiting:
            own = [(self.tasks, self.codes, self.scores)] if self.tasks.shape[1] else []
            parts = zip(*[*own, *self.waiting], strict=True)
            self.tasks, self.codes, self.scores = (torch.cat(part, 1) for part in parts)
            self.waiting = []
        return self


class TaskCurves:
    """Of one replicate on one task, by its own trials n = 1, 2, ...

    A design that is tried again is another model: the mean of the best counts both, as the paper's does.

    Args:
        top: how many models the mean is over.

    Attributes:
        top_mean: the mean validation score of the best `top` trials so far; NaN before there are so many.
        best, best_test: the largest validation score so far, and the test score of that design.
        designs: how many different ones so far.
    """

    def __init__(self, top: int) -> None:
        self.size = top
        self.seen: set[Hashable] = set()
        # validation, minus the number of the trial, test; the worst first, of equal ones the later
        self.ranked: list[tuple[float, int, float]] = []
        self.top_mean: list[float] = []
        self.best: list[float] = []
        self.best_test: list[float] = []
        self.designs: list[int] = []

    def add(self, key: Hashable, validation: float, test: float) -> None:
        """One more trial; a score that is not finite only counts as a trial."""
        self.seen.add(key)
        if math.isfinite(validation):
            bisect.insort(self.ranked, (validation, -len(self.designs), test))
            if len(self.ranked) > self.size:
                self.ranked.pop(0)
        full = len(self.ranked) == self.size
        self.top_mean.append(sum(one[0] for one in self.ranked) / self.size if full else math.nan)
        best = self.ranked[-1] if self.ranked else (math.nan, 0, math.nan)
        self.best.append(best[0])
        self.best_test.append(best[2])
        self.designs.append(len(self.seen))

    @property
    def top_test(self) -> float:
        """The mean test score of the trials that are best by validation; NaN before there are so many."""
        full = len(self.ranked) == self.size
        return sum(one[2] for one in self.ranked) / self.size if full else math.nan

    def at(self, series: list[float], trial: int) -> float:
        """A curve's value after so many trials, or after the last."""
        return series[min(trial, len(series)) - 1] if series else math.nan

    def trials_of(self, designs: int) -> int:
        """How many trials tried no more than so many different designs."""
        return bisect.bisect_right(self.designs, designs)

    def reached(self, level: float) -> int | None:
        """The first trial, from 1, after which the mean of the best is at a level; None: none."""
        return next((n for n, value in enumerate(self.top_mean, 1) if value >= level), None)
