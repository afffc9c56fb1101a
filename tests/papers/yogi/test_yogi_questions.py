"""Question answering as a task: optimizers of the house, files and networks of one's own; table_qa's rows."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.runs.check_entries import check_row
from common.runs.compose import compose
from common.tables.tables import runnable

ROOT = Path(__file__).resolve().parents[3]
Quick = Callable[..., subprocess.CompletedProcess[str]]
SMALL = [
    *("model.word_size=6", "model.char_size=4", "model.filters=4", "model.hidden=5"),
    *("paper=yogi", "trainer=cpu", "paper.epochs=1"),
]
NETWORK = """
import torch
from torch import nn

from common.base.passages import disjoined
from common.training.answering import AnswersQuestions


class Net(AnswersQuestions, nn.Module):
    longest_answer = 3

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20000, 2)

    def forward(self, inputs):
        numbers = disjoined(inputs)[0][:, :, 0]
        return self.words(numbers).transpose(1, 2).masked_fill((numbers == 0)[:, None], -torch.inf)
"""


def result(ended: Any, folder: Path, code: str = "returncode") -> dict[str, Any]:
    assert getattr(ended, code) == 0, ended
    out = ended.stdout if code == "returncode" else ended.out
    return dict(json.loads((folder / out.strip().splitlines()[-1].removeprefix("result: ")).read_text()))


def article(count: int, **keys: Any) -> dict[str, Any]:
    paragraphs = []
    for number in range(count):
        context = f"Anna{number} met Bob in Ulm."
        answer = {"text": "Bob", "answer_start": context.index("Bob")}
        asked = {"id": str(number), "question": f"Whom did Anna{number} meet?", "answers": [answer], **keys}
        paragraphs.append({"context": context, "qas": [asked]})
    return {"data": [{"title": "T", "paragraphs": paragraphs}]}


@pytest.mark.parametrize("words", [["method=optimizer/adadelta"], ["method=optimizer/yogi", "dataset=squad"]])
def test_optimizers_of_the_house_go_with_questions(quick: Quick, tmp_path: Path, words: list[str]) -> None:
    data = [] if "dataset=squad" in words else ["dataset=python_questions"]
    made = result(quick(*SMALL, *data, *words, "dataset.source=synthetic", "dataset.limit=40"), tmp_path)
    assert 0 <= made["metrics"]["test_em"] <= made["metrics"]["test_f1"] <= 100
    assert {"validation_f1", "test_loss", "test_span_accuracy", "train_em"} <= set(made["metrics"])


def test_a_file_and_a_network_of_ones_own_go_and_another_file_is_judged(
    quick: Quick, calls: Any, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(NETWORK)
    (tmp_path / "mine.json").write_text(json.dumps(article(20)))
    (tmp_path / "new.json").write_text(json.dumps(article(3)))
    words = ["paper=yogi", "dataset=question_file", "dataset.path=mine.json", "trainer=cpu", "paper.epochs=2"]
    ended = quick(*words, "import=nets", "model._target_=nets.Net")
    assert result(ended, tmp_path)["metrics"]["steps"] == 2
    ended = quick(*words, *SMALL[:4])
    assert "16 train, 2 validation, 2 test questions" in ended.stderr
    folder = str(Path(ended.stdout.strip().splitlines()[-1].removeprefix("result: ")).parent)
    evaluate = ROOT / "evaluate.py"
    judged = calls.run([folder, "dataset=question_file", "dataset.path=new.json"], tmp_path, script=evaluate)
    assert judged.code == 0 and "all questions of new.json" in judged.out + judged.errors, judged
    answered = calls.run([folder, "new.json", "to=said"], tmp_path, script=ROOT / "predict.py")
    assert answered.code == 0 and "3 questions answered" in answered.out, answered
    lines = [json.loads(line) for line in (tmp_path / "said" / "answers.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        context, start = f"Anna{number} met Bob in Ulm.", line["answer_start"]
        assert line["id"] == str(number) and 0 < line["probability"] <= 1
        assert line["answer"] == context[start : start + len(line["answer"])]
    by_id = json.loads((tmp_path / "said" / "answers.json").read_text())
    assert by_id == {line["id"]: line["answer"] for line in lines} and len(by_id) == 3
    (tmp_path / "mine.json").write_text(json.dumps(article(20, answers=[])))
    refused = quick(*words, *SMALL[:4], "seed=1")
    assert refused.returncode == 1
    assert "mine.json: question 1 (id 0) has no answer" in refused.stderr


@pytest.mark.parametrize(
    "entry",
    [entry for entry in runnable("yogi") if entry.table in ("table_qa", "python_questions")],
    ids=lambda entry: entry.name,
)
def test_a_rows_groups_exist_and_its_keys_fit(entry: Any) -> None:
    check_row(entry)


def test_rows_of_a_table_differ_in_the_optimizer_alone() -> None:
    made = [compose([f"entry=yogi.table_qa.squad_{name}"])[0] for name in ("adam", "adadelta", "yogi")]
    for one in made[1:]:
        assert {str(key) for key in one if one[key] != made[0][key]} - {"entry", "entry_at"} == {"method"}
    assert [one.method.lr for one in made] == [1e-3, 0.5, 1e-2]
