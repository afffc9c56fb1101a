"""EM and F1 of answers, by the official rules, by torchmetrics and by another way of counting."""

import random
import re
import string
import warnings

import pytest

from common.metrics.answers import exact_match, f1, normalised


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The  U.S., (an) army!", "us army"),
        ("a the an", ""),
        ("Theatre an'a", "theatre ana"),
        ("\u00c9cole \u2013 the\tend\n", "école – end"),
        ("$10,000", "10000"),
    ],
)
def test_case_punctuation_articles_and_white_space_do_not_count(text: str, wanted: str) -> None:
    assert normalised(text) == wanted


def test_the_best_reference_counts_and_words_as_often_as_they_stand_there() -> None:
    assert exact_match("the Broncos.", ["Denver", "broncos"]) == 1 and exact_match("x", ["y"]) == 0
    # 2 of 3 words given, 2 of 2 wanted
    assert f1("to to be", ["be to"]) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert f1("to to be", ["be to", "to to be"]) == 1.0
    assert f1("new york", ["boston"]) == 0.0
    assert f1("a", ["the"]) == exact_match("a", ["the"]) == 1.0
    assert f1("a", ["word"]) == f1("word", ["a"]) == 0.0


def pairs(count: int) -> list[tuple[str, list[str]]]:
    words = ["the", "a", "An", "cat", "Cat,", "sat", "on", "U.S.", "10,000", "(mat)", "\u00c9t\u00e9", "it's"]
    source = random.Random(0)

    def text() -> str:
        return " ".join(source.choices(words, k=source.randint(1, 6)))

    return [(text(), [text() for _ in range(source.randint(1, 3))]) for _ in range(count)]


def test_it_counts_as_torchmetrics_does() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.functional.text import squad

        for given, references in pairs(200):
            wanted = squad(
                [{"prediction_text": given, "id": "1"}],
                [{"answers": {"text": references, "answer_start": [0] * len(references)}, "id": "1"}],
            )
            assert 100 * exact_match(given, references) == float(wanted["exact_match"])
            assert 100 * f1(given, references) == pytest.approx(float(wanted["f1"]), rel=1e-5)


def test_it_counts_as_a_matching_of_words_does() -> None:
    def bare(text: str) -> list[str]:
        kept = "".join(sign for sign in text.lower() if sign not in string.punctuation)
        return [word for word in re.split(r"\s+", kept) if word not in ("", "a", "an", "the")]

    for given, references in pairs(200):
        best = 0.0
        for one in references:
            mine, left = bare(given), bare(one)
            total, shared = len(mine) + len(left), 0
            for word in mine:
                if word in left:
                    left.remove(word)
                    shared += 1
            best = max(best, 2 * shared / total if total else 1.0)
        assert f1(given, references) == pytest.approx(best)
        assert exact_match(given, references) == float(any(bare(given) == bare(one) for one in references))
