"""A table of the user's own as numbers, whatever stands in it: what is done to each column is kept and said.

What comes out is float64 [n, p], NaN where a number is missing. Words are numbers of their own (-1: a word
that training has not), which the pipelines turn into one column a word.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from common.data.tables.sheet import Cells, missing, number

Array = np.ndarray

# of the cells of a column that is one of numbers all the same, the share that must be
NEARLY_ALL = 0.9
# a column with more different words than that, which more than half of its cells are, says nothing of others
FEWEST_UNIQUE = 10
TRUE, FALSE = {"true", "yes", "t", "y"}, {"false", "no", "f", "n"}
DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{4}")
FORMATS = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y")
DAY = 86_400.0


@dataclass(frozen=True)
class Plan:
    """How one column becomes numbers.

    Attributes:
        name: of the column.
        kind: `number`, `boolean` (0 or 1), `date` (day, month, weekday), `words`, or `left out`.
        words: of training, sorted, the empty word among them where a cell is missing.
        form: of dates, how they are written; None: as ISO 8601 has it.
        said: what is done, in words.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    form: str | None
    said: str

    @property
    def width(self) -> int:
        """How many numbers it gives."""
        return {"left out": 0, "date": 3}.get(self.kind, 1)

    def told(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {**vars(self), "words": list(self.words)}

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Plan":
        """What `told` has described."""
        return cls(**{**told, "words": tuple(told["words"])})

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
            found = [(_number(cell),) for cell in cells]
        return np.array(found, dtype=np.float64).reshape(len(cells), self.width)


def plans(names: Sequence[str], columns: Sequence[Cells]) -> list[Plan]:
    """How each column becomes numbers, found from the training rows."""
    found: list[Plan] = []
    seen: dict[tuple[str, ...], str] = {}
    for name, cells in zip(names, columns, strict=True):
        content = tuple(cells)
        if content in seen:
            found.append(_left_out(name, f"its cells are those of {seen[content]!r}"))
            continue
        seen[content] = name
        found.append(_plan(name, cells))
    return found


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
    numbers = sum(number(cell) is not None for cell in given)
    if numbers >= NEARLY_ALL * len(given):
        others = len(given) - numbers
        odd = f", {others} cells that are none taken as missing" if others else ""
        return Plan(name, "number", (), None, f"a number{odd}{gaps}")
    if {cell.lower() for cell in different} <= TRUE | FALSE:
        return Plan(name, "boolean", (), None, f"0 or 1{gaps}")
    form = _form(given)
    if not isinstance(form, bool):
        return Plan(name, "date", (), form, f"a date: day, month, weekday{gaps}")
    if len(different) > max(FEWEST_UNIQUE, len(given) / 2):
        return _left_out(
            name, f"{len(different)} different words in {len(given)} cells say nothing of others"
        )
    words = tuple(sorted(different | ({""} if absent else set())))
    how = f", {absent} missing as one of their own" if absent else ""
    return Plan(name, "words", words, None, f"{len(different)} words{how}")


def _number(cell: str) -> float:
    value = None if missing(cell) else number(cell)
    return np.nan if value is None else value


def _boolean(cell: str) -> float:
    word = cell.lower()
    return 1.0 if word in TRUE else 0.0 if word in FALSE else np.nan


def _form(given: list[str]) -> str | bool | None:
    """How dates are written: None as ISO 8601, a form, or False where they are none."""
    if not all(map(DATE.fullmatch, given)):
        return False
    for form in (None, *FORMATS):
        if all(_parsed(cell, form) is not None for cell in given):
            return form
    return False


def _parsed(cell: str, form: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(cell) if form is None else datetime.strptime(cell, form)
    except ValueError:
        return None


def _date(cell: str, form: str | None) -> tuple[float, float, float]:
    found = None if missing(cell) else _parsed(cell, form)
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
    given = [cell for cell in cells if not missing(cell)]
    encoded = plan.encoded(given)
    return int(((encoded[:, 0] == -1.0) if plan.kind == "words" else np.isnan(encoded[:, 0])).sum())
