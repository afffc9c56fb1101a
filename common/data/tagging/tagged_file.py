"""Files of tagged sentences as CoNLL's: a word and its tag a line, other columns between them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.base.errors import UserError
from common.data.shared.text_file import FaultyLineError, read_text, refuse_lines
from common.data.tagging.schemes import OUTSIDE, FileScheme, Scheme, fault, spans, split_tag, tags_of

# what stands between documents in the place of a sentence
DOCUMENT = "-DOCSTART-"
# words of a sentence; a file without empty lines is a single one
MOST = 5_000
# what separates columns: other white space, as one that does not break, belongs to a word
GAP = re.compile("[ \t]+")


class Sentence(NamedTuple):
    """Words and their tags, as many."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_sentences(
    path: Path, file_scheme: FileScheme, scheme: Scheme, encoding: str, longest: int
) -> list[Sentence]:
    """The sentences of a file; the first column is the word, the last its tag.

    Columns are separated by tabs where a line has one, else by spaces; a line without columns, or one
    that begins with -DOCSTART-, ends a sentence.

    Args:
        path: of the file.
        file_scheme: of its tags; files in BIO may be read as iob1, too.
        scheme: in which they are given.
        encoding: of the file, by its name in Python.
        longest: bytes of UTF-8 that a word may have.

    Raises:
        UserError: no such file, another encoding, no sentence, or lines (by their numbers) with a single
            column, a longer word, a tag that the scheme does not allow there, or the begin of a sentence of
            more than 5,000 words; of several the first is told whole.
    """
    found: list[Sentence] = []
    faults: list[FaultyLineError] = []
    for lines in _blocks(read_text(path, encoding)):
        try:
            found.append(_sentence(lines, file_scheme, scheme, longest))
        except FaultyLineError as error:
            faults.append(error)
    refuse_lines(str(path), faults)
    if not found:
        raise UserError(f"{path}: no sentence in it (valid: a word and its tag a line)")
    return found


def _blocks(text: str) -> Iterator[list[tuple[int, str]]]:
    """The lines of each sentence, with their numbers."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith(DOCUMENT):
            block.append((number, line.rstrip("\r")))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _sentence(
    lines: list[tuple[int, str]], file_scheme: FileScheme, scheme: Scheme, longest: int
) -> Sentence:
    """The sentence of some lines.

    Raises:
        FaultyLineError: the first line that is none of it.
    """
    if len(lines) > MOST:
        raise FaultyLineError(
            lines[0][0],
            f"begins a sentence of {len(lines)} words (valid: up to {MOST}; an empty line ends a sentence)",
        )
    words, tags, before = [], [], OUTSIDE
    for number, line in lines:
        columns = columns_of(line)
        if len(columns) < 2 or not columns[0] or not columns[-1]:
            raise FaultyLineError(number, f"is {line[:40]!r} (valid: a word, and its tag last)")
        word, tag = columns[0], columns[-1]
        size = len(word.encode(errors="surrogatepass"))
        if size > longest:
            raise FaultyLineError(
                number,
                f"has a word of {size} bytes, {word[:20]}... (valid: up to dataset.longest={longest}; "
                f"dataset.longest={size} takes it)",
            )
        if wrong := fault(before, tag, file_scheme):
            raise FaultyLineError(number, f"has {wrong}{_advice(tag, file_scheme)}")
        words.append(word)
        tags.append(tag)
        before = tag
    if wrong := fault(before, OUTSIDE, file_scheme):
        raise FaultyLineError(lines[-1][0], f"ends its sentence with {wrong}")
    return Sentence(tuple(words), tuple(tags_of(spans(tags), len(tags), scheme)))


def columns_of(line: str) -> list[str]:
    """The columns of a line: between tabs where it has one, else between spaces.

    Other white space at the ends of a column is taken away, unless it has nothing else.
    """
    parts = [part.strip(" ") for part in line.split("\t")] if "\t" in line else GAP.split(line.strip(" "))
    return [part.strip() or part for part in parts]


def _advice(tag: str, file_scheme: FileScheme) -> str:
    """What other scheme the file may have."""
    letter = split_tag(tag)[0]
    if file_scheme == "bio" and letter == "I":
        return "; dataset.file_scheme=iob1 reads such files"
    return "; dataset.file_scheme=bioes reads such files" if letter in ("E", "S") else ""
