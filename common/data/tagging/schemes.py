"""Spans as tags, in the schemes IOB1, BIO (IOB2) and BIOES, and how many of them were found.

A tag is "O" or a letter, a hyphen and a type: in BIO the first word of a span has B, the others I; in IOB1 B
is there only where a span follows another one of its type; in BIOES a last word has E and a single one S.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from common.base.errors import UserError

Scheme = Literal["bio", "bioes"]
FileScheme = Literal["bio", "bioes", "iob1"]
OUTSIDE = "O"
LETTERS = {"bio": "BI", "iob1": "BI", "bioes": "BIES"}


class Span(NamedTuple):
    """Words `first` to `last` of a sentence, both of them in it, are of a type."""

    type: str
    first: int
    last: int


def split_tag(tag: str) -> tuple[str, str]:
    """The letter and the type of a tag; "O" and no type, of "O"."""
    letter, _, kind = tag.partition("-")
    return letter, kind


def is_tag(tag: str, scheme: FileScheme) -> bool:
    """Whether a word is a tag of the scheme at all, wherever it stands."""
    letter, kind = split_tag(tag)
    return tag == OUTSIDE or (len(letter) == 1 and letter in LETTERS[scheme] and bool(kind))


def fault(before: str, tag: str, scheme: FileScheme) -> str | None:
    """What a scheme does not allow about a tag behind another one ("O" at the start), in words; None:
    nothing.

    To be asked of "O" at the end of a sentence, too.
    """
    if not is_tag(tag, scheme):
        letters = ", ".join(f"{letter}-TYPE" for letter in LETTERS[scheme])
        return f"{tag!r}, which is no tag of {scheme.upper()} (valid: O, {letters})"
    (letter_before, type_before), (letter, kind) = split_tag(before), split_tag(tag)
    behind = f"{tag} behind {before}"
    if scheme == "bio" and letter == "I" and kind != type_before:
        return f"{behind}, which BIO does not allow (valid: B-{kind})"
    if scheme == "bioes":
        open_before = letter_before in ("B", "I")
        goes_on = letter in ("I", "E")
        if open_before != goes_on or (goes_on and kind != type_before):
            return f"{behind}, which BIOES does not allow (valid: a span is S, or B, I, ..., E of one type)"
    return None


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans of the tags of one sentence in any of the schemes, allowed or not, as conlleval reads them.

    A span begins at B and S, at another type, and behind E, S and O; it ends before what begins one, before
    O, and behind E and S. So tags that no scheme allows have spans too, as a network's may be.
    """
    found: list[Span] = []
    first: int | None = None
    letter_before, type_before = OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        letter, kind = split_tag(tag)
        begins = letter != OUTSIDE and (
            letter in ("B", "S") or letter_before in (OUTSIDE, "E", "S") or kind != type_before
        )
        if first is not None and (begins or letter == OUTSIDE):
            found.append(Span(type_before, first, place - 1))
            first = None
        if begins:
            first = place
        letter_before, type_before = letter, kind
    return found


def tags_of(found: Iterable[Span], length: int, scheme: Scheme) -> list[str]:
    """The tags of a sentence of so many words with spans that do not overlap."""
    tags = [OUTSIDE] * length
    for kind, first, last in found:
        for place in range(first, last + 1):
            letter = "B" if place == first else "I"
            if scheme == "bioes" and place == last:
                letter = "S" if first == last else "E"
            tags[place] = f"{letter}-{kind}"
    return tags


def tag_list(types: Sequence[str], scheme: Scheme) -> list[str]:
    """All tags of some types, O first."""
    return [OUTSIDE, *(f"{letter}-{kind}" for kind in types for letter in LETTERS[scheme])]


class SpanCounts:
    """How many spans there are, how many were given, and how many of these are right, by type and place.

    Attributes:
        wanted, given, right: the three numbers.
    """

    def __init__(self) -> None:
        self.wanted = self.given = self.right = 0

    def update(self, given: Sequence[str], wanted: Sequence[str]) -> None:
        """Add a sentence.

        Raises:
            ValueError: they are not of one length.
        """
        if len(given) != len(wanted):
            raise ValueError(f"{len(given)} tags for {len(wanted)} words")
        first, second = set(spans(given)), set(spans(wanted))
        self.given, self.wanted = self.given + len(first), self.wanted + len(second)
        self.right += len(first & second)

    def precision(self) -> float:
        """The share of the given spans that are right; 0 where none is given."""
        return self.right / self.given if self.given else 0.0

    def recall(self) -> float:
        """The share of the wanted spans that are given; 0 where none is wanted."""
        return self.right / self.wanted if self.wanted else 0.0

    def f1(self) -> float:
        """2 p r / (p + r) of precision and recall; 0 where both are."""
        total = self.given + self.wanted
        return 2 * self.right / total if total else 0.0


def check_types(key: str, types: Sequence[str]) -> None:
    """Refuse types that could not be read back from a tag.

    Raises:
        UserError: none, one twice, or one with white space.
    """
    if not types or len(set(types)) < len(types) or any(not kind or kind.split() != [kind] for kind in types):
        raise UserError(f"dataset.{key}={list(types)}: give one or more different types, without white space")
