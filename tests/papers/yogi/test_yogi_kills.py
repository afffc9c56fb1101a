"""Runs on clouds, names and questions that are killed within an epoch end as unbroken ones, bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import Calls

COMMON = ["paper=yogi", "trainer=cpu", "logger=none", "paper.epochs=2.5"]


def clouds(folder: Path) -> list[str]:
    random = np.random.default_rng(0)
    for name, scale in (("flat", 0.05), ("round", 1.0)):
        (folder / "mine" / name).mkdir(parents=True)
        for n in range(8):
            np.savetxt(folder / "mine" / name / f"{n}.xyz", random.normal(size=(20 + n, 3)) * [1, 1, scale])
    return ["dataset=cloud_folder", "dataset.path=mine", "dataset.points=8", "model.width=4"]


def names(folder: Path) -> list[str]:
    lines = [f"Anna{n} B-PER\nmet O\nBob B-PER\nin O\nUlm B-LOC\n" for n in range(30)]
    (folder / "mine.conll").write_text("\n".join(lines))
    small = ("model.word_size=6", "model.char_size=4", "model.filters=4", "model.hidden=5")
    return ["dataset=tagged_file", "dataset.path=mine.conll", *small]


def questions(folder: Path) -> list[str]:
    paragraphs = []
    for n in range(30):
        context = f"Anna{n} met Bob in Ulm."
        answer = {"text": "Bob", "answer_start": context.index("Bob")}
        asked = {"id": str(n), "question": f"Whom did Anna{n} meet?", "answers": [answer]}
        paragraphs.append({"context": context, "qas": [asked]})
    (folder / "mine.json").write_text(json.dumps({"data": [{"title": "T", "paragraphs": paragraphs}]}))
    small = ("model.word_size=6", "model.char_size=4", "model.filters=4", "model.hidden=5", "ema=0.9")
    return ["dataset=question_file", "dataset.path=mine.json", *small]


def result(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("outputs/yogi/*/result.json")
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize("task", [clouds, names, questions])
def test_a_run_killed_within_an_epoch_ends_as_an_unbroken_one(
    calls: Calls, tmp_path: Path, task: Any
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    for folder in (unbroken, broken):
        folder.mkdir()
        words = [*COMMON, *task(folder), "dataset.batch_size=4"]
    assert calls.run(words, unbroken).code == 0
    # an epoch has three steps or more, and a checkpoint follows each
    calls.killed_at(1, 5, words, broken)
    assert calls.run(words, broken).code == 0
    expected, found = result(unbroken), result(broken)
    assert found["metrics"] == expected["metrics"] and found["history"] == expected["history"]
    assert expected["metrics"]["steps"] > 6
