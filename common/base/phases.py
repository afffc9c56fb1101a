"""What a run does before, between and after its steps, by name, so that whoever waits can be told."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class Phase:
    """One thing that takes its time.

    Attributes:
        name: as a sentence goes on: "reading cifar10".
        done, total: how much of it is done, of how much; total 0 where it has no parts.
        unit: of both.
        started: by the monotonic clock, in seconds.
    """

    name: str
    done: int = 0
    total: int = 0
    unit: str = ""
    started: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.name}, {self.done:,}/{self.total:,} {self.unit}".rstrip() if self.total else self.name


_under_way: list[Phase] = []


@contextmanager
def phase(name: str, total: int = 0, unit: str = "") -> Iterator[Phase]:
    """Do something that has a name; phases may stand within each other.

    Args:
        name, total, unit: see `Phase`.
    """
    found = Phase(name, total=total, unit=unit)
    _under_way.append(found)
    try:
        yield found
    finally:
        # by itself: a generator that nobody has read to its end closes late
        _under_way.remove(found)


def innermost() -> Phase | None:
    """The phase under way that began last; None outside all."""
    return _under_way[-1] if _under_way else None


def counted(items: Iterable[T], name: str, total: int, unit: str = "") -> Iterator[T]:
    """The items one after the other, as a phase of `total` parts."""
    with phase(name, total, unit) as found:
        for item in items:
            yield item
            found.done += 1
