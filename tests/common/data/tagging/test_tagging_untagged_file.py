"""Texts to be tagged: where sentences and words of them begin and end."""

from pathlib import Path

import pytest

from common.base.errors import UserError
from common.data.tagging.untagged_file import MOST, read_untagged

KNOWN = frozenset({"u.s.", "it's"})


def words(path: Path, text: str) -> list[tuple[str, ...]]:
    path.write_text(text)
    return [sentence.words for sentence in read_untagged(path, "utf-8", KNOWN)]


def test_signs_at_the_ends_of_a_word_stand_alone_unless_training_knows_it(tmp_path: Path) -> None:
    text = "(U.S. Steel), it's U.N. well-known... -- «Ça»!\n"
    assert words(tmp_path / "a.txt", text) == [
        (
            *("(", "U.S", ".", "Steel", ")", ",", "it's", "U.N", ".", "well-known", ".", ".", ".", "--"),
            *("«", "Ça", "»", "!"),
        )
    ]
    assert words(tmp_path / "a.txt", "the U.S. is\n") == [("the", "U.S.", "is")]
    # a vowel sign is a part of its word, and signs without end take no time without end
    hindi = "\u0926\u093f\u0932\u094d\u0932\u0940"
    assert words(tmp_path / "a.txt", f"{hindi}, {hindi}.") == [(hindi, ",", hindi, ".")]
    assert words(tmp_path / "a.txt", f"a {'x' + 300_000 * '.' + 'y'}") == [("a", f"x{300_000 * '.'}y")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.conll", "the DT\ndog NN\n\nbarks VB\n"),
        ("a.txt", "the\ndog\n\nbarks\n"),
        ("a.txt", "-DOCSTART- -X- O O\n\nthe DT O\ndog NN B-X\n\nbarks VB O\n"),
        ("a.txt", "the\tDT\ndog\tNN\n\n\nbarks\tVB"),
        ("a.txt", "the\rdog\r\rbarks\r"),
    ],
)
def test_a_word_a_line_is_seen_by_the_name_or_by_the_lines(tmp_path: Path, name: str, text: str) -> None:
    assert words(tmp_path / name, text) == [("the", "dog"), ("barks",)]


def test_a_long_sentence_comes_in_parts_whose_lines_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("x\n" * (MOST + 1))
    assert [(one.line, len(one.words)) for one in read_untagged(tmp_path / "a.conll", "utf-8", KNOWN)] == [
        (1, MOST),
        (MOST + 1, 1),
    ]


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff"])
def test_a_file_without_words_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"a\.txt: no word in it"):
        words(tmp_path / "a.txt", text)
