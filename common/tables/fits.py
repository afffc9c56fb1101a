"""Complexity tables: slopes over measured entries, beside the exponents that the paper states.

    python -m common.tables.fits

Reads every `result.json` under `outputs/`. A row's `fit` names the methods whose measured rows it takes:
`online` in the table `ifo_online` (gradient calls against eps) and `finite_sum` in the table `ifo`
(gradient calls against n on the synthetic sets, at each eps).
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from common.runs.result import read_result
from common.tables.tables import ROOT, entries, load_tables, papers


def slope(points: Iterable[tuple[float, float]]) -> float | None:
    """The least-squares slope of log y against log x; None for fewer than two x.

    Several y at one x (seeds) enter as their median.
    """
    at: dict[float, list[float]] = defaultdict(list)
    for x, y in points:
        at[x].append(y)
    if len(at) < 2:
        return None
    x_logs = np.log(list(at))
    y_logs = np.log([median(ys) for ys in at.values()])
    return float(np.polyfit(x_logs, y_logs, 1)[0])


def measured(outputs: Path, paper: str, table: str) -> list[dict[str, Any]]:
    """The results that serve entries of a table. Any scale will do: it bounds a run, and moves no hit."""
    found = [read_result(path) for path in outputs.glob(f"{paper}/*/result.json")]
    prefix = f"{paper}.{table}."
    return [r for r in found if r is not None and any(name.startswith(prefix) for name in r["entries"])]


def _points(
    results: list[dict[str, Any]], method: str, x: str, y: str
) -> dict[float, list[tuple[float, float]]]:
    """(x, y) of one method's results, grouped by eps where x is n."""
    groups: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for result in results:
        if result["choices"]["method"] != f"variance_reduction/{method}" or result["metrics"].get(y) is None:
            continue
        eps = result["config"]["paper"]["eps"]
        if x == "eps":
            groups[0.0].append((eps, result["metrics"][y]))
        elif result["choices"]["dataset"].startswith("synthetic_logistic"):
            groups[eps].append((result["metrics"]["n"], result["metrics"][y] * result["metrics"]["n"]))
    return groups


def rows_with_slopes(outputs: Path, paper: str, table: str) -> list[list[str]]:
    """One line a row: its name, what is stated (and whence), the measured slopes."""
    online, finite = measured(outputs, paper, "ifo_online"), measured(outputs, paper, "ifo")
    lines = []
    for entry in entries(paper):
        if entry.table != table:
            continue
        fit = entry.fit or {}
        in_eps = _texts(_points(online, fit.get("online", ""), "eps", "sfo_calls"), "")
        in_n = _texts(_points(finite, fit.get("finite_sum", ""), "n", "ifo_over_n"), "eps ")
        stated = [f"{value}" for value in entry.reported.values()]
        theory = f" (theory {fit['n_exponent']})" if in_n != "-" else ""
        lines.append([entry.row, *stated, entry.source["kind"], in_eps, in_n + theory])
    return lines


def _texts(groups: dict[float, list[tuple[float, float]]], label: str) -> str:
    slopes = {key: slope(points) for key, points in sorted(groups.items())}
    texts = [
        f"{label}{key}: {value:.2f}" if label else f"{value:.2f}"
        for key, value in slopes.items()
        if value is not None
    ]
    return ", ".join(texts) or "-"


def main() -> int:
    """Print each complexity table with its measured slopes."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    for paper in papers():
        for table in load_tables(paper)["tables"]:
            if not any("fit" in row for row in table.get("rows", [])):
                continue
            shown = Table(
                "row", *table["metrics"], "source", "measured: calls ~ eps^", "measured: calls ~ n^"
            )
            for line in rows_with_slopes(ROOT / "outputs", paper, table["id"]):
                shown.add_row(*line)
            console.print(f"{paper}.{table['id']}: {table['about']}")
            console.print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
