"""A table of the user's own as numbers, whatever stands in it: what is done to each column is kept and said.

What comes out is float64 [n, p], NaN where a number is missing. Words are numbers of their own (-1: a word
that training has not), which the pipelines turn into one column a word.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from common.data.tables.written import (
    LARGEST_NUMBER,
    PLAIN,
    Cells,
    Written,
    marked,
    missing,
    parsed,
)

Array = np.ndarray

# of the cells of a column that is one of numbers (dates) all the same, the share that must be
NEARLY_ALL = 0.9
# a column with more different numbers than that, of which half of its cells are, is one of numbers where the
# others are a few words: they say why a number is missing
FEWEST_NUMBERS, HALF, FEW_WORDS = 20, 0.5, 3
# a column with more different words than that, which more than half of its cells are, says nothing of others
FEWEST_UNIQUE = 10
TRUE, FALSE = {"true", "yes", "t", "y"}, {"false", "no", "f", "n"}
# what a date may look like, and how it is then read: the first form by which nearly all can be
DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}\b.*|\d{1,2}[- ]?[A-Za-z]{3,9}\.?[- ,]*\d{2,4}\b.*")
DATE_BY_NAME = re.compile(
    r"[A-Za-z]{3,9}\.? \d{1,2},? \d{4}\b.*|[A-Za-z]{3,9}[- ]\d{2,4}|\d{4}[-/.]\d{1,2}"
    r"|\d{1,2}:\d{2}(:\d{2})?.*"
)
DAYS = (
    *("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%m-%d-%Y", "%d-%m-%Y"),
    *("%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d %B %Y"),
    *("%b %d, %Y", "%B %d, %Y", "%d%b%Y"),
)
MONTHS = ("%Y-%m", "%Y/%m", "%b-%Y", "%b-%y", "%b %Y", "%B %Y")
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M:%S %p", " %I:%M %p")
FORMS = (
    *(day + clock for clock in CLOCKS for day in DAYS),
    *MONTHS,
    "%H:%M:%S",
    "%H:%M",
    "%I:%M %p",
    "%I:%M:%S %p",
)
# cells that are looked at first
LOOKED_AT = 50
DAY = 86_400.0
# where the largest of a column is below it, its numbers' squares are zero in float64
LEAST = 1e-100


@dataclass(frozen=True)
class Plan:
    """How one column becomes numbers.

    Attributes:
        name: of the column.
        kind: `number`, `boolean` (0 or 1), `date` (day, month, weekday), `words`, or `left out`.
        words: of training, sorted, the empty word among them where a cell is missing.
        form: of dates, how they are written; None: as ISO 8601 has it.
        said: what is done, in words.
        unit: numbers are divided by it. written: how they stand in the file.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    form: str | None
    said: str
    unit: float = 1.0
    written: Written = PLAIN

    @property
    def width(self) -> int:
        """How many numbers it gives."""
        return {"left out": 0, "date": 3}.get(self.kind, 1)

    def told(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {**vars(self), "words": list(self.words), "written": vars(self.written)}

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Plan":
        """What `told` has described."""
        return cls(**{**told, "words": tuple(told["words"]), "written": Written(**told["written"])})

    def encoded(self, cells: Cells) -> Array:
        """Cells as float64 [n, width]; a cell that is none of its kind is missing, an unknown word -1."""
        if self.kind == "left out":
            return np.zeros((len(cells), 0))
        if self.kind == "words":
            places = {word: float(i) for i, word in enumerate(self.words)}
            found: list[tuple[float, ...]] = [
                (places.get("" if missing(cell) else cell, -1.0),) for cell in cells
            ]
        elif self.kind == "boolean":
            found = [(_boolean(cell),) for cell in cells]
        elif self.kind == "date":
            found = [_date(cell, self.form) for cell in cells]
        else:
            found = [(_number(cell, self.unit),) for cell in cells]
        return np.array(found, dtype=np.float64).reshape(len(cells), self.width)


def plans(
    names: Sequence[str],
    columns: Sequence[Cells],
    written: Sequence[Written] = (),
    counting: Collection[str] = (),
) -> list[Plan]:
    """How each column becomes numbers, found from the training rows.

    Args:
        written: how the numbers of each stand in the file. counting: names of columns that count the rows.
    """
    found: list[Plan] = []
    seen: dict[tuple[str, ...], str] = {}
    for i, (name, cells) in enumerate(zip(names, columns, strict=True)):
        plan = _left_out(name, "it counts the rows") if name in counting else _plan(name, cells)
        first = seen.setdefault(tuple(cells), name) if plan.width else name
        if first != name:
            plan = _left_out(name, f"its cells are those of {first!r}")
        found.append(replace(plan, written=written[i] if written else PLAIN))
    return found


def counts_rows(cells: Cells) -> bool:
    """Whether a column's cells are whole numbers of which each is one more than the one before."""
    if len(cells) <= FEWEST_UNIQUE or not cells[0].isdecimal():
        return False
    first = int(cells[0])
    return first <= 1 and all(cell == str(first + i) for i, cell in enumerate(cells))


def _left_out(name: str, why: str) -> Plan:
    return Plan(name, "left out", (), None, f"left out: {why}")


def _plan(name: str, cells: Cells) -> Plan:
    given = [cell for cell in cells if not missing(cell)]
    absent = len(cells) - len(given)
    different = set(given)
    if not different:
        return _left_out(name, "no cell has a value")
    if len(different) == 1 and not absent:
        return _left_out(name, f"all cells are {next(iter(different))!r}")
    gaps = f", {absent} missing" if absent else ""
    if _are_numbers(given):
        return _of_numbers(name, given, gaps)
    if {cell.lower() for cell in different} <= TRUE | FALSE:
        return Plan(name, "boolean", (), None, f"0 or 1{gaps}")
    form = _form(given)
    if not isinstance(form, bool):
        others = sum(_parsed(cell, form) is None for cell in given)
        odd = f", {others} cells that are none taken as missing" if others else ""
        return Plan(name, "date", (), form, f"a date: day, month, weekday{odd}{gaps}")
    if len(different) > max(FEWEST_UNIQUE, len(given) / 2):
        return _left_out(
            name, f"{len(different)} different words in {len(given)} cells say nothing of others"
        )
    words = tuple(sorted(different | ({""} if absent else set())))
    how = f", {absent} missing as one of their own" if absent else ""
    return Plan(name, "words", words, None, f"{len(different)} words{how}")


def _are_numbers(given: Cells) -> bool:
    """Whether a column is one of numbers: nearly all cells are, or half and the others are a few words."""
    values = [parsed(cell) for cell in given]
    count = sum(value is not None for value in values)
    if count >= NEARLY_ALL * len(given):
        return True
    if count < HALF * len(given) or len(set(values)) - 1 <= FEWEST_NUMBERS:
        return False
    return len({cell for cell, value in zip(given, values, strict=True) if value is None}) <= FEW_WORDS


def _of_numbers(name: str, given: Cells, gaps: str) -> Plan:
    """Of a column of numbers: in which unit, and what is none."""
    values = np.abs([value for cell in given if (value := parsed(cell)) is not None])
    odd = len(given) - len(values)
    large = values > LARGEST_NUMBER
    # a few that are out of all proportion to the others stand for something else
    kept = values[np.isfinite(values)] if large.mean() > 1 - NEARLY_ALL else values[~large]
    endless = len(values) - len(kept)
    largest = float(kept.max(initial=0.0))
    unit = 1.0 if largest == 0 or LEAST <= largest <= LARGEST_NUMBER else largest
    scaled = f", in units of {unit:.3g}" if unit != 1 else ""
    none = f", {odd} cells that are none taken as missing" if odd else ""
    without = f", {endless} without end taken as missing" if endless else ""
    return Plan(name, "number", (), None, f"a number{scaled}{none}{without}{gaps}", unit)


def _number(cell: str, unit: float) -> float:
    """A number, in a unit, that is finite in float32; NaN for anything else."""
    value = None if missing(cell) else parsed(cell)
    return value / unit if value is not None and abs(value / unit) <= LARGEST_NUMBER else np.nan


def _boolean(cell: str) -> float:
    word = cell.lower()
    return 1.0 if word in TRUE else 0.0 if word in FALSE else np.nan


def _form(given: list[str]) -> str | bool | None:
    """How dates are written: None as ISO 8601, a form, or False where they are none."""
    given = [cell for cell in given if not marked(cell)]
    if not given:
        return False
    for some in (given[:LOOKED_AT], given):
        if sum(_like_a_date(cell) for cell in some) < NEARLY_ALL * len(some):
            return False
    first = given[:LOOKED_AT]
    forms: list[str | None] = [None, *FORMS]
    likely = [form for form in forms if _by(first, form) >= NEARLY_ALL * len(first)]
    counts = [_by(given, form) for form in likely]
    most = max(counts, default=0)
    return likely[counts.index(most)] if most >= NEARLY_ALL * len(given) else False


def _by(cells: Cells, form: str | None) -> int:
    """How many cells a form reads."""
    return sum(_parsed(cell, form) is not None for cell in cells)


def _like_a_date(cell: str) -> bool:
    return bool(DATE.fullmatch(cell) or DATE_BY_NAME.fullmatch(cell))


def _parsed(cell: str, form: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(cell) if form is None else datetime.strptime(cell, form)
    except ValueError:
        return None


def _date(cell: str, form: str | None) -> tuple[float, float, float]:
    # a day as ISO 8601 has it cannot be mistaken
    found = None if missing(cell) else _parsed(cell, form) or _parsed(cell, None)
    if found is None:
        return (np.nan, np.nan, np.nan)
    clock = (found.hour * 3600 + found.minute * 60 + found.second) / DAY
    return (found.toordinal() + clock, float(found.month), float(found.weekday()))


@dataclass(frozen=True)
class Prepared:
    """A table as numbers.

    Attributes:
        X: [n, p]. words: of each of the p columns, whether it holds the numbers of words.
        plans: of the columns as they stand in the file.
    """

    X: Array
    words: Array
    plans: tuple[Plan, ...]


def prepared(found: Sequence[Plan], columns: Sequence[Cells], rows: int) -> Prepared:
    """The columns by their plans; without any that is left, one column of zeros."""
    parts = [plan.encoded(cells) for plan, cells in zip(found, columns, strict=True)]
    words = [plan.kind == "words" for plan in found for _ in range(plan.width)]
    if not words:
        return Prepared(np.zeros((rows, 1)), np.zeros(1, bool), tuple(found))
    return Prepared(np.hstack(parts), np.array(words), tuple(found))


def unknown_cells(plan: Plan, cells: Cells) -> int:
    """How many cells of a column hold what training has not: other words, or no numbers among numbers."""
    if plan.kind == "left out":
        return 0
    given = [cell for cell in cells if not missing(cell) and (plan.kind == "words" or not marked(cell))]
    encoded = plan.encoded(given)
    return int(((encoded[:, 0] == -1.0) if plan.kind == "words" else np.isnan(encoded[:, 0])).sum())
