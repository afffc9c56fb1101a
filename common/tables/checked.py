"""Whether a paper's `tables.yaml` is as `common.tables.tables` says: what is not is named before any run."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from common.base.errors import UserError

# the scale whose runs are too short for their numbers to mean something
SMOKE = "smoke"
SCALES = ("paper", "laptop", SMOKE)
FILE = ("paper", "scales", "titles", "stand_ins", "tables", "parts")
PARTS = ("choose", "set", "budget")
OF_BOTH = (*PARTS, "source", "cited")
TABLE = (*OF_BOTH, "id", "about", "metrics", "rows", "grid", "plane", "curves", "shows", "ours", "stand_in")
ROW = (*OF_BOTH, "id", "reported", "fit", "result")
GRID = ("row", "axes", "reported")
METRIC = ("unit", "better", "result")
BETTER = ("lower", "higher", "none")


def check_tables(content: Any, paper: str, path: Path) -> None:
    """Check what a file holds.

    Args:
        content: as it was parsed.
        paper: whose folder it lies in.
        path: of the file, for messages.

    Raises:
        UserError: the first thing that is not as it should be, by its place in the file.
    """
    for fault in _faults(content, paper):
        raise UserError(f"{path}: {fault}")


def _faults(content: Any, paper: str) -> Iterator[str]:
    yield from _keys("the file", content, FILE, ("paper", "tables"))
    if content["paper"] != paper:
        yield f"paper: {content['paper']} (valid: {paper}, as the folder is named)"
    yield from _keys("scales", content.get("scales", {}), SCALES, ())
    if not isinstance(content["tables"], list):
        yield "tables: valid: a list of tables, each with id, about and metrics"
    for number, table in enumerate(content["tables"], 1):
        yield from _keys(_name("table", table, number), table, TABLE, ("id", "about", "metrics"))
        yield from _faults_of_table(f"table {table['id']}", table)
    yield from _twice("tables", (table["id"] for table in content["tables"]))
    yield from _faults_of_titles(content.get("titles", {}), content["tables"])


def _faults_of_titles(titles: Any, tables: list[dict[str, Any]]) -> Iterator[str]:
    yield from _keys("titles", titles, sorted({name for table in tables for name in table["metrics"]}), ())
    for name, title in titles.items():
        if not isinstance(title, str):
            yield f"titles: {name}: {title} (valid: words)"


def _faults_of_table(where: str, table: dict[str, Any]) -> Iterator[str]:
    yield from _part(where, table)
    if not isinstance(table["metrics"], dict):
        yield f"{where}: metrics: valid: a mapping of names to unit and better"
    for name, metric in table["metrics"].items():
        yield from _keys(f"{where}: metric {name}", metric, METRIC, ("unit", "better"))
        if metric["better"] not in BETTER:
            yield f"{where}: metric {name}: better={metric['better']} (valid: {', '.join(BETTER)})"
    rows = table.get("rows") or []
    if not isinstance(rows, list):
        yield f"{where}: rows: valid: a list of rows, each with an id"
    for number, row in enumerate(rows, 1):
        yield from _keys(f"{where}: {_name('row', row, number)}", row, ROW, ("id",))
        yield from _part(f"{where}: row {row['id']}", row)
    yield from _twice(f"{where}: rows", (row["id"] for row in rows))
    if "grid" in table:
        yield from _keys(f"{where}: grid", table["grid"], GRID, ("row", "axes"))


def _part(where: str, part: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the choices, values and budgets of a table or of a row."""
    for key in PARTS:
        if not isinstance(part.get(key, {}), dict):
            yield f"{where}: {key}: valid: a mapping"
    yield from _keys(f"{where}: budget", part.get("budget", {}), SCALES, ())


def _keys(where: str, found: Any, valid: Collection[str], needed: Iterable[str]) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{where}: valid: a mapping with {', '.join(valid)}"
    if strange := [str(key) for key in found if key not in valid]:
        yield f"{where}: unknown key {strange[0]} (valid: {', '.join(valid)})"
    if absent := [key for key in needed if key not in found]:
        yield f"{where}: {absent[0]} is missing"


def _name(what: str, found: Any, number: int) -> str:
    return f"{what} {found['id']}" if isinstance(found, dict) and "id" in found else f"{what} number {number}"


def _twice(where: str, names: Iterable[Any]) -> Iterator[str]:
    if again := [name for name, count in Counter(names).items() if count > 1]:
        yield f"{where}: {again[0]} stands there more than once (valid: an id of its own for each)"
