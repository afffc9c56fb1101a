"""Named entities as a task: optimizers of the house, files and networks of one's own; table_ner's rows."""

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
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.words = nn.Embedding(20000, classes)

    def forward(self, inputs):
        return self.words(inputs[:, :, 0])
"""


def result(ended: Any, folder: Path, code: str = "returncode") -> dict[str, Any]:
    assert getattr(ended, code) == 0, ended
    out = ended.stdout if code == "returncode" else ended.out
    return dict(json.loads((folder / out.strip().splitlines()[-1].removeprefix("result: ")).read_text()))


@pytest.mark.parametrize(
    "words", [["method=optimizer/sgd"], ["method=optimizer/yogi", "dataset.scheme=bioes", "dataset=bc5cdr"]]
)
def test_optimizers_of_the_house_go_with_tags(quick: Quick, tmp_path: Path, words: list[str]) -> None:
    data = [] if "dataset=bc5cdr" in words else ["dataset=python_tags"]
    made = result(quick(*SMALL, *data, *words, "dataset.source=synthetic", "dataset.limit=40"), tmp_path)
    assert 0 <= made["metrics"]["test_f1"] <= 1 and made["metrics"]["steps"] == 4
    assert {"validation_f1", "test_precision", "test_recall", "test_accuracy"} <= set(made["metrics"])


def test_a_file_and_a_network_of_ones_own_go_and_another_file_is_judged(
    quick: Quick, calls: Any, tmp_path: Path
) -> None:
    (tmp_path / "nets.py").write_text(NETWORK)
    lines = [f"Anna{n} B-PER\nmet O\nBob B-PER\nin O\nUlm B-LOC\n" for n in range(12)]
    (tmp_path / "mine.conll").write_text("\n".join(lines))
    (tmp_path / "new.conll").write_text(lines[0])
    words = ["paper=yogi", "dataset=tagged_file", "dataset.path=mine.conll", "trainer=cpu", "paper.epochs=2"]
    ended = quick(*words, "import=nets", "model._target_=nets.Net")
    assert result(ended, tmp_path)["metrics"]["steps"] == 2
    folder = str(Path(ended.stdout.strip().splitlines()[-1].removeprefix("result: ")).parent)
    (tmp_path / "plain.txt").write_text("Bob met Anna\n")
    said = calls.run(["import=nets", folder, "plain.txt", "to=own"], tmp_path, script=ROOT / "predict.py")
    assert said.code == 0 and "1 sentence answered" in said.out, said
    ended = quick(*words, *SMALL[:4])
    assert "9 train, 1 validation, 2 test sentences; LOC, PER" in ended.stderr
    folder = str(Path(ended.stdout.strip().splitlines()[-1].removeprefix("result: ")).parent)
    evaluate = ROOT / "evaluate.py"
    judged = calls.run([folder, "dataset=tagged_file", "dataset.path=new.conll"], tmp_path, script=evaluate)
    assert judged.code == 0 and "all sentences of new.conll" in judged.out + judged.errors, judged
    (tmp_path / "new.txt").write_text("Bob met Anna3 in Ulm.\n")
    said = calls.run([folder, "new.txt", "to=said"], tmp_path, script=ROOT / "predict.py")
    assert said.code == 0 and "1 sentence answered" in said.out, said
    (line,) = (tmp_path / "said" / "entities.jsonl").read_text().splitlines()
    assert json.loads(line)["words"] == ["Bob", "met", "Anna3", "in", "Ulm", "."]
    tags = (tmp_path / "said" / "tags.conll").read_text()
    assert [row.split("\t")[0] for row in tags.splitlines()] == [*json.loads(line)["words"], ""]
    (tmp_path / "mine.conll").write_text("\n".join(lines) + "\nUlm I-LOC\n")
    refused = quick(*words, *SMALL[:4], "seed=1")
    assert refused.returncode == 1
    assert "mine.conll: line 73 has I-LOC behind O, which BIO does not allow" in refused.stderr


@pytest.mark.parametrize(
    "entry",
    [entry for entry in runnable("yogi") if entry.table in ("table_ner", "python_names")],
    ids=lambda entry: entry.name,
)
def test_a_rows_groups_exist_and_its_keys_fit(entry: Any) -> None:
    check_row(entry)


def test_rows_of_a_table_differ_in_the_optimizer_alone() -> None:
    made = [compose([f"entry=yogi.table_ner.bc5cdr_{name}"])[0] for name in ("sgd", "adam", "yogi")]
    for one in made[1:]:
        assert {str(key) for key in one if one[key] != made[0][key]} - {"entry", "entry_at"} == {"method"}
    assert [one.method.lr for one in made] == [0.015, 1e-3, 1e-2]
