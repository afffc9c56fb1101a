"""Methods side by side: metrics over seeds, and whether the best one is really the best.

Numbers on several data sets are columns of their own, since those of one say nothing of another's.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from common.base.digits import decimals, fixed
from common.base.errors import UserError
from common.claims.judge import LEVEL, mean_interval
from common.metrics.direction import Direction, direction
from common.report.methods import Method, methods_of
from common.report.selection import Chosen, Selection, Unfinished
from common.report.significance import Difference, Sample, difference, holm, sample
from common.runs.code import stale
from common.runs.evidence import asked, asked_forms, key_of
from common.runs.matching import NOTHING
from common.runs.result import number
from common.tables.tables import load_tables, papers, unknown

Spread = Literal["interval", "std"]
# numbers of a result itself, beside its metrics
OF_RUN = ("wall_seconds", "peak_memory_mb")
# what is compared where nothing else is asked for: the first that all runs have
USUAL = (
    "test_accuracy", "test_miou", "test_map", "test_perplexity", "test_error", "test_loss", "simple_regret",
    "regret", "calls_to_eps", "best",
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A metric, on one data set where there are several.

    Attributes:
        better: None where nobody knows which way.
    """

    metric: str
    data: str
    better: Direction | None

    @property
    def title(self) -> str:
        return f"{self.metric} on {self.data}" if self.data else self.metric


@dataclass(frozen=True)
class Cell:
    """A metric of one method.

    Attributes:
        sample: None where no run has a value.
        low, high: of the 95 % t interval of the mean; None of a single run.
        without: runs that ended without a value, as where a target was never reached.
        against: how the best compares with it; None of the best itself, and where nothing is compared.
        p: Holm's p of that.
        place: "best" (significantly), "leads" (the best mean, with others that may be as good), or neither.
    """

    sample: Sample | None
    low: float | None = None
    high: float | None = None
    without: int = 0
    against: Difference | None = None
    p: float | None = None
    place: Literal["best", "leads", ""] = ""

    @property
    def std(self) -> float | None:
        return None if self.sample is None or math.isnan(self.sample.std) else self.sample.std

    def half(self, spread: Spread) -> float | None:
        """What stands behind the ±: half of the interval, or the standard deviation."""
        if spread == "std":
            return self.std
        return None if self.sample is None or self.high is None else self.high - self.sample.mean


@dataclass(frozen=True)
class Row:
    """A method with its cells; a column of which it has no run is missing.

    Attributes:
        unfinished: jobs of its words that came to no result.
        stale: runs that were made by earlier code.
        notes: what a reader must know of it, these two among them.
    """

    method: Method
    cells: dict[Column, Cell]
    unfinished: int = 0
    stale: int = 0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def seeds(self) -> list[int]:
        return sorted({run.result["seed"] for run in self.method.all_runs})

    @property
    def n(self) -> str:
        """How many seeds: of columns that differ in it, from the fewest to the most."""
        counts = sorted({len(cell.sample.by_seed) for cell in self.cells.values() if cell.sample}) or [0]
        return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


@dataclass(frozen=True)
class Comparison:
    """Methods side by side.

    Attributes:
        alike: words that all rows have.
        keys: those in which they differ.
        notes: for each column what is best there and how sure that is; then what else concerns all.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    alike: tuple[str, ...]
    keys: tuple[str, ...]
    notes: tuple[str, ...]
    spread: Spread

    @property
    def about(self) -> str:
        """What stands behind each number, in a line."""
        what = {"interval": "95 % t interval of the mean", "std": "standard deviation"}[self.spread]
        alike = f"; all: {' '.join(self.alike)}" if self.alike else ""
        return f"mean ± {what} over n seeds{alike}"


def compare(
    selection: Selection,
    metrics: Sequence[str] = (),
    spread: Spread = "interval",
    better: Mapping[str, Direction] | None = None,
) -> Comparison:
    """Compare the runs of a selection.

    Args:
        selection: the runs.
        metrics: keys of their metrics; none: the usual one that all runs have.
        spread: what is shown behind the ±.
        better: which way metrics are better, whatever tables and names say; "" stands for all others.

    Raises:
        UserError: no run has a metric, or has it as a number.
    """
    runs = selection.runs
    metrics = tuple(metrics) or (_usual(runs),)
    for metric in metrics:
        check_metric(metric, runs)
    told = better or {}
    strange = next((metric for metric in told if metric and metric not in metrics), None)
    if strange is not None:
        raise UserError(unknown("better", strange, list(metrics)))
    ways = {metric: told.get(metric, told.get("")) or way_of(metric, runs) for metric in metrics}
    found = methods_of(runs)
    several = len(found.data) > 1
    columns = [
        Column(metric, place if several else "", ways[metric]) for place in found.data for metric in metrics
    ]
    rows = [_row(method, columns, found.data, selection.unfinished) for method in found.methods]
    if not selection.ordered:
        rows.sort(key=lambda row: natural(row.name))
    notes = []
    for column in columns:
        rows, note = _judged(column, rows)
        notes.append(note)
    mixed = len({run.recorded for run in runs}) > 1
    return Comparison(
        columns=tuple(column for column in columns if any(column in row.cells for row in rows)),
        rows=tuple(replace(row, notes=_notes(row, mixed)) for row in rows),
        alike=found.alike,
        keys=found.keys,
        notes=(*notes, *_left_over(selection, rows)),
        spread=spread,
    )


def natural(text: str) -> list[tuple[int, float, str]]:
    """A key by which lr=0.5 comes before lr=10."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return [(0, float(part), "") if i % 2 else (1, 0.0, part) for i, part in enumerate(parts)]


# metrics


def check_metric(metric: str, runs: Sequence[Chosen]) -> None:
    """Refuse a metric that no run has as a number.

    Raises:
        UserError: it, with the valid ones.
    """
    if any(value_of(run, metric) is not NOTHING for run in runs):
        return
    if any(metric in run.result["history"] for run in runs):
        raise UserError(f"metric={metric} is a curve, and no single number (valid: curve={metric})")
    raise UserError(unknown("metric", metric, known_metrics(runs)))


def known_metrics(runs: Sequence[Chosen]) -> list[str]:
    """The numbers that results have, those of most runs first."""
    counts: dict[str, int] = {}
    for run in runs:
        for name in run.result["metrics"]:
            counts[name] = counts.get(name, 0) + (value_of(run, name) is not NOTHING)
    named = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    return [*named, *OF_RUN]


def value_of(run: Chosen, metric: str) -> Any:
    """A metric of a run; None where it came to no number, `NOTHING` where it has no such metric."""
    value = run.result["metrics"].get(metric, NOTHING)
    if value is NOTHING and metric in OF_RUN:
        value = run.result.get(metric)
    number_like = isinstance(value, int | float) and not isinstance(value, bool)
    return value if value is None or number_like else NOTHING


def _usual(runs: Sequence[Chosen]) -> str:
    """The first metric of the runs' table, or of the usual ones, that all have."""
    known = known_metrics(runs)
    common = [name for name in known if all(value_of(run, name) is not NOTHING for run in runs)]
    for name in (*_of_table(runs), *USUAL):
        if name in common:
            return name
    raise UserError(f"say metric=, as these runs share no usual one (valid: {', '.join(common or known)})")


def _of_table(runs: Sequence[Chosen]) -> list[str]:
    """The metrics of the table, where all runs are of one."""
    tables = {entry.rpartition(".")[0] for run in runs for entry in run.result["entries"][:1] or [""]}
    paper, _, table = tables.pop().partition(".") if len(tables) == 1 else ("", "", "")
    found = [one["metrics"] for one in _tables(paper) if one["id"] == table]
    return [spec.get("result", name) for metrics in found for name, spec in metrics.items()]


def _tables(paper: str) -> list[dict[str, Any]]:
    return load_tables(paper)["tables"] if paper in papers() else []


def way_of(metric: str, runs: Sequence[Chosen]) -> Direction | None:
    """Which way a metric is better: as the tables of the runs' papers say, else by its name."""
    told = {
        spec.get("better", "none")
        for paper in sorted({run.result["paper"] for run in runs})
        for table in _tables(paper)
        for name, spec in table["metrics"].items()
        if metric in (name, spec.get("result"))
    }
    if not told:
        return direction(metric)
    way = told.pop()
    return way if not told and way in ("higher", "lower") else None


# cells


def _row(
    method: Method, columns: Sequence[Column], data: Sequence[str], unfinished: Sequence[Unfinished]
) -> Row:
    cells = {}
    for column in columns:
        runs = method.runs.get(column.data or data[0], [])
        cell = _cell(runs, column.metric)
        if cell is not None:
            cells[column] = cell
    open_jobs = sum(_is_of(job, method) for job in unfinished)
    return Row(method, cells, open_jobs, sum(stale(run.result) for run in method.all_runs))


def _is_of(job: Unfinished, method: Method) -> bool:
    """Whether a job is one of a method's runs with another seed."""
    wanted = _without_seed(asked(job.words))
    return any(wanted == _without_seed(form) for run in method.all_runs for form in asked_forms(run.result))


def _without_seed(words: Sequence[str]) -> frozenset[str]:
    return frozenset(word for word in words if key_of(word) != "seed")


def _cell(runs: Sequence[Chosen], metric: str) -> Cell | None:
    """The cell of some runs; of several with one seed the newest counts. None where none knows the metric."""
    newest = {run.result["seed"]: run for run in sorted(runs, key=lambda run: str(run.result["finished"]))}
    known = [run for run in newest.values() if value_of(run, metric) is not NOTHING]
    values = {run.result["seed"]: float(v) for run in known if (v := value_of(run, metric)) is not None}
    without = len(known) - len(values)
    if not known:
        return None
    if not values:
        return Cell(None, without=without)
    found = sample(dict(sorted(values.items())))
    if len(values) == 1 and (inner := _of_replicates(known, metric, found)) is not None:
        half = 1.96 * inner.std / math.sqrt(inner.n)
        return Cell(inner, inner.mean - half, inner.mean + half, without)
    interval = mean_interval(list(values.values()))
    low, high = (interval.low, interval.high) if interval.bounded else (None, None)
    return Cell(found, low, high, without)


def _of_replicates(runs: Sequence[Chosen], metric: str, found: Sample) -> Sample | None:
    """The sample of the replicates within a single run, which knows their standard error."""
    metrics = runs[0].result["metrics"]
    error = metrics.get(f"{metric}_sem")
    count = metrics.get("replicates") or runs[0].result["config"].get("paper", {}).get("repeats") or 1
    if len(runs) != 1 or error is None or count < 2:
        return None
    return Sample(found.by_seed, found.mean, float(error) * math.sqrt(count), int(count))


# what is best


def _judged(column: Column, rows: list[Row]) -> tuple[list[Row], str]:
    """The rows with what is best in a column, and that in a line."""
    whole = {
        i: cell.sample
        for i, row in enumerate(rows)
        if (cell := row.cells.get(column)) is not None and cell.sample is not None and not cell.without
    }
    if column.better is None:
        other = "nobody knows whether higher or lower is better: say better=higher or better=lower"
        return rows, f"{column.title}: no best is marked, as {other}"
    if len(whole) < 2:
        return rows, f"{column.title} ({column.better} is better): there is nothing to compare"
    sign = 1.0 if column.better == "higher" else -1.0
    best = max(whole, key=lambda i: sign * whole[i].mean)
    tests = {i: difference(whole[best], one) for i, one in whole.items() if i != best}
    tested = {i: p for i, test in tests.items() if (p := test.p) is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    sure = len(adjusted) == len(tests) and all(p < 1 - LEVEL for p in adjusted.values())
    found = list(rows)
    for i in whole:
        place: Literal["best", "leads", ""] = ("best" if sure else "leads") if i == best else ""
        cell = replace(found[i].cells[column], against=tests.get(i), p=adjusted.get(i), place=place)
        found[i] = replace(found[i], cells=found[i].cells | {column: cell})
    return found, f"{column.title} ({column.better} is better): {_said(best, tests, adjusted, rows, sure)}"


def _said(
    best: int, tests: Mapping[int, Difference], adjusted: Mapping[int, float], rows: Sequence[Row], sure: bool
) -> str:
    """What is best, against what, by which test."""
    kinds = [test.test for test in tests.values() if test.p is not None]
    paired, welch = kinds.count("paired"), kinds.count("Welch")
    named = [_tests(paired, "paired t test", " over common seeds")] * bool(paired)
    named += [_tests(welch, "Welch's t test", "")] * bool(welch)
    correction = ", Holm's correction" if len(adjusted) > 1 else ""
    how = f" ({' and '.join(named)}{correction})" if named else ""
    name = rows[best].name
    if sure:
        return f"{name} is significantly best, p {_at_most(max(adjusted.values()))}{how}"
    close = sorted((p, i) for i, p in adjusted.items() if p >= 1 - LEVEL)
    open_ones = [
        f"{rows[i].name} (p = {p:.2g}" + (")" if tests[i].spread else ", no spread over seeds)")
        for p, i in close[::-1]
    ]
    open_ones += [f"{rows[i].name} (one seed)" for i in tests if i not in adjusted]
    shown = ", ".join(open_ones[:4]) + (f" and {len(open_ones) - 4} more" if len(open_ones) > 4 else "")
    return f"{name} leads, not significantly before {shown}{how}"


def _tests(count: int, name: str, how: str) -> str:
    return f"{name}{how}" if count == 1 else f"{count} {name}s{how}"


def _at_most(p: float) -> str:
    return f"= {p:.2g}" if p >= 1e-4 else "< 0.0001"


# notes


def _notes(row: Row, mixed: bool) -> tuple[str, ...]:
    """What a reader must know of a row.

    Args:
        mixed: whether some of the runs are recorded ones and others not.
    """
    runs = row.method.all_runs
    notes = []
    repeats = {cell.sample.n for cell in row.cells.values() if cell.sample and len(cell.sample.by_seed) == 1}
    if repeats and max(repeats) > 1:
        notes.append(f"1 seed of {max(repeats)} replicates, whose interval it is")
    elif repeats:
        notes.append("1 seed: no interval")
    without = max((cell.without for cell in row.cells.values()), default=0)
    if without:
        notes.append(f"{without} of {len(row.seeds)} without a value, so not compared")
    if row.unfinished:
        notes.append(f"{row.unfinished} unfinished")
    if row.stale:
        notes.append("earlier code" + ("" if row.stale == len(runs) else f" ({row.stale} of {len(runs)})"))
    twice = len(runs) - sum(len({run.result["seed"] for run in found}) for found in row.method.runs.values())
    if twice:
        notes.append(f"{twice} left out, made again with the same seed")
    if mixed and any(run.recorded for run in runs):
        count = sum(run.recorded for run in runs)
        notes.append("committed evidence" + ("" if count == len(runs) else f" ({count} of {len(runs)})"))
    return tuple(notes)


def _left_over(selection: Selection, rows: Sequence[Row]) -> list[str]:
    """Jobs of the sweeps that were named which are of no row, as of methods that never came to a result."""
    if not selection.ordered:
        return []
    lost = [job for job in selection.unfinished if not any(_is_of(job, row.method) for row in rows)]
    if not lost:
        return []
    jobs = "1 job came" if len(lost) == 1 else f"{len(lost)} jobs came"
    first = ": ".join(filter(None, (lost[0].why, " ".join(lost[0].words))))
    return [f"{jobs} to no result, and {'is' if len(lost) == 1 else 'are'} on no row ({first})"]


def cell_text(cell: Cell | None, spread: Spread, of_column: int | None = None) -> str:
    """`0.952 ± 0.012`, the mean as exact as what stands behind the ± lets it be, or as its column is."""
    if cell is None:
        return "-"
    if cell.sample is None:
        return "no value"
    half = cell.half(spread)
    places = decimals(half) if of_column is None else of_column
    if places is None:
        return number(cell.sample.mean) + ("" if half is None else f" ± {half:.2g}")
    mean = fixed(cell.sample.mean, places)
    return mean if half is None else f"{mean} ± {fixed(half, places)}" if half else f"{mean} ± 0"
