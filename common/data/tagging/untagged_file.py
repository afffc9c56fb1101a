"""Texts whose words are to be tagged: a sentence a line, or a word a line as in CoNLL's files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.base.errors import UserError
from common.data.shared.text_file import read_text
from common.data.tagging.tagged_file import DOCUMENT, columns_of

# files of a word a line, by their names
OF_WORDS = (".conll", ".iob", ".bio", ".tsv")
# words that are tagged together: a longer sentence is cut
MOST = 1_000
# what is no white space, and the signs before and behind what it has of letters and digits
RUN, CORE = re.compile(r"\S+"), re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


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
    do, where every line has a tab, or where none has white space within it; else a sentence a line, in which
    words are what stands between white space. Signs at the ends of such a word are words of their own, unless
    training knows it as it is.

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
    full = [line.strip() for line in lines if line.strip()]
    if path.suffix.lower() in OF_WORDS or all("\t" in line for line in full):
        return True
    return all(len(line.split()) == 1 for line in full)


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
    from common.data.tagging.tagging_data import plain

    start, end = run.span()
    parts = CORE.fullmatch(run.group())
    assert parts is not None
    if plain(run.group()) in known or not parts.group(2):
        yield start, end
        return
    first, last = start + parts.start(2), start + parts.end(2)
    yield from ((place, place + 1) for place in range(start, first))
    yield first, last
    yield from ((place, place + 1) for place in range(last, end))


def _parts(sentence: Untagged) -> Iterator[Untagged]:
    for start in range(0, len(sentence.words), MOST):
        part = slice(start, start + MOST)
        line = sentence.line if sentence.text is not None else sentence.line + start
        yield Untagged(line, sentence.text, sentence.words[part], sentence.places[part])
