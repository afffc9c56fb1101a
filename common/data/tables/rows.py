"""The rows of a table's text: what separates cells, which lines are none, whether the first holds names."""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from common.base.errors import UserError
from common.data.shared.text_file import shown
from common.data.tables.written import Cells, missing, number, say

if TYPE_CHECKING:
    import _csv

# separators, those first that do not stand within numbers; rows that are looked at to find a file's own
DELIMITERS, BLANKS, LOOKED_AT = "\t;,|", " ", 50
# a first line by which spreadsheets are told it
SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?\s*\n", re.IGNORECASE)
# of the rows that are looked at, the share that has equally many cells
MOST = 0.6
KNOWN = "CSV, Parquet, ARFF or LIBSVM, also packed by gzip, bzip2, xz or zip"
# what the first bytes of a file say that it is
FOREIGN = {
    b"\xd0\xcf\x11\xe0": "a spreadsheet's own format; save it as CSV",
    b"SQLite": "a database; write its table as CSV",
    b"\x89HDF": "an HDF5 file; write its table as CSV",
}
PACKED = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ": ("xz", lzma.decompress),
}
NUMBERS = re.compile(r"[-+]?[\d.]+\S*(\s+([-+]?[\d.]+\S*|\?|NA))+")
ATTRIBUTE = re.compile(r"@attribute\s+('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s{]+)\s*(.+)", re.IGNORECASE)


def content_of(file: Path) -> bytes:
    """What a file holds, unpacked.

    Raises:
        UserError: it cannot be read or unpacked, or is a format of which nothing is known.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"dataset.path={file}: {error.strerror}") from error
    if content.startswith(b"PK\x03\x04"):
        content = _from_zip(file)
    for mark, (name, unpack) in PACKED.items():
        if content.startswith(mark):
            try:
                content = unpack(content)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise UserError(
                    f"dataset.path={file}: packed by {name}, and cannot be unpacked ({error})"
                ) from error
            break
    foreign = next((what for mark, what in FOREIGN.items() if content.startswith(mark)), None)
    if foreign is None and content[:1000].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        foreign = "a web page; download the file that it shows"
    if foreign is not None:
        raise UserError(f"dataset.path={file}: {foreign} (valid: {KNOWN})")
    return content


def _from_zip(file: Path) -> bytes:
    """The one file that a zip holds."""
    try:
        with zipfile.ZipFile(file) as packed:
            names = [name for name in packed.namelist() if not name.endswith("/")]
            if "[Content_Types].xml" in names or "mimetype" in names:
                raise UserError(
                    f"dataset.path={file}: a spreadsheet's own format; save it as CSV (valid: {KNOWN})"
                )
            names = [name for name in names if not name.startswith("__MACOSX/")]
            if len(names) != 1:
                raise UserError(
                    f"dataset.path={file}: a zip of {len(names)} files, {shown(names)} (valid: one file; "
                    "unpack it and give the one that is meant)"
                )
            return packed.read(names[0])
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"dataset.path={file}: a zip file or a spreadsheet's own format, and cannot be unpacked "
            f"({error}); save it as CSV (valid: {KNOWN})"
        ) from error


def rows_of(file: Path, text: str) -> tuple[list[Cells], list[int], str]:
    """All rows of a text, where each ends in the file, and the separator.

    Lines before the table (a title, `sep=;`, comments) are left out, and said; so is what is alike in all
    rows: a separator at their end. Rows with one cell more than the first have a name of their own in front,
    as R writes them.

    Raises:
        UserError: no CSV, or rows of which some have more or fewer cells, the first of them named.
    """
    told = SEPARATOR.match(text)
    delimiter = delimiter_of(text) if told is None else told[1]
    rows, lines = [], []
    reader = _reader(text, delimiter)
    try:
        for row in reader:
            first = told is not None and reader.line_num == 1
            if first or (len(row) <= 1 and not "".join(row).strip()):
                continue
            rows.append([cell.strip() for cell in row])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(
            f"dataset.path={file}: no CSV file ({error}; is a quotation mark left open?)"
        ) from error
    before = _title(rows)
    if before:
        title = shown([" ".join(row)[:40] for row in rows[:before]])
        lines_are = "line is no row" if before == 1 else f"{before} lines are no rows"
        say(f"dataset.path={file}: the first {lines_are} of the table; left out: {title}")
        rows, lines = rows[before:], lines[before:]
    rows = _even(rows)
    wrong = [i for i, row in enumerate(rows) if len(row) != len(rows[0])]
    if wrong:
        others = f"; {len(wrong) - 1} others do not fit either" if len(wrong) > 1 else ""
        raise UserError(
            f"dataset.path={file}: row {lines[wrong[0]]} has {len(rows[wrong[0]])} cells, the first "
            f"{len(rows[0])}{others} (valid: as many in each; a cell with separators in quotation marks)"
        )
    return rows, lines, delimiter


def _reader(text: str, delimiter: str) -> "_csv.Reader":
    if delimiter == BLANKS:
        lines = (line.expandtabs(1).strip() for line in text.splitlines())
        return csv.reader(lines, delimiter=" ", skipinitialspace=True)
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)


def _title(rows: Sequence[Cells]) -> int:
    """How many rows stand before the names: shorter ones, of one cell, or comments."""
    widths = Counter(len(row) for row in rows[:LOOKED_AT])
    width = max(widths, key=lambda found: (widths[found], found), default=0)
    if width < 2:
        return 0
    count = 0
    for row in rows:
        # one cell less than the others have alone is a row of names, as R writes it
        one = len(row) < width - (count == 0) or len(row) == 1 or (width > 2 and sum(map(bool, row)) == 1)
        if not one and not (row[0].startswith("#") and len(row) != width):
            break
        count += 1
    # what follows must look like names, and most rows be of the table
    follows = rows[count] if count < len(rows) else []
    named = 2 * sum(number(cell) is None for cell in follows) >= max(len(follows), 1)
    return count if named and 2 * count < len(rows) else 0


def _even(rows: list[Cells]) -> list[Cells]:
    """The rows, where all have one cell more than the names, or one less, in the way that is meant."""
    widths = {len(row) for row in rows[1:]}
    if len(widths) != 1 or len(rows[0]) < 2:
        return rows
    more = widths.pop() - len(rows[0])
    if more == 1 and not any(row[-1] for row in rows[1:]):
        return [rows[0], *(row[:-1] for row in rows[1:])]
    if more == 1 and all(number(cell) is None for cell in rows[0]):
        return [["", *rows[0]], *rows[1:]]
    if more == -1 and not rows[0][-1]:
        return [rows[0][:-1], *rows[1:]]
    return rows


def delimiter_of(text: str) -> str:
    """The separator by which the most of the first rows have equally many cells, at least two.

    Blanks separate where nothing else does, or where each row has a cell of several numbers.
    """
    head = _head(text)
    best, share, most = ",", 0.0, 0
    for delimiter in DELIMITERS:
        rows = _first_rows(head, delimiter, len(head) < len(text))
        widths = Counter(len(row) for row in rows)
        width = max(widths, key=lambda found: widths[found], default=0)
        own = widths[width] / len(rows) if width >= 2 else 0.0
        own = own if own >= MOST else 0.0
        if own > share or (share == 0 and rows and len(rows[0]) > most):
            best, share, most = delimiter, own, len(rows[0])
    rows = _first_rows(head, best, len(head) < len(text))
    packed = all(any(NUMBERS.fullmatch(cell.strip()) for cell in row) for row in rows[1:])
    if share == 0 or (packed and rows[1:]):
        blanks = _first_rows(head, BLANKS, len(head) < len(text))
        widths = Counter(map(len, blanks))
        width = len(blanks[0]) if blanks else 0
        if width > max(map(len, rows), default=0) and widths[width] >= 0.9 * len(blanks):
            return BLANKS
    return best


def _head(text: str) -> str:
    """The beginning, of at least three lines."""
    end = -1
    for _ in range(3):
        end = text.find("\n", end + 1)
        if end < 0:
            return text
    return text[: max(end + 1, 1 << 16)]


def _first_rows(head: str, delimiter: str, cut: bool) -> list[Cells]:
    try:
        rows = [row for row in islice(_reader(head, delimiter), LOOKED_AT) if "".join(row).strip()]
    except csv.Error:
        return []
    # the last one may be cut
    return rows[:-1] if cut else rows


def headed(columns: Sequence[Cells], names: Collection[str]) -> bool:
    """Whether the first row holds names.

    So it does where one is among `names`, and where one stands over nothing but numbers; where all are words,
    unless most of them are found again below, as in tables of words alone that have no names. Where `names`
    are several numbers of columns, as of a file without names, only where all are; and one that is no
    column's number is a name, as 2020.
    """
    first = [column[0] for column in columns]
    if names and all(map(str.isdecimal, names)):
        all_named = set(first) <= set(names) and len(set(first)) == len(first)
        years = len(names) == 1 and any(name in first and int(name) >= len(first) for name in names)
        if all_named or years or len(names) > 1:
            return all_named or years
    elif any(name in names for name in first):
        return True
    if all(number(cell) is None for cell in first):
        again = sum(not missing(column[0]) and column.count(column[0]) > 1 for column in columns)
        if 2 * again <= len(columns):
            return True
        # names that stand in the middle again, as where files were joined
        return len(set(first)) == len(first) and list(zip(*columns, strict=True)).count(tuple(first)) > 1
    return any(
        not missing(column[0])
        and number(column[0]) is None
        and any(number(cell) is not None for cell in column[1:])
        and all(missing(cell) or number(cell) is not None for cell in column[1:])
        for column in columns
    )


def arff(file: Path, text: str) -> tuple[list[str], list[Cells], list[int]]:
    """The names of an ARFF file's attributes, its rows, and where each stands.

    Raises:
        UserError: a sparse one, or rows with more or fewer cells than attributes.
    """
    names: list[str] = []
    given = text.splitlines()
    start = next((i for i, line in enumerate(given) if line.strip().lower() == "@data"), None)
    if start is None:
        raise UserError(f"dataset.path={file}: an ARFF file without @data (valid: {KNOWN})")
    for line in given[:start]:
        found = ATTRIBUTE.fullmatch(line.strip())
        if found:
            names.append(_unquoted(found[1]))
    rows, lines = [], []
    for i, line in enumerate(given[start + 1 :], start + 2):
        if not line.strip() or line.lstrip().startswith("%"):
            continue
        if line.lstrip().startswith("{"):
            raise UserError(
                f"dataset.path={file}: a sparse ARFF file (valid: one with all cells in each row)"
            )
        cells = _arff_cells(line)
        if len(cells) != len(names):
            raise UserError(
                f"dataset.path={file}: row {i} has {len(cells)} cells, and there are {len(names)} attributes"
            )
        rows.append(cells)
        lines.append(i)
    return names, rows, lines


def _arff_cells(line: str) -> Cells:
    """Cells between commas, in quotation marks of either kind or none."""
    if "'" not in line and '"' not in line:
        return [cell.strip() for cell in line.split(",")]
    quoted = r"\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^,]*)\s*(?:,|$)"
    found = re.findall(quoted, line.strip())
    # the end of the line matches once more as an empty cell, unless a comma stands there
    cells = found if line.rstrip().endswith(",") else found[:-1]
    return [_unquoted(cell.strip()) for cell in cells]


def _unquoted(cell: str) -> str:
    if len(cell) >= 2 and cell[0] == cell[-1] and cell[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", cell[1:-1]).strip()
    return cell
