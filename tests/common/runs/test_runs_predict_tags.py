"""Texts, tagged: where their entities stand, and that what is written keeps the scheme's rules."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.data.tagging.tagged_file import read_sentences
from common.models.crf import ConditionalRandomField
from common.runs import trained
from common.runs.predict_files import Asked
from common.runs.predict_tags import predict_tags

Make = Callable[..., Any]
NAMES = {"ulm": "I-LOC", "new": "B-LOC", "york": "I-LOC", "bob": "B-PER"}


class ByWord(nn.Module):
    """Tags words by the list above."""

    def __init__(self, data: Any, chain: bool) -> None:
        super().__init__()
        numbers, tags = data.numbers(), data.class_names()
        table = torch.zeros(data.words, len(tags))
        table[:, 0] = 5.0
        for word, tag in NAMES.items():
            table[numbers[word]] = 0.0
            table[numbers[word], tags.index(tag)] = 5.0
        self.table = nn.Parameter(table)
        if chain:
            self.crf = ConditionalRandomField(len(tags))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table[inputs[:, :, 0]]


@pytest.fixture(params=[False, True], ids=["alone", "chain"])
def found(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A finished run of a tagger."""
    lines = "Bob B-PER\nmet O\nNew B-LOC\nYork I-LOC\nUlm B-LOC\n. O\nU.S. B-LOC\n\n"
    (tmp_path / "mine.conll").write_text(lines * 20)
    data = make("tagged_file", path=str(tmp_path / "mine.conll"), longest=20)
    data.setup()
    run = trained.Trained(
        SimpleNamespace(data=data),  # type: ignore[arg-type]
        ByWord(data, request.param),
        None,  # type: ignore[arg-type]
        data.facts(),
    )
    monkeypatch.setattr(trained, "trained", lambda _: run)
    return run


def tagged(folder: Path, *files: Path) -> tuple[Any, list[dict[str, Any]]]:
    done = predict_tags(None, Asked(list(files), folder / "out", top=5, encoding="utf-8"))  # type: ignore[arg-type]
    lines = (done.written[0].parent / "entities.jsonl").read_text().splitlines()
    return done, [json.loads(line) for line in lines]


def test_entities_stand_where_the_text_says_and_tags_can_be_read_again(found: Any, tmp_path: Path) -> None:
    text = '"Bob", said\u00a0he, met (New York)!\r\n\r\nUlm met Bob.'
    (tmp_path / "new.txt").write_bytes(text.encode("utf-8-sig"))
    done, lines = tagged(tmp_path, tmp_path / "new.txt")
    assert (done.count, done.what, done.faults) == (2, "sentence", 0)
    rows = text.split("\r\n")
    assert [line["line"] for line in lines] == [1, 3]
    for line in lines:
        for one in line["entities"]:
            assert rows[line["line"] - 1][one["start"] : one["end"]] == one["text"]
    assert [(one["type"], one["text"]) for one in lines[0]["entities"]] == [
        ("PER", "Bob"),
        ("LOC", "New York"),
    ]
    # I-LOC at the start of a sentence is no tag of BIO, and what is written has B-LOC
    again = read_sentences(tmp_path / "out" / "tags.conll", "bio", "bio", "utf-8", 100)
    assert [list(sentence.words) for sentence in again] == [line["words"] for line in lines]
    assert again[1].tags == ("B-LOC", "O", "B-PER", "O")


def test_words_of_a_line_each_are_taken_as_they_are(found: Any, tmp_path: Path) -> None:
    (tmp_path / "new.conll").write_text("-DOCSTART- X\n\nBob NNP\nmet VBD\n\n\nNew NNP\nYork NNP\n")
    done, lines = tagged(tmp_path, tmp_path / "new.conll")
    assert done.count == 2 and [line["line"] for line in lines] == [3, 7]
    assert lines[1] == {
        "line": 7,
        "words": ["New", "York"],
        "entities": [{"type": "LOC", "first_word": 0, "last_word": 1, "text": "New York"}],
    }


def test_words_and_lines_longer_than_any_are_tagged_and_told(
    found: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.txt").write_text("é" * 500_000 + " met Bob\n" + "Bob met " * 1_200 + "\n")
    _, lines = tagged(tmp_path, tmp_path / "new.txt")
    assert [line["line"] for line in lines] == [1, 2, 2, 2] and len(lines[0]["words"][0]) == 500_000
    assert [one["text"] for one in lines[0]["entities"]] == ["Bob"]
    assert sum(len(line["entities"]) for line in lines[1:]) == 1_200
    errors = capsys.readouterr().err
    assert "1 words of more than 20 bytes" in errors and "line 2 has so many words" in errors
