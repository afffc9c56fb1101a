"""Figures redrawn from the runs, as SVG that follows the reader's light or dark mode.

A table whose grid has a numeric axis gives its metrics against that axis, one with a `plane` a metric against
another; any table gives the learning curves
of its entries. Each panel is a file of its own, so that a page can set them side by side or below each other.
Colours are CSS variables inside the SVG; series also differ by marker and dash.
"""

import io
import itertools
import math
import re
import statistics
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from common.claims.claims import Claim
from common.claims.judge import Verdict, mean_interval
from common.report.model import Axis, Measured, Row, Table
from common.runs.result import number

PANEL_SERIES = 8
# of searches, the fewest seeds whose mean has an interval that says something
BAND_SEEDS = 3
# what the steps of a search are
EVALUATIONS = "evaluations"
# a metric best_at_10 is the curve `best` after 10 steps
AT = "_at_"
# the curve of a history that says most, where it holds none of the table's own metrics
CURVES = (
    "simple_regret",
    "best",
    "grad_norm",
    "test_accuracy",
    "test_loss",
    "validation_loss",
    "running_loss",
    "loss",
)

# what matplotlib draws in, and the CSS variable that takes its place
INK, GRID, FRAME = "#000001", "#000002", "#000003"
SERIES = [f"#00001{i}" for i in range(PANEL_SERIES)]
MARKERS = "osD^vPX*"
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5))]
LIGHT = ["#0b63c4", "#b8480b", "#157a3c", "#8a2fd6", "#b5123f", "#0b6f86", "#7d5308", "#4b5563"]
DARK = ["#6cb0ff", "#ff9b5e", "#5fd28a", "#c79bff", "#ff7f9c", "#4fd0e0", "#e2b552", "#b6bdc9"]


def _style() -> str:
    light = "".join(f"--s{i}:{colour};" for i, colour in enumerate(LIGHT))
    dark = "".join(f"--s{i}:{colour};" for i, colour in enumerate(DARK))
    return (
        f"<style>:root{{--ink:#1c2024;--grid:#dfe3e8;--frame:#8b949e;{light}}}"
        f"@media(prefers-color-scheme:dark){{:root{{--ink:#e6e9ed;--grid:#343b44;--frame:#7d8590;{dark}}}}}"
        "</style>"
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
        bars: (x, low, high) of single points; band: the same along a curve.
    """

    label: str
    curves: list[list[tuple[float, float]]]
    bars: list[tuple[float, float, float]]
    reported: list[tuple[float, float]]
    unverified: bool
    band: tuple[tuple[float, float, float], ...] = ()


def table_figures(table: Table) -> Iterator[Figure]:
    """All panels of a table, for each scale that was measured; none where nothing was."""
    for scale in table.scales():
        rows = [row for row in table.rows if scale in row.runs]
        if table.axis is not None:
            for metric in table.metrics:
                yield from _against_axis(table, table.axis, rows, scale, metric)
        if table.plane is not None:
            yield from _against_each_other(table, table.plane, rows, scale)
        yield from _learning_curves(table, rows, scale)


# metric against the numeric axis


def own_pictures(table: Table) -> Iterator[Figure]:
    """What `picture(result)` of the paper's own `pictures.py` draws of a row's first run at each scale.

    A paper of the current folder, whose code no `import=` has brought, has none.
    """
    name = f"papers.{table.paper}.pictures"
    if find_spec(f"papers.{table.paper}") is None or find_spec(name) is None:
        return
    picture = import_module(name).picture
    for row in table.rows:
        for scale, runs in row.runs.items():
            svg = picture(runs[0])
            if svg is not None:
                title = f"{row.name}, seed {runs[0]['seed']}"
                metrics = runs[0]["metrics"]
                said = [f"{metric} {number(metrics.get(key))}" for metric, key in table.results.items()]
                alt = f"{row.entry}: {', '.join(said)}"
                yield Figure(f"{table.id}.{row.name}.{scale}.picture", svg, title, alt, scale, "picture")


def _against_axis(table: Table, axis: Axis, rows: list[Row], scale: str, metric: str) -> Iterator[Figure]:
    known = [row for row in rows if axis.name in row.point and _value(row, scale, metric) is not None]
    if len({row.point[axis.name] for row in known}) < 2:
        return
    others = [name for name in table.axes if name != axis.name]
    for place, panel in _panels(known, others):
        groups = _grouped(panel, lambda row: _series_key(row, others)).values()
        lines = [_axis_line(_label(part[0], others, place), part, axis, scale, metric) for part in groups]
        xs = [x for line in lines for x, _ in line.curves[0]]
        title = " · ".join([f"{metric} against {axis.key}", *place.values()])
        yield panel_figure(
            f"{table.name}.{scale}.{metric}.{'.'.join(place.values())}".rstrip("."),
            title,
            lines,
            scale,
            "axis",
            (axis.key, f"{metric} ({table.metrics[metric].get('unit', '1')})"),
            log_x=min(xs) > 0 and max(xs) / min(xs) >= 8,
        )


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
        xs = [x for line in lines for x, _ in line.curves[0]]
        x, y = (f"{metric} ({table.metrics[metric].get('unit', '1')})" for metric in plane)
        yield panel_figure(
            f"{table.name}.{scale}.plane.{'.'.join(place.values())}".rstrip("."),
            " · ".join([f"{plane[1]} against {plane[0]}", *place.values()]),
            lines,
            scale,
            "plane",
            (x, y),
            log_x=min(xs) > 0 and max(xs) / min(xs) >= 8,
        )


def _plane_line(label: str, rows: list[Row], plane: tuple[str, str], scale: str) -> Line:
    points, bars = [], []
    for row in rows:
        x, y = (_value(row, scale, metric) for metric in plane)
        assert x is not None and x.mean is not None and y is not None and y.mean is not None
        points.append((x.mean, y.mean))
        if y.low is not None and y.high is not None:
            bars.append((x.mean, y.low, y.high))
    return Line(label, [sorted(points)], bars, [], any(row.source.unverified for row in rows))


def _axis_line(label: str, rows: list[Row], axis: Axis, scale: str, metric: str) -> Line:
    ordered = sorted(rows, key=lambda row: axis.values[row.point[axis.name]])
    points, bars, reported = [], [], []
    for row in ordered:
        x, measured = axis.values[row.point[axis.name]], _value(row, scale, metric)
        assert measured is not None and measured.mean is not None
        points.append((x, measured.mean))
        if measured.low is not None and measured.high is not None:
            bars.append((x, measured.low, measured.high))
        if isinstance(row.reported[metric], int | float):
            reported.append((x, float(row.reported[metric])))
    return Line(label, [points], bars, reported, any(row.source.unverified for row in rows))


# learning curves


def _learning_curves(table: Table, rows: list[Row], scale: str) -> Iterator[Figure]:
    series = _curve_name(table, rows, scale)
    if series is None:
        return
    metric = next((name for name, key in table.results.items() if key == series), None)
    for place, panel in _panels(rows, table.axes):
        points = {
            name: at for name, key in table.results.items() if (at := _step_of(key, series)) is not None
        }
        lines = [
            _curve_line(row, _label(row, table.axes, place) or row.name, scale, series, metric, points)
            for row in panel
        ]
        lines = [line for line in lines if any(len(curve) > 1 for curve in line.curves)]
        if not lines:
            continue
        by_epoch = all("epoch" in run["history"] for row in panel for run in row.runs[scale])
        seeds = max(len(row.runs[scale]) for row in panel)
        what = f"{series} while running" + (f", mean of {seeds} seeds" if seeds > 1 else "")
        what += ", 95% interval" if any(line.band for line in lines) else ""
        step = "epoch" if by_epoch else step_name(run for runs in rows[0].runs.values() for run in runs)
        yield panel_figure(
            f"{table.name}.{scale}.curves.{'.'.join(place.values())}".rstrip("."),
            " · ".join([what, *place.values()]),
            lines,
            scale,
            "curves",
            (step, series),
            log_x=step not in ("epoch", EVALUATIONS),
        )


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
    read = [name.partition(AT)[0] for name in keys]
    return next((name for name in [*keys, *read, *CURVES] if name in names), None)


def step_name(runs: Iterable[dict[str, Any]]) -> str:
    """What the steps of runs are: evaluations of a search, gradient calls where those count, or steps."""
    measured = {name for run in runs for name in run["metrics"]}
    if EVALUATIONS in measured:
        return EVALUATIONS
    return "gradient calls" if "gradient_calls" in measured else "steps"


def _step_of(key: str, series: str) -> float | None:
    """10 of best_at_10, a point of the series best."""
    name, _, step = key.partition(AT)
    return float(step) if name == series and step.isdigit() else None


def _curve_line(
    row: Row, label: str, scale: str, series: str, metric: str | None, points: dict[str, float]
) -> Line:
    """`metric` is the table's that the series ends with; `points`: those that it has at a step."""
    curves = _mean_curve([_curve(run["history"], series) for run in row.runs[scale]])
    value = row.reported.get(metric) if metric else None
    reported = []
    if isinstance(value, int | float):
        xs = [x for curve in curves for x, _ in curve] or [0.0]
        reported = [(min(xs), float(value)), (max(xs), float(value))]
    ends = [x for curve in curves for x, _ in curve]
    reported += [
        (at, float(told))
        for name, at in points.items()
        if isinstance(told := row.reported.get(name), int | float) and ends and at <= max(ends)
    ]
    return Line(label, curves, [], reported, row.source.unverified, tuple(_band_of(row, scale, series)))


def _band_of(row: Row, scale: str, series: str) -> Iterator[tuple[float, float, float]]:
    """The interval of a row's curve: its own, or of a search that of the mean over seeds."""
    histories = [run["history"] for run in row.runs[scale]]
    if len(histories) == 1:
        yield from _band(histories[0], series)
    elif len(histories) >= BAND_SEEDS and step_name(row.runs[scale]) == EVALUATIONS:
        curves = [_curve(history, series) for history in histories]
        if len({tuple(x for x, _ in curve) for curve in curves}) == 1:
            for points in zip(*curves, strict=True):
                interval = mean_interval([y for _, y in points])
                yield points[0][0], interval.low, interval.high


def _band(history: dict[str, list[float | None]], series: str) -> Iterator[tuple[float, float, float]]:
    """The interval of a curve that is itself a mean of replicates."""
    lows, highs = _curve(history, f"{series}_low"), _curve(history, f"{series}_high")
    for (x, low), (_, high) in zip(lows, highs, strict=True):
        yield x, low, high


def _mean_curve(curves: list[list[tuple[float, float]]]) -> list[list[tuple[float, float]]]:
    """The mean over seeds, where all were measured at the same places; else each curve by itself."""
    places = {tuple(x for x, _ in curve) for curve in curves}
    if len(places) > 1 or len(curves) < 2:
        return curves
    means = [statistics.fmean(values) for values in zip(*([y for _, y in c] for c in curves), strict=True)]
    return [list(zip(places.pop(), means, strict=True))]


def _curve(history: dict[str, list[float | None]], series: str) -> list[tuple[float, float]]:
    """The points of a curve that have a value; a count of steps begins at 1, for a logarithmic axis."""
    by_epoch = "epoch" in history
    xs = history.get("epoch" if by_epoch else "step", [])
    pairs = zip(xs, history.get(series, []), strict=False)
    return [(x if by_epoch else max(x, 1.0), y) for x, y in pairs if x is not None and y is not None]


# panels


def _panels(rows: list[Row], axes: list[str]) -> Iterator[tuple[dict[str, str], list[Row]]]:
    """Split rows over as few panels of at most `PANEL_SERIES` series as splitting by whole axes allows.

    Gives for each panel its place (axis -> value) and its rows. What no axis splits goes to panels in turn.
    """
    splits = [split for n in range(len(axes) + 1) for split in itertools.combinations(axes, n)]
    fitting = [split for split in splits if _most_series(_parted(rows, split), axes) <= PANEL_SERIES]
    split = min(fitting, key=lambda split: len(_parted(rows, split)), default=())
    for part in _parted(rows, split):
        place = {axis: part[0].point[axis] for axis in split if axis in part[0].point}
        series = list(_grouped(part, lambda row: _series_key(row, axes)).values())
        for start in range(0, len(series), PANEL_SERIES):
            panel = [row for members in series[start : start + PANEL_SERIES] for row in members]
            more = {"": f"part {start // PANEL_SERIES + 1}"} if len(series) > PANEL_SERIES else {}
            yield place | more, panel


def _parted(rows: list[Row], split: tuple[str, ...]) -> list[list[Row]]:
    return list(_grouped(rows, lambda row: tuple(row.point.get(axis, "") for axis in split)).values())


def _most_series(parts: list[list[Row]], axes: list[str]) -> int:
    return max((len({_series_key(row, axes) for row in part}) for part in parts), default=0)


def _series_key(row: Row, axes: list[str]) -> Any:
    """What makes a series: the row's place on these axes; a row outside the grid is one by itself."""
    return tuple(row.point[axis] for axis in axes) if row.point else row.name


def _label(row: Row, axes: list[str], place: dict[str, str]) -> str:
    return " ".join(row.point[axis] for axis in axes if axis in row.point and axis not in place)


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


# drawing


def panel_figure(
    name: str, title: str, lines: list[Line], scale: str, kind: str, labels: tuple[str, str], log_x: bool
) -> Figure:
    note = f"{title} ({scale} scale)" if scale != "paper" else title
    svg = draw(lines, note, labels, log_x)
    return Figure(re.sub(r"[^\w.-]", "_", name), svg, title, _alt(note, lines, labels), scale, kind)


def draw(lines: list[Line], title: str, labels: tuple[str, str], log_x: bool) -> str:
    """One panel as SVG; the y axis is logarithmic where all values are positive and far apart.

    Ticks, titles and legend are set by hand: left to matplotlib they take five times as long as the rest.
    """
    from matplotlib.figure import Figure as Canvas

    legend = 0.17 * math.ceil(_legend_entries(lines) / 2)
    heading = textwrap.wrap(title, TITLE_WIDTH)
    top = 0.17 + 0.14 * len(heading)
    height = 2.8 + legend + top
    with _settings():
        canvas = Canvas(figsize=(WIDE, height))
        axes = canvas.add_axes((0.15, (0.5 + legend) / height, 0.82, (height - 0.5 - legend - top) / height))
        for index, line in enumerate(lines):
            _draw_line(axes, line, index, 2.5 * (index - (len(lines) - 1) / 2))
        axes.autoscale_view()
        set_ticks(axes.xaxis, "log" if log_x else "linear", axes)
        set_ticks(axes.yaxis, "log" if _far_apart(lines) else "linear", axes)
        axes.grid(which="major")
        canvas.text(0.02, 1 - 0.07 / height, "\n".join(heading), fontsize=8.5, va="top", weight="bold")
        canvas.text(0.56, (0.16 + legend) / height, labels[0], ha="center", va="center")
        canvas.text(0.03, (legend + height) / 2 / height, labels[1], rotation=90, ha="center", va="center")
        _add_legend(canvas, lines, height)
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _themed(file.getvalue())


# inches, and characters in a line
WIDE, TITLE_WIDTH = 4.6, 60


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
    ticks = log_ticks(low, high) if scale == "log" else linear_ticks(low, high)
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_ticklabels(
        [f"{tick:.6g}" if 1e-4 <= abs(tick) < 1e6 or tick == 0 else f"{tick:.0e}" for tick in ticks]
    )


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
            {"color": SERIES[i], "marker": MARKERS[i], "linestyle": DASHES[i % 4], "markersize": 3.5},
        )
        for i, line in enumerate(lines)
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


def _draw_line(axes: Any, line: Line, index: int, aside: float) -> None:
    """Draw one series; its intervals stand so many points aside, so that several do not hide each other."""
    from matplotlib.transforms import ScaledTranslation

    colour, dash = SERIES[index], DASHES[index % 4]
    for curve in line.curves:
        xs, ys = zip(*curve, strict=True) if curve else ((), ())
        marker = MARKERS[index] if len(xs) <= 12 else None
        axes.plot(xs, ys, color=colour, linestyle=dash, marker=marker, markersize=3.5, linewidth=1.3)
    if line.band:
        xs, lows, highs = zip(*line.band, strict=True)
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0)
    place = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    for x, low, high in line.bars:
        axes.plot([x, x], [low, high], color=colour, linewidth=1.1, marker="_", markersize=3, transform=place)
        # a line drawn aside does not count for the limits of the axes by itself
        axes.update_datalim([(x, low), (x, high)])
    if line.reported:
        xs, ys = zip(*line.reported, strict=True)
        axes.plot(
            xs, ys, color=colour, linestyle=":", marker="o", fillstyle="none", markersize=6, linewidth=0.9
        )


def _far_apart(lines: list[Line]) -> bool:
    values = [y for line in lines for curve in line.curves for _, y in curve]
    values += [y for line in lines for _, y in line.reported]
    return bool(values) and min(values) > 0 and max(values) / min(values) >= 20


def _themed(svg: str) -> str:
    """Put CSS variables in place of the colours, and their values for light and dark into the SVG."""
    names = {INK: "ink", GRID: "grid", FRAME: "frame"} | {c: f"s{i}" for i, c in enumerate(SERIES)}
    for colour, name in names.items():
        svg = svg.replace(colour, f"var(--{name})")
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[svg.index("<svg") : start] + _style() + svg[start:]


def _alt(title: str, lines: list[Line], labels: tuple[str, str]) -> str:
    """The picture in words: for each series where it begins and where it ends."""
    parts = [f"{title}. Horizontal: {labels[0]}; vertical: {labels[1]}."]
    for line in lines:
        curves = [curve for curve in line.curves if curve]
        if not curves:
            continue
        (x0, _), (x1, _) = curves[0][0], curves[0][-1]
        first, last = (statistics.fmean(curve[i][1] for curve in curves) for i in (0, -1))
        parts.append(f"{line.label}: {number(first)} at {number(x0)}, {number(last)} at {number(x1)}.")
        parts += [f"Reported: {number(line.reported[-1][1])}."] if line.reported else []
    return " ".join(parts)


# small plots of claims, drawn by a template

WIDTH, LEFT, RIGHT, ROW = 320, 8, 312, 26


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
        rules: x of vertical lines (the bound).
        paths: SVG points of the line through each series' means.
        ticks: (x, text) below; sides: (y, text) at the left.
    """

    height: int
    labels: list[str]
    dots: list[Dot]
    paths: list[tuple[int, str]]
    rules: list[float]
    ticks: list[tuple[float, str, str]]
    sides: list[tuple[float, str]]
    alt: str


def claim_plot(claim: Claim, verdict: Verdict) -> ClaimPlot | None:
    """The plot of a claim's runs; None where there are none."""
    points = [(side, x, y) for side, x, y in verdict.points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return None
    sides = list(dict.fromkeys(side for side, _, _ in points))
    alt = f"Values of {claim.rule.metric}. " + " ".join(
        f"{side}: {', '.join(number(y) for s, _, y in points if s == side)}." for side in sides
    )
    if claim.kind == "trend":
        return _trend_plot(points, sides, alt, log=getattr(claim.rule, "slope", None) is not None)
    return _strip_plot(claim, points, sides, alt)


Points = list[tuple[str, float, float]]


def _strip_plot(claim: Claim, points: Points, sides: list[str], alt: str) -> ClaimPlot:
    limit = getattr(claim.rule, "at_most", None)
    limit = getattr(claim.rule, "at_least", None) if limit is None else limit
    marks = [float(limit)] if isinstance(limit, int | float) else []
    place = scale_of([y for _, _, y in points] + marks, LEFT + 6, RIGHT - 6)
    dots = [
        Dot(place(y), ROW * sides.index(side) + 20, sides.index(side) % PANEL_SERIES) for side, _, y in points
    ]
    values = [y for _, _, y in points] + marks
    height = ROW * len(sides) + 26
    ends = [(float(LEFT), number(min(values)), "start"), (RIGHT, number(max(values)), "end")]
    ticks = ends if max(values) > min(values) else [(place(values[0]), number(values[0]), "middle")]
    return ClaimPlot(height, sides, dots, [], [place(mark) for mark in marks], ticks, [], alt)


def _trend_plot(points: Points, sides: list[str], alt: str, log: bool) -> ClaimPlot:
    """The metric along the series; logarithmic where the claim is about the slope of logarithms."""
    left, height = 62, 150
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    across = scale_of(xs, left + 6, RIGHT - 8, log)
    up = scale_of(ys, height - 34, 10, log)
    dots = [Dot(across(x), up(y), sides.index(side) % PANEL_SERIES) for side, x, y in points]
    paths = []
    for index, side in enumerate(sides):
        means = [
            (across(x), up(statistics.fmean(y for s, at, y in points if s == side and at == x)))
            for x in sorted({at for s, at, _ in points if s == side})
        ]
        paths.append((index % PANEL_SERIES, " ".join(f"{x:.1f},{y:.1f}" for x, y in means)))
    ticks = [(across(min(xs)), number(min(xs)), "start"), (RIGHT, number(max(xs)), "end")]
    texts = [(up(value), f"{value:.3g}") for value in dict.fromkeys((max(ys), min(ys)))]
    return ClaimPlot(height, sides, dots, paths, [], ticks, texts, alt)


def scale_of(values: list[float], low: float, high: float, log: bool = False) -> Callable[[float], float]:
    """A map of values to pixels; logarithmic if it shall be and all values are positive."""
    bend: Callable[[float], float] = math.log if log and min(values) > 0 else float
    first, last = bend(min(values)), bend(max(values))
    width = last - first
    if width == 0:
        return lambda value: (low + high) / 2
    return lambda value: low + (high - low) * (bend(value) - first) / width
