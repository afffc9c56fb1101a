"""Searches over runs as pages: all trials in a table, as parallel coordinates, and each key by itself."""

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.report.claim_plots import ClaimPlot, Dot
from common.runs.evidence import Evidence
from common.runs.result import number

# of parallel coordinates: the size, margins, and the place of what does not exist in a trial
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 300, 110, 70, 26, 34
# a range of positive numbers with such a ratio is shown in logarithms
LOGARITHMIC = 30.0
# groups of trials by their rank, from the best on
QUARTERS = 4


@dataclass(frozen=True)
class Scale:
    """Where values lie between 0 and 1.

    Attributes:
        place: of a value as text; None of one that is not there.
        ticks: (place, text).
        kind: linear, logarithmic or choices.
    """

    place: Callable[[str], float]
    ticks: list[tuple[float, str]]
    kind: str


@dataclass(frozen=True)
class Line:
    """A trial in parallel coordinates: SVG points, its quarter by rank, what it is in words."""

    points: str
    series: int
    best: bool
    says: str


@dataclass(frozen=True)
class Axis:
    """An axis of them: where it stands, what it is called, and (y, text)."""

    x: float
    name: str
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Row:
    """A trial in the table.

    Attributes:
        cells: (shown, what it is sorted by) of each key and of the metric.
        state: in full, stopped early at a share, or failed and why.
    """

    number: int
    replicate: int
    cells: list[tuple[str, str]]
    state: str
    command: str
    best: bool


@dataclass(frozen=True)
class Search:
    """A page.

    Attributes:
        name: of its file; title: the runs that are searched.
        command: that makes the search; answer: that of the best run, None where every trial failed.
        keys: that vary; better: which way the metric is better.
    """

    name: str
    title: str
    command: str
    metric: str
    better: str
    value: str | None
    replicates: list[str]
    answer: str | None
    keys: list[str]
    rows: list[Row]
    lines: list[Line]
    axes: list[Axis]
    plots: list[tuple[str, ClaimPlot]]
    curve: ClaimPlot | None
    failed: int
    stopped: int

    width: int = WIDTH
    height: int = HEIGHT


def searches(evidence: Evidence) -> list[Search]:
    """All searches over runs, the newest first."""
    found = [(key, one) for key, one in evidence.by_key.items() if "trials" in one.get("conclusion", {})]
    found.sort(key=lambda item: item[1]["finished"], reverse=True)
    return [search(key, result) for key, result in found]


def search(key: str, result: dict[str, Any]) -> Search:
    """The page of a search, by its run key and result."""
    conclusion = result["conclusion"]
    metric, trials = conclusion["metric"], conclusion["trials"]
    keys = list(dict.fromkeys(name for trial in trials for name in trial["settings"]))
    down = conclusion.get("goal", "minimize") == "minimize"
    done = [trial for trial in trials if trial[metric] is not None]
    ranked = sorted(done, key=lambda trial: (-trial["share"], trial[metric] if down else -trial[metric]))
    best = conclusion.get("number")
    scales = {name: _scale([t["settings"][name] for t in trials if name in t["settings"]]) for name in keys}
    measured = _scale([repr(trial[metric]) for trial in done])
    words = conclusion.get("words")
    return Search(
        name=f"search-{key.replace('/', '-')}",
        title=str(result["config"]["dataset"].get("words", key)),
        command=f"python run.py {shlex.join(result['overrides'])}",
        metric=metric,
        better="lower" if down else "higher",
        value=number(conclusion["value"]) if words else None,
        replicates=[number(value) for value in conclusion.get("replicates", [])],
        answer=f"python run.py {shlex.join(words)}" if words else None,
        keys=keys,
        rows=[_row(trial, keys, metric, best, result) for trial in trials],
        lines=_lines(ranked, keys, metric, scales, measured, best),
        axes=_axes(keys, metric, scales, measured),
        plots=[(name, _plot(name, ranked, metric, scales[name], measured)) for name in keys] if done else [],
        curve=_curve(result["history"], metric),
        failed=len(trials) - len(done),
        stopped=sum(trial["share"] < 1.0 for trial in done),
    )


def _row(
    trial: dict[str, Any], keys: Sequence[str], metric: str, best: int | None, result: dict[str, Any]
) -> Row:
    cells = [(trial["settings"].get(key, "–"),) * 2 for key in keys]
    value = trial[metric]
    cells.append((number(value), "" if value is None else repr(value)))
    state = "in full" if trial["share"] >= 1.0 else f"stopped at {trial['share']:.0%}"
    if value is None:
        state = f"failed: {trial.get('said') or 'no finite number'}"
    base = shlex.split(str(result["config"]["dataset"].get("words", "")))
    own = [f"{key}={setting}" for key, setting in trial["settings"].items()]
    if not any(word.startswith("seed=") for word in base):
        own.append(f"seed={result['seed'] + trial['replicate']}")
    command = f"python run.py {shlex.join([*base, *own])}"
    return Row(trial["number"], trial["replicate"], cells, state, command, trial["number"] == best)


def _scale(values: Sequence[str]) -> Scale:
    """A scale for values as text: of numbers linear or logarithmic, else one place for each."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if not numbers:
        kinds = sorted(set(values))
        places = {kind: (i + 0.5) / len(kinds) for i, kind in enumerate(kinds)}
        return Scale(lambda value: places[value], [(p, kind) for kind, p in places.items()], "choices")
    low, high = min(numbers), max(numbers)
    if low > 0 and high / low >= LOGARITHMIC:
        ends = math.log(low), math.log(high)
        middle = number(float(f"{math.sqrt(low * high):.2g}"))
        ticks = [(0.0, number(low)), (0.5, middle), (1.0, number(high))]
        return Scale(lambda v: (math.log(float(v)) - ends[0]) / (ends[1] - ends[0]), ticks, "logarithmic")
    if high == low:
        return Scale(lambda value: 0.5, [(0.5, number(low))], "linear")
    ticks = [(0.0, number(low)), (0.5, number((low + high) / 2)), (1.0, number(high))]
    return Scale(lambda value: (float(value) - low) / (high - low), ticks, "linear")


# parallel coordinates


def _across(count: int) -> list[float]:
    """Where so many axes stand."""
    step = (WIDTH - LEFT - RIGHT) / max(count - 1, 1)
    return [LEFT + i * step for i in range(count)]


def _up(place: float) -> float:
    return TOP + (1 - place) * (HEIGHT - TOP - BOTTOM)


def _lines(
    ranked: Sequence[dict[str, Any]],
    keys: Sequence[str],
    metric: str,
    scales: dict[str, Scale],
    measured: Scale,
    best: int | None,
) -> list[Line]:
    """Of each trial a line, the worst first, so that the best lie on top; absent keys pass below the axis."""
    found = []
    xs = _across(len(keys) + 1)
    for place, trial in enumerate(ranked):
        ys = [
            _up(scales[key].place(trial["settings"][key])) if key in trial["settings"] else HEIGHT - 8.0
            for key in keys
        ]
        ys.append(_up(measured.place(repr(trial[metric]))))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        words = " ".join(f"{key}={value}" for key, value in trial["settings"].items())
        says = f"trial {trial['number'] + 1}: {words}, {metric} {number(trial[metric])}"
        found.append(Line(points, QUARTERS * place // len(ranked), trial["number"] == best, says))
    return found[::-1]


def _axes(keys: Sequence[str], metric: str, scales: dict[str, Scale], measured: Scale) -> list[Axis]:
    every = [*((key, scales[key]) for key in keys), (metric, measured)]
    return [
        Axis(x, name, [(_up(place), text) for place, text in scale.ticks])
        for x, (name, scale) in zip(_across(len(every)), every, strict=True)
    ]


# each key by itself, and the best so far


def _plot(
    key: str, ranked: Sequence[dict[str, Any]], metric: str, scale: Scale, measured: Scale
) -> ClaimPlot:
    """The metric against a key; trials that were stopped early are a series of their own."""
    dots = [
        Dot(
            x=_x(scale.place(trial["settings"][key])),
            y=_y(measured.place(repr(trial[metric]))),
            series=0 if trial["share"] >= 1.0 else 1,
        )
        for trial in ranked
        if key in trial["settings"]
    ]
    stopped = any(dot.series for dot in dots)
    return _small(
        dots, [], scale.ticks, measured.ticks, ["in full", *(["stopped early"] if stopped else [])],
        f"{metric} against {key} ({scale.kind}), one dot a trial.",
    )  # fmt: skip


def _curve(history: dict[str, list[Any]], metric: str) -> ClaimPlot | None:
    """The best so far against the trainings that were spent."""
    steps, best = history.get("step", []), history.get(f"best_{metric}", [])
    known = [(x, y) for x, y in zip(steps, best, strict=True) if y is not None] if best else []
    if len(known) < 2:
        return None
    xs, ys = _scale([repr(x) for x, _ in known]), _scale([repr(y) for _, y in known])
    points: list[tuple[float, float]] = []
    for x, y in known:
        at, level = _x(xs.place(repr(x))), _y(ys.place(repr(y)))
        # a step: it holds until the next
        points += [(at, points[-1][1])] if points else []
        points.append((at, level))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    alt = f"Best {metric} so far against trainings: {number(known[0][1])} to {number(known[-1][1])}."
    return _small([], [(0, path)], xs.ticks, ys.ticks, [f"best {metric} so far"], alt)


PLOT_HEIGHT = 190


def _x(place: float) -> float:
    return 70 + place * 235


def _y(place: float) -> float:
    return 12 + (1 - place) * (PLOT_HEIGHT - 42)


def _small(
    dots: list[Dot],
    paths: list[tuple[int, str]],
    across: list[tuple[float, str]],
    up: list[tuple[float, str]],
    labels: list[str],
    alt: str,
) -> ClaimPlot:
    anchors = {0.0: "start", 1.0: "end"}
    ticks = [(_x(place), text, anchors.get(place, "middle")) for place, text in across]
    sides = [(_y(place), text) for place, text in up]
    return ClaimPlot(PLOT_HEIGHT, labels, dots, paths, [], ticks, sides, alt)
