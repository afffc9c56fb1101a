"""A paper's `tables.yaml`: its tables as data, and the entries that follow from them.

A table says what is common to its rows, and either lists `rows` or spans a `grid` of named axes:

    id, about        the table's name and what it shows
    metrics          name -> {unit, better, result: key in result.json (default: the name)}
    choose           config groups: {dataset: mnist, method: optimizer/yogi}
    set              values that define the rows: {paper.eps: 0.01}; no scale touches them
    budget           values by scale: {paper: {...}, laptop: {...}, smoke: {...}}
    rows             [{id, choose, set, budget, reported, source, cited, fit, result}]; `result` maps metrics
                     to the row's own keys in result.json, where one run has the numbers of several rows
    grid             {row: "{dataset}_{method}_{eps}", axes: {dataset: {a9a: {choose, set, budget}}},
                      reported: {row: {...}}}
    plane            [x, y]: two of its metrics that a figure sets against each other
    curves           what the steps of its runs' curves are, where no run says so (`observations`); `none`
                     where these are no curves
    stand_in         by scale what its runs have in place of the data that it names, where no run says so
                     itself: {laptop: breast cancer as a stand-in}
    shows            the table whose rows this one, all of it cited, shows again: a figure of them
    ours, source     `ours: true` marks measurements of ours: nothing is reported for them

Beside its tables a file says which data sets are made up in place of data that is not to be had (`stand_ins`,
data set -> what it holds), and what metrics are called where people read them: `titles`, metric -> words.
One that does not stand there is called by its name, with spaces (`test_error`: test error).

An entry is named `paper.table.row`. Rows marked `cited` are shown and are no entries; nor are rows with a
`fit`, whose number is a slope over the entries of measured tables (`common.report.model`).
"""

import difflib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from common.base.command import command
from common.base.errors import UserError
from common.base.files import read_yaml
from common.tables import checked

ROOT = Path(__file__).resolve().parents[2]
SCALES = checked.SCALES
# where a reported number comes from, as a person is told; the last two stand unverified
SOURCES = {
    "paper_text": "the paper",
    "official_repo": "the authors' code",
    "quoted": "quoted by others",
    "ours": "ours",
    "none": "ours",
    "recalled": "recalled, unverified",
    "": "no source given, unverified",
}


@dataclass(frozen=True)
class Entry:
    """One row of one table: how to run it, and what the paper reports for it."""

    paper: str
    table: str
    row: str
    choose: dict[str, str]
    values: dict[str, Any]
    budget: dict[str, dict[str, Any]]
    reported: dict[str, Any]
    source: dict[str, Any]
    cited: bool
    fit: dict[str, Any] | None
    result: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.paper}.{self.table}.{self.row}"


def roots() -> list[Path]:
    """The project's folder and the current one: papers and configs of a user's own stand in the latter."""
    return list(dict.fromkeys([ROOT, Path.cwd()]))


def in_roots(relative: str) -> Path:
    """A file or folder by its path in the project; in the current folder where the project lacks it."""
    return next((root / relative for root in roots() if (root / relative).exists()), ROOT / relative)


def papers() -> list[str]:
    """The papers that have a folder with tables."""
    return sorted({path.parent.name for root in roots() for path in root.glob("papers/*/tables.yaml")})


@cache
def load_tables(paper: str) -> dict[str, Any]:
    """The parsed `tables.yaml` of one paper.

    Raises:
        UserError: the paper has none, or one that is not as this module says.
    """
    path = in_roots(f"papers/{paper}/tables.yaml")
    if not path.exists():
        raise UserError(unknown("paper", paper, papers()))
    content: dict[str, Any] = read_yaml(path)
    checked.check_tables(content, paper, path)
    return content


def unknown(what: str, value: str, valid: list[str]) -> str:
    """One line: the unknown value, its nearest names, and the valid ones."""
    near = difflib.get_close_matches(value, valid, n=3, cutoff=0.5)
    near += [name for name in valid if name.split("/")[-1] == value and name not in near]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    lists = {"entry": "make -s entries", "claim": "python claims.py --list"}.get(what, "run.py --help")
    shown = ", ".join(valid) if len(valid) <= 40 else f"{len(valid)} names: {lists} lists them"
    return f"unknown {what}={value}{hint} (valid: {shown or 'none'})"


def entries(paper: str) -> Iterator[Entry]:
    """All rows of a paper's tables, in their order, those that are only cited included."""
    for table in load_tables(paper)["tables"]:
        for row in _rows(table):
            yield _entry(paper, table, row)


def runnable(paper: str) -> list[Entry]:
    """The rows that can be run: neither only cited, nor a fit over other rows."""
    return [entry for entry in entries(paper) if not entry.cited and entry.fit is None]


def metric_keys(paper: str, table: str, row: str | None = None) -> dict[str, str]:
    """For each metric of a table, the key of `result.json` that holds it; or of one of its rows."""
    own = next((e.result for e in entries(paper) if (e.table, e.row) == (table, row)), {}) if row else {}
    for candidate in load_tables(paper)["tables"]:
        if candidate["id"] == table:
            return {name: spec.get("result", name) for name, spec in candidate["metrics"].items()} | own
    raise UserError(f"unknown table {paper}.{table}")


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The listed rows, then those that the grid spans (each axis value adds its part)."""
    rows = list(table.get("rows", []))
    grid = table.get("grid")
    if grid is None:
        return rows
    axes = grid["axes"]
    for point in itertools.product(*(axis.items() for axis in axes.values())):
        names = dict(zip(axes, (name for name, _ in point), strict=True))
        parts = [part or {} for _, part in point]
        name = grid["row"].format(**names)
        told = {"reported": grid["reported"][name]} if name in grid.get("reported", {}) else {}
        rows.append({"id": name, **_merged(parts), **told})
    return rows


def _merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the `choose`, `set` and `budget` of several parts; later parts win."""
    joined: dict[str, Any] = {"choose": {}, "set": {}, "budget": {}}
    for part in parts:
        joined["choose"] |= part.get("choose", {})
        joined["set"] |= part.get("set", {})
        for scale, values in part.get("budget", {}).items():
            joined["budget"][scale] = joined["budget"].get(scale, {}) | values
    return joined


def _entry(paper: str, table: dict[str, Any], row: dict[str, Any]) -> Entry:
    merged = _merged([table, row])
    cited = bool(row.get("cited", table.get("cited", False)))
    name = f"{paper}.{table['id']}.{row['id']}"
    fit = row.get("fit")
    if not cited and fit is None:
        _check_budget(name, merged)
    return Entry(
        paper=paper,
        table=table["id"],
        row=row["id"],
        choose=merged["choose"],
        values=merged["set"],
        budget=merged["budget"],
        reported=row.get("reported", dict.fromkeys(table["metrics"])),
        source=row.get("source", table.get("source", {})),
        cited=cited,
        fit=fit,
        result=row.get("result", {}),
    )


def _check_budget(name: str, merged: dict[str, Any]) -> None:
    """Every scale has values for the same keys, and none touches what defines the row."""
    keys = {scale: set(merged["budget"].get(scale, {})) for scale in SCALES}
    if any(keys[scale] != keys["paper"] for scale in SCALES):
        raise UserError(f"{name}: every scale must give the same budget keys, got {keys}")
    fixed = keys["paper"] & set(merged["set"])
    if fixed:
        raise UserError(f"{name}: {sorted(fixed)} define the row, so no scale may set them")


def main() -> None:
    """Print the name of every entry, one a line; `python -m common.tables.tables | head` may end it."""
    for paper in papers():
        for entry in runnable(paper):
            print(entry.name)


if __name__ == "__main__":
    sys.exit(command(main))
