"""Small plots of claims, drawn by a template: a dot for every run, and what the claim holds it against."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from common.claims.claims import Bound, Claim, Identity, Paired, Trend
from common.claims.judge import Verdict
from common.report.figures import PANEL_SERIES, with_unit
from common.report.model import title_of
from common.runs.result import number
from common.tables.tables import load_tables

WIDTH, LEFT, RIGHT, ROW = 320, 8, 312, 26
# dots nearer than this would hide each other: they stand one above the other (in a trend beside it), so far
# apart, within so much
NEAR, APART, WITHIN = 3.0, 5.0, 18.0


@dataclass(frozen=True)
class Dot:
    """A point of a small plot, in its pixels, and the series that it belongs to."""

    x: float
    y: float
    series: int


@dataclass(frozen=True)
class ClaimPlot:
    """A small plot: for a trend the metric along the series, else a row of dots for each series.

    Attributes:
        rules: x of vertical lines (the bound, or what an equality is to).
        paths: SVG points of the line through each series' means.
        ticks: (x, text) below; sides: (y, text) at the left.
        caption: what is drawn, with its unit, and what the lines are.
    """

    height: int
    labels: list[str]
    dots: list[Dot]
    paths: list[tuple[int, str]]
    rules: list[float]
    ticks: list[tuple[float, str, str]]
    sides: list[tuple[float, str]]
    alt: str
    caption: str = ""


def claim_plot(claim: Claim, verdict: Verdict) -> ClaimPlot | None:
    """The plot of a claim's runs; None where there are none."""
    points = [(side, x, y) for side, x, y in verdict.points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return None
    sides = list(dict.fromkeys(side for side, _, _ in points))
    alt = f"Values of {claim.rule.metric}. " + " ".join(
        f"{side}: {', '.join(number(y) for s, _, y in points if s == side)}." for side in sides
    )
    if isinstance(claim.rule, Trend):
        log = claim.rule.slope is not None
        caption = f"{_titled(claim)} against {claim.rule.axis}" + (", both axes logarithmic" if log else "")
        return _trend_plot(points, sides, alt, caption, log)
    return _strip_plot(claim, points, sides, alt)


def _titled(claim: Claim) -> str:
    """A claim's metric with its unit."""
    return with_unit(title_of(claim.paper, _name_of(claim)), unit_of(claim))


def _name_of(claim: Claim) -> str:
    """The name of a claim's metric in the paper's tables, where they have it by one name alone."""
    metric, named = claim.rule.metric, _in_tables(claim)
    return metric if metric in named or len(named) != 1 else next(iter(named))


def unit_of(claim: Claim) -> str | None:
    """The unit of a claim's metric, which the paper's tables know where they have the metric."""
    units = set().union(*_in_tables(claim).values())
    return units.pop() if len(units) == 1 else None


def _in_tables(claim: Claim) -> dict[str, set[str]]:
    """The names that the paper's tables have for a claim's metric, with their units."""
    found: dict[str, set[str]] = {}
    for table in load_tables(claim.paper)["tables"]:
        for name, spec in table["metrics"].items():
            if spec.get("result", name) == claim.rule.metric:
                found.setdefault(name, set()).add(spec["unit"])
    return found


Points = list[tuple[str, float, float]]


def _strip_plot(claim: Claim, points: Points, sides: list[str], alt: str) -> ClaimPlot:
    marks, held_against = _target(claim)
    values = [y for _, _, y in points] + marks
    place = scale_of(values, LEFT + 6, RIGHT - 6)
    dots = [
        Dot(x, ROW * index + 20 + aside, index % PANEL_SERIES)
        for index, side in enumerate(sides)
        for x, aside in _spread([place(y) for name, _, y in points if name == side])
    ]
    height = ROW * len(sides) + 26
    ends = [(float(LEFT), number(min(values)), "start"), (RIGHT, number(max(values)), "end")]
    ticks = ends if max(values) > min(values) else [(place(values[0]), number(values[0]), "middle")]
    rules = [place(mark) for mark in marks]
    caption = f"{_titled(claim)}, one dot a run{held_against}"
    return ClaimPlot(height, sides, dots, [], rules, ticks, [], alt, caption)


def _target(claim: Claim) -> tuple[list[float], str]:
    """What the runs of a bound or an equality are held against: the number to mark, and words on it."""
    rule = claim.rule
    if isinstance(rule, Bound):
        words, within = f"the bound, at {'most' if rule.at_most is not None else 'least'}", ""
        limit = rule.at_most if rule.at_most is not None else rule.at_least
    elif isinstance(rule, Identity):
        words, limit, within = "the claimed value,", rule.equals, f" to within {number(rule.tolerance)}"
    elif isinstance(rule, Paired) and rule.than is not None:
        words, limit, within = "what it is compared with,", rule.than, ""
    else:
        return [], ""
    if isinstance(limit, int | float):
        return [float(limit)], f"; dashed: {words} {number(limit)}{within}"
    return [], f"; not drawn: {words} {limit} of the same run{within}"


def _spread(xs: list[float]) -> list[tuple[float, float]]:
    """Dots at places along a line, each with how far it stands aside so that none lies on another."""
    clusters: list[list[float]] = []
    for x in sorted(xs):
        if clusters and x - clusters[-1][0] < NEAR:
            clusters[-1].append(x)
        else:
            clusters.append([x])
    found = []
    for cluster in clusters:
        step = min(APART, WITHIN / max(len(cluster) - 1, 1))
        found += [(x, step * (i - (len(cluster) - 1) / 2)) for i, x in enumerate(cluster)]
    return found


def _trend_plot(points: Points, sides: list[str], alt: str, caption: str, log: bool) -> ClaimPlot:
    """The metric along the series; logarithmic where the claim is about the slope of logarithms."""
    left, height = 62, 150
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    across = scale_of(xs, left + 6 + WITHIN / 2, RIGHT - 8 - WITHIN / 2, log)
    up = scale_of(ys, height - 34, 10, log)
    dots = []
    for at in dict.fromkeys(xs):
        # those that would hide each other stand beside each other
        column = sorted(
            ((up(y), sides.index(side)) for side, x, y in points if x == at), key=lambda one: one[0]
        )
        spread = _spread([y for y, _ in column])
        dots += [
            Dot(across(at) + aside, y, series % PANEL_SERIES)
            for (y, aside), (_, series) in zip(spread, column, strict=True)
        ]
    paths = []
    for index, side in enumerate(sides):
        means = [
            (across(x), up(statistics.fmean(y for s, at, y in points if s == side and at == x)))
            for x in sorted({at for s, at, _ in points if s == side})
        ]
        paths.append((index % PANEL_SERIES, " ".join(f"{x:.1f},{y:.1f}" for x, y in means)))
    ticks = [(across(x), number(x), "middle") for x in dict.fromkeys((min(xs), max(xs)))]
    texts = [(up(value), f"{value:.3g}") for value in dict.fromkeys((max(ys), min(ys)))]
    return ClaimPlot(height, sides, dots, paths, [], ticks, texts, alt, caption)


def scale_of(values: list[float], low: float, high: float, log: bool = False) -> Callable[[float], float]:
    """A map of values to pixels; logarithmic if it shall be and all values are positive."""
    bend: Callable[[float], float] = math.log if log and min(values) > 0 else float
    first, last = bend(min(values)), bend(max(values))
    width = last - first
    if width == 0:
        return lambda value: (low + high) / 2
    return lambda value: low + (high - low) * (bend(value) - first) / width
