"""A table's file as text: the names of its columns, their cells, and the target apart."""

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from common.base.dataset import check
from common.base.errors import UserError
from common.base.files import names_beside
from common.data.shared.text_file import from_here, read_text, shown

# what stands in a cell that is empty, in small letters
MISSING = {"", "na", "nan", "n/a", "null", "none", "?"}
# a target of whole numbers is one of classes: of so many different ones, and none of more than two larger
MOST_CLASSES, LARGEST_LABEL = 20, 9_999
# of the whole table as numbers, in bytes
LARGEST = 4 << 30
# of float32, in which a table is kept
LARGEST_NUMBER = 3.4028234e38
# separators, those first that do not stand within numbers; rows that are looked at to find a file's own
DELIMITERS, LOOKED_AT = "\t;,", 50
LIBSVM_LINE = re.compile(r"\S+(\s+\d+:\S+)*\s*(#.*)?")
# what the first bytes of a file say that it is
FOREIGN = {
    b"PK\x03\x04": "a zip file or a spreadsheet's own format; save it as CSV",
    b"\x1f\x8b": "packed by gzip; unpack it first",
    b"BZh": "packed by bzip2; unpack it first",
}
# numbers as people write them: 1.234,5 and 1,234.5
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+|(?=,\d))(,\d+)?([eE][+-]?\d+)?")
THOUSANDS_COMMA = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(,\d{3})+)(\.\d*)?([eE][+-]?\d+)?")

# signs that may stand before a number, and the unit that may stand behind one
SIGNS = "%€$£¥"
UNIT = re.compile(r"[+-]?[\d.,]*\d[.,]?(?:[eE][+-]?\d+)?\s*(?P<unit>[^\s\d.,+-].*)")

Cells = list[str]


@dataclass(frozen=True)
class Sheet:
    """A file as it was read: the names of its columns, each column's cells as text, and the target's.

    Attributes:
        lines: where each row stands in the file, from 1.
        sparse: whether a column that it lacks holds zeros, as in LIBSVM.
    """

    names: list[str]
    columns: list[Cells]
    target: Cells
    target_name: str
    lines: list[int]
    sparse: bool

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, index: list[int]) -> "Sheet":
        """Some of its rows."""
        columns = [[column[i] for i in index] for column in self.columns]
        target, lines = [self.target[i] for i in index], [self.lines[i] for i in index]
        return Sheet(self.names, columns, target, self.target_name, lines, self.sparse)

    def column(self, name: str) -> Cells:
        """The cells of a column; zeros for one that a sparse file lacks."""
        return self.columns[self.names.index(name)] if name in self.names else ["0"] * len(self)


@dataclass(frozen=True)
class _Read:
    """All columns of a file, the target among them."""

    names: list[str]
    columns: list[Cells]
    lines: list[int]
    sparse: bool = False


def is_regression(target: Cells) -> bool:
    """Whether a target is rather a number than a class.

    So are fractions, over 20 different whole numbers, and more than two where one is above 9,999.
    """
    numbers = [number(cell) for cell in target]
    if any(value is None for value in numbers):
        return False
    values = {value for value in numbers if value is not None}
    large = len(values) > 2 and any(abs(value) > LARGEST_LABEL for value in values)
    return large or any(value != int(value) for value in values) or len(values) > MOST_CLASSES


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


def missing(cell: str) -> bool:
    """Whether a cell stands for nothing."""
    return cell.lower() in MISSING


def number(cell: str) -> float | None:
    """A number that is finite in float32; None for anything else."""
    value = _parsed(cell)
    return value if value is not None and abs(value) <= LARGEST_NUMBER else None


def infinite(cell: str) -> bool:
    """Whether a cell is a number without end, as one above the largest float32 is."""
    value = _parsed(cell)
    return value is not None and abs(value) > LARGEST_NUMBER


def _parsed(cell: str) -> float | None:
    try:
        # Python alone takes 1_000 for a number
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _absent(what: str, file: Path) -> str:
    """A line on a file that is not there."""
    there = names_beside(file, ())
    return f"{what}: no such file{from_here(file)}; there is {there} (valid: CSV, Parquet or LIBSVM)"


def sheet(
    path: str, target: str | int, drop: tuple[str, ...], encoding: str = "utf-8", rename: bool = False
) -> Sheet:
    """A file as text, its target apart, without the rows that have none.

    Args:
        rename: whether columns of one name get numbers behind it, and are not refused.

    Raises:
        UserError: a file that is missing, empty or none of those that are known; an unknown column; a target
            that is not finite.
    """
    check("path", path, bool(path), "give your file (valid: CSV, Parquet or LIBSVM)")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(_absent(f"dataset.path={path}", file))
    told = file.stat()
    return _sheet(path, target, drop, encoding, (told.st_mtime_ns, told.st_size), rename)


@lru_cache(maxsize=4)
def _sheet(
    path: str, target: str | int, drop: tuple[str, ...], encoding: str, version: tuple[int, int], rename: bool
) -> Sheet:
    """`sheet`, once for each version of a file, as several parts of a run ask for it."""
    read = _read(Path(path).expanduser(), encoding, rename)
    if len(read.columns) < 2:
        raise UserError(
            f"dataset.path={path}: {len(read.columns)} columns (valid: a target and at least one other, "
            "separated by commas, semicolons or tabs)"
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
    )
    return _with_target(whole, path)


@lru_cache(maxsize=64)
def _say(line: str) -> None:
    """A line on stderr, once, as a file is read for its kind and again for its rows."""
    print(line, file=sys.stderr)


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
        _say(line)
    return whole.rows(rows) if without else whole


def refuse_infinite(name: str, cells: Cells, lines: list[int], path: str) -> None:
    """Refuse infinity in a column of numbers; among words it is one.

    Raises:
        UserError: with the row.
    """
    found = [i for i, cell in enumerate(cells) if infinite(cell)]
    if found and all(missing(cell) or _parsed(cell) is not None for cell in cells):
        raise UserError(
            f"column {name!r}, line {lines[found[0]]} of {path}: {cells[found[0]]!r} is no finite number"
            + (f", nor are {len(found) - 1} others" if len(found) > 1 else "")
            + " (valid: a number, or an empty cell where it is not known)"
        )


def _position(names: list[str], target: str | int) -> int:
    """The number of the target's column."""
    if isinstance(target, str) and target in names:
        return names.index(target)
    place = int(target) if re.fullmatch(r"-?\d+", str(target)) else None
    if place is None or not -len(names) <= place < len(names):
        valid = ", ".join(names[:40])
        raise UserError(f"dataset.target={target}: no such column (valid: {valid}, or a number from 0 on)")
    return place % len(names)


def _read(file: Path, encoding: str, rename: bool = False) -> _Read:
    try:
        with file.open("rb") as opened:
            head = opened.read(4)
    except OSError as error:
        raise UserError(f"dataset.path={file}: {error.strerror}") from error
    if head == b"PAR1" or file.suffix == ".parquet":
        return _parquet(file)
    foreign = next((what for mark, what in FOREIGN.items() if head.startswith(mark)), None)
    if foreign is not None:
        raise UserError(f"dataset.path={file}: {foreign} (valid: CSV, Parquet or LIBSVM)")
    text = read_text(file, encoding)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise UserError(f"dataset.path={file}: it is empty")
    first = lines[:LOOKED_AT]
    indexed = any(re.search(r"\s\d+:\S", line) for line in first)
    return _libsvm(file) if indexed and all(map(LIBSVM_LINE.fullmatch, first)) else _csv(file, text, rename)


def _parquet(file: Path) -> _Read:
    """The columns of a Parquet file; an index that pandas wrote comes first, or not at all without a name."""
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise UserError("a Parquet file needs the package pyarrow: pip install -e '.[tables]'") from error
    try:
        table = parquet.read_table(file)
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
    texts = [name for name, its in cells.items() if any(isinstance(cell, str) for cell in its)]
    # such columns are as a CSV file had them
    plain = _plain_numbers(file, [[name, *columns[name]] for name in texts], ",")
    columns |= {name: column[1:] for name, column in zip(texts, plain, strict=True)}
    return _Read(list(columns), list(columns.values()), list(range(1, table.num_rows + 1)))


def _csv(file: Path, text: str, rename: bool = False) -> _Read:
    """The columns of a CSV file, whose first row holds names unless it looks like the others."""
    delimiter = _delimiter(text)
    rows, lines = [], []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        for row in reader:
            if len(row) <= 1 and not "".join(row).strip():
                continue
            rows.append([cell.strip() for cell in row])
            lines.append(reader.line_num)
            if len(row) != len(rows[0]):
                raise UserError(
                    f"dataset.path={file}: row {reader.line_num} has {len(row)} cells, the first "
                    f"{len(rows[0])}"
                )
    except csv.Error as error:
        raise UserError(
            f"dataset.path={file}: no CSV file ({error}; is a quotation mark left open?)"
        ) from error
    columns = [list(column) for column in zip(*rows, strict=True)]
    columns = _plain_numbers(file, columns, delimiter)
    headed = _headed(columns)
    names = [column[0] for column in columns] if headed else [str(place) for place in range(len(columns))]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice and rename:
        _say(f"dataset.path={file}: several columns are named {shown(twice)}; they get numbers")
        names = numbered(names)
    elif twice:
        raise UserError(f"dataset.path={file}: two columns are named {twice[0]!r}")
    columns, lines = [column[headed:] for column in columns], lines[headed:]
    return _without_index(file, _Read(names, columns, lines))


def numbered(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that came before."""
    count: Counter[str] = Counter()
    found = []
    for name in names:
        count[name] += 1
        found.append(name if count[name] == 1 else f"{name} ({count[name]})")
    return found


def table_of(path: str, encoding: str = "utf-8") -> tuple[list[str], list[Cells]]:
    """The names and cells of all columns of a file, whatever its target; names that come twice get numbers.

    Raises:
        UserError: a file that is missing, empty or none of those that are known.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(_absent(path, file))
    read = _read(file, encoding, rename=True)
    return read.names, read.columns


def _delimiter(text: str) -> str:
    """The separator by which the first rows have equally many cells, at least two."""
    head = text[: 1 << 16]
    most, best = 0, ","
    for delimiter in DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
            rows = [row for row in islice(reader, LOOKED_AT) if row]
        except csv.Error:
            continue
        # the last one may be cut
        widths = {len(row) for row in (rows if len(head) == len(text) else rows[:-1])}
        if len(widths) == 1 and min(widths) >= 2:
            return delimiter
        if rows and len(rows[0]) > most:
            most, best = len(rows[0]), delimiter
    return best


def _headed(columns: list[Cells]) -> bool:
    """Whether the first row holds names: none of them is a number, or one stands over nothing but numbers."""
    if all(number(column[0]) is None for column in columns):
        return True
    return any(
        not missing(column[0])
        and number(column[0]) is None
        and any(number(cell) is not None for cell in column[1:])
        and all(missing(cell) or number(cell) is not None for cell in column[1:])
        for column in columns
    )


def _plain_numbers(file: Path, columns: list[Cells], delimiter: str) -> list[Cells]:
    """The columns, a name or a cell first, with the numbers that people write in other ways as 1234.5."""
    return _with_points(file, [_without_unit(file, column) for column in columns], delimiter)


def _with_points(file: Path, columns: list[Cells], delimiter: str) -> list[Cells]:
    """The columns, with the numbers of those that are written in another way as 1234.5; they are named.

    Where commas separate the cells, 1,234 is a thousand; elsewhere it has decimals.
    """
    forms = [THOUSANDS_COMMA, DECIMAL_COMMA] if delimiter == "," else [DECIMAL_COMMA, THOUSANDS_COMMA]
    # the first cell may be a name
    bodies = [[cell for cell in column[1:] if not missing(cell)] or column[:1] for column in columns]
    found = {i: _form(body, forms) for i, body in enumerate(bodies)}
    comma = any(form is DECIMAL_COMMA for form in found.values())
    changed = []
    for i, body in enumerate(bodies):
        form = found[i]
        if form is None and comma and any("." in cell for cell in body):
            # in such a file a point separates thousands
            form = DECIMAL_COMMA if all(map(DECIMAL_COMMA.fullmatch, body)) else None
        if form is not None:
            changed.append(str(i) if form.fullmatch(columns[i][0]) else columns[i][0])
            columns[i] = [_pointed(cell, form) for cell in columns[i]]
    if changed:
        what = "decimal commas" if comma else "commas between thousands"
        _say(f"dataset.path={file}: numbers with {what} in {shown(changed)}")
    return columns


def _without_unit(file: Path, column: Cells) -> Cells:
    """A column without the unit of its numbers (a sign as % or €, or kg), where each cell has the same."""
    # the first cell may be a name
    body = [cell for cell in column[1:] if not missing(cell)]
    unit = _unit(body[0]) if body else None
    if unit is None:
        return column
    bare = {cell: _bare(cell, unit) for cell in {*body, column[0]}}
    if not all(
        cell != bare[cell] and (number(bare[cell]) is not None or _with_comma(bare[cell])) for cell in body
    ):
        return column
    headed = bare[column[0]] if number(bare[column[0]]) is not None else column[0]
    name = "" if headed != column[0] else f" of {column[0]!r}"
    _say(f"dataset.path={file}: numbers{name} with {unit}; they are taken without it")
    return [headed, *(bare.get(cell, cell) for cell in column[1:])]


def _unit(cell: str) -> str | None:
    """The sign or the unit that a cell's number has; None where it is no number with one."""
    if number(cell) is not None or _with_comma(cell):
        return None
    sign = next((sign for sign in SIGNS if sign in cell), None)
    behind = UNIT.fullmatch(cell)
    return sign or (None if behind is None else behind["unit"])


def _bare(cell: str, unit: str) -> str:
    """A cell without one unit before its number (after its minus, too) or behind it."""
    minus, rest = ("-", cell[1:].lstrip()) if cell[:1] == "-" else ("", cell)
    if rest.startswith(unit):
        return minus + rest.removeprefix(unit).lstrip()
    return cell.removesuffix(unit).rstrip()


def _with_comma(cell: str) -> bool:
    return any(form.fullmatch(cell) for form in (DECIMAL_COMMA, THOUSANDS_COMMA))


def _form(body: Cells, forms: list[re.Pattern[str]]) -> re.Pattern[str] | None:
    """How the numbers of a column with commas are written; None where there are none, or no numbers."""
    if not any("," in cell for cell in body):
        return None
    return next((form for form in forms if all(map(form.fullmatch, body))), None)


def _pointed(cell: str, form: re.Pattern[str]) -> str:
    if not form.fullmatch(cell):
        return cell
    return cell.replace(".", "").replace(",", ".") if form is DECIMAL_COMMA else cell.replace(",", "")


def _without_index(file: Path, read: _Read) -> _Read:
    """The columns without a first one that has no name and counts the rows, as data frames are written."""
    count = len(read.lines)
    counted = {"0": range(count), "1": range(1, count + 1)}.get(read.columns[0][0] if count else "")
    if read.names[0] or counted is None or read.columns[0] != [str(i) for i in counted]:
        return read
    _say(f"dataset.path={file}: the first column has no name and counts the rows; it is left out")
    return _Read(read.names[1:], read.columns[1:], read.lines)


def _libsvm(file: Path) -> _Read:
    """The columns of a LIBSVM file by their indices, as they stand there, and the label as the last one."""
    from sklearn.datasets import load_svmlight_file

    try:
        table, labels = load_svmlight_file(str(file), zero_based=True)
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
    return _Read(names, texts, list(range(1, len(labels) + 1)), sparse=True)
