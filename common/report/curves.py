"""Curves of methods, the mean over seeds with a band, as a picture for a paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from common.base.errors import UserError
from common.base.files import whole
from common.claims.judge import LEVEL
from common.report.comparison import Comparison, Spread
from common.report.figures import DASHES, LIGHT, set_ticks, step_name
from common.report.model import spaced
from common.report.selection import Chosen
from common.tables.tables import unknown

STEP, EPOCH, SECONDS = "step", "epoch", "seconds"
AXES = (STEP, EPOCH, SECONDS)
# as many lines can be told apart, by colour and dash
MOST = len(LIGHT) * len(DASHES)
# values further apart than this are drawn in logarithms, where nothing else is asked for
FAR = 50.0
# inches
WIDE, HIGH, LEGEND_LINE = 5.5, 3.4, 0.2


@dataclass(frozen=True)
class Curve:
    """A method's curve.

    Attributes:
        x, mean: where it stands, and the mean over seeds there.
        low, high: the band; none of a single run.
        n: seeds.
    """

    name: str
    x: list[float]
    mean: list[float]
    low: list[float] | None
    high: list[float] | None
    n: int


@dataclass(frozen=True)
class Panel:
    """The curves on one data set (of "" where there is one alone)."""

    data: str
    curves: list[Curve]


def panels(comparison: Comparison, curve: str, axis: str = STEP) -> list[Panel]:
    """The curves of a comparison's methods, a panel for each data set.

    Args:
        curve: a key of the runs' histories.
        axis: step, epoch or seconds. Seconds that a run has not recorded are its wall time, spread evenly
            over its steps.

    Raises:
        UserError: no run has the curve, or none has it along this axis.
    """
    runs = [run for row in comparison.rows for run in row.method.all_runs]
    if axis not in AXES:
        raise UserError(unknown("x", axis, list(AXES)))
    names = list(dict.fromkeys(name for run in runs for name in run.result["history"] if name not in AXES))
    if curve not in names:
        raise UserError(unknown("curve", curve, names))
    if axis == EPOCH and not any(EPOCH in run.result["history"] for run in runs):
        raise UserError("x=epoch: these runs count no epochs (valid: step, seconds)")
    data = list(dict.fromkeys(place for row in comparison.rows for place in row.method.runs))
    found = [Panel(place if len(data) > 1 else "", _curves(comparison, place, curve, axis)) for place in data]
    found = [panel for panel in found if panel.curves]
    if not found:
        raise UserError(f"curve={curve}: no run has two points of it (valid: {', '.join(names)})")
    most = max(len(panel.curves) for panel in found)
    if most > MOST:
        raise UserError(
            f"curve={curve}: {most} lines in one picture (valid: at most {MOST}; name fewer runs)"
        )
    return found


def _curves(comparison: Comparison, place: str, curve: str, axis: str) -> list[Curve]:
    found = [
        _curve(row.name, row.method.runs.get(place, []), curve, axis, comparison.spread)
        for row in comparison.rows
    ]
    return [one for one in found if one is not None]


def _curve(name: str, runs: Sequence[Chosen], curve: str, axis: str, spread: Spread) -> Curve | None:
    """A method's mean and band; None where no run has two points."""
    known = [(run, line) for run in runs if len((line := points(run.result, curve, axis))[0]) > 1]
    if not known:
        return None
    x = common_places([xs for _, (xs, _) in known])
    if len(x) < 2:
        return None
    values = np.array([np.interp(x, xs, ys) for _, (xs, ys) in known])
    mean, n = values.mean(axis=0), len(known)
    if n == 1:
        return Curve(name, x, mean.tolist(), *_own_band(known[0][0].result, curve, axis), n)
    half = values.std(axis=0, ddof=1)
    if spread == "interval":
        half = half * stats.t.ppf((1 + LEVEL) / 2, n - 1) / math.sqrt(n)
    return Curve(name, x, mean.tolist(), (mean - half).tolist(), (mean + half).tolist(), n)


def points(result: dict[str, Any], curve: str, axis: str) -> tuple[list[float], list[float]]:
    """The points of a run's curve that have a value, in the order of x."""
    history = result["history"]
    xs = history.get(axis)
    if xs is None and axis == SECONDS and history.get(STEP):
        last = max(step for step in history[STEP] if step is not None) or 1.0
        xs = [None if step is None else result["wall_seconds"] * step / last for step in history[STEP]]
    pairs = [
        (float(x), float(y))
        for x, y in zip(xs or [], history.get(curve) or [], strict=False)
        if isinstance(x, int | float) and isinstance(y, int | float) and math.isfinite(x) and math.isfinite(y)
    ]
    pairs = sorted(dict(pairs).items())
    return [x for x, _ in pairs], [y for _, y in pairs]


def common_places(lines: Sequence[Sequence[float]]) -> list[float]:
    """Where all curves have values: all their places within the shortest of them."""
    first, last = max(xs[0] for xs in lines), min(xs[-1] for xs in lines)
    return sorted({x for xs in lines for x in xs if first <= x <= last})


def _own_band(result: dict[str, Any], curve: str, axis: str) -> tuple[list[float] | None, list[float] | None]:
    """The band of a single run that is itself a mean of replicates."""
    lows, highs = (points(result, f"{curve}_{side}", axis)[1] for side in ("low", "high"))
    whole_band = len(lows) == len(highs) == len(points(result, curve, axis)[0])
    return (lows, highs) if whole_band else (None, None)


# drawing


def draw(comparison: Comparison, curve: str, axis: str, logarithmic: str | None, path: Path) -> None:
    """Draw the curves into an SVG, PDF or PNG file.

    Args:
        logarithmic: "x", "y", "xy" or "none"; None: y where its values are far apart.

    Raises:
        UserError: as `panels`.
    """
    found = panels(comparison, curve, axis)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one.name for panel in found for one in panel.curves))
    looks = {
        name: {"color": LIGHT[i % len(LIGHT)], "linestyle": DASHES[i // len(LIGHT)]}
        for i, name in enumerate(names)
    }
    columns = 1 if max(map(len, names)) > 34 else 2
    high = HIGH + LEGEND_LINE * math.ceil(len(names) / columns)
    # text of an SVG as paths, so that it looks the same everywhere; no Type 3 fonts, which publishers refuse
    settings: dict[Any, Any] = {
        "font.size": 9, "pdf.fonttype": 42, "svg.hashsalt": "reprise", "text.parse_math": False,
        "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.color": "#dfe3e8",
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDE * len(found), high), layout="constrained")
        axes = figure.subplots(1, len(found), squeeze=False)[0]
        for one, panel in zip(axes, found, strict=True):
            _draw_panel(one, panel, looks)
            _scale(one, panel, logarithmic)
            one.set_xlabel(_axis_name(comparison, axis))
            one.set_ylabel(spaced(curve))
            if panel.data:
                one.set_title(panel.data)
        lines = {str(line.get_label()): line for one in axes for line in one.get_legend_handles_labels()[0]}
        look = {"ncols": columns * len(found), "frameon": False}
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", **look)
        with whole(path) as partial:
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(path.suffix[1:], {})
            figure.savefig(partial, format=path.suffix[1:], metadata=metadata, dpi=200)


def _draw_panel(axes: Any, panel: Panel, looks: dict[str, dict[str, Any]]) -> None:
    for curve in panel.curves:
        marker = {"marker": "o", "markersize": 3} if len(curve.x) <= 12 else {}
        label = curve.name if curve.n > 1 else f"{curve.name} (1 seed)"
        axes.plot(curve.x, curve.mean, label=label, linewidth=1.4, **looks[curve.name], **marker)
        if curve.low is not None and curve.high is not None:
            colour = looks[curve.name]["color"]
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.grid(True)


def _scale(axes: Any, panel: Panel, logarithmic: str | None) -> None:
    """Set the scales; a logarithmic axis shows what is positive, and a band that goes below is cut there."""
    ys = [y for curve in panel.curves for y in curve.mean]
    positive = [y for y in ys if y > 0]
    far = len(positive) == len(ys) and max(ys) / min(ys) >= FAR
    wanted = ("y" if far else "none") if logarithmic is None else logarithmic
    if "y" in wanted and positive:
        axes.set_yscale("log", nonpositive="clip")
        # bands that come near to zero show no more than a decade below the lines
        lows = [y for curve in panel.curves for y in curve.low or [] if y > min(positive) / 10]
        axes.set_ylim(bottom=min([*positive, *lows]) * 0.8)
    if "x" in wanted and any(x > 0 for curve in panel.curves for x in curve.x):
        axes.set_xscale("log", nonpositive="mask")
    set_ticks(axes.xaxis, axes.get_xscale(), axes)
    set_ticks(axes.yaxis, axes.get_yscale(), axes)


def _axis_name(comparison: Comparison, axis: str) -> str:
    runs = [run.result for row in comparison.rows for run in row.method.all_runs]
    if axis == STEP:
        kinds = {step_name([run]) for run in runs}
        return kinds.pop() if len(kinds) == 1 else "steps"
    recorded = all(SECONDS in run["history"] for run in runs)
    return axis if axis == EPOCH or recorded else "seconds (wall time, spread evenly over the steps)"
