"""Files in SQuAD's format: read with the places of answers; what is refused has its question's number."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.data.questions.passages import Asked, places_of, snapped
from common.data.questions.squad_file import IMPOSSIBLE, MOVED, SPLIT, read_questions

CONTEXT = "Zürich's U.S. team won in 1990s, 10 to 3.  \U0001f600 It was late."


def answer(text: str, start: int | None = None) -> dict[str, Any]:
    return {"text": text, "answer_start": CONTEXT.index(text) if start is None else start}


def question(text: str = "Who won?", *answers: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"id": "q", "question": text, "answers": list(answers), **keys}


def written(folder: Path, *questions: Any, context: Any = CONTEXT, title: str = "T") -> Path:
    path = folder / "mine.json"
    content = {"data": [{"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}]}
    path.write_text(json.dumps(content))
    return path


def read(path: Path, verify: bool = True, answered: bool = True) -> Asked:
    return read_questions(path, "utf-8", verify, answered)


def test_words_keep_their_places_and_an_answer_is_the_words_it_stands_in(tmp_path: Path) -> None:
    given = [answer("team won"), answer("It was late."), answer("10 to 3")]
    found = read(written(tmp_path, *(question("Who?", one) for one in given)))
    passage = found.passages[0]
    words = [CONTEXT[start:end] for start, end in places_of(CONTEXT)]
    assert words[:8] == ["Zürich", "'", "s", "U", ".", "S", ".", "team"]
    assert passage.words() == words
    for one, asked in zip(given, found.questions, strict=True):
        assert passage.said(asked.span) == one["text"] == asked.answers[0]
    assert not found.notes


def test_all_answers_are_references_and_the_first_is_the_span(tmp_path: Path) -> None:
    found = read(written(tmp_path, question("Who?", answer("team"), answer("U.S. team"))))
    (asked,) = found.questions
    assert asked.answers == ("team", "U.S. team") and found.passages[0].said(asked.span) == "team"


def test_answers_that_words_split_take_the_whole_word_and_are_counted(tmp_path: Path) -> None:
    cut, spaced = answer("1990"), answer("3.  ")
    found = read(
        written(
            tmp_path, question("When?", cut), question("What?", spaced), question("Who?", answer("ürich"))
        )
    )
    said = [found.passages[0].said(one.span) for one in found.questions]
    # white space at the ends of an answer splits nothing
    assert said == ["1990s", "3.", "Zürich"] and found.notes == {SPLIT: 2}
    assert [one.answers for one in found.questions] == [("1990",), ("3.",), ("ürich",)]


@pytest.mark.parametrize(
    ("start", "end", "span", "outward"),
    [
        (0, 3, (0, 0), False),
        (1, 3, (0, 0), True),
        (0, 5, (0, 1), True),
        (4, 7, (1, 1), False),
        (4, 8, (1, 2), False),
    ],
)
def test_a_span_is_the_fewest_words_with_all_characters(
    start: int, end: int, span: tuple[int, int], outward: bool
) -> None:
    places = places_of("abc def!")
    assert snapped(places, start, end) == (span, outward) and snapped(places, 3, 4) is None


def test_spans_are_those_of_a_search_over_all_words() -> None:
    text = "ab, cd  e.f"
    places = places_of(text)
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            inside = [
                n for n, (begin, stop) in enumerate(places) if {*range(begin, stop)} & {*range(start, end)}
            ]
            found = snapped(places, start, end)
            assert (found is None) == (not inside) and (
                found is None or found.span == (inside[0], inside[-1])
            )


def test_impossible_questions_are_left_out_and_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path, question("Who?", is_impossible=True), question("Who?", answer("team"), is_impossible=False)
    )
    found = read(path)
    assert len(found.questions) == 1 and found.notes == {IMPOSSIBLE: 1}
    path = written(tmp_path, question("Who?", is_impossible=True))
    with pytest.raises(
        UserError, match=r"mine.json: no question in it \(1 questions that cannot be answered"
    ):
        read(path)


def test_an_answer_at_another_place_is_refused_or_taken_from_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, question("Who?", answer("team")), question("Who?", answer("team", 3)))
    with pytest.raises(
        UserError, match=r'question 2 \(id q\): at answer_start=3 stands "ich.", not .* .valid: 14'
    ):
        read(path)
    found = read(path, verify=False)
    assert found.passages[0].said(found.questions[1].span) == "team" and found.notes == {MOVED: 1}
    # counted in bytes or in UTF-16's units, places behind a sign beyond them are others
    path = written(tmp_path, question("When?", answer("It was", CONTEXT.index("It was") + 1)))
    with pytest.raises(UserError, match="counted in characters from 0"):
        read(path)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (question("Who?"), r"question 2 \(id q\) has no answer"),
        (question("Who?", answer("nobody", 2)), "'nobody' does not stand in its context"),
        (question("Who?", answer("Team", 14)), "'Team' does not stand in its context .valid: .*spelled"),
        (question("Who?", answer("", 2)), "has an empty answer"),
        (question("Who?", answer("  ", CONTEXT.index("  "))), "has an empty answer"),
        (question("Who?", answer("team", -1)), "at answer_start=-1 stands"),
        (question("Who?", answer("team", 10_000)), "at answer_start=10000 stands ''"),
        (question("Who?", {"text": "team"}), "an answer without 'text' .a text. or 'answer_start'"),
        (question("Who?", {"text": "team", "answer_start": "14"}), "an answer without 'text'"),
        (question() | {"answers": {"text": ["team"], "answer_start": [14]}}, "has no list of 'answers'"),
        (question("  "), r"question 2 \(id q\) is empty"),
        ({"id": "x"}, r"question 2 \(id x\) is empty"),
        ("Who?", "question 2 is empty"),
    ],
)
def test_a_question_that_is_not_what_it_should_be_is_named(tmp_path: Path, asked: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read(written(tmp_path, question("Who?", answer("team")), asked))
    assert "\n" not in str(caught.value) and "mine.json" in str(caught.value)


@pytest.mark.parametrize("context", ["", " \n\t", None, 5])
def test_a_paragraph_without_words_is_named(tmp_path: Path, context: Any) -> None:
    with pytest.raises(
        UserError, match=r"the paragraph before question 1 has (an empty context|no text 'context')"
    ):
        read(written(tmp_path, question(), context=context))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "an empty file"),
        (b" \n ", "an empty file"),
        (b'{"data": [\n{]}', "line 2: no JSON"),
        (b'{"data":' + b"[" * 100_000, "lists within lists without end"),
        (b"[]", "the file has no list 'data'"),
        (b'{"data": {}}', "the file has no list 'data'"),
        (b'{"data": [{"title": "x"}]}', "an article has no list 'paragraphs'"),
        (b'{"data": [{"paragraphs": [{"context": "x"}]}]}', "a paragraph has no list 'qas'"),
        (b'{"data": []}', "no question in it"),
        ('{"data": ["\n\xfc"]}'.encode("latin-1"), "not UTF-8 text .byte 0xfc in line 2.*latin-1"),
    ],
)
def test_a_file_of_another_shape_is_one_line(tmp_path: Path, text: bytes, told: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=told) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none.json")


def test_a_context_without_end_is_named_by_its_question(tmp_path: Path) -> None:
    path = written(tmp_path, question(), context="word " * 20_001)
    with pytest.raises(
        UserError, match=r"before question 1 has a context of 20001 words .valid: up to 20000"
    ):
        read(path)


def test_questions_without_answers_are_read_where_they_are_to_be_answered(tmp_path: Path) -> None:
    found = read(written(tmp_path, question("Who?"), {"question": "When?"}), answered=False)
    assert [(one.name, one.text, one.answers) for one in found.questions] == [
        ("q", "Who?", ()),
        ("2", "When?", ()),
    ]
