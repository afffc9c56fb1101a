"""Texts, translated line by line; what a line is that cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.sequence import EOS
from common.data.text.pieces import as_json
from common.data.text.text_pair import MOST
from common.runs import predict_translations as ours
from common.runs import trained
from common.runs.predict_files import Asked

Make = Callable[..., Any]


class Echo(nn.Module):
    """Says what it hears: of each sentence the next token of its source."""

    beam, length_penalty = 2, 0.6

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = words
        self.batches: list[tuple[int, ...]] = []

    def begin(self, source: Tensor) -> Any:
        self.batches.append(tuple(source.shape))
        state = SimpleNamespace(source=source, at=0)
        state.select = lambda rows: setattr(state, "source", state.source[rows])
        return state

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        width = state.source.shape[1]
        said = state.source[:, state.at] if state.at < width else torch.full_like(tokens, EOS)
        state.at += 1
        return 20.0 * nn.functional.one_hot(said, self.words).float()


@pytest.fixture
def echo(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A finished run whose network says what it hears, and its words are those of 200 pairs."""
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"the {n % 7} dogs {n}\t{n} dogs the {n % 7}\n" for n in range(200)))
    data = make("text_pair", path=str(pairs), level="word", longest=20, batch_size=40, vocabulary=400)
    data.setup()
    found = trained.Trained(SimpleNamespace(data=data), Echo(400), None, data.facts())  # type: ignore[arg-type]
    monkeypatch.setattr(trained, "trained", lambda run: found)
    return found


def translated(folder: Path, *files: Path, **options: str) -> Any:
    asked = Asked(list(files), folder / "out", top=5, encoding=options.get("encoding", "utf-8"))
    return ours.predict_translations(None, asked)  # type: ignore[arg-type]


def test_there_are_as_many_lines_as_in_the_text_in_their_order_and_empty_ones_stay(
    echo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "AT_ONCE", 7)
    lines = [f"the {n % 7} dogs" + " dogs" * (n % 5) for n in range(20)]
    lines[3], lines[11] = "", "  \t"
    (tmp_path / "new.en").write_bytes("\r\n".join([*lines, ""]).encode("utf-16"))
    done = translated(tmp_path, tmp_path / "new.en")
    assert (done.count, done.faults, done.what) == (18, 0, "line")
    assert done.written == [tmp_path / "out" / "translations.txt"]
    said = done.written[0].read_text().split("\n")
    assert said == [line.strip() for line in lines] + [""]
    known = [json.loads(line) for line in (tmp_path / "out" / "translations.jsonl").read_text().splitlines()]
    assert known[4] == {"line": 5, "source": lines[4], "translation": lines[4]}
    # two sentences of a beam each, and no batch above the budget of tokens
    assert max(rows * width for rows, width in echo.network.batches) <= 40


def test_a_line_that_is_far_too_long_is_told_and_the_others_are_done(
    echo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.en").write_text(f"the 1 dogs\n{'dogs ' * MOST}\nthe 2 zebras\n" + "x" * 1_000_000)
    done = translated(tmp_path, tmp_path / "new.en")
    assert (done.count, done.faults) == (3, 1)
    said = done.written[0].read_text().splitlines()
    assert (said[0], said[1]) == ("the 1 dogs", "") and len(said) == 4
    errors = capsys.readouterr().err
    assert f"new.en: line 2 has {MOST + 1} tokens (valid: up to {MOST}" in errors
    assert "2 of its pieces do not stand in training" in errors
    known = [json.loads(line) for line in (tmp_path / "out" / "translations.jsonl").read_text().splitlines()]
    assert "error" in known[1] and "translation" not in known[1]


def test_of_pairs_with_a_tab_in_each_line_the_first_side_is_translated(
    echo: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.tsv").write_text("the 1 dogs\tdogs the 1\n\nthe dogs\tx\n")
    said = translated(tmp_path, tmp_path / "new.tsv").written[0].read_text()
    assert said == "the 1 dogs\n\nthe dogs\n" and "before it is translated" in capsys.readouterr().err
    (tmp_path / "new.tsv").write_text("the 1 dogs\tdogs\nthe dogs\n")
    said = translated(tmp_path, tmp_path / "new.tsv").written[0].read_text()
    assert said == "the 1 dogs dogs\nthe dogs\n"


def test_another_encoding_is_one_line_and_read_when_told(echo: Any, tmp_path: Path) -> None:
    (tmp_path / "new.en").write_bytes("the 1 café\n".encode("latin-1"))
    with pytest.raises(
        UserError, match=r"new\.en: not UTF-8 text \(byte 0xe9 in line 1\).* encoding=latin-1"
    ):
        translated(tmp_path, tmp_path / "new.en")
    assert not (tmp_path / "out").exists()
    assert translated(tmp_path, tmp_path / "new.en", encoding="latin-1").count == 1


def test_the_vocabulary_is_that_of_training_whatever_the_files_hold_by_now(echo: Any) -> None:
    pieces = echo.module.data.pieces
    assert ours.with_vocabulary(None, echo) is echo  # type: ignore[arg-type]
    bare = trained.Trained(echo.module, echo.network, None, {})  # type: ignore[arg-type]
    run: Any = SimpleNamespace(result={"data": None}, directory=Path("run"))
    assert ours.with_vocabulary(run, bare).facts["pieces"] == as_json(pieces)
    folders = {"source": [1, 2, "a", "b"]}
    run.result["data"] = {"files": 1, "bytes": 2, "missing": [], "folders": folders}
    with pytest.raises(UserError, match=r"the data of run have changed since: .* force=true"):
        ours.with_vocabulary(run, bare)
