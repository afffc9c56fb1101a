"""A table's file as text: the names of its columns, their cells, and the target apart."""

import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from common.base.dataset import check
from common.base.errors import UserError
from common.base.files import names_beside
from common.data.shared.text_file import decoded, from_here, shown
from common.data.tables.rows import KNOWN, arff, content_of, headed, rows_of
from common.data.tables.written import (
    PLAIN,
    Cells,
    Written,
    infinite,
    missing,
    number,
    parsed,
    plain_numbers,
    say,
)

# a target of whole numbers is one of classes: of so many different ones, and none of more than two larger
MOST_CLASSES, LARGEST_LABEL, FEWEST_APART = 20, 9_999, 5
# of the whole table as numbers, in bytes
LARGEST = 4 << 30
# rows that are looked at to tell a file of LIBSVM
LOOKED_AT = 50
LIBSVM_LINE = re.compile(r"\S+(\s+qid:\d+)?(\s+\d+:\S+)*\s*(#.*)?")
# what writes a table gives a column without a name
UNNAMED = re.compile(r"(Unnamed: \d+)?")
# what becomes of columns of one name: they get numbers behind it, which is said, or not where only the target
# is asked for
Twice = Literal["refuse", "number", "number_silently"]


@dataclass(frozen=True)
class Sheet:
    """A file as it was read: the names of its columns, each column's cells as text, and the target's.

    Attributes:
        lines: where each row stands in the file, from 1.
        sparse: whether a column that it lacks holds zeros, as in LIBSVM.
        written: how the numbers of each column were written in the file; target_written: those of the target.
    """

    names: list[str]
    columns: list[Cells]
    target: Cells
    target_name: str
    lines: list[int]
    sparse: bool
    written: list[Written] = field(default_factory=list)
    target_written: Written = PLAIN

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, index: list[int]) -> "Sheet":
        """Some of its rows."""
        columns = [[column[i] for i in index] for column in self.columns]
        target, lines = [self.target[i] for i in index], [self.lines[i] for i in index]
        return Sheet(
            self.names,
            columns,
            target,
            self.target_name,
            lines,
            self.sparse,
            self.written,
            self.target_written,
        )

    def column(self, name: str) -> Cells:
        """The cells of a column; zeros for one that a sparse file lacks."""
        return self.columns[self.names.index(name)] if name in self.names else ["0"] * len(self)


@dataclass(frozen=True)
class Read:
    """All columns of a file, the target among them; see `Sheet`.

    Attributes:
        raw: the columns as they stand in the file.
    """

    names: list[str]
    columns: list[Cells]
    lines: list[int]
    written: list[Written]
    raw: list[Cells]
    sparse: bool = False

    def without(self, place: int) -> "Read":
        """Without one column."""
        names, columns, written, raw = self.names[:], self.columns[:], self.written[:], self.raw[:]
        for own in (names, columns, written, raw):
            del own[place]
        return Read(names, columns, self.lines, written, raw, self.sparse)


def is_regression(target: Cells) -> bool:
    """Whether a target is rather a number than a class.

    So are fractions, over 20 different whole numbers, more than two where one is above 9,999, and more than
    five that are another in most rows and lie far apart.
    """
    numbers = [number(cell) for cell in target]
    if any(value is None for value in numbers):
        return False
    values = {value for value in numbers if value is not None}
    large = len(values) > 2 and any(abs(value) > LARGEST_LABEL for value in values)
    apart = len(values) > max(FEWEST_APART, len(numbers) / 2) and max(values) - min(values) > 2 * len(values)
    return large or apart or any(value != int(value) for value in values) or len(values) > MOST_CLASSES


def ordered(cells: Sequence[str]) -> list[str]:
    """The different cells, as numbers where all are, else by the alphabet; 1 and 1.0 are one."""
    first: dict[str | float, str] = {}
    for cell in sorted(set(cells)):
        first.setdefault(as_class(cell), cell)
    names = list(first.values())
    return sorted(names, key=float) if all(number(name) is not None for name in names) else names


def as_class(cell: str) -> str | float:
    """What cells that name one class have in common: the number, where they are numbers, else the text."""
    value = number(cell)
    return cell if value is None else value


def _absent(what: str, file: Path) -> str:
    """A line on a file that is not there."""
    there = names_beside(file, ())
    return f"{what}: no such file{from_here(file)}; there is {there} (valid: {KNOWN})"


def sheet(
    path: str, target: str | int, drop: tuple[str, ...], encoding: str = "utf-8", twice: Twice = "refuse"
) -> Sheet:
    """A file as text, its target apart, without the rows that have none.

    Args:
        target: the name of its column, which may be a number as 2020 is, or else its place from 0.

    Raises:
        UserError: a file that is missing, empty or none of those that are known; an unknown column; a target
            that is not finite.
    """
    check("path", path, bool(path), f"give your file (valid: {KNOWN})")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(_absent(f"dataset.path={path}", file))
    told = file.stat()
    return _sheet(path, target, drop, encoding, (told.st_mtime_ns, told.st_size), twice)


@lru_cache(maxsize=4)
def _sheet(
    path: str, target: str | int, drop: tuple[str, ...], encoding: str, version: tuple[int, int], twice: Twice
) -> Sheet:
    """`sheet`, once for each version of a file, as several parts of a run ask for it."""
    # a name stands in the first row
    known = () if re.fullmatch(r"-\d+", str(target)) else (str(target),)
    read = read_file(Path(path).expanduser(), encoding, twice, known)
    if len(read.columns) < 2:
        raise UserError(
            f"dataset.path={path}: it has {'one column' if read.columns else 'no columns'} (valid: a target "
            "and at least one other, separated by commas, semicolons or tabs)"
        )
    if not read.columns[0]:
        raise UserError(f"dataset.path={path}: a row of names ({shown(read.names)}), and no row below it")
    place = _position(read.names, target)
    absent = sorted(set(drop) - set(read.names))
    if absent:
        valid = ", ".join(read.names[:40])
        raise UserError(f"dataset.drop: {path} has no column {absent[0]!r} (valid: {valid})")
    kept = [i for i, name in enumerate(read.names) if i != place and name not in drop]
    whole = Sheet(
        [read.names[i] for i in kept],
        [read.columns[i] for i in kept],
        read.columns[place],
        read.names[place],
        read.lines,
        read.sparse,
        [read.written[i] for i in kept],
        read.written[place],
    )
    return _with_target(whole, path)


def _with_target(whole: Sheet, path: str) -> Sheet:
    """The rows that have a target.

    Raises:
        UserError: none has, or one has a target without end.
    """
    refuse_infinite(whole.target_name, whole.target, whole.lines, path)
    rows = [i for i, cell in enumerate(whole.target) if not missing(cell)]
    without = len(whole) - len(rows)
    if not rows:
        raise UserError(f"dataset.target={whole.target_name}: no row of {path} has one")
    if without:
        words = sorted({cell for cell in whole.target if cell and missing(cell)})
        as_words = f" ({shown(words)} is none)" if words else ""
        line = f"dataset.path={path}: {without} rows have no target{as_words}; they are left out"
        say(line)
    return whole.rows(rows) if without else whole


def refuse_infinite(name: str, cells: Cells, lines: list[int], path: str) -> None:
    """Refuse infinity in a column of numbers; among words it is one.

    Raises:
        UserError: with the row.
    """
    found = [i for i, cell in enumerate(cells) if infinite(cell)]
    if found and all(missing(cell) or parsed(cell) is not None for cell in cells):
        raise UserError(
            f"column {name!r}, line {lines[found[0]]} of {path}: {cells[found[0]]!r} is no finite number"
            + (f", nor are {len(found) - 1} others" if len(found) > 1 else "")
            + " (valid: a number, or an empty cell where it is not known)"
        )


def _position(names: list[str], target: str | int) -> int:
    """The number of the target's column."""
    if str(target) in names:
        return names.index(str(target))
    place = int(target) if re.fullmatch(r"-?\d+", str(target)) else None
    if place is None or not -len(names) <= place < len(names):
        valid = ", ".join(names[:40])
        raise UserError(f"dataset.target={target}: no such column (valid: {valid}, or a number from 0 on)")
    return place % len(names)


def read_file(
    file: Path, encoding: str, twice: Twice = "refuse", names: Collection[str] = (), quiet: bool = False
) -> Read:
    """All columns of a file.

    Args:
        names: of which one or more stand in a first row of names.
        quiet: nothing is said of how numbers are written.

    Raises:
        UserError: it is empty, or none of those that are known.
    """
    content = content_of(file)
    if content.startswith(b"PAR1") or file.suffix == ".parquet":
        return _parquet(file, content, quiet)
    text = decoded(content, file, encoding)
    del content
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"dataset.path={file}: it is empty")
    first = lines[:LOOKED_AT]
    if any(re.match(r"@relation\b|@attribute\b", line.strip(), re.IGNORECASE) for line in first):
        return _arff(file, text, twice, quiet)
    indexed = any(re.search(r"\s\d+:\S", line) for line in first)
    if indexed and all(map(LIBSVM_LINE.fullmatch, first)):
        return _libsvm(file, text)
    return _csv(file, text, twice, names, quiet)


def _parquet(file: Path, content: bytes, quiet: bool) -> Read:
    """The columns of a Parquet file; an index that pandas wrote comes first, or not at all without a name."""
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise UserError("a Parquet file needs the package pyarrow: pip install -e '.[tables]'") from error
    try:
        table = parquet.read_table(io.BytesIO(content))
    except (ArrowException, OSError) as error:
        raise UserError(f"dataset.path={file}: no Parquet file ({str(error).splitlines()[0]})") from error
    said = (table.schema.pandas_metadata or {}).get("index_columns", [])
    index = [name for name in said if isinstance(name, str) and name in table.column_names]
    names = [*index, *(name for name in table.column_names if name not in index)]
    names = [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]
    cells = {str(name): table[name].to_pylist() for name in names}
    columns = {
        name: ["" if cell is None else str(cell).strip() for cell in its] for name, its in cells.items()
    }
    raw = list(columns.values())
    texts = [name for name, its in cells.items() if any(isinstance(cell, str) for cell in its)]
    # such columns are as a CSV file had them
    plain, forms = plain_numbers(file, [[name, *columns[name]] for name in texts], ",", quiet)
    columns |= {name: column[1:] for name, column in zip(texts, plain, strict=True)}
    written = dict(zip(texts, forms, strict=True))
    lines = list(range(1, table.num_rows + 1))
    return Read(
        list(columns), list(columns.values()), lines, [written.get(name, Written()) for name in columns], raw
    )


def _csv(file: Path, text: str, twice: Twice, known: Collection[str], quiet: bool) -> Read:
    """The columns of a CSV file, whose first row holds names unless it looks like the others."""
    rows, lines, delimiter = rows_of(file, text)
    raw = [list(column) for column in zip(*rows, strict=True)]
    columns, written = plain_numbers(file, raw, delimiter, quiet)
    named = headed(columns, known)
    if not named:
        if not quiet:
            say(f"dataset.path={file}: its first row holds no names; its columns are 0 to {len(columns) - 1}")
        names = [str(place) for place in range(len(columns))]
        return _without_index(file, Read(names, columns, lines, written, raw))
    # a first line that begins as a comment does
    first = rows[0][0].lstrip("# ").strip('"') if rows[0][0].startswith("#") else rows[0][0]
    names = _different(file, [first, *rows[0][1:]], twice)
    again = [i for i, row in enumerate(rows) if i and row == rows[0]]
    if again:
        say(f"dataset.path={file}: {len(again)} rows repeat the names of the first; they are left out")
        rows = [row for row in rows[1:] if row != rows[0]]
        raw = [[name, *column] for name, column in zip(names, zip(*rows, strict=True), strict=True)]
        columns, written = plain_numbers(file, raw, delimiter, quiet)
        lines = [line for i, line in enumerate(lines) if i not in set(again)]
    # most are as they stand: one list for both
    below = [column[1:] for column in columns]
    raw = [b if c is r else r[1:] for b, c, r in zip(below, columns, raw, strict=True)]
    columns = below
    return _without_index(file, Read(names, columns, lines[1:], written, raw))


def _arff(file: Path, text: str, twice: Twice, quiet: bool) -> Read:
    """The columns of an ARFF file."""
    names, rows, lines = arff(file, text)
    names = _different(file, names, twice)
    if not rows:
        raise UserError(f"dataset.path={file}: attributes ({shown(names)}), and no row below them")
    raw = [list(column) for column in zip(*rows, strict=True)]
    heads = [[name, *column] for name, column in zip(names, raw, strict=True)]
    columns, written = plain_numbers(file, heads, ",", quiet)
    return Read(names, [column[1:] for column in columns], lines, written, raw)


def _different(file: Path, names: list[str], twice: Twice) -> list[str]:
    """Names, of which those that come again get numbers.

    Raises:
        UserError: some come again, and are to be refused.
    """
    again = sorted(name for name, count in Counter(names).items() if count > 1)
    if not again:
        return names
    if twice == "refuse":
        raise UserError(
            f"dataset.path={file}: {Counter(names)[again[0]]} columns are named {again[0]!r} (valid: a name "
            "of its own for each)"
        )
    if twice == "number":
        say(f"dataset.path={file}: several columns are named {shown(again)}; they get numbers")
    return numbered(names)


def numbered(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that came before."""
    found: list[str] = []
    taken, given = set(names), set()
    for name in names:
        made, count = name, 1
        while made in given or (count > 1 and made in taken):
            count += 1
            made = f"{name} ({count})"
        given.add(made)
        found.append(made)
    return found


def table_of(path: str, encoding: str = "utf-8", names: Collection[str] = ()) -> Read:
    """All columns of a file, whatever its target; names that come twice get numbers.

    Args:
        names: of which one or more stand in a first row of names.

    Raises:
        UserError: a file that is missing, empty or none of those that are known.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(_absent(path, file))
    # the forms of training count more than its own
    return read_file(file, encoding, "number", names, quiet=True)


def _without_index(file: Path, read: Read) -> Read:
    """The columns without a first one that has no name and another whole number in each row."""
    if not UNNAMED.fullmatch(read.names[0]) or not read.lines:
        return read
    cells = read.columns[0]
    if not all(map(str.isdecimal, cells)) or len(set(cells)) < len(cells):
        return read
    counts = cells == [str(i) for i in range(int(cells[0]), int(cells[0]) + len(cells))]
    what = "counts the rows" if counts else "has another whole number in each row"
    say(f"dataset.path={file}: the first column has no name and {what}; it is left out")
    return read.without(0)


def _libsvm(file: Path, text: str) -> Read:
    """The columns of a LIBSVM file by their indices, as they stand there, and the label as the last one."""
    from sklearn.datasets import load_svmlight_file

    try:
        table, labels = load_svmlight_file(io.BytesIO(text.encode()), zero_based=True)
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"dataset.path={file}: no LIBSVM file ({str(error).splitlines()[0][:120]})"
        ) from error
    if table.shape[0] * table.shape[1] * 4 > LARGEST:
        raise UserError(
            f"dataset.path={file}: {table.shape[0]} rows of {table.shape[1]} columns take over 4 GB"
        )
    columns = [[repr(float(v)) for v in column] for column in table.toarray().T]
    # most files count from 1
    first = int(table.shape[1] > 0 and not table[:, 0].nnz)
    names = [*map(str, range(first, len(columns))), "label"]
    texts = [*columns[first:], [f"{label:.17g}" for label in labels]]
    written = [Written()] * len(names)
    return Read(names, texts, list(range(1, len(labels) + 1)), written, texts, sparse=True)
