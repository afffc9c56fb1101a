"""Text of the user's own files, in the encoding that they have, and what is said of them."""

import codecs
from collections.abc import Sequence
from pathlib import Path

from common.base.errors import UserError
from common.base.files import names_beside

# names, classes and words that a line shows
SHOWN = 10
# characters of a line that is shown
CUT = 40
# what a file begins with that says its own encoding; the mark of UTF-32 begins with that of UTF-16
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path, encoding: str, of: str = "dataset.") -> str:
    """The text of a file; where it begins with a mark of UTF-8, UTF-16 or UTF-32, by that.

    Args:
        path: of the file.
        encoding: by a name that Python knows, as utf-8 or latin-1.
        of: what stands before `path=` and `encoding=` on the command line, for messages.

    Raises:
        UserError: no such file or encoding, bytes that the encoding has not, or the character NUL, which
            stands in no text, but in UTF-16 without a mark that is read by another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        there = "" if path.exists() else f"; there is {names_beside(path, ())}"
        raise UserError(
            f"{_named(path, of)}: {error.strerror}{from_here(path)}{there} (valid: a text file)"
        ) from error
    return decoded(content, path, encoding, of)


def decoded(content: bytes, path: Path, encoding: str, of: str = "dataset.") -> str:
    """The text of what a file holds; see `read_text`.

    Raises:
        UserError: no such encoding, bytes that it has not, or the character NUL.
    """
    _check_encoding(encoding, of)
    name = _named(path, of)
    encoding = encoding_of(content, encoding)
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        # some codecs do not say where
        start = getattr(error, "start", 0)
        line = content.count(b"\n", 0, start) + 1
        raise UserError(
            f"{name}: not {encoding.upper()} text (byte 0x{content[start]:02x} in line {line}); "
            f"{_wide(content, of) or _latin(path, of)}"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{name}: line {line} has the character NUL, which is in no text in {encoding.upper()}; "
            f"{_wide(content, of)}"
        )
    # lines of old Macs
    return text.replace("\r", "\n") if "\r" in text and "\n" not in text else text


def _named(path: Path, of: str) -> str:
    """A file as the command line names it."""
    return f"{of}path={path}" if of else str(path)


def encoding_of(content: bytes, otherwise: str) -> str:
    """The encoding that a text says it is in by a mark of UTF-8, UTF-16 or UTF-32, or else another one."""
    return next((name for mark, name in MARKS.items() if content.startswith(mark)), otherwise)


def _latin(path: Path, of: str) -> str:
    """What to do with a text that is not in UTF-8."""
    return (
        f"where it is Latin-1, as older spreadsheets are: {of}encoding=latin-1 (or cp1252), or convert it: "
        f"iconv -f latin1 -t utf-8 {path.name} > new_{path.name}"
    )


def _wide(content: bytes, of: str) -> str:
    """What to do with a text of two bytes a letter that does not say so; nothing where no byte is 0."""
    if b"\0" not in content:
        return ""
    order = "be" if content.index(b"\0") % 2 == 0 else "le"
    return f"where it is UTF-16, as Windows writes it: {of}encoding=utf-16-{order}"


def _check_encoding(encoding: str, of: str) -> None:
    """Refuse what is no encoding of text.

    Raises:
        UserError: see above.
    """
    try:
        # codecs as rot13 are found, and are none of text
        "a".encode(encoding)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{of}encoding={encoding}: no such encoding (valid: utf-8, latin-1, ...)") from error


class FaultyLineError(Exception):
    """A line of a file that is not what it should be.

    Args:
        number: of the line, from 1.
        what: is wrong with it, as "is 'x' (valid: ...)".
    """

    def __init__(self, number: int, what: str) -> None:
        super().__init__(f"line {number} {what}")
        self.number = number


def refuse_lines(file: str, faults: Sequence[FaultyLineError]) -> None:
    """Refuse a file with faulty lines: what is wrong with the first, and where the others are.

    Args:
        file: how the file is named in the message.
        faults: of its lines, in their order.

    Raises:
        UserError: there is one.
    """
    if not faults:
        return
    numbers = shown([str(fault.number) for fault in faults[1:]])
    others = f"; there is something wrong in line{'s' * (len(faults) > 2)} {numbers}, too"
    raise UserError(f"{file}: {faults[0]}{others if numbers else ''}")


def from_here(path: Path) -> str:
    """Where a path that is relative begins, to be said of one that is not there."""
    return "" if path.is_absolute() else f", from {Path.cwd()}"


def shown(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def cut(line: str) -> str:
    """The beginning of a line, to be shown."""
    return line if len(line) <= CUT else line[:CUT] + "..."
