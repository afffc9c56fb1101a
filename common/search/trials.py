"""The trials of a search: points whose evaluation takes long, ends at any time, and may pause on its way.

All that happens to them is appended to a file at once, so that a search that is killed has lost nothing.
"""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.base.crew import Measured


@dataclass
class Trial:
    """A point of one replicate, and what was measured there.

    Attributes:
        number: among all trials, in the order of their proposals.
        replicate: which function.
        point: in the space, d numbers.
        values: f by the share of the full length at which it was measured.
        said: of one that failed, why.
        running: whether it is under way, or was when the search was killed: towards which share; else None.
    """

    number: int
    replicate: int
    point: tuple[float, ...]
    values: dict[float, float] = field(default_factory=dict)
    said: str | None = None
    running: float | None = None

    @property
    def share(self) -> float:
        """How far it was trained, as a share of the full length."""
        return max(self.values, default=0.0)

    @property
    def value(self) -> float:
        """f where it was measured last; NaN where it was not, or has failed."""
        return self.values[self.share] if self.values else math.nan

    @property
    def whole(self) -> bool:
        """Whether its full length is made."""
        return self.share >= 1.0

    @property
    def failed(self) -> bool:
        """Whether it has come to nothing."""
        return bool(self.values) and not math.isfinite(self.value)


class Trials:
    """All trials so far, in memory and in a file of one JSON object a line.

    Args:
        path: of the file; what stands in it has happened. A last line that is torn has not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[Trial] = []
        # (trial, share) in the order in which they were measured
        self.ended: list[tuple[Trial, float]] = []
        for line in _whole_lines(path):
            self._happened(line)

    def propose(self, replicate: int, point: Sequence[float]) -> Trial:
        """A new trial."""
        self._add({"replicate": replicate, "point": list(point)})
        return self.all[-1]

    def measure(self, measured: Measured) -> None:
        """What came of one."""
        value = measured.value if math.isfinite(measured.value) else None
        self._add({"number": measured.number, "share": measured.share, "value": value, "said": measured.said})

    def start(self, trial: Trial, share: float) -> None:
        """Note that a trial is on its way to a share of its full length."""
        self._add({"number": trial.number, "towards": share})

    def of(self, replicate: int) -> list[Trial]:
        """Those of one replicate."""
        return [trial for trial in self.all if trial.replicate == replicate]

    def running(self) -> list[Trial]:
        """Those that are under way."""
        return [trial for trial in self.all if trial.running is not None]

    def spent(self, count: int | None = None) -> float:
        """What was trained until `count` of `ended` had ended (all), in trainings of full length."""
        made: dict[int, float] = {}
        for trial, share in self.ended[:count]:
            made[trial.number] = max(share, made.get(trial.number, 0.0))
        return sum(made.values())

    def put_aside(self) -> None:
        """Begin anew, with the file under another name."""
        self.path.replace(self.path.with_suffix(".failed.jsonl"))
        self.all, self.ended = [], []

    def _add(self, event: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._happened(event)

    def _happened(self, event: dict[str, Any]) -> None:
        if "point" in event:
            self.all.append(Trial(len(self.all), event["replicate"], tuple(event["point"])))
        elif "towards" in event:
            self.all[event["number"]].running = event["towards"]
        else:
            trial = self.all[event["number"]]
            trial.values[event["share"]] = math.nan if event["value"] is None else event["value"]
            trial.said, trial.running = event["said"], None
            self.ended.append((trial, event["share"]))


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, which then ends with a whole line."""
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        with path.open("rb+") as file:
            file.truncate(len(whole))
    for line in whole.decode().splitlines():
        yield json.loads(line)
