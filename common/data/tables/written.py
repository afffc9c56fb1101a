"""Cells of a table as people write them: what is missing, what is a number, and in which of many forms."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from common.data.shared.text_file import shown

# what stands in a cell that is empty, in small letters
MISSING = {"", "na", "nan", "n/a", "n.a.", "#n/a", "<na>", "null", "none", "?"}
# what does so among numbers alone: elsewhere it may be a word
MARKS = {"-", "--", "---", "–", "—", ".", "..", "...", "*", "**", "(null)", "\\n", "nd", "n.d.", "#name?"}
MARKS |= {"#div/0!", "#value!", "#ref!", "#num!", "#null!", "unknown", "missing", "not available"}
MARKS |= {"not applicable", "not known", "undefined", "no data", "tbd"}
# of float32, in which a table is kept
LARGEST_NUMBER = 3.4028234e38
# numbers as people write them: 1.234,5 and 1,234.5 and 1 234,5 (or 1'234.5)
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+|(?=,\d))(,\d+)?([eE][+-]?\d+)?")
THOUSANDS_COMMA = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(,\d{3})+)(\.\d*)?([eE][+-]?\d+)?")
GAP = r"[ '’\u00a0\u2009\u202f]"
WITH_GAP = re.compile(rf"\d{GAP}\d{{3}}")
THOUSANDS_GAP = re.compile(rf"[+-]?[1-9]\d{{0,2}}({GAP}\d{{3}})+([.,]\d+)?")
FORMS = {"decimal": DECIMAL_COMMA, "thousands": THOUSANDS_COMMA}

# signs that may stand before a number, and the unit that may stand behind one
SIGNS = "%€$£¥"
UNIT = re.compile(r"[+-]?[\d.,]*\d[.,]?(?:[eE][+-]?\d+)?\s*(?P<unit>[^\s\d.,+/:-].*)")

Cells = list[str]


@dataclass(frozen=True)
class Written:
    """How the numbers of a column are written, where that is not as 1234.5.

    Attributes:
        unit: a sign as % or €, or what stands behind each number as kg; None: there is none.
        commas: `decimal` (1.234,5) or `thousands` (1,234.5); None: there are none.
        gaps: whether gaps stand between thousands (1 234,5).
    """

    unit: str | None = None
    commas: str | None = None
    gaps: bool = False

    def plain(self, cell: str) -> str:
        """A cell as 1234.5, where it is a number that is written so; else as it is."""
        bare = cell if self.unit is None else _bare(cell, self.unit)
        bare = _closed(bare) if self.gaps else bare
        bare = bare if self.commas is None else _pointed(bare, FORMS[self.commas])
        return bare if number(bare) is not None else cell


PLAIN = Written()


def missing(cell: str) -> bool:
    """Whether a cell stands for nothing."""
    return cell.lower() in MISSING


def marked(cell: str) -> bool:
    """Whether a cell stands for nothing where the others are numbers."""
    return cell.lower() in MARKS


def number(cell: str) -> float | None:
    """A number that is finite in float32; None for anything else."""
    value = parsed(cell)
    return value if value is not None and abs(value) <= LARGEST_NUMBER else None


def infinite(cell: str) -> bool:
    """Whether a cell is a number without end, as one above the largest float32 is."""
    value = parsed(cell)
    return value is not None and abs(value) > LARGEST_NUMBER


def parsed(cell: str) -> float | None:
    """Any number that Python's float reads; None for anything else."""
    try:
        # Python alone takes 1_000 for a number
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def plain_numbers(
    file: Path, columns: Sequence[Cells], delimiter: str, quiet: bool = False
) -> tuple[list[Cells], list[Written]]:
    """The columns with all their numbers as 1234.5, and how those were written; what is changed is said.

    Args:
        columns: a name or a cell first.
        delimiter: of the file. Where commas separate the cells, 1,234 is a thousand; elsewhere it has
            decimals.
        quiet: nothing is said.
    """
    opened = [_without_marks(column) for column in columns]
    units = [_unit_of(column) for column in opened]
    bare = [_stripped(column, unit) for column, unit in zip(opened, units, strict=True)]
    gaps = [bool(WITH_GAP.search("\n".join(column[1:] or column))) and _closes(column) for column in bare]
    bare = [list(map(_closed, column)) if gap else column for gap, column in zip(gaps, bare, strict=True)]
    commas = _commas_of(bare, delimiter)
    found, written = [], []
    for own, column, unit, gap, comma in zip(columns, bare, units, gaps, commas, strict=True):
        made = column if comma is None else [_pointed(cell, FORMS[comma]) for cell in column]
        found.append(made)
        written.append(Written(unit, comma, gap))
        if made is not own and any(map(marked, own)) and not _all_numbers(made[1:]):
            found[-1], written[-1] = own, PLAIN
    if not quiet:
        _say_units(file, columns, units)
        _say_commas(file, columns, bare, commas)
        _say_marks(file, columns, found)
    return found, written


@lru_cache(maxsize=64)
def say(line: str) -> None:
    """A line on stderr, once, as a file is read for its kind and again for its rows."""
    print(line, file=sys.stderr)


def _without_marks(column: Cells) -> Cells:
    """A column with nothing where marks stand; a first cell with letters may be a name."""
    if MARKS.isdisjoint(map(str.lower, set(column))):
        return column
    first = "" if marked(column[0]) and not any(map(str.isalpha, column[0])) else column[0]
    return [first, *("" if marked(cell) else cell for cell in column[1:])]


def _all_numbers(body: Cells) -> bool:
    given = {cell for cell in body if not missing(cell)}
    return bool(given) and all(parsed(cell) is not None for cell in given)


def _say_marks(file: Path, columns: Sequence[Cells], found: Sequence[Cells]) -> None:
    names: list[str] = []
    marks: set[str] = set()
    for i, (own, made) in enumerate(zip(columns, found, strict=True)):
        its = set() if made is own else {cell for cell in set(own[1:]) - set(made[1:]) if marked(cell)}
        if its:
            names.append(own[0] or str(i))
            marks |= its
    if names:
        said = shown([repr(mark) for mark in sorted(marks)])
        say(f"dataset.path={file}: among the numbers of {shown(names)} {said} stands for a missing one")


def _body(column: Cells) -> Cells:
    """What is given; the first cell may be a name."""
    return [cell for cell in column[1:] if not missing(cell)] or column[:1]


def _commas_of(columns: Sequence[Cells], delimiter: str) -> list[str | None]:
    """How the numbers of each column use commas: `decimal`, `thousands` or None."""
    order = ("thousands", "decimal") if delimiter == "," else ("decimal", "thousands")
    bodies = [_body(column) for column in columns]
    found = [_form(body, order) for body in bodies]
    if "decimal" not in found:
        return found
    # in such a file a point separates thousands
    return [
        "decimal"
        if form is None and any("." in cell for cell in body) and all(map(DECIMAL_COMMA.fullmatch, body))
        else form
        for form, body in zip(found, bodies, strict=True)
    ]


def _form(body: Cells, order: Sequence[str]) -> str | None:
    """How the numbers of a column with commas are written; None where there are none, or no numbers."""
    if not any("," in cell for cell in body):
        return None
    return next((name for name in order if all(map(FORMS[name].fullmatch, body))), None)


def _say_commas(
    file: Path, columns: Sequence[Cells], bare: Sequence[Cells], commas: Sequence[str | None]
) -> None:
    changed = [
        str(i) if FORMS[form].fullmatch(bare[i][0]) else columns[i][0]
        for i, form in enumerate(commas)
        if form is not None
    ]
    if changed:
        what = "decimal commas" if "decimal" in commas else "commas between thousands"
        say(f"dataset.path={file}: numbers with {what} in {shown(changed)}")


def _unit_of(column: Cells) -> str | None:
    """The unit of a column's numbers (a sign as % or €, or kg), where each cell has the same."""
    # the first cell may be a name
    body = [cell for cell in column[1:] if not missing(cell)]
    unit = _unit(body[0]) if body else None
    if unit is None:
        return None
    for cell in set(body):
        bare = _bare(cell, unit)
        if cell == bare or not _is_written(bare):
            return None
    return unit


def _say_units(file: Path, columns: Sequence[Cells], units: Sequence[str | None]) -> None:
    for column, unit in zip(columns, units, strict=True):
        if unit is not None:
            name = "" if _is_written(_bare(column[0], unit)) else f" of {column[0]!r}"
            say(f"dataset.path={file}: numbers{name} with {unit}; they are taken without it")


def _stripped(column: Cells, unit: str | None) -> Cells:
    if unit is None:
        return column
    bare = {cell: _bare(cell, unit) for cell in set(column)}
    # a name stays as it is
    first = bare[column[0]] if _is_written(bare[column[0]]) else column[0]
    return [first, *(cell if missing(cell) else bare[cell] for cell in column[1:])]


def _is_written(cell: str) -> bool:
    """Whether a cell is a number, in any form."""
    return number(cell) is not None or _with_comma(cell) or bool(THOUSANDS_GAP.fullmatch(cell))


def _unit(cell: str) -> str | None:
    """The sign or the unit that a cell's number has; None where it is no number with one."""
    if _is_written(cell):
        return None
    sign = next((sign for sign in SIGNS if sign in cell), None)
    behind = UNIT.fullmatch(_closed(cell))
    return sign or (None if behind is None else behind["unit"])


def _bare(cell: str, unit: str) -> str:
    """A cell without one unit before its number (after its minus, too) or behind it."""
    minus, rest = ("-", cell[1:].lstrip()) if cell[:1] == "-" else ("", cell)
    if rest.startswith(unit):
        return minus + rest.removeprefix(unit).lstrip()
    return cell.removesuffix(unit).rstrip()


def _with_comma(cell: str) -> bool:
    return any(form.fullmatch(cell) for form in FORMS.values())


def _pointed(cell: str, form: re.Pattern[str]) -> str:
    if not form.fullmatch(cell):
        return cell
    return cell.replace(".", "").replace(",", ".") if form is DECIMAL_COMMA else cell.replace(",", "")


def _closed(cell: str) -> str:
    """A number without the gaps between its thousands."""
    return re.sub(rf"(?<=\d){GAP}(?=\d{{3}}(?!\d))", "", cell)


def _closes(column: Cells) -> bool:
    """Whether all cells of a column are numbers without the gaps between thousands."""
    return all(_is_written(_closed(cell)) for cell in set(_body(column)))
