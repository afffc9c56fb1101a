"""Small plots of an arena: a row for each contestant, its mean as a dot on its interval over seeds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from common.claims.arena import ArenaField, FieldStandings
from common.claims.judge import Interval
from common.report.claim_plots import scale_of
from common.report.figures import far_apart
from common.runs.result import number

WIDTH, LEFT, RIGHT, ROW, FOOT = 380, 150, 366, 20, 24
# characters of a contestant's name that fit beside its row; in pixels one
NAME, SIGN = 30, 6.2


@dataclass(frozen=True)
class Row:
    """A contestant in pixels: its mean at `x`, its interval from `low` to `high`."""

    name: str
    y: float
    x: float
    low: float
    high: float


@dataclass(frozen=True)
class Whiskers:
    """A plot for a template; `ticks` are (x, text, anchor) below it, `alt` says its numbers in words.

    Attributes:
        left: where the names end and the axis begins.
    """

    title: str
    left: int
    height: int
    rows: list[Row]
    ticks: list[tuple[float, str, str]]
    alt: str


def field_plots(field: ArenaField, found: FieldStandings) -> Iterator[Whiskers]:
    """The plots of a field: of the rank, and of what was measured on the grounds.

    With one ground every measure is drawn, with several the one that decides, on each.
    """
    if not found.rank:
        return
    first = field.measures[field.first]
    yield whiskers(f"rank by {first.says} (1 is best)", found.rank, bend=False)
    one_ground = len(found.by_ground) == 1
    for ground, standing in found.by_ground.items():
        for measure in field.measures if one_ground else [field.first]:
            spec = field.measures[measure]
            title = f"{ground}: {spec.label}, {spec.better} is better"
            yield whiskers(title, {name: standing[name].measured[measure] for name in found.rank})


def whiskers(title: str, intervals: dict[str, Interval], bend: bool = True) -> Whiskers:
    """A plot of intervals by name, from the top down; one that nothing bounds is its mean alone.

    Args:
        title: what it shows.
        intervals: by contestant.
        bend: whether positive means that are far apart stand on a logarithmic axis, where an interval
            that reaches 0 goes to the edge.
    """
    ends = {
        name: (one.low, one.high) if one.bounded else (one.mean, one.mean) for name, one in intervals.items()
    }
    log = bend and far_apart([one.mean for one in intervals.values()])
    values = [value for name, one in intervals.items() for value in (one.mean, *ends[name])]
    drawn = [value for value in values if value > 0] if log else values
    low, high = min(drawn), max(drawn)
    left = max(LEFT, round(SIGN * max(len(shortened(name)) for name in intervals)) + 12)
    place = scale_of(drawn, left + 8, RIGHT - 8, log)
    rows = [
        Row(shortened(name), ROW * index + 14, place(one.mean), place(max(start, low)), place(end))
        for index, (name, one) in enumerate(intervals.items())
        for start, end in [ends[name]]
    ]
    ticks = [(float(left + 8), _short(low), "start"), (float(RIGHT - 8), _short(high), "end")]
    if low == high:
        ticks = [(place(low), _short(low), "middle")]
    said = ". ".join(f"{name}: {one}" for name, one in intervals.items())
    cut = len(drawn) < len(values)
    note = (", logarithmic" if log else "") + (", what reaches 0 goes to the left edge" if cut else "")
    return Whiskers(title + note, left, ROW * len(rows) + FOOT, rows, ticks, f"{title}. {said}.")


def shortened(name: str) -> str:
    """A name that fits beside its row."""
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


def _short(value: float) -> str:
    """A tick of three digits."""
    return number(value) if value == 0 or not math.isfinite(value) else number(float(f"{value:.3g}"))
