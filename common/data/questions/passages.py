"""Passages, questions upon them, and answers that are spans of them; text is cut into words by place."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from common.base.dataset import SplitName

# a run of letters, digits and underscores, or one other character that is no white space
WORD = re.compile(r"\w+|[^\w\s]")

# words of a text from the first to the last, both among them
Span = tuple[int, int]


def places_of(text: str) -> list[tuple[int, int]]:
    """Where each word of a text begins and where it has ended, in characters."""
    return [found.span() for found in WORD.finditer(text)]


class Snapped(NamedTuple):
    """The words of an answer, and whether they are more than the answer, which begins or ends within one."""

    span: Span
    outward: bool


def snapped(places: Sequence[tuple[int, int]], start: int, end: int) -> Snapped | None:
    """The fewest words that have all of the characters from `start` to before `end`; None: no word has any.

    Args:
        places: of the text, as of `places_of`.
        start, end: of the answer, without white space at its ends.
    """
    first = bisect_right(places, start, key=itemgetter(1))
    last = bisect_left(places, end, key=itemgetter(0)) - 1
    if first > last:
        return None
    return Snapped((first, last), places[first][0] != start or places[last][1] != end)


@dataclass(frozen=True)
class Passage:
    """A text that questions are about.

    Attributes:
        text: as it stands.
        places: of its words, see `places_of`.
        source: the article or the module that it is of.
    """

    text: str
    places: list[tuple[int, int]]
    source: str

    @classmethod
    def of(cls, text: str, source: str) -> "Passage":
        """Cut a text into words."""
        return cls(text, places_of(text), source)

    def said(self, span: Span) -> str:
        """The text from the first word of a span to its last."""
        return self.text[self.places[span[0]][0] : self.places[span[1]][1]]

    def words(self) -> list[str]:
        """Its words."""
        return [self.text[start:end] for start, end in self.places]


@dataclass(frozen=True)
class Question:
    """A question upon a passage.

    Attributes:
        name: by which answers are told apart, as SQuAD's id.
        text: as it stands.
        passage: the number of its passage.
        answers: all that count as right; none where they are not known.
        span: the words of the first of them.
    """

    name: str
    text: str
    passage: int
    answers: tuple[str, ...]
    span: Span

    def words(self) -> list[str]:
        """Its words."""
        return WORD.findall(self.text)


@dataclass
class Asked:
    """Passages and the questions upon them.

    Attributes:
        notes: what was repaired or left out, with how often.
    """

    passages: list[Passage] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def take(self, kept: Sequence[int]) -> "Asked":
        """The questions at some places, in that order, with the passages that they are about."""
        chosen = [self.questions[place] for place in kept]
        used = sorted({question.passage for question in chosen})
        number = {passage: n for n, passage in enumerate(used)}
        moved = [Question(one.name, one.text, number[one.passage], one.answers, one.span) for one in chosen]
        return Asked([self.passages[passage] for passage in used], moved, dict(self.notes))


Splits = dict[SplitName, Asked]
