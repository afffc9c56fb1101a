"""Figures redrawn from the runs, as SVG that follows the reader's light or dark mode.

A table whose grid has a numeric axis gives its metrics against that axis, one with a `plane` a metric against
another, any other one its first metric row by row; and any table gives the learning curves of its entries,
where they are of one quantity. Each panel is a file of its own, so that a page can set them side by side or
below each other. Colours are those of the light mode, which any program draws; a rule inside the SVG gives a
browser the dark ones. Series also differ by marker, dash and width, so that none hides another.
"""

import io
import itertools
import math
import re
import statistics
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from common.claims.judge import mean_interval
from common.report.model import Axis, Measured, Result, Row, Table, spaced
from common.runs.result import number
from common.tables.checked import SMOKE

History = dict[str, list[float | None]]

PANEL_SERIES = 8
# of searches, the fewest seeds whose mean has an interval that says something
BAND_SEEDS = 3
# what the steps of a search are
EVALUATIONS, EXAMPLES, ITERATIONS = "evaluations", "examples", "iterations"
# a metric best_at_10 is the curve `best` after 10 steps
AT = "_at_"
# a metric f_final is where the curve `f` ends
FINAL = "_final"
# the curve of a search: its largest value so far, whichever way the metric goes that it searches by
T = TypeVar("T")

BEST, SO_FAR = "best", " so far"
# a metric that is the standard error of another: it is drawn as that one's interval
ERRORS = ("_sem", "_stderr")
# by how much a metric may differ, by rounding alone, from the curve that it was read off
ROUNDING = 1e-6
# `curves` of a table whose runs' curves mean nothing
NO_CURVES = "none"
# points of a curve: two of them say no more than the table's numbers
FEWEST_POINTS = 3
# the curve of a history that says most, where it holds none of the table's own metrics
CURVES = (
    "simple_regret",
    BEST,
    "grad_norm",
    "test_accuracy",
    "validation_accuracy",
    "validation_error",
    "validation_f1",
    "test_loss",
    "validation_loss",
    "running_loss",
    "loss",
)
# of these, what each method minimises in its own way: they share an axis only where all minimise the same
OBJECTIVES = ("test_loss", "validation_loss", "running_loss", "loss")
# rows that a figure sets below each other, and signs of their names
MOST_ROWS, NAME_SIGNS = 24, 34
# of a linear axis, the least width relative to its values: below it their differences are those of rounding
NARROW = 1e-3
# values of one sign that are further apart than this stand on a logarithmic axis
FAR = 20.0

MARKERS = "osD^vPX*"
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5))]
LIGHT = ["#0b63c4", "#b8480b", "#157a3c", "#8a2fd6", "#b5123f", "#0b6f86", "#7d5308", "#4b5563"]
DARK = ["#6cb0ff", "#ff9b5e", "#5fd28a", "#c79bff", "#ff7f9c", "#4fd0e0", "#e2b552", "#b6bdc9"]
INK, GRID, FRAME = "#1c2024", "#dfe3e8", "#8b949e"
# each colour of the light mode with that of the dark one
MODES = dict(zip([INK, GRID, FRAME, *LIGHT], ["#e6e9ed", "#343b44", "#7d8590", *DARK], strict=True))


def rules_of(modes: Mapping[str, str]) -> str:
    """Rules that draw other colours in place of some, whether they fill or stroke."""
    return "".join(
        f'[style*="{key}: {light}"]{{{key}:{dark}!important}}'
        for light, dark in modes.items()
        for key in ("fill", "stroke")
    )


@dataclass(frozen=True)
class Figure:
    """One panel.

    Attributes:
        name: its file name without the ending.
        title: what it shows; alt: the same with its numbers, for those who do not see it.
    """

    name: str
    svg: str
    title: str
    alt: str
    scale: str
    kind: str


@dataclass(frozen=True)
class Line:
    """One series: points with their intervals, or several curves of one entry (its seeds).

    Attributes:
        bars: (x, low, high) of single points; across: (y, low, high) of them along the horizontal axis; band:
            intervals along a curve.
        aside: whether bars stand a little aside, as those of other series have the same x.
        look: which colour, marker and dash it has, so that a method has one look in all panels of a table;
            None: that of its place in the panel.
    """

    label: str
    curves: list[list[tuple[float, float]]]
    bars: list[tuple[float, float, float]]
    reported: list[tuple[float, float]]
    unverified: bool
    band: tuple[tuple[float, float, float], ...] = ()
    look: int | None = None
    across: tuple[tuple[float, float, float], ...] = ()
    aside: bool = True


def table_figures(table: Table) -> Iterator[Figure]:
    """All panels of a table, for each scale that was measured; none where nothing was.

    What was measured at smoke scale shows only that it runs: it is drawn where there is nothing else.
    """
    scales = table.scales()
    for scale in [scale for scale in scales if scale != SMOKE] or scales:
        rows = [row for row in table.rows if scale in row.runs]
        drawn: list[Figure] = []
        if table.axis is not None:
            for metric in _drawn_metrics(table):
                drawn += _against_axis(table, table.axis, rows, scale, metric)
        if table.plane is not None:
            drawn += _against_each_other(table, table.plane, rows, scale)
        yield from drawn or _row_by_row(table, rows, scale)
        yield from _learning_curves(table, rows, scale)


def _drawn_metrics(table: Table) -> Iterator[str]:
    """The metrics of a table that a figure is about; a standard error is none of its own."""
    return (metric for metric in table.metrics if not table.results[metric].endswith(ERRORS))


# metric against the numeric axis


def _against_axis(table: Table, axis: Axis, rows: list[Row], scale: str, metric: str) -> Iterator[Figure]:
    known = [row for row in rows if axis.name in row.point and _value(row, scale, metric) is not None]
    if len({row.point[axis.name] for row in known}) < 2:
        return
    others = [name for name in table.axes if name != axis.name]
    panels = []
    for place, panel in _panels(known, others):
        groups = _grouped(panel, lambda row: _series_key(row, others)).values()
        lines = [
            _axis_line(_label(part[0], others, place) or "measured", part, axis, scale, metric)
            for part in groups
        ]
        of_axis = [row for row in table.rows if row.runs and axis.name in row.point]
        panels.append((place, _with_looks(lines, [_label(row, others, place) for row in of_axis])))
    # panels beside each other are compared, so they have one kind of axis
    log_y = _far_apart_in_one([lines for _, lines in panels])
    for place, lines in panels:
        xs = [x for line in lines for x, _ in line.curves[0]]
        members = [row for row in known if all(row.point.get(name) == at for name, at in place.items())]
        what = f"{table.title(metric)} against {axis.name}" + _mean_of(members, scale) + _interval_of(lines)
        title = " · ".join([what, *place.values()])
        yield panel_figure(
            f"{table.name}.{scale}.{metric}.{'.'.join(place.values())}".rstrip("."),
            title,
            lines,
            scale,
            "axis",
            (_named(axis.name, axis.key), _titled(table, metric)),
            log_x=min(xs) > 0 and max(xs) / min(xs) >= 8,
            log_y=log_y,
        )


def _with_looks(lines: list[Line], labels: Iterable[str]) -> list[Line]:
    """The series of a panel with the looks that their labels have in the whole table.

    Args:
        labels: those of all measured rows of the table; where there are more than looks, or a series has
            another label, all keep the looks of their places.
    """
    places = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    if len(places) > PANEL_SERIES or any(line.label not in places for line in lines):
        return lines
    return [replace(line, look=places[line.label]) for line in lines]


def _named(name: str, key: str) -> str:
    """An axis by its name in the table, and by its key where that says something else."""
    return name if key.split(".")[-1] == name else f"{name} ({key})"


def _titled(table: Table, metric: str) -> str:
    return with_unit(table.title(metric), table.metrics[metric].get("unit"))


def with_unit(title: str, unit: str | None) -> str:
    """What a metric is called as the title of an axis: `test error (%)`; without a unit by that alone."""
    return title if unit in (None, "", "1") else f"{title} ({unit})"


# a metric, row by row


def _row_by_row(table: Table, rows: list[Row], scale: str) -> Iterator[Figure]:
    """The table's first metric that two rows have: measured with its interval, and reported."""
    for metric in _last_points_first(list(_drawn_metrics(table))):
        known = [row for row in rows if _value(row, scale, metric) is not None]
        if 2 <= len(known) <= MOST_ROWS:
            lines = [_row_line(row, place, scale, metric) for place, row in enumerate(known)]
            title = f"{table.title(metric)} by row" + _mean_of(known, scale) + _interval_of(lines)
            label = _titled(table, metric)
            svg = draw_rows(lines, with_scale(title, scale), label)
            alt = _alt_of_rows(with_scale(title, scale), lines, label)
            yield Figure(file_name(f"{table.name}.{scale}.{metric}.rows"), svg, title, alt, scale, "rows")
            return


def _last_points_first(metrics: list[str]) -> list[str]:
    """Metrics in their order, but of points of one curve (`best_at_1`, `best_at_30`) the last one first."""
    by_curve = _grouped(metrics, lambda metric: metric.partition(AT)[0])
    return [metric for points in by_curve.values() for metric in reversed(points)]


def _row_line(row: Row, place: int, scale: str, metric: str) -> Line:
    """A row as a series of its own: its value and the reported one as points (value, place)."""
    measured = _value(row, scale, metric)
    assert measured is not None and measured.mean is not None
    bars = [(float(place), *ends) for ends in _ends(measured)]
    told = row.told(scale).get(metric)
    reported = [(float(told), float(place))] if isinstance(told, int | float) else []
    name = decimal(row.name)
    return Line(name, [[(measured.mean, float(place))]], bars, reported, row.source.unverified)


def _ends(measured: Measured) -> list[tuple[float, float]]:
    """The interval to draw: none of a single value, and none where equal values have no spread."""
    low, high = measured.low, measured.high
    return [(low, high)] if low is not None and high is not None and low < high else []


def _alt_of_rows(title: str, lines: list[Line], label: str) -> str:
    parts = [f"{title}. {label}."]
    for line in lines:
        told = f", reported {number(line.reported[0][0])}" if line.reported else ""
        parts.append(f"{line.label}: {number(line.curves[0][0][0])}{told}.")
    return " ".join(parts)


def _value(row: Row, scale: str, metric: str) -> Measured | None:
    measured = row.measured[scale].get(metric)
    return None if measured is None or measured.mean is None else measured


def _against_each_other(
    table: Table, plane: tuple[str, str], rows: list[Row], scale: str
) -> Iterator[Figure]:
    """One metric against another: a curve for each series along the numeric axis, a point for other rows."""
    known = [row for row in rows if all(_value(row, scale, metric) is not None for metric in plane)]
    others = [name for name in table.axes if table.axis is None or name != table.axis.name]
    for place, panel in _panels(known, others):
        groups = _grouped(panel, lambda row: _series_key(row, others)).values()
        lines = [
            _plane_line(_label(part[0], others, place) or part[0].name, part, plane, scale) for part in groups
        ]
        points = [point for line in lines for point in line.curves[0]]
        if len(set(points)) < 2:
            continue
        xs = [x for x, _ in points] + [x for line in lines for x, _ in line.reported]
        x, y = (_titled(table, metric) for metric in plane)
        yield panel_figure(
            f"{table.name}.{scale}.plane.{'.'.join(place.values())}".rstrip("."),
            " · ".join(
                [
                    " against ".join(table.title(metric) for metric in plane[::-1])
                    + _mean_of(panel, scale)
                    + _interval_of(lines),
                    *place.values(),
                ]
            ),
            lines,
            scale,
            "plane",
            (x, y),
            log_x=min(xs) > 0 and max(xs) / min(xs) >= 8,
        )


def _plane_line(label: str, rows: list[Row], plane: tuple[str, str], scale: str) -> Line:
    points, bars, across, reported = [], [], [], []
    for row in rows:
        told = [float(t) for m in plane if isinstance(t := row.told(scale).get(m), int | float)]
        if len(told) == 2:
            reported.append((told[0], told[1]))
        x, y = (_value(row, scale, metric) for metric in plane)
        assert x is not None and x.mean is not None and y is not None and y.mean is not None
        points.append((x.mean, y.mean))
        bars += [(x.mean, *ends) for ends in _ends(y)]
        across += [(y.mean, *ends) for ends in _ends(x)]
    unverified = any(row.source.unverified for row in rows)
    return Line(
        label, [sorted(points)], bars, sorted(reported), unverified, across=tuple(across), aside=False
    )


def _axis_line(label: str, rows: list[Row], axis: Axis, scale: str, metric: str) -> Line:
    ordered = sorted(rows, key=lambda row: axis.values[row.point[axis.name]])
    points, bars, reported = [], [], []
    for row in ordered:
        x, measured = axis.values[row.point[axis.name]], _value(row, scale, metric)
        assert measured is not None and measured.mean is not None
        points.append((x, measured.mean))
        bars += [(x, *ends) for ends in _ends(measured)]
        if isinstance(told := row.told(scale).get(metric), int | float):
            reported.append((x, float(told)))
    return Line(label, [points], bars, reported, any(row.source.unverified for row in rows))


# learning curves


@dataclass(frozen=True)
class Shown:
    """A curve of the histories as a figure shows it: as the metric of the table that it leads to.

    Attributes:
        key: its name in a history.
        label, unit: what its axis is called.
        metric: the table's metric that it ends with; None for none.
        sign: -1.0 where the table has it with the other sign: a search for the largest value of what is
            minimised follows the negative of it.
        points: the table's metrics that it has at a step.
    """

    key: str
    label: str
    unit: str | None = None
    metric: str | None = None
    sign: float = 1.0
    points: Mapping[str, float] = field(default_factory=dict)


def _learning_curves(table: Table, rows: list[Row], scale: str) -> Iterator[Figure]:
    shown = None if table.curves == NO_CURVES else _shown_curve(table, rows, scale)
    step = step_name(run for row in rows for run in row.runs[scale])
    # a share of the examples so far is no learning curve
    if shown is None or step == EXAMPLES:
        return
    for place, panel in _comparable_panels(table, _once(rows, scale), scale, shown.key):
        by_epoch = all("epoch" in run["history"] for row in panel for run in row.runs[scale])
        along = table.curves or ("epoch" if by_epoch else step)
        log_x = along not in ("epoch", EVALUATIONS)
        lines = [_curve_line(row, _label(row, table.axes, place) or row.name, scale, shown) for row in panel]
        measured = [row for row in table.rows if row.runs]
        lines = _with_looks(lines, [_label(row, table.axes, place) or row.name for row in measured])
        lines = [line for line in lines if any(line.curves)]
        lines = _from_positive(lines) if log_x else lines
        if not any(len(curve) >= FEWEST_POINTS for line in lines for curve in line.curves):
            continue
        what = shown.label
        if SO_FAR not in what:
            what += f" against {along}"
        yield panel_figure(
            f"{table.name}.{scale}.curves.{'.'.join(place.values())}".rstrip("."),
            " · ".join([what + _mean_of(panel, scale) + spread_of(lines), *place.values()]),
            lines,
            scale,
            "curves",
            (along, with_unit(shown.label, shown.unit)),
            log_x=log_x,
        )


def _mean_of(rows: list[Row], scale: str) -> str:
    """Over how many seeds the curves of a panel are means: `, mean of 1 to 3 seeds`."""
    counts = {len(row.runs[scale]) for row in rows}
    if max(counts) == 1:
        return ""
    return f", mean of {' to '.join(str(count) for count in sorted({min(counts), max(counts)}))} seeds"


def _interval_of(lines: list[Line]) -> str:
    """What the bars of a panel are; nothing where it has none."""
    return ", 95% interval" if any(line.bars or line.across for line in lines) else ""


def spread_of(lines: list[Line]) -> str:
    """What the bands of a panel are; replicates that are all equal have none."""
    bands = [line.band for line in lines if line.band]
    if not bands:
        return ""
    return ", 95% interval" if any(low < high for band in bands for _, low, high in band) else ", no spread"


def _from_positive(lines: list[Line]) -> list[Line]:
    """Lines on a logarithmic axis: each begins at its first positive x, which a step 0 is not.

    A run that ended where it began stands at the first place of the others.
    """
    xs = [x for line in lines for curve in line.curves for x, _ in curve if x > 0]
    first = min(xs, default=1.0)
    return [
        replace(
            line,
            curves=[
                [point for point in curve if point[0] > 0] or [(first, y) for _, y in curve[-1:]]
                for curve in line.curves
            ],
            reported=[(max(x, first), y) for x, y in line.reported],
            band=tuple(point for point in line.band if point[0] > 0),
        )
        for line in lines
    ]


def _once(rows: list[Row], scale: str) -> list[Row]:
    """Rows with each run once: several that are read off the same run, by what their names share."""
    groups = _grouped(rows, lambda row: tuple(id(run) for run in row.runs[scale])).values()
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def _joined(rows: list[Row]) -> Row:
    first = rows[0]
    point = {axis: shared_name([row.point.get(axis, "") for row in rows]) for axis in first.point}
    own = {key: told for row in rows for key, told in row.own.items()}
    return replace(first, name=shared_name([row.name for row in rows]), point=point, own=own)


def shared_name(names: list[str]) -> str:
    """What names begin with, word by word: `pmf` of `pmf_it10` and `pmf_it50`; where nothing, all of them."""
    different = list(dict.fromkeys(names))
    words = zip(*(name.split("_") for name in different), strict=False)
    same = itertools.takewhile(lambda part: len(set(part)) == 1, words)
    return "_".join(part[0] for part in same) or "/".join(different)


def _curve_name(table: Table, rows: list[Row], scale: str) -> str | None:
    """Which curve to show: a metric of the table, that of which one is a point, or the one that says most."""
    names = {
        name
        for row in rows
        for run in row.runs[scale]
        for name, values in run.get("history", {}).items()
        if sum(value is not None for value in values) > 1
    }
    keys = list(table.results.values())
    read = [name.partition(AT)[0].removesuffix(FINAL) for name in keys]
    return next((name for name in [*keys, *read, *CURVES] if name in names), None)


def _shown_curve(table: Table, rows: list[Row], scale: str) -> Shown | None:
    """The curve to show, by the metric of the table that it is of: with its sign and its unit."""
    key = _curve_name(table, rows, scale)
    if key is None:
        return None
    runs = [run for row in rows for run in row.runs[scale]]
    points = {name: at for name, read in table.results.items() if (at := _step_of(read, key)) is not None}
    metric = next((name for name, read in table.results.items() if read in (key, key + FINAL)), None)
    if metric is not None:
        # a metric of another name may say that it is the end of the curve
        label = table.title(metric) if metric == key else spaced(key)
        return Shown(key, label, table.metrics[metric].get("unit"), metric, points=points)
    if points:
        # of a search for what is minimised the points are read with the other sign
        first, at = next(iter(points.items()))
        sign = _sign(runs, key, table.results[first], at) or 1.0
        label = BEST + SO_FAR if key == BEST else spaced(key)
        return Shown(key, label, table.metrics[first].get("unit"), sign=sign, points=points)
    if key == BEST:
        for metric, read in table.results.items():
            sign = _sign(runs, key, read)
            if sign:
                return Shown(key, table.title(metric), table.metrics[metric].get("unit"), metric, sign)
    return Shown(key, curve_label(key))


def curve_label(key: str) -> str:
    """What a curve of a history is called where no table has a metric for it."""
    return f"{BEST}{SO_FAR} (larger is better)" if key == BEST else spaced(key)


def _sign(runs: list[Result], key: str, metric: str, at: float | None = None) -> float:
    """1.0 where a curve comes to a metric in every run, at its end or at a step, -1.0 where to its negative.

    0.0 where it comes to neither.
    """
    signs = set()
    for run in runs:
        points, value = dict(_curve(run["history"], key)), run["metrics"].get(metric)
        end = points.get(max(points) if at is None else at) if points else None
        if isinstance(value, int | float) and value and end is not None:
            same, other = (math.isclose(sign * end, value, rel_tol=ROUNDING) for sign in (1, -1))
            signs.add(1.0 if same else -1.0 if other else 0.0)
    return signs.pop() if len(signs) == 1 else 0.0


def step_name(runs: Iterable[dict[str, Any]]) -> str:
    """What the steps of runs are: what they count (evaluations, examples, ...), gradient calls, or steps."""
    measured = {name for run in runs for name in run["metrics"]}
    counted = next((name for name in (EVALUATIONS, EXAMPLES, ITERATIONS) if name in measured), None)
    if counted is not None:
        return counted
    return "gradient calls" if "gradient_calls" in measured else "steps"


def _comparable_panels(
    table: Table, rows: list[Row], scale: str, series: str
) -> Iterator[tuple[dict[str, str], list[Row]]]:
    """`_panels` of rows whose curve means the same; of several kinds those that two rows or more are of."""
    if series not in OBJECTIVES:
        yield from _panels(rows, table.axes)
        return
    groups = _grouped(rows, lambda row: _objective(row.runs[scale][0]))
    for objective, group in groups.items():
        if len(groups) == 1:
            yield from _panels(group, table.axes)
        elif len(group) > 1:
            for place, panel in _panels(group, table.axes):
                yield {"objective": _objective_name(objective, groups)} | place, panel


def comparable(curve: str, runs: list[Result]) -> bool:
    """Whether a curve of some runs means the same in all: a loss does where they minimise the same."""
    return curve not in OBJECTIVES or len({_objective(run) for run in runs}) == 1


Objective = tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]


def _objective(run: Result) -> Objective:
    """What a run's loss is: its data, a method that is more than an optimizer, sum or mean of pixels.

    And the settings of such a method, as the weights of its terms are among them; other runs that it names
    (`teacher: entry=...`) are none, since they differ with the seed alone.
    """
    choices, config = run["choices"], run.get("config", {})
    method = str(choices.get("method", ""))
    own = "" if method.startswith("optimizer/") else method
    settings = {
        key: value
        for key, value in config.get("method", {}).items()
        if own and (isinstance(value, int | float) or (isinstance(value, str) and "=" not in value))
    }
    pixels = str(config.get("paper", {}).get("pixels") or "")
    return (str(choices.get("dataset")), own, pixels), tuple(sorted(settings.items()))


def _objective_name(objective: Objective, others: Iterable[Objective]) -> str:
    """What tells an objective from the others of a table: its data, its method, the sum or mean of pixels."""
    (names, settings), others = objective, list(others)
    places = [{other[place] for other, _ in others} for place in range(len(names))]
    telling = [name for name, known in zip(names, places, strict=True) if len(known) > 1]
    alike = [dict(other) for kind, other in others if kind == names]
    own = [f"{key}={value}" for key, value in settings if any(other.get(key) != value for other in alike)]
    return " ".join(filter(None, [*map(_method_name, telling), *own]))


def _method_name(choice: str) -> str:
    """`kd` of `distillation/kd`, and `no distillation` of `distillation/none`."""
    group, _, name = choice.rpartition("/")
    return f"no {group}" if group and name == "none" else name


def _step_of(key: str, series: str) -> float | None:
    """10 of best_at_10, a point of the series best."""
    name, _, step = key.partition(AT)
    return float(step) if name == series and step.isdigit() else None


def _curve_line(row: Row, label: str, scale: str, shown: Shown) -> Line:
    """The curve of a row, with what is reported for where it ends and for points of it."""
    curves = _mean_curve([_curve(run["history"], shown.key, shown.sign) for run in row.runs[scale]])
    # what is reported for a point of the curve that the row alone reads is no value of its end
    known = row.told(scale)
    value = known.get(shown.metric) if shown.metric and not row.own else None
    ends = [x for curve in curves for x, _ in curve]
    reported = []
    if isinstance(value, int | float):
        xs = ends or [0.0]
        reported = [(min(xs), float(value)), (max(xs), float(value))]
    reported += [
        (at, float(told))
        for name, at in shown.points.items()
        if isinstance(told := known.get(name), int | float) and ends and at <= max(ends)
    ]
    reported += sorted(
        (at, float(told))
        for name, told in (row.own if known else {}).items()
        if isinstance(told, int | float)
        and (at := _step_of(name, shown.key)) is not None
        and ends
        and at <= max(ends)
    )
    return Line(label, curves, [], reported, row.source.unverified, tuple(_band_of(row, scale, shown)))


def _band_of(row: Row, scale: str, shown: Shown) -> Iterator[tuple[float, float, float]]:
    """The interval of a row's curve: its own, or of a search that of the mean over seeds."""
    histories = [run["history"] for run in row.runs[scale]]
    if len(histories) == 1:
        yield from _band(histories[0], shown)
    elif len(histories) >= BAND_SEEDS and step_name(row.runs[scale]) == EVALUATIONS:
        curves = [_curve(history, shown.key, shown.sign) for history in histories]
        if len({tuple(x for x, _ in curve) for curve in curves}) == 1:
            for points in zip(*curves, strict=True):
                interval = mean_interval([y for _, y in points])
                yield points[0][0], interval.low, interval.high


def _band(history: History, shown: Shown) -> Iterator[tuple[float, float, float]]:
    """The interval of a curve that is itself a mean of replicates."""
    ends = (_curve(history, f"{shown.key}{end}", shown.sign) for end in ("_low", "_high"))
    for (x, one), (_, other) in zip(*ends, strict=True):
        yield x, min(one, other), max(one, other)


def _mean_curve(curves: list[list[tuple[float, float]]]) -> list[list[tuple[float, float]]]:
    """The mean over seeds, where all were measured at the same places; else each curve by itself."""
    places = {tuple(x for x, _ in curve) for curve in curves}
    if len(places) > 1 or len(curves) < 2:
        return curves
    means = [statistics.fmean(values) for values in zip(*([y for _, y in c] for c in curves), strict=True)]
    return [list(zip(places.pop(), means, strict=True))]


def _curve(history: History, series: str, sign: float = 1.0) -> list[tuple[float, float]]:
    """The points of a curve that have a value."""
    xs = history.get("epoch" if "epoch" in history else "step", [])
    pairs = zip(xs, history.get(series, []), strict=False)
    return [(x, sign * y) for x, y in pairs if x is not None and y is not None]


# panels


def _panels(rows: list[Row], axes: list[str]) -> Iterator[tuple[dict[str, str], list[Row]]]:
    """Split rows over panels of at most `PANEL_SERIES` series by whole axes.

    Methods on one problem share a panel where they can, as they are what a reader compares; then as few
    panels as can be. Gives for each panel its place (axis -> value) and its rows. What no axis splits goes to
    panels in turn.
    """
    splits = [split for n in range(len(axes) + 1) for split in itertools.combinations(axes, n)]
    fitting = [split for split in splits if _most_series(_parted(rows, split), axes) <= PANEL_SERIES]
    methods, data = (
        {axis for axis in axes if _decides(rows, axis, group)} for group in ("method", "dataset")
    )
    problems = data - methods if methods else set()
    split = min(
        fitting,
        key=lambda split: (
            bool(methods & set(split)),
            not problems <= set(split),
            len(_parted(rows, split)),
        ),
        default=(),
    )
    for part in _parted(rows, split):
        place = {axis: part[0].point[axis] for axis in split if axis in part[0].point}
        series = list(_grouped(part, lambda row: _series_key(row, axes)).values())
        # as many in each, so that none is left alone
        count = math.ceil(len(series) / PANEL_SERIES)
        size = math.ceil(len(series) / count)
        for index in range(count):
            panel = [row for members in series[index * size : (index + 1) * size] for row in members]
            yield place | ({"": f"part {index + 1}"} if count > 1 else {}), panel


def _decides(rows: list[Row], axis: str, group: str) -> bool:
    """Whether the place on an axis decides what is chosen from a config group, which is not one for all."""
    of_grid = [row for row in rows if axis in row.point]
    chosen = [
        {row.choose.get(group) for row in part}
        for part in _grouped(of_grid, lambda row: row.point[axis]).values()
    ]
    return all(len(names) == 1 for names in chosen) and len(set().union(*chosen)) > 1


def _parted(rows: list[Row], split: tuple[str, ...]) -> list[list[Row]]:
    return list(_grouped(rows, lambda row: tuple(row.point.get(axis, "") for axis in split)).values())


def _most_series(parts: list[list[Row]], axes: list[str]) -> int:
    return max((len({_series_key(row, axes) for row in part}) for part in parts), default=0)


def _series_key(row: Row, axes: list[str]) -> Any:
    """What makes a series: the row's place on these axes; a row outside the grid is one by itself."""
    return tuple(row.point[axis] for axis in axes) if row.point else row.name


def _label(row: Row, axes: list[str], place: dict[str, str]) -> str:
    return " ".join(row.point[axis] for axis in axes if axis in row.point and axis not in place)


def _grouped(members: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for member in members:
        groups.setdefault(key(member), []).append(member)
    return groups


# drawing


def panel_figure(
    name: str,
    title: str,
    lines: list[Line],
    scale: str,
    kind: str,
    labels: tuple[str, str],
    log_x: bool,
    log_y: bool | None = None,
) -> Figure:
    title, lines = decimal(title), [replace(line, label=decimal(line.label)) for line in lines]
    note = with_scale(title, scale)
    svg = draw(lines, note, labels, log_x, log_y)
    return Figure(file_name(name), svg, title, _alt(note, lines, labels), scale, kind)


def file_name(name: str) -> str:
    """A name as one that every file system takes."""
    return re.sub(r"[^\w.-]", "_", name)


def decimal(name: str) -> str:
    """Names of a table as a reader takes them: `eps0.003` of `eps0p003` and `eps1e-05` of `eps1em05`."""
    return re.sub(r"(?<=\de)m(?=\d)", "-", re.sub(r"(?<=\d)p(?=\d)", ".", name))


def with_scale(title: str, scale: str) -> str:
    return f"{title} ({scale} scale)" if scale != "paper" else title


def draw(
    lines: list[Line], title: str, labels: tuple[str, str], log_x: bool, log_y: bool | None = None
) -> str:
    """One panel as SVG; the y axis is logarithmic where all values are positive and far apart, or as is said.

    Ticks, titles and legend are set by hand: left to matplotlib they take five times as long as the rest.
    """
    from matplotlib.figure import Figure as Canvas

    legend = 0.17 * math.ceil(_legend_entries(lines) / 2)
    heading, beside = textwrap.wrap(title, TITLE_WIDTH), textwrap.wrap(labels[1], LABEL_HEIGHT)
    top, left = 0.17 + 0.14 * len(heading), 0.56 + 0.13 * len(beside)
    height = 2.8 + legend + top
    with _settings():
        canvas = Canvas(figsize=(WIDE, height))
        box = left, 0.5 + legend, WIDE - 0.14 - left, height - 0.5 - legend - top
        axes = canvas.add_axes((box[0] / WIDE, box[1] / height, box[2] / WIDE, box[3] / height))
        for index, line in enumerate(lines):
            _draw_line(axes, line, index, len(lines))
        axes.autoscale_view()
        set_ticks(axes.xaxis, "log" if log_x else "linear", axes)
        log_y = _far_apart(lines) if log_y is None else log_y
        set_ticks(axes.yaxis, "log" if log_y else "linear", axes)
        _keep_last_tick(axes)
        axes.grid(which="major")
        canvas.text(0.02, 1 - 0.07 / height, "\n".join(heading), fontsize=8.5, va="top", weight="bold")
        canvas.text(0.56, (0.16 + legend) / height, labels[0], ha="center", va="center")
        middle = (0.5 + legend + height - top) / 2 / height
        canvas.text(0.02, middle, "\n".join(beside), rotation=90, ha="left", va="center", ma="center")
        _add_legend(canvas, lines, height)
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return themed(file.getvalue())


# inches, characters in a line of the title and of the vertical axis, and inches that stay free at the right
WIDE, TITLE_WIDTH, LABEL_HEIGHT, EDGE = 4.6, 60, 36, 0.03


def _settings() -> Any:
    import matplotlib

    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "reprise",
            "font.size": 8,
            "text.color": INK,
            "text.parse_math": False,
            "axes.edgecolor": FRAME,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": FRAME,
            "ytick.color": FRAME,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "grid.color": GRID,
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
        }
    )


def set_ticks(axis: Any, scale: str, axes: Any) -> None:
    """A few major ticks with plain labels, and no minor ones."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    side = axis.axis_name
    low, high = getattr(axes, f"get_{side}lim")()
    if scale == "log" and getattr(axes, f"get_{side}scale")() != "log":
        getattr(axes, f"set_{side}scale")("log")
        low, high = getattr(axes, f"get_{side}lim")()
    if scale == "linear" and high - low < NARROW * max(abs(low), abs(high)):
        low, high = (low + high) / 2 - NARROW * abs(high), (low + high) / 2 + NARROW * abs(high)
        getattr(axes, f"set_{side}lim")(low, high)
    ticks = log_ticks(low, high) if scale == "log" else linear_ticks(low, high)
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_ticklabels(
        [f"{tick:.6g}" if 1e-4 <= abs(tick) < 1e6 or tick == 0 else f"{tick:.0e}" for tick in ticks]
    )


def _keep_last_tick(axes: Any) -> None:
    """Make axes as much narrower as the last tick's label needs, which the picture's edge would cut."""
    ticks = axes.get_xticks()
    if not len(ticks):
        return
    label = axes.get_xticklabels()[-1].get_text()
    display = axes.transData.transform((ticks[-1], axes.get_ylim()[0]))
    place = axes.transAxes.inverted().transform(display)[0]
    box = axes.get_position()
    room = 1 - (_width_of(label) / 2 + EDGE) / WIDE - box.x0
    if place > 0 and box.width * place > room:
        axes.set_position((box.x0, box.y0, room / place, box.height))


def linear_ticks(low: float, high: float) -> list[float]:
    """At most six round numbers between two."""
    step = 10 ** math.floor(math.log10((high - low) / 5))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= 5), 10)
    # without the rounding of i * step, whatever the unit
    return [float(f"{i * step:.12g}") for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """At most seven powers of ten between two positive numbers; 1, 2 and 5 of each where these are few."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    if last - first < 2:
        values = [f * 10.0**e for e in range(first - 1, last + 1) for f in (1, 2, 5)]
        within = [value for value in values if low <= value <= high]
        return within if len(within) > 1 else linear_ticks(low, high)
    return [10.0**e for e in range(first, last + 1, 1 + (last - first) // 6)]


def _legend_entries(lines: list[Line]) -> int:
    return len(lines) + any(line.reported for line in lines)


def _add_legend(canvas: Any, lines: list[Line], height: float) -> None:
    """The series below the axes, two a row."""
    from matplotlib.lines import Line2D

    looks = [
        (
            line.label,
            {"color": LIGHT[look], "marker": MARKERS[look], "linestyle": DASHES[look % 4], "markersize": 3.5},
        )
        for index, line in enumerate(lines)
        for look in [index if line.look is None else line.look]
    ]
    if any(line.reported for line in lines):
        what = "reported (recalled, unverified)" if any(line.unverified for line in lines) else "reported"
        ring = {"color": INK, "marker": "o", "fillstyle": "none", "linestyle": ":", "markersize": 6}
        looks.append((what, ring))
    for index, (label, look) in enumerate(looks):
        x = 0.03 + 0.49 * (index % 2)
        y = (0.08 + 0.17 * (math.ceil(len(looks) / 2) - 1 - index // 2)) / height
        canvas.add_artist(Line2D([x, x + 0.03, x + 0.06], [y] * 3, linewidth=1.3, **look))
        canvas.text(x + 0.075, y, label, fontsize=7, va="center_baseline")


def _draw_line(axes: Any, line: Line, index: int, count: int) -> None:
    """Draw one of several series so that none hides another one that has the same values.

    The first are the widest, long curves have markers at places of their own, intervals at one x stand a
    little aside.
    """
    from matplotlib.transforms import ScaledTranslation

    own = index if line.look is None else line.look
    colour, dash = LIGHT[own], DASHES[own % 4]
    width = 1.2 + 0.35 * (count - 1 - index)
    aside = 2.5 * (index - (count - 1) / 2) if line.aside else 0.0
    for curve in line.curves:
        xs, ys = zip(*curve, strict=True) if curve else ((), ())
        every = None if len(xs) <= 12 else marks_of(len(xs), index, count)
        look = {"marker": MARKERS[own], "markersize": 3.5, "markevery": every}
        axes.plot(xs, ys, color=colour, linestyle=dash, linewidth=width, **look)
    if line.band:
        xs, lows, highs = zip(*line.band, strict=True)
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0)
    place = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    for x, low, high in line.bars:
        axes.plot([x, x], [low, high], color=colour, linewidth=1.1, marker="_", markersize=3, transform=place)
        # a line drawn aside does not count for the limits of the axes by itself
        axes.update_datalim([(x, low), (x, high)])
    for y, low, high in line.across:
        axes.plot([low, high], [y, y], color=colour, linewidth=1.1, marker="|", markersize=3)
    if line.reported:
        xs, ys = zip(*line.reported, strict=True)
        axes.plot(
            xs, ys, color=colour, linestyle=":", marker="o", fillstyle="none", markersize=6, linewidth=0.9
        )


def marks_of(points: int, index: int, count: int, marks: int = 5) -> list[int]:
    """Which points of a long curve have its marker: a few, at other places than those of the other curves."""
    places = [(mark + (index + 0.5) / count) / marks for mark in range(marks)]
    return sorted({min(int(place * points), points - 1) for place in places})


def _far_apart(lines: list[Line]) -> bool:
    return far_apart(_heights(lines))


def _far_apart_in_one(panels: list[list[Line]]) -> bool:
    """Whether the values of some panel are far apart, and those of all can stand on its axis."""
    heights = [_heights(lines) for lines in panels]
    return any(map(far_apart, heights)) and all(min(values) > 0 for values in heights)


def _heights(lines: list[Line]) -> list[float]:
    """All values that a panel has on its vertical axis."""
    values = [y for line in lines for curve in line.curves for _, y in curve]
    return values + [y for line in lines for _, y in line.reported]


def far_apart(values: list[float]) -> bool:
    """Whether values, all of them positive, stand on a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= FAR


def cut(name: str, signs: int) -> str:
    """A name of at most so many signs."""
    return name if len(name) <= signs else f"{name[: signs - 3]}..."


def _width_of(name: str) -> float:
    """The width of a name beside an axis in inches, a little more than in matplotlib's own font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(name, FontProperties(size=8), ismath=False)
    return 1.08 * width / 72


def draw_rows(lines: list[Line], title: str, label: str) -> str:
    """The series of `_row_line`, one below the other, as SVG."""
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import FixedLocator

    names = [cut(line.label, NAME_SIGNS) for line in lines]
    heading = textwrap.wrap(title, TITLE_WIDTH)
    top, left = 0.2 + 0.14 * len(heading), 0.17 + max(map(_width_of, names))
    told = any(line.reported for line in lines)
    height = top + 0.2 * len(lines) + 0.5 + 0.17 * told
    with _settings():
        canvas = Canvas(figsize=(WIDE, height))
        low = (0.45 + 0.17 * told) / height
        axes = canvas.add_axes((left / WIDE, low, 0.97 - left / WIDE, 1 - top / height - low))
        for line in lines:
            for place, start, end in line.bars:
                axes.plot([start, end], [place, place], color=LIGHT[0], linewidth=1.4)
            axes.plot(
                *zip(*line.curves[0], strict=True), color=LIGHT[0], marker="o", markersize=4.5, linestyle=""
            )
            if line.reported:
                ring: dict[str, Any] = {"marker": "o", "fillstyle": "none", "markersize": 7, "linestyle": ""}
                axes.plot(*zip(*line.reported, strict=True), color=INK, **ring)
        values = [line.curves[0][0][0] for line in lines] + [x for line in lines for x, _ in line.reported]
        set_ticks(axes.xaxis, "log" if far_apart(values) else "linear", axes)
        _keep_last_tick(axes)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.yaxis.set_major_locator(FixedLocator(list(range(len(lines)))))
        axes.set_yticklabels(names)
        axes.grid(axis="both")
        canvas.text(0.02, 1 - 0.07 / height, "\n".join(heading), fontsize=8.5, va="top", weight="bold")
        canvas.text(0.97, (0.14 + 0.17 * told) / height, label, ha="right", va="center")
        if told:
            what = "reported (recalled, unverified)" if any(line.unverified for line in lines) else "reported"
            canvas.text(0.02, 0.1 / height, f"filled: measured here; ring: {what}", fontsize=7, va="center")
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return themed(file.getvalue())


def themed(svg: str, rules: str = rules_of(MODES)) -> str:
    """Give the SVG the colours of the dark mode, and a size without units, for any program.

    Args:
        svg: as matplotlib writes it.
        rules: what a browser in dark mode draws otherwise; other programs pass over it.
    """
    svg = svg[svg.index("<svg") :]
    start = svg.index(">") + 1
    root = re.sub(r'\b(width|height)="([\d.]+)pt"', r'\1="\2"', svg[:start])
    return f"{root}<style>@media(prefers-color-scheme:dark){{{rules}}}</style>{svg[start:]}"


def _alt(title: str, lines: list[Line], labels: tuple[str, str]) -> str:
    """The picture in words: for each series where it begins and where it ends."""
    parts = [f"{title}. Horizontal: {labels[0]}; vertical: {labels[1]}."]
    for line in lines:
        curves = [curve for curve in line.curves if curve]
        if not curves:
            continue
        (x0, _), (x1, _) = curves[0][0], curves[0][-1]
        first, last = (statistics.fmean(curve[i][1] for curve in curves) for i in (0, -1))
        onward = f", {number(last)} at {number(x1)}" if x1 != x0 else ""
        parts.append(f"{line.label}: {number(first)} at {number(x0)}{onward}.")
        parts += [f"Reported: {number(line.reported[-1][1])}."] if line.reported else []
    return " ".join(parts)
