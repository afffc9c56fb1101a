"""How the columns of a table become numbers: found from the training part, and kept with what it trained."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.base.errors import UserError
from common.data.shared.text_file import shown
from common.data.tables.sheet import MOST_CLASSES, Sheet, refuse_infinite
from common.data.tables.written import Cells, missing, number

# different words of a column that is given one input a word
MOST_WORDS = 100
# a column with more different words than that, which more than half of its cells are, says nothing of others
FEWEST_UNIQUE = 10
# of the cells of a column with more than `MOST_CLASSES` different numbers: what is then taken for a mistake
NEARLY_ALL = 0.9
# float32's step at a column's level, in its standard deviations, from which on its numbers are not told apart
LOST = 0.05
ENCODING = (
    "each of `columns` in turn gives, where its words are null, its number, as 1234.5 without its unit (%, a "
    "currency, kg; an empty cell: fill), else one input for each of its words: 1 for the cell's own, 0 for "
    "the others. An empty cell (or na, nan, n/a, n.a., #n/a, <na>, null, none, ?) is the word ''; a word "
    "that is not among them is 0 everywhere"
)


@dataclass(frozen=True)
class Column:
    """How a column becomes numbers: by the words that it may have, or (None) as the number that it is.

    Attributes:
        name: of the column.
        words: of the training part, sorted; one output each, 1 for the row's own.
        fill: in place of a missing number, the mean of the training part.
    """

    name: str
    words: tuple[str, ...] | None
    fill: float

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Column":
        """The column that `told` has described."""
        words = told["words"]
        return cls(told["name"], None if words is None else tuple(words), told["fill"])

    def told(self) -> dict[str, Any]:
        """The column as plain JSON data."""
        return {
            "name": self.name,
            "words": None if self.words is None else list(self.words),
            "fill": self.fill,
        }

    @property
    def width(self) -> int:
        """How many inputs it gives."""
        return 1 if self.words is None else len(self.words)

    def encoded(self, rows: Sheet, path: str) -> np.ndarray:
        """A table's cells as float64 [n, 1], or [n, words]; an unknown word is 0 everywhere.

        Args:
            rows: of the table.
            path: of its file, to be named.

        Raises:
            UserError: a word in a column of numbers.
        """
        cells = rows.column(self.name)
        if self.words is None:
            return np.array([self._number(cell, i, rows, path) for i, cell in enumerate(cells)])[:, None]
        places = {word: place for place, word in enumerate(self.words)}
        found = np.zeros((len(cells), len(self.words)))
        known = [(row, places[word]) for row, cell in enumerate(cells) if (word := _word(cell)) in places]
        if known:
            found[tuple(zip(*known, strict=True))] = 1
        return found

    def repairs(self, rows: Sheet) -> dict[str, int]:
        """What of a table's cells is missing or no word of the training part, and how often."""
        cells = rows.column(self.name)
        found: dict[str, int] = {}
        absent = sum(map(missing, cells))
        if absent:
            how = "the mean of training" if self.words is None else "a word of their own"
            how = how if self.words is None or "" in self.words else "no word, as training misses none"
            found[f"missing values of column {self.name!r}, taken as {how}"] = absent
        if self.words is not None:
            unseen = Counter(cell for cell in cells if not missing(cell) and cell not in self.words)
            if unseen:
                words = shown([repr(word) for word in sorted(unseen)])
                what = (
                    f"cells of column {self.name!r} with words that training has not, taken as none: {words}"
                )
                found[what] = unseen.total()
        return found

    def _number(self, cell: str, row: int, rows: Sheet, path: str) -> float:
        value = self.fill if missing(cell) else number(cell)
        if value is None:
            raise UserError(
                f"column {self.name!r}, line {rows.lines[row]} of {path}: {cell!r} is no finite number, as "
                "all are in training"
            )
        return value


def columns_of(train: Sheet, path: str) -> tuple[list[Column], list[str]]:
    """The columns of a training part, and lines on those that are left out or lose their differences.

    Left out are columns without any cell, and those in which nearly every cell is another word, as names and
    keys are.

    Raises:
        UserError: a column of too many words, of numbers with a few words among them or one without end; or
            none is left.
    """
    columns, said = [], []
    for name, cells in zip(train.names, train.columns, strict=True):
        refuse_infinite(name, cells, train.lines, path)
        given = [cell for cell in cells if not missing(cell)]
        if not given:
            said.append(f"column {name!r} is left out: it is empty")
            continue
        numbers = [value for cell in given if (value := number(cell)) is not None]
        if len(numbers) == len(given):
            columns.append(Column(name, None, float(np.mean(numbers))))
            if why := lost(numbers):
                said.append(f"column {name!r}: {why}")
            continue
        _refuse_mixed(name, cells, numbers, train.lines, path)
        words = sorted(set(map(_word, cells)))
        if len(set(given)) > max(FEWEST_UNIQUE, len(given) / 2):
            example = next(word for word in reversed(words) if word and number(word) is None)
            numbered = f"; {len(numbers)} of them are numbers" if numbers else ""
            said.append(
                f"column {name!r} is left out: its {len(given)} cells hold {len(set(given))} different words "
                f"({example!r}, ...{numbered}), so that it says nothing of other rows"
            )
        elif len(words) > MOST_WORDS:
            raise UserError(
                f"column {name!r} has {len(words)} different words (valid: at most {MOST_WORDS}, or "
                f"dataset.drop=[{name}])"
            )
        else:
            columns.append(Column(name, tuple(words), 0.0))
            said += differ_in_case(f"column {name!r}", words)
    if not columns:
        raise UserError(f"dataset.path={path}: {'; '.join(['no column is left beside the target', *said])}")
    return columns, said


def differ_in_case(what: str, words: Sequence[str]) -> list[str]:
    """A line on the first words that are one but for small and capital letters; none where there are none."""
    folded = Counter(map(str.casefold, words))
    first = next((word for word in words if folded[word.casefold()] > 1), None)
    if first is None:
        return []
    alike = [repr(word) for word in words if word.casefold() == first.casefold()]
    return [f"{what}: {' and '.join(alike)} differ in case alone, and count as {len(alike)}"]


def lost(numbers: Sequence[float]) -> str | None:
    """Why float32 does not tell numbers apart: their level is far above their spread; None where it does.

    Numbers that differ by the rounding of float64 alone are one number.
    """
    level, spread = float(np.max(np.abs(numbers))), float(np.std(numbers))
    if spread <= 1e-13 * level or np.spacing(np.float32(level)) < LOST * spread:
        return None
    return (
        f"float32 does not tell its numbers apart (up to {level:.4g}, with a standard deviation of "
        f"{spread:.2g}): subtract a constant from it in the file"
    )


def _refuse_mixed(name: str, cells: Cells, numbers: list[float], lines: list[int], path: str) -> None:
    """Refuse a few words in a column of measurements, which would become one of hundreds of words.

    Raises:
        UserError: with the first row.
    """
    given = [(line, cell) for line, cell in zip(lines, cells, strict=True) if not missing(cell)]
    if len(set(numbers)) <= MOST_CLASSES or len(numbers) < NEARLY_ALL * len(given):
        return
    line, cell = next((line, cell) for line, cell in given if number(cell) is None)
    raise UserError(
        f"column {name!r}, line {line} of {path}: {cell!r} is no finite number, as {len(numbers)} of its "
        f"{len(given)} cells are (valid: a number, an empty cell where it is not known, or "
        f"dataset.drop=[{name}])"
    )


def _word(cell: str) -> str:
    return "" if missing(cell) else cell
