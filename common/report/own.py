"""The page of the user's own runs: what `outputs` holds that is no committed evidence, method by method.

A section is a paper on a data set. Beside the user's runs stand the committed ones on the very same data, as
far as they fit into a table.
"""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from common.base.errors import UserError
from common.report.comparison import USUAL, Comparison, Row, compare, known_metrics, value_of
from common.report.curves import EPOCH, STEP, panels
from common.report.figures import (
    CURVES,
    PANEL_SERIES,
    Figure,
    Line,
    comparable,
    curve_label,
    panel_figure,
    spread_of,
    step_name,
)
from common.report.selection import Chosen, Selection
from common.report.written import footnotes, is_best, texts
from common.runs.evidence import Evidence, key_of, neutral
from common.runs.matching import NOTHING, without_seed
from common.runs.neutral import NEUTRAL_IN

# metrics of a section, and rows that a table of it may have with committed ones beside
METRICS, ROWS = 3, 40
# of a data set's node: what a run's budget sets, and not which data they are
BUDGET = {"batch_size", "limit", "augment"}


@dataclass(frozen=True)
class OwnRow:
    """A row as a page shows it.

    Attributes:
        cells: (shown, whether it is significantly best) of each column.
        own: whether any of its runs is the user's own.
        command: that makes its first run.
    """

    name: str
    cells: list[tuple[str, bool]]
    n: str
    notes: str
    own: bool
    command: str


@dataclass(frozen=True)
class Section:
    """A paper on a data set.

    Attributes:
        id: for links; command: that shows the same in a terminal.
        beside: how many committed methods on the same data there are; shown where they fit.
    """

    id: str
    title: str
    command: str
    columns: list[str]
    rows: list[OwnRow]
    notes: list[str]
    figures: list[Figure]
    beside: int
    beside_shown: bool


def own_sections(evidence: Evidence) -> list[Section]:
    """The sections of all runs that are no committed evidence, those with the newest run first."""
    every = [Chosen(key, one, recorded=key in evidence.recorded) for key, one in evidence.by_key.items()]
    own, committed = (
        _by_data(run for run in every if run.recorded == recorded) for recorded in (False, True)
    )
    newest = sorted(own.items(), key=lambda item: -max(_time(run) for run in item[1]))
    sections = (_section(runs, committed.get(place, [])) for place, runs in newest)
    return [section for section in sections if section is not None]


def _by_data(runs: Iterable[Chosen]) -> dict[tuple[str, str], list[Chosen]]:
    """Runs by their paper and their data, without searches over others."""
    found: dict[tuple[str, str], list[Chosen]] = {}
    for run in runs:
        if _is_compared(run.result):
            found.setdefault((run.result["paper"], _data(run.result)), []).append(run)
    return found


def _is_compared(result: dict[str, Any]) -> bool:
    """Whether a run is one of a method, and no search over others, which has a page of its own."""
    return "trials" not in result.get("conclusion", {}) and bool(result["metrics"])


def _time(run: Chosen) -> float:
    return float(re.sub(r"\D", "", str(run.result["finished"])) or 0)


def _data(result: dict[str, Any]) -> str:
    """The data set of a run as text: equal for runs on the same data, whatever their budget."""
    node = without_seed(result["config"].get("dataset", {}), result["seed"])
    kept = {key: value for key, value in node.items() if key not in BUDGET | NEUTRAL_IN["dataset"]}
    return json.dumps([result["choices"]["dataset"], kept], sort_keys=True, default=str)


def _section(own: list[Chosen], committed: Sequence[Chosen]) -> Section | None:
    """A section; None where no number is known to all of its runs.

    Args:
        own, committed: runs of one paper on the same data.
    """
    metrics = _metrics(own)
    if not metrics:
        return None
    beside = [run for run in committed if all(value_of(run, metric) is not NOTHING for metric in metrics)]
    alone = compare(Selection(own), metrics)
    both = compare(Selection([*own, *beside]), metrics) if beside else alone
    fits = len(both.rows) <= ROWS
    shown = both if fits else alone
    paper, dataset = own[0].result["paper"], own[0].result["choices"]["dataset"]
    words = [f"paper={paper}", f"dataset={dataset}", f"metric={','.join(metrics)}"]
    identity = re.sub(r"[^\w-]", "-", f"{paper}-{dataset}-{len(own)}-{own[0].key[-12:]}")
    return Section(
        id=identity,
        title=f"{paper} on {dataset}" + (f": {path}" if (path := _path(own[0].result)) else ""),
        command=f"python compare.py {shlex.join(words)}",
        columns=[column.title for column in shown.columns],
        rows=_rows(shown),
        notes=footnotes(shown),
        figures=list(_figures(alone, identity)),
        beside=len(both.rows) - len(alone.rows),
        beside_shown=fits,
    )


def _path(result: dict[str, Any]) -> str:
    return str(result["config"].get("dataset", {}).get("path") or "")


def _metrics(runs: Sequence[Chosen]) -> list[str]:
    """The usual metrics that all have; without these, the first that all have."""
    known = [name for name in known_metrics(runs) if all(value_of(run, name) is not NOTHING for run in runs)]
    usual = [name for name in USUAL if name in known]
    return usual[:METRICS] or known[:1]


def _rows(comparison: Comparison) -> list[OwnRow]:
    return [
        OwnRow(
            name=row.name,
            cells=[
                (cell, is_best(row, column)) for column, cell in zip(comparison.columns, cells, strict=True)
            ],
            n=row.n,
            notes="; ".join(row.notes),
            own=any(not run.recorded for run in row.method.all_runs),
            command=_command(row),
        )
        for row, cells in zip(comparison.rows, texts(comparison), strict=True)
    ]


def _command(row: Row) -> str:
    first = min(row.method.all_runs, key=lambda run: run.result["seed"])
    # a class of one's own needs its module
    words = [word for word in first.result["overrides"] if not neutral(word) or key_of(word) == "import"]
    return f"python run.py {shlex.join(words)}"


def _figures(comparison: Comparison, name: str) -> list[Figure]:
    """The learning curves of the user's own methods, so many a panel as can be told apart."""
    runs = [run.result for row in comparison.rows for run in row.method.all_runs]
    known = [one for one in CURVES if any(one in run["history"] for run in runs)]
    curve = next((one for one in known if comparable(one, runs)), None)
    if curve is None:
        return []
    axis = EPOCH if all("epoch" in run["history"] for run in runs) else STEP
    try:
        (panel, *_) = panels(comparison, curve, axis)
    except UserError:
        # a single point each
        return []
    label = axis if axis == EPOCH else step_name(runs)
    title = f"{curve_label(curve)} against {label}, mean over seeds"
    found = []
    for start in range(0, len(panel.curves), PANEL_SERIES):
        lines = [
            Line(
                label=one.name,
                curves=[list(zip(one.x, one.mean, strict=True))],
                bars=[],
                reported=[],
                unverified=False,
                band=() if one.low is None else tuple(zip(one.x, one.low, one.high or [], strict=True)),
            )
            for one in panel.curves[start : start + PANEL_SERIES]
        ]
        labels = (label, curve_label(curve))
        said = title + spread_of(lines)
        found.append(panel_figure(f"{name}.{start}", said, lines, "paper", "curves", labels, False))
    return found
