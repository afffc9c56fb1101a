"""A table of the user's own, as CSV, Parquet or LIBSVM: what must be known of it is found from the file."""

import csv
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np
import torch
from sklearn.datasets import load_svmlight_file
from torch import Tensor

from common.base.dataset import Part, check
from common.base.errors import UserError
from common.data.shared.in_memory import Options, Split, TensorData
from common.data.shared.subsets import complement, stratified_subset

# what stands in a cell that is empty, in small letters
MISSING = {"", "na", "nan", "n/a", "null", "none", "?"}
# a target of whole numbers with at most so many different ones is one of classes
MOST_CLASSES = 20
# different words of a column that is given one number a word
MOST_WORDS = 100
# of the whole table as numbers, in bytes
LARGEST = 4 << 30
# the seed of the test part that is drawn where there is none: it belongs to the data, and not to a run
HOLDOUT_SEED = 0
LIBSVM_LINE = re.compile(r"\S+(\s+\d+:\S+)+\s*(#.*)?")

Cells = list[str]


@dataclass(frozen=True)
class Sheet:
    """A file as it was read: the names of its columns, each column's cells as text, and the target's."""

    names: list[str]
    columns: list[Cells]
    target: Cells
    target_name: str

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, index: list[int]) -> "Sheet":
        """Some of its rows."""
        columns = [[column[i] for i in index] for column in self.columns]
        return Sheet(self.names, columns, [self.target[i] for i in index], self.target_name)


@dataclass(frozen=True)
class Column:
    """How a column becomes numbers: by the words that it may have, or (None) as the number that it is.

    Attributes:
        name: of the column.
        words: of the training part, sorted; one output each, 1 for the row's own.
        mean: of the training part, in place of a missing number.
    """

    name: str
    words: tuple[str, ...] | None
    mean: float

    def encoded(self, cells: Cells) -> np.ndarray:
        """The cells as float64 [n, 1], or [n, words]; an unknown word is 0 everywhere.

        Raises:
            UserError: a word in a column of numbers.
        """
        if self.words is not None:
            return np.array(
                [[cell == word for word in self.words] for cell in map(_word, cells)], dtype=float
            )
        numbers = []
        for row, cell in enumerate(cells, start=1):
            number = self.mean if _missing(cell) else _number(cell)
            if number is None:
                raise UserError(
                    f"column {self.name!r}, row {row}: {cell!r} is no number, as in training they are"
                )
            numbers.append(number)
        return np.array(numbers)[:, None]


class OwnTable(TensorData):
    """Rows of a file: columns of numbers as they are, columns of words with one output (0 or 1) a word.

    A missing number is the mean of the training part, a missing word a word of its own; rows without a target
    are left out. What was repaired is counted and said. Words, means and classes are those of the training
    part, all of it, whatever `limit` and `validation` take of it.

    Args:
        path: of the file: LIBSVM (`label index:value ...`), Parquet (`.parquet`), or else CSV with commas,
            semicolons or tabs, whose first row holds names unless a number stands in it.
        test_path: of a second one alike with the test part; null to hold out a part of the first.
        test: that part, drawn once for all runs, of each class alike.
        target: the name of the target's column, or its number from 0 (-1 is the last); the label of LIBSVM.
        drop: names of columns to leave out.
        The others as in `TensorData`.

    Raises:
        UserError: a file that is missing or none of these, an unknown column, a column of too many words.
    """

    SHAPE: ClassVar = ()
    TRAIN_SIZE: ClassVar = 512
    TEST_SIZE: ClassVar = 256

    def __init__(
        self,
        *,
        path: str,
        test_path: str | None,
        test: float,
        target: str | int,
        drop: list[str],
        **options: Unpack[Options],
    ) -> None:
        check("test", test, 0 < test < 1, "give a fraction above 0 and below 1")
        self.path, self.test_path, self.test_fraction = path, test_path, test
        self.sheet = sheet(path, target, tuple(drop))
        self.test_sheet = None if test_path is None else sheet(test_path, target, tuple(drop))
        self.class_list = self._label_names()
        self._cut()
        self.columns = [
            _column(n, cells)
            for n, cells in zip(self.parts["train"].names, self.parts["train"].columns, strict=True)
        ]
        super().__init__(**options)
        self.shape = (sum(1 if column.words is None else len(column.words) for column in self.columns),)
        size = 4 * self.shape[0] * len(self.sheet)
        check(
            "path", path, size <= LARGEST, f"{len(self.sheet)} rows of {self.shape[0]} columns take over 4 GB"
        )

    def class_names(self) -> list[str] | None:
        """The classes, in the order of their labels; None for regression."""
        return list(self.class_list) or None

    def sources(self) -> dict[str, Path]:
        """The file, and that of the test part if there is one."""
        files = {"table": self.path, "test_table": self.test_path}
        return {name: Path(path).expanduser() for name, path in files.items() if path is not None}

    def _label_names(self) -> list[str]:
        """The classes, in the order of their labels; none for regression."""
        if self.KIND == "regression":
            return []
        names = ordered(self.sheet.target)
        check(
            "target",
            self.sheet.target_name,
            len(names) >= 2,
            f"it has {len(names)} classes (valid: at least 2)",
        )
        return names

    @property
    def label_count(self) -> int | None:
        return len(self.class_list) or None

    @property
    def train_size(self) -> int:
        return len(self.parts["train"])

    def _cut(self) -> None:
        """The rows of each part."""
        self.parts: dict[Part, Sheet]
        if self.test_sheet is not None:
            if self.test_sheet.names != self.sheet.names:
                differing = sorted(set(self.test_sheet.names) ^ set(self.sheet.names)) or ["in their order"]
                raise UserError(
                    f"dataset.test_path={self.test_path}: its columns differ: {', '.join(differing)}"
                )
            self.parts = {"train": self.sheet, "test": self.test_sheet}
            return
        total = len(self.sheet)
        size = round(self.test_fraction * total)
        check("test", self.test_fraction, 0 < size < total, f"of {total} rows that leaves one part empty")
        labels = self._labels_of(self.sheet) if self.class_list else None
        drawn = stratified_subset(labels, total, size, torch.Generator().manual_seed(HOLDOUT_SEED))
        rest = complement(drawn, total)
        self.parts = {"train": self.sheet.rows(rest.tolist()), "test": self.sheet.rows(drawn.tolist())}

    def _labels_of(self, part: Sheet) -> Tensor:
        numbers = {name: number for number, name in enumerate(self.class_list)}
        unknown = sorted(set(part.target) - set(numbers))
        if unknown:
            raise UserError(
                f"dataset.test_path={self.test_path}: the class {unknown[0]!r} is not in {self.path}"
            )
        return torch.tensor([numbers[cell] for cell in part.target])

    def read(self, part: Part) -> Split:
        """All rows of one part: float32 [n, d], and labels int64 or numbers float32."""
        rows = self.parts[part]
        encoded = [column.encoded(cells) for column, cells in zip(self.columns, rows.columns, strict=True)]
        inputs = torch.from_numpy(np.hstack(encoded)).float()
        for column, cells in zip(self.columns, rows.columns, strict=True):
            count = sum(map(_missing, cells))
            if count:
                how = "as the mean of training" if column.words is None else "as a word of their own"
                what = f"missing values of column {column.name!r}, taken {how}"
                self.repairs[what] = self.repairs.get(what, 0) + count
        if self.class_list:
            return Split(inputs, self._labels_of(rows))
        return Split(inputs, torch.tensor([float(cell) for cell in rows.target]))

    def setup(self, stage: str | None = None) -> None:
        """Read both parts, and say in one line what was found."""
        first = self._train is None
        super().setup(stage)
        if first and self.source == "real":
            print(self._found(), file=sys.stderr)

    def _found(self) -> str:
        words = sum(column.words is not None for column in self.columns)
        what = f"classes {', '.join(self.class_list[:10])}" if self.class_list else "numbers, for regression"
        tested = (
            self.test_path
            or f"{self.test_fraction:.0%} of the rows, held out, as no dataset.test_path is given"
        )
        return (
            f"dataset={self.NAME}: target {self.sheet.target_name!r} ({what}); {len(self.columns) - words} "
            f"columns of numbers, {words} of words, {self.shape[0]} inputs; {self.train_size} training rows; "
            f"tested on {tested}"
        )


class TableClassification(OwnTable):
    """A table whose target is one of some classes."""

    NAME: ClassVar = "table"
    KIND: ClassVar = "tabular_classification"
    # found from the file
    CLASSES: ClassVar = 0


class TableRegression(OwnTable):
    """A table whose target is a number.

    Raises:
        UserError: a target that is none.
    """

    NAME: ClassVar = "table_regression"
    KIND: ClassVar = "regression"
    CLASSES: ClassVar = None

    def class_names(self) -> list[str] | None:
        """The classes, in the order of their labels; None for regression."""
        return list(self.class_list) or None

    def sources(self) -> dict[str, Path]:
        """The file, and that of the test part if there is one."""
        files = {"table": self.path, "test_table": self.test_path}
        return {name: Path(path).expanduser() for name, path in files.items() if path is not None}

    def _label_names(self) -> list[str]:
        for cell in [*self.sheet.target, *(self.test_sheet.target if self.test_sheet else ())]:
            if _number(cell) is None:
                raise UserError(
                    f"dataset.target={self.sheet.target_name}: {cell!r} is no number (valid: another column, "
                    "or dataset=table dataset.kind=tabular_classification)"
                )
        return []


def is_regression(target: Cells) -> bool:
    """Whether a target is rather a number than a class: fractions, or over 20 different whole numbers."""
    numbers = [_number(cell) for cell in target]
    if any(number is None for number in numbers):
        return False
    return any(number != int(number or 0) for number in numbers) or len(set(numbers)) > MOST_CLASSES


def ordered(cells: Sequence[str]) -> list[str]:
    """The different cells, as numbers where all are, else by the alphabet."""
    names = sorted(set(cells))
    return sorted(names, key=float) if all(_number(name) is not None for name in names) else names


@cache
def sheet(path: str, target: str | int, drop: tuple[str, ...]) -> Sheet:
    """A file as text, its target apart, without the rows that have none.

    Raises:
        UserError: see `OwnTable`.
    """
    check("path", path, bool(path), "give your file (valid: CSV, Parquet or LIBSVM)")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"dataset.path={path}: no such file (valid: CSV, Parquet or LIBSVM)")
    names, columns = _parquet(file) if file.suffix == ".parquet" else _text(file)
    if len(columns) < 2 or not columns[0]:
        raise UserError(
            f"dataset.path={path}: {len(columns)} columns (valid: a target and at least one other)"
        )
    number = _position(names, target)
    absent = sorted(set(drop) - set(names))
    if absent:
        raise UserError(f"dataset.drop: {path} has no column {absent[0]!r} (valid: {', '.join(names[:40])})")
    kept = [i for i in range(len(names)) if i != number and names[i] not in drop]
    rows = [i for i, cell in enumerate(columns[number]) if not _missing(cell)]
    without = len(columns[number]) - len(rows)
    if without:
        print(f"dataset.path={path}: {without} rows have no target; they are left out", file=sys.stderr)
    whole = Sheet([names[i] for i in kept], [columns[i] for i in kept], columns[number], names[number])
    return whole.rows(rows)


def _position(names: list[str], target: str | int) -> int:
    """The number of the target's column."""
    if isinstance(target, str) and target in names:
        return names.index(target)
    number = int(target) if re.fullmatch(r"-?\d+", str(target)) else None
    if number is None or not -len(names) <= number < len(names):
        shown = ", ".join(names[:40])
        raise UserError(f"dataset.target={target}: no such column (valid: {shown}, or a number from 0 on)")
    return number % len(names)


def _parquet(file: Path) -> tuple[list[str], list[Cells]]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise UserError("a Parquet file needs the package pyarrow: pip install -e '.[tables]'") from error
    try:
        table = parquet.read_table(file)
    except (ArrowException, OSError) as error:
        raise UserError(f"dataset.path={file}: no Parquet file ({str(error).splitlines()[0]})") from error
    texts = [["" if cell is None else str(cell) for cell in column.to_pylist()] for column in table.columns]
    return [str(name) for name in table.column_names], texts


def _text(file: Path) -> tuple[list[str], list[Cells]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"dataset.path={file}: not UTF-8 text (valid: CSV, Parquet or LIBSVM)") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"dataset.path={file}: it is empty")
    return _libsvm(file) if LIBSVM_LINE.fullmatch(lines[0]) else _csv(file, text)


def _csv(file: Path, text: str) -> tuple[list[str], list[Cells]]:
    """The columns of a CSV file; the separator is the one of , ; tab that its first line has most often."""
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise UserError(
                f"dataset.path={file}: row {number} has {len(row)} cells, the first {len(rows[0])}"
            )
    cells = [[cell.strip() for cell in row] for row in rows]
    headed = not any(_number(cell) is not None for cell in cells[0])
    names = cells[0] if headed else [str(number) for number in range(len(cells[0]))]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"dataset.path={file}: two columns are named {twice[0]!r}")
    return names, [list(column) for column in zip(*cells[headed:], strict=True)] or [[] for _ in names]


def _libsvm(file: Path) -> tuple[list[str], list[Cells]]:
    """The columns of a LIBSVM file by their indices, and the label as the last one."""
    try:
        table, labels = load_svmlight_file(str(file))
    except ValueError as error:
        raise UserError(
            f"dataset.path={file}: no LIBSVM file ({str(error).splitlines()[0][:120]})"
        ) from error
    if table.shape[0] * table.shape[1] * 4 > LARGEST:
        raise UserError(
            f"dataset.path={file}: {table.shape[0]} rows of {table.shape[1]} columns take over 4 GB"
        )
    columns = [[repr(float(v)) for v in column] for column in table.toarray().T]
    return [*map(str, range(1, len(columns) + 1)), "label"], [*columns, [f"{label:.17g}" for label in labels]]


def _column(name: str, cells: Cells) -> Column:
    """How a column of the training part becomes numbers.

    Raises:
        UserError: too many words.
    """
    given = [cell for cell in cells if not _missing(cell)]
    numbers = [number for cell in given if (number := _number(cell)) is not None]
    if len(numbers) == len(given):
        return Column(name, None, float(np.mean(numbers)) if numbers else 0.0)
    words = sorted(set(map(_word, cells)))
    if len(words) > MOST_WORDS:
        raise UserError(
            f"column {name!r} has {len(words)} different words (valid: at most {MOST_WORDS}, or "
            f"dataset.drop=[{name}])"
        )
    return Column(name, tuple(words), 0.0)


def _missing(cell: str) -> bool:
    return cell.lower() in MISSING


def _word(cell: str) -> str:
    return "" if _missing(cell) else cell


def _number(cell: str) -> float | None:
    """A finite number; None for anything else."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
