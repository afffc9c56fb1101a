"""What a search has evaluated so far."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from common.architectures.space import A, ArchitectureSpace


@dataclass(frozen=True)
class Evaluated(Generic[A]):
    """An architecture and what came out.

    Attributes:
        architecture: what was evaluated.
        measures: its score and other numbers by name; no score, or NaN, where it failed.
        costs: see `ArchitectureObjective.count`.
        seconds: that the evaluation took.
        failure: why it failed, in one line; None where it did not.
    """

    architecture: A
    measures: dict[str, float]
    costs: dict[str, float]
    seconds: float
    failure: str | None = None

    @property
    def score(self) -> float:
        """What is maximised; NaN where the evaluation failed."""
        return self.measures.get("score", math.nan)

    @property
    def valid(self) -> bool:
        """Whether there is a finite score."""
        return math.isfinite(self.score)

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN is null."""
        measures = {name: value if math.isfinite(value) else None for name, value in self.measures.items()}
        return {
            "architecture": self.architecture.to_json(),
            "measures": measures,
            "costs": self.costs,
            "seconds": self.seconds,
            "failure": self.failure,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], space: ArchitectureSpace[A]) -> "Evaluated[A]":
        """The inverse of `to_json`."""
        measures = {name: math.nan if value is None else value for name, value in data["measures"].items()}
        architecture = space.from_json(data["architecture"])
        return cls(architecture, measures, data["costs"], data["seconds"], data["failure"])


@dataclass
class Record(Generic[A]):
    """All evaluations of a search, in the order of their proposals.

    Attributes:
        items: what was evaluated.
        keys: of these architectures.
        pending: what is proposed and not yet evaluated: the earlier proposals of a round.
    """

    items: list[Evaluated[A]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    pending: list[A] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Evaluated[A]]:
        return iter(self.items)

    def add(self, item: Evaluated[A]) -> None:
        """Append an evaluation."""
        self.items.append(item)
        self.keys.add(item.architecture.key)

    def best(self, count: int) -> list[Evaluated[A]]:
        """The valid ones with the largest scores, best first; the earlier of equal ones first."""
        return sorted((item for item in self.items if item.valid), key=lambda item: -item.score)[:count]

    def last(self, count: int) -> list[Evaluated[A]]:
        """The latest `count` of the valid ones."""
        return [item for item in self.items if item.valid][-count:]

    def to_json(self) -> list[dict[str, Any]]:
        """All as plain data."""
        return [item.to_json() for item in self.items]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]], space: ArchitectureSpace[A]) -> "Record[A]":
        """The inverse of `to_json`."""
        record: Record[A] = cls()
        for item in data:
            record.add(Evaluated.from_json(item, space))
        return record


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Of points (cost, score) the numbers of those that no other is better than, by rising cost.

    A point is left out where another costs no more and scores no less, and one of both really. Of equal
    points the first stays.
    """
    front: list[int] = []
    best = -math.inf
    for number in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1], k)):
        if points[number][1] > best:
            best = points[number][1]
            front.append(number)
    return front
