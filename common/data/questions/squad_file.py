"""Files in the format of SQuAD 1.1: articles of paragraphs, each with its context and its questions.

Rajpurkar, Zhang, Lopyrev and Liang, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016:

    {"version": "1.1", "data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [
        {"id": ..., "question": ..., "answers": [{"text": ..., "answer_start": ...}]}]}]}]}

Places are counted in characters (Unicode code points) from 0.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.base.errors import UserError
from common.data.questions.passages import WORD, Asked, Passage, Question, Span, places_of, snapped
from common.data.shared.text_file import cut, read_text

# words of a context
MOST = 20_000
IMPOSSIBLE = "questions that cannot be answered (SQuAD 2.0), left out"
SPLIT = "answers that begin or end within a word, taken with the whole of it"
MOVED = "answers that did not stand at their places, taken from the nearest place at which they do"
SHAPE = (
    'valid: {"data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [{"id": ..., '
    '"question": ..., "answers": ...}]}]}]}'
)


def read_questions(
    path: Path, encoding: str, verify: bool, answered: bool = True, of: str = "dataset."
) -> Asked:
    """The passages and questions of a file, in their order.

    Questions with `is_impossible`, as SQuAD 2.0 has them, are left out and counted, and so are answers that
    begin or end within a word, which are taken with the whole of it. Their own texts stay the references.

    Args:
        path: of the file.
        encoding: of it, by its name in Python.
        verify: whether an answer that does not stand at its place is refused; else it is taken from the
            nearest place at which it stands, and counted.
        answered: whether questions must have answers; else those that they have are not read.
        of: see `read_text`.

    Raises:
        UserError: no such file, another encoding, no JSON (with the line), JSON of another shape, no
            question, or (with the question's number and id) an empty context or question, a context of more
            than 20,000 words, no answer, an empty one, or one that does not stand where it says.
    """
    text = read_text(path, encoding, of)
    if not text.strip():
        raise UserError(f"{path}: an empty file ({SHAPE})")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}: no JSON ({error.msg}; {SHAPE})") from error
    except RecursionError as error:
        raise UserError(f"{path}: lists within lists without end ({SHAPE})") from error
    reader = _Reader(path, verify, answered)
    for article in _listed(path, content, "data", "the file"):
        for paragraph in _listed(path, article, "paragraphs", "an article"):
            reader.add(str(article.get("title", "")), paragraph)
    found = reader.found
    if not found.questions:
        left = "; ".join(f"{count} {what}" for what, count in found.notes.items())
        raise UserError(f"{path}: no question in it{f' ({left})' if left else ''} ({SHAPE})")
    return found


def _listed(path: Path, node: Any, key: str, what: str) -> list[Any]:
    found = node.get(key) if isinstance(node, dict) else None
    if not isinstance(found, list):
        raise UserError(f"{path}: {what} has no list {key!r} ({SHAPE})")
    return found


@dataclass
class _Reader:
    """Takes one paragraph after the other.

    Attributes:
        number: of the question that is read, from 1.
        found: what was read.
    """

    path: Path
    verify: bool
    answered: bool
    number: int = 0
    found: Asked = field(default_factory=Asked)

    def add(self, title: str, paragraph: Any) -> None:
        """The questions of a paragraph."""
        questions = _listed(self.path, paragraph, "qas", "a paragraph")
        context = paragraph.get("context")
        where = f"{self.path}: the paragraph before question {self.number + 1}"
        if not isinstance(context, str):
            raise UserError(f"{where} has no text 'context' ({SHAPE})")
        places = places_of(context)
        if not places:
            raise UserError(f"{where} has an empty context (valid: a text with words)")
        if len(places) > MOST:
            raise UserError(f"{where} has a context of {len(places)} words (valid: up to {MOST})")
        passage = Passage(context, places, title)
        self.found.passages.append(passage)
        self.found.questions += self._questions(passage, questions)

    def _questions(self, passage: Passage, nodes: list[Any]) -> Iterator[Question]:
        for node in nodes:
            self.number += 1
            text = node.get("question") if isinstance(node, dict) else None
            name = str(node.get("id", self.number)) if isinstance(node, dict) else ""
            where = f"{self.path}: question {self.number}{f' (id {name})' if name else ''}"
            if not isinstance(text, str) or not WORD.search(text):
                raise UserError(f"{where} is empty (valid: 'question' is a text with words)")
            if node.get("is_impossible") is True:
                self._note(IMPOSSIBLE)
                continue
            answers, span = self._answers(passage, node, where) if self.answered else ((), (0, 0))
            yield Question(name, text, len(self.found.passages) - 1, answers, span)

    def _answers(self, passage: Passage, node: Any, where: str) -> tuple[tuple[str, ...], Span]:
        """All answers of a question, and the span of the first."""
        nodes = node.get("answers", [])
        if not isinstance(nodes, list):
            raise UserError(f"{where} has no list of 'answers' (valid: each with 'text' and 'answer_start')")
        if not nodes:
            raise UserError(
                f"{where} has no answer (valid: 'answers' with 'text' and 'answer_start'; is_impossible: "
                "true leaves it out)"
            )
        spans, texts = [], []
        for one in nodes:
            text, start = (
                (one.get("text"), one.get("answer_start")) if isinstance(one, dict) else (None, None)
            )
            if not isinstance(text, str) or type(start) is not int:
                raise UserError(f"{where} has an answer without 'text' (a text) or 'answer_start' (a number)")
            spans.append(self._span(passage, text, start, where))
            texts.append(text.strip())
        return tuple(texts), spans[0]

    def _span(self, passage: Passage, text: str, start: int, where: str) -> Span:
        context = passage.text
        stands = start >= 0 and context[start : start + len(text)] == text
        if not stands:
            start = self._elsewhere(context, text, start, where)
        begin = start + len(text) - len(text.lstrip())
        found = snapped(passage.places, begin, begin + len(text.strip()))
        if not text.strip() or found is None:
            raise UserError(f"{where} has an empty answer (valid: a part of its context)")
        if found.outward:
            self._note(SPLIT)
        return found.span

    def _elsewhere(self, context: str, text: str, start: int, where: str) -> int:
        """The nearest place at which an answer stands, where that is taken."""
        found = _occurrences(context, text)
        if not found:
            raise UserError(
                f"{where}: its answer {cut(text)!r} does not stand in its context (valid: a part of it, as "
                "it is spelled there)"
            )
        nearest = min(found, key=lambda place: abs(place - start))
        if self.verify:
            there = context[max(start, 0) : max(start, 0) + max(len(text), 1)]
            raise UserError(
                f"{where}: at answer_start={start} stands {cut(there)!r}, not its answer {cut(text)!r} "
                f"(valid: {nearest}, counted in characters from 0; dataset.verify=false takes the nearest "
                "place)"
            )
        self._note(MOVED)
        return nearest

    def _note(self, what: str) -> None:
        self.found.notes[what] = self.found.notes.get(what, 0) + 1


def _occurrences(context: str, text: str) -> list[int]:
    found, place = [], context.find(text)
    while text and place >= 0:
        found.append(place)
        place = context.find(text, place + 1)
    return found
