"""Texts whose words are to be tagged: a sentence a line, or a word a line as in CoNLL's files."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.base.errors import UserError
from common.data.shared.text_file import read_text
from common.data.tagging.tagged_file import DOCUMENT, columns_of
from common.data.tagging.tagging_data import plain

# files of a word a line, by their names
OF_WORDS = (".conll", ".iob", ".bio", ".tsv")
# words that are tagged together: a longer sentence is cut
MOST = 1_000
# a line that ends with a tag of any scheme, behind something
TAGGED = re.compile(r"\S[ \t]+(O|[BIES]-\S+)$")
# what stands between white space
RUN = re.compile(r"\S+")


class Untagged(NamedTuple):
    """A sentence.

    Attributes:
        line: of the file, in which it begins, from 1.
        text: the line; None where each word has a line of its own.
        words: of it.
        places: of each word, where it begins and ends in the text, in characters.
    """

    line: int
    text: str | None
    words: tuple[str, ...]
    places: tuple[tuple[int, int], ...]


def read_untagged(path: Path, encoding: str, known: frozenset[str]) -> list[Untagged]:
    """The sentences of a file; those of more than 1,000 words in parts.

    It has a word a line (its first column) and empty lines between sentences, where its name ends as CoNLL's
    do, where every line has a tab or ends with a tag, or where none has white space within it; else a
    sentence a line, in which words are what stands between white space. Signs at the ends of such a word are
    words of their own, unless training knows it as it is.

    Args:
        path: of the file.
        encoding: of it, by its name in Python.
        known: words of training, in the form that has numbers (`common.data.tagging.tagging_data.plain`).

    Raises:
        UserError: no such file, another encoding, or nothing in it.
    """
    lines = [line.rstrip("\r") for line in read_text(path, encoding, of="").split("\n")]
    found = list(_of_words(lines) if _is_of_words(path, lines) else _of_sentences(lines, known))
    if not found:
        raise UserError(f"{path}: no word in it (valid: a sentence a line, or a word a line)")
    return [part for sentence in found for part in _parts(sentence)]


def _is_of_words(path: Path, lines: list[str]) -> bool:
    full = [line.strip() for line in lines if line.strip() and not line.startswith(DOCUMENT)]
    if path.suffix.lower() in OF_WORDS or all("\t" in line for line in full):
        return True
    return all(len(line.split()) == 1 for line in full) or all(TAGGED.search(line) for line in full)


def _of_words(lines: list[str]) -> Iterator[Untagged]:
    """Sentences of a word a line; one that begins with -DOCSTART- is none."""
    words: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        word = "" if line.startswith(DOCUMENT) else columns_of(line)[0].strip()
        if word:
            words.append(word)
        elif words:
            yield Untagged(number - len(words), None, tuple(words), ())
            words = []


def _of_sentences(lines: list[str], known: frozenset[str]) -> Iterator[Untagged]:
    """Sentences of a line each; empty lines are none."""
    for number, line in enumerate(lines, 1):
        places = tuple(place for run in RUN.finditer(line) for place in _places(run, known))
        if places:
            yield Untagged(number, line, tuple(line[start:end] for start, end in places), places)


def _places(run: re.Match[str], known: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Where the words of what stands between white space begin and end."""
    text, (start, end) = run.group(), run.span()
    first = next((place for place, letter in enumerate(text) if not _is_sign(letter)), None)
    if plain(text) in known or first is None:
        yield start, end
        return
    last = next(place for place in range(len(text), 0, -1) if not _is_sign(text[place - 1]))
    yield from ((place, place + 1) for place in range(start, start + first))
    yield start + first, start + last
    yield from ((place, place + 1) for place in range(start + last, end))


def _is_sign(letter: str) -> bool:
    """Whether a character is neither a letter, nor a mark on one, nor a number, nor an underscore."""
    return unicodedata.category(letter)[0] not in "LMN" and letter != "_"


def _parts(sentence: Untagged) -> Iterator[Untagged]:
    for start in range(0, len(sentence.words), MOST):
        part = slice(start, start + MOST)
        line = sentence.line if sentence.text is not None else sentence.line + start
        yield Untagged(line, sentence.text, sentence.words[part], sentence.places[part])
