"""A comparison in other forms: for the terminal, Markdown and LaTeX; as CSV, Parquet and a data frame.

The first three show a line for each method. The others hold a line for each method and metric, with all
numbers unrounded; or, of single runs, one for each of these.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from common.base.digits import decimals
from common.base.errors import UserError
from common.base.files import whole
from common.report.comparison import Cell, Column, Comparison, Row, cell_text, value_of
from common.report.methods import NULL
from common.runs.matching import NOTHING

if TYPE_CHECKING:
    from pandas import DataFrame

NEEDED = "{} needs {}: pip install -e '.[tables]'"
# how the best is marked where there is no bold type
MARK = "*"
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
# pyarrow's and the frame's kinds of columns
INTEGERS = ("n", "without", "unfinished", "earlier_code", "seed")
NUMBERS = ("mean", "std", "low", "high", "better_by", "p", "value")


# a line for each method


def heads(comparison: Comparison) -> list[str]:
    """The names of the columns that are metrics."""
    return [column.title for column in comparison.columns]


def texts(comparison: Comparison) -> list[list[str]]:
    """The cells of each row as text: of a column all with as many decimals, where they are alike enough."""
    places = {column: _decimals(comparison, column) for column in comparison.columns}
    return [
        [cell_text(row.cells.get(column), comparison.spread, places[column]) for column in places]
        for row in comparison.rows
    ]


def _decimals(comparison: Comparison, column: Column) -> int | None:
    cells = [row.cells[column] for row in comparison.rows if column in row.cells]
    found = [decimals(half) for cell in cells if (half := cell.half(comparison.spread))]
    places = [one for one in found if one is not None]
    alike = len(places) == len(found) > 0 and max(places) - min(places) <= 2
    return max(places) if alike else None


def is_best(row: Row, column: Column) -> bool:
    """Whether a cell is marked: significantly best."""
    return column in row.cells and row.cells[column].place == "best"


def footnotes(comparison: Comparison) -> list[str]:
    """What stands below a table: what its numbers are, and what is best."""
    return [comparison.about, *comparison.notes]


def terminal(comparison: Comparison) -> Table:
    """The table for rich; the best is bold, and marked for terminals that have no bold type."""
    noted = any(row.notes for row in comparison.rows)
    table = Table("method", *heads(comparison), "n", *["notes"] * noted)
    for row, cells in zip(comparison.rows, texts(comparison), strict=True):
        shown = [
            Text(f"{cell} {MARK}", style="bold") if is_best(row, column) else Text(cell)
            for column, cell in zip(comparison.columns, cells, strict=True)
        ]
        table.add_row(Text(row.name), *shown, row.n, *[Text("; ".join(row.notes))] * noted)
    return table


def markdown(comparison: Comparison) -> str:
    """A pipe table, the best in bold."""
    noted = any(row.notes for row in comparison.rows)
    lines = [["method", *heads(comparison), "n", *["notes"] * noted]]
    for row, cells in zip(comparison.rows, texts(comparison), strict=True):
        shown = [
            f"**{cell}**" if is_best(row, column) else cell
            for column, cell in zip(comparison.columns, cells, strict=True)
        ]
        lines.append([_plain(row.name), *shown, row.n, *[_plain("; ".join(row.notes))] * noted])
    lines[0] = [_plain(head) for head in lines[0]]
    sides = ["---", *["---:"] * (len(comparison.columns) + 1), *["---"] * noted]
    body = "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], sides, *lines[1:]])
    return f"{body}\n\n" + "\n".join(f"- {_plain(note)}" for note in footnotes(comparison)) + "\n"


def _plain(text: str) -> str:
    """Text in which Markdown sees no marks."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(text.split()))


def latex(comparison: Comparison) -> str:
    r"""A booktabs tabular for `\input`, the best in bold; notes are comments, and below it a line of text."""
    columns = comparison.columns
    lines = [
        r"% \usepackage{booktabs}",
        *(f"% {' '.join(note.split())}" for note in footnotes(comparison)),
        *(f"% {row.name}: {'; '.join(row.notes)}" for row in comparison.rows if row.notes),
        rf"\begin{{tabular}}{{l{'r' * len(columns)}r}}",
        r"\toprule",
        " & ".join(["method", *map(escaped, heads(comparison)), "$n$"]) + r" \\",
        r"\midrule",
    ]
    for row, cells in zip(comparison.rows, texts(comparison), strict=True):
        shown = [_maths(cell, is_best(row, column)) for column, cell in zip(columns, cells, strict=True)]
        lines.append(" & ".join([escaped(row.name), *shown, row.n.replace("-", "--")]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    """Text in which LaTeX sees no signs of its own."""
    return "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))


def _maths(cell: str, bold: bool) -> str:
    """Numbers in maths, with its minus, ± and powers of ten; words and dashes as text."""
    if not any(sign.isdigit() for sign in cell):
        return "--" if cell == "-" else escaped(cell)
    inner = re.sub(r"e([+-])0*(\d+)", lambda m: rf"\times 10^{{{m[1].lstrip('+')}{m[2]}}}", cell)
    inner = inner.replace(",", "{,}").replace("±", r"\pm")
    return rf"$\mathbf{{{inner}}}$" if bold else f"${inner}$"


# a line for each method and metric, or for each run


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """Every cell with its numbers, unrounded."""
    lines = [
        _record(comparison, row, column, row.cells[column])
        for column in comparison.columns
        for row in comparison.rows
        if column in row.cells
    ]
    return _as_numbers(lines, comparison.keys)


def _as_numbers(lines: list[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The lines, their settings as numbers where all of a key are such: to plot a metric against them."""
    for key in keys:
        values = [None if line[key] == NULL else line[key] for line in lines]
        try:
            numbers = [None if value is None else float(value) for value in values]
        except ValueError:
            continue
        for line, value in zip(lines, numbers, strict=True):
            line[key] = value
    return lines


def _record(comparison: Comparison, row: Row, column: Column, cell: Cell) -> dict[str, Any]:
    found = cell.sample
    return {
        "name": row.name,
        **{key: row.method.settings.get(key) for key in comparison.keys},
        "dataset": column.data or _data(row),
        "metric": column.metric,
        "better": column.better,
        "mean": None if found is None else found.mean,
        "std": cell.std,
        "low": cell.low,
        "high": cell.high,
        "n": 0 if found is None else len(found.by_seed),
        "seeds": " ".join(map(str, found.by_seed)) if found else "",
        "best": cell.place == "best",
        "better_by": _better_by(column, cell),
        "test": None if cell.against is None else cell.against.test,
        "p": cell.p,
        "without": cell.without,
        "unfinished": row.unfinished,
        "earlier_code": row.stale,
        "notes": "; ".join(row.notes),
    }


def _data(row: Row) -> str:
    return str(row.method.all_runs[0].result["choices"]["dataset"])


def _better_by(column: Column, cell: Cell) -> float | None:
    """By how much the best is better than this one."""
    if cell.against is None:
        return None
    return cell.against.mean if column.better == "higher" else -cell.against.mean


def run_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Every run with its value, by method, metric and seed."""
    found = []
    for column in comparison.columns:
        for row in comparison.rows:
            for place, runs in row.method.runs.items():
                if column.data and place != column.data:
                    continue
                for run in sorted(runs, key=lambda run: run.result["seed"]):
                    value = value_of(run, column.metric)
                    if value is NOTHING:
                        continue
                    found.append(
                        {
                            "name": row.name,
                            **{key: row.method.settings.get(key) for key in comparison.keys},
                            "dataset": column.data or _data(row),
                            "metric": column.metric,
                            "seed": run.result["seed"],
                            "value": value,
                            "run": run.key,
                        }
                    )
    return _as_numbers(found, comparison.keys)


def as_csv(lines: Sequence[dict[str, Any]]) -> str:
    """Lines as CSV; what has no value is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def write_parquet(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Lines as Parquet.

    Raises:
        UserError: pyarrow is not there.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(NEEDED.format(path.name, "pyarrow")) from error
    columns = {}
    for key in lines[0]:
        values = [line[key] for line in lines]
        number_like = key in NUMBERS or any(isinstance(value, float) for value in values)
        kind = pa.int64() if key in INTEGERS else pa.float64() if number_like else pa.string()
        columns[key] = pa.array(values, pa.bool_() if key == "best" else kind)
    with whole(path) as partial:
        pq.write_table(pa.table(columns), partial)


def as_frame(lines: Sequence[dict[str, Any]]) -> "DataFrame":
    """Lines as a pandas data frame; what has no value is NaN (numbers) or None (words).

    Raises:
        UserError: pandas is not there.
    """
    try:
        import pandas
    except ImportError as error:
        raise UserError(NEEDED.format("a data frame", "pandas")) from error
    frame = pandas.DataFrame(list(lines))
    kinds: dict[str, Any] = dict.fromkeys((key for key in NUMBERS if key in frame), "float64")
    kinds |= dict.fromkeys((key for key in INTEGERS if key in frame), "int64")
    return frame.astype(kinds)
