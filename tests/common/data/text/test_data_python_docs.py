"""CPython's documentation: tokens, splits by topic, rare words, and no file needed."""

import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pydoc_data.topics import topics
from typing import Any

import pytest

from common.base.errors import UserError
from common.data.text import python_docs
from common.data.text.python_docs import tokens

Make = Callable[..., Any]


def test_words_are_runs_of_letters_and_single_marks_and_lines_end() -> None:
    text = 'The "__getattr__" method\n\n   x_1 += 3.5  # Not y'
    assert tokens(text, "word") == [
        "The", '"', "__getattr__", '"', "method", "<eos>", "<eos>",
        "x_1", "+", "=", "3", ".", "5", "#", "Not", "y", "<eos>",
    ]  # fmt: skip


def test_characters_are_single_and_lines_end() -> None:
    assert tokens("if x:\n\ty", "character") == [*"if x:", "<eos>", "\t", "y", "<eos>"]


@pytest.mark.parametrize("level", ["word", "character"])
def test_each_split_is_its_topics_with_rare_tokens_unknown(make: Make, level: Any) -> None:
    data = make("python_docs", level=level)
    data.setup()
    names = sorted(topics)
    bounds = [0, len(names) * 8 // 10, len(names) * 9 // 10, len(names)]
    originals = [
        [token for name in names[first:last] for token in tokens(topics[name], level)]
        for first, last in pairwise(bounds)
    ]
    counts = Counter(originals[0])
    for split, original in zip(("train", "validation", "test"), originals, strict=True):
        decoded = [data.vocabulary[number] for number in data.tokens(split).tolist()]
        assert decoded == [token if counts[token] >= 3 else "<unk>" for token in original]
    assert data.classes == len(data.vocabulary) == len(set(data.vocabulary))


def test_there_is_enough_of_it_and_the_splits_share_no_topic(make: Make) -> None:
    words, characters = make("python_docs"), make("python_docs", level="character")
    words.setup()
    characters.setup()
    assert words.size("train") > 50_000 and 1_000 < words.classes < 5_000
    assert words.size("validation") > 5_000 and words.size("test") > 5_000
    assert characters.size("train") > 200_000 and 80 < characters.classes < 200


def test_a_limit_above_the_size_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"dataset\.limit=10000000: python_docs has"):
        make("python_docs", limit=10_000_000).setup()


def test_a_python_without_its_documentation_is_one_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    python_docs.documentation.cache_clear()
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="comes without pydoc_data"):
        make("python_docs")
