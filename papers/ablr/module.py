"""The searches as LightningModules, with the numbers of the figures; and seconds of fits as data grow."""

import time
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import numpy as np
import torch

from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.numerics.sampling import ReplicateSampler
from common.search.module import SearchModule, SearchSettings
from common.search.searcher import Searcher, Task
from papers.ablr.model import Points
from papers.ablr.searcher import ModelSearch
from papers.ablr.signals import TunedMLP
from papers.ablr.tasks import Quadratics, TransferObjective

# evaluations after which the figures are read
READ_AT = (1, 2, 3, 5, 10, 20, 30, 50)


def make_module(
    *,
    method: Searcher,
    measure: Literal["search", "time"],
    points: Sequence[int],
    **settings: Unpack[SearchSettings],
) -> PaperModule:
    """A search (`ABLRModule`), or how long a fit takes (`TimeModule`).

    Args:
        points: of `time`: evaluations of each task, ascending.

    Raises:
        UserError: a value out of range.
    """
    if measure == "search":
        return ABLRModule(method=method, **settings)
    if not isinstance(method, ModelSearch) or not isinstance(settings["data"], Quadratics):
        raise UserError("paper.measure=time: valid: a method with a model, and dataset=quadratics")
    return TimeModule(settings["data"], settings["model"], method, settings["seed"], list(points))


class ABLRModule(SearchModule):
    """See `SearchModule`; of tuned networks also the test error at the best validation error."""

    def results(self) -> dict[str, Any]:
        """And the simple regret, or the best value, after some of the evaluations."""
        found = super().results() | self.read_at(READ_AT, "regret")
        if self.optimum is not None:
            found |= {name.replace("simple_regret", "regret"): found[name] for name in list(found) if
                      name.startswith("simple_regret")}  # fmt: skip
        if isinstance(self.data, TransferObjective) and self.data.metric == "error":
            found |= self.mean_and_error("error", -self.best_of_first(self.seen.count))
        if isinstance(self.data, TunedMLP):
            found |= self.mean_and_error("test_error", self.data.test_errors())
        return found

    def search_state(self) -> dict[str, Any]:
        state = super().search_state()
        return state | ({"told": self.data.told_state()} if isinstance(self.data, TunedMLP) else {})

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        if isinstance(self.data, TunedMLP):
            self.data.load_told(state["told"])


class TimeModule(PaperModule):
    """Seconds of one fit to all tasks of a family and one's own, as the points of each task grow.

    A fit that was made is not made again when a killed run goes on. `slope_of_seconds` is that of log
    seconds against log points.
    """

    data: Quadratics

    def __init__(
        self, data: Quadratics, model: Any, method: ModelSearch, seed: int, points: list[int]
    ) -> None:
        super().__init__()
        if not points or min(points) < 1 or points != sorted(points):
            raise UserError(f"paper.points={points}; valid: numbers of at least 1, ascending")
        self.data, self.model, self.method, self.seed, self.points = data, model, method, seed, points
        self.seconds: list[float] = []

    def setup(self, stage: str) -> None:
        self.data.setup(stage)

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One fit."""
        count = self.points[len(self.seconds)]
        self.data.points = count
        self.data.draw([self.seed])
        device = torch.device("cpu")
        random = ReplicateSampler(self.seed, 1, None, device, torch.float64)
        self.method.load_state_dict({"kept": {}})
        self.method.start(Task(self.data, self.model, [self.seed], count, random, device))
        x = self.data.space.scaled(random.uniform(count * self.data.space.dim).reshape(count, -1))
        own = Points(self.method.encoded(0, x), self.method.transformed(self.data.values(x[None])[0]))
        began = time.perf_counter()
        self.method.belief(0, own)
        self.seconds.append(time.perf_counter() - began)
        self.record(count, seconds=self.seconds[-1])
        self.trainer.should_stop = len(self.seconds) == len(self.points)

    def progress(self) -> Progress:
        return Progress(len(self.seconds), len(self.points), "fits", "")

    def results(self) -> dict[str, Any]:
        """`seconds` of the last fit, `seconds_at_n` of each, and `slope_of_seconds`."""
        found: dict[str, Any] = {"seconds": self.seconds[-1]}
        found |= {f"seconds_at_{n}": s for n, s in zip(self.points, self.seconds, strict=True)}
        if len(self.points) > 1:
            found["slope_of_seconds"] = float(np.polyfit(np.log(self.points), np.log(self.seconds), 1)[0])
        return found

    def search_state(self) -> dict[str, Any]:
        return {"seconds": list(self.seconds)}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.seconds = list(state["seconds"])
