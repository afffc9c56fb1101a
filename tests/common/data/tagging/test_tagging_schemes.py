"""Spans of tags, held against seqeval and conlleval's rules written anew; what schemes do not allow."""

import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.base.errors import UserError
from common.data.tagging.schemes import (
    Span,
    SpanCounts,
    check_types,
    fault,
    is_tag,
    spans,
    tag_list,
    tags_of,
)

ANY = ["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("PER", "LOC", "A-B"))]


def conlleval(tags: list[str]) -> set[tuple[str, int, int]]:
    """The chunks of conlleval.pl, by its own two tables: where one starts, and where one ends."""
    starts = {"BB", "IB", "OB", "OI", "EE", "EI", "OE", "ES", "SE", "SI", "SB", "EB", "BS", "IS", "OS", "SS"}
    ends = {"BB", "BO", "IB", "IO", "BS", "IS", "EE", "EI", "EO", "EB", "ES", "SE", "SI", "SO", "SB", "SS"}
    found, first = set(), 0
    for place, (before, tag) in enumerate(pairwise(["O", *tags, "O"])):
        (a, kind_before), (b, kind) = (before[0], before[2:]), (tag[0], tag[2:])
        if a + b in ends or (a != "O" and kind_before != kind):
            found.add((kind_before, first, place - 1))
        if a + b in starts or (b != "O" and kind_before != kind):
            first = place
    return found


@given(st.lists(st.sampled_from(ANY), max_size=12))
def test_any_tags_have_the_spans_of_conlleval(tags: list[str]) -> None:
    assert {tuple(span) for span in spans(tags)} == conlleval(tags)


def test_counts_are_those_of_seqeval() -> None:
    metrics = pytest.importorskip("seqeval.metrics", reason="seqeval is a peer that is not installed")
    draw = random.Random(0)
    for _ in range(60):
        wanted = [[draw.choice(ANY) for _ in range(draw.randint(1, 9))] for _ in range(5)]
        given = [[tag if draw.random() < 0.7 else draw.choice(ANY) for tag in tags] for tags in wanted]
        counts = SpanCounts()
        for one, other in zip(given, wanted, strict=True):
            counts.update(one, other)
        assert counts.f1() == pytest.approx(metrics.f1_score(wanted, given))
        assert counts.precision() == pytest.approx(metrics.precision_score(wanted, given))
        assert counts.recall() == pytest.approx(metrics.recall_score(wanted, given))


def test_spans_are_right_only_with_their_type_and_both_ends() -> None:
    counts = SpanCounts()
    counts.update(["B-A", "I-A", "O", "B-B"], ["B-A", "I-A", "O", "B-A"])
    counts.update(["B-A", "O", "O"], ["B-A", "I-A", "O"])
    assert (counts.right, counts.given, counts.wanted) == (1, 3, 3)
    assert counts.f1() == counts.precision() == counts.recall() == pytest.approx(1 / 3)
    assert SpanCounts().f1() == SpanCounts().precision() == SpanCounts().recall() == 0.0
    with pytest.raises(ValueError, match="3 tags for 2 words"):
        counts.update(["O"] * 3, ["O"] * 2)


@given(
    st.lists(st.tuples(st.sampled_from(["A", "B", None]), st.integers(1, 3)), max_size=8),
    st.sampled_from(["bio", "bioes"]),
)
def test_spans_become_tags_that_their_scheme_allows_and_come_back(parts: list, scheme: str) -> None:
    found, length = [], 0
    for kind, size in parts:
        if kind is not None:
            found.append(Span(kind, length, length + size - 1))
        length += size
    tags = tags_of(found, length, scheme)
    assert spans(tags) == found
    assert all(fault(a, b, scheme) is None for a, b in pairwise(["O", *tags, "O"]))
    assert set(tags) <= set(tag_list(["A", "B"], scheme))


@pytest.mark.parametrize(
    ("before", "tag", "scheme", "told"),
    [
        ("O", "I-PER", "bio", "I-PER behind O, which BIO does not allow .valid: B-PER"),
        ("B-LOC", "I-PER", "bio", "I-PER behind B-LOC"),
        ("O", "E-PER", "bio", "'E-PER', which is no tag of BIO"),
        ("O", "PER", "bio", "'PER', which is no tag"),
        ("O", "B-", "bio", "'B-', which is no tag"),
        ("O", "I-PER", "bioes", "BIOES does not allow"),
        ("B-PER", "O", "bioes", "O behind B-PER"),
        ("B-PER", "E-LOC", "bioes", "E-LOC behind B-PER"),
        ("E-PER", "I-PER", "bioes", "I-PER behind E-PER"),
        ("S-PER", "E-PER", "bioes", "E-PER behind S-PER"),
    ],
)
def test_what_a_scheme_does_not_allow_is_said(before: str, tag: str, scheme: str, told: str) -> None:
    wrong = fault(before, tag, scheme)
    assert wrong is not None and re.search(told, wrong)


def test_iob1_allows_what_bio_does_not_and_means_the_same_spans() -> None:
    tags = ["I-PER", "I-PER", "B-PER", "I-LOC", "O", "I-LOC"]
    assert all(fault(a, b, "iob1") is None for a, b in pairwise(["O", *tags, "O"]))
    assert tags_of(spans(tags), 6, "bio") == ["B-PER", "I-PER", "B-PER", "B-LOC", "O", "B-LOC"]
    assert tags_of(spans(tags), 6, "bioes") == ["B-PER", "E-PER", "S-PER", "S-LOC", "O", "S-LOC"]
    assert is_tag("I-A-B", "bio") and not is_tag("o", "bio")


@pytest.mark.parametrize("types", [[], ["A", "A"], ["a b"], [""]])
def test_types_that_no_tag_could_name_are_refused(types: list[str]) -> None:
    with pytest.raises(UserError, match="without white space"):
        check_types("path", types)
