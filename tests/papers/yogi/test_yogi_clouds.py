"""Point clouds as a task: any optimizer, method and network that goes with classes; table_modelnet's rows."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.runs.check_entries import check_row
from common.runs.compose import compose
from common.tables.tables import runnable

ROOT = Path(__file__).resolve().parents[3]
Quick = Callable[..., subprocess.CompletedProcess[str]]
SMALL = [
    *("paper=yogi", "dataset=solids", "dataset.source=synthetic", "dataset.limit=40", "dataset.points=12"),
    *("paper.epochs=1", "trainer=cpu", "model.width=16"),
]
TEACHER = "teacher=model=deepsets_dtanh model.width=24 method=optimizer/adam"


def result(ended: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    path = ended.stdout.strip().splitlines()[-1].removeprefix("result: ")
    return dict(json.loads((folder / path).read_text()))


@pytest.mark.parametrize(
    "words",
    [
        ["method=optimizer/sgd"],
        ["method=distillation/kd", TEACHER],
        ["method=optimizer/adam", "model=lenet_300_100", "~model.width"],
        ["method=pruning/l2"],
        ["method=quantization/qbp"],
    ],
    ids=lambda words: words[0],
)
def test_methods_of_the_house_go_with_clouds(quick: Quick, tmp_path: Path, words: list[str]) -> None:
    small = [word for word in SMALL if f"~{word.split('=')[0]}" not in words]
    made = result(quick(*small, *(word for word in words if not word.startswith("~"))), tmp_path)
    assert 0 <= made["metrics"]["test_accuracy"] <= 1 and made["metrics"]["steps"] == 1


def test_a_folder_of_clouds_is_trained_on_and_another_one_judged(
    quick: Quick, calls: Any, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for folder, count in (("mine", 6), ("new", 2)):
        for name, scale in (("flat", 0.05), ("round", 1.0)):
            (tmp_path / folder / name).mkdir(parents=True)
            for n in range(count):
                cloud = random.normal(size=(20 + n, 3)) * [1, 1, scale]
                np.savetxt(tmp_path / folder / name / f"{n}.xyz", cloud)
    words = ["paper=yogi", "dataset=cloud_folder", "dataset.path=mine", "dataset.points=16", "paper.epochs=2"]
    ended = quick(*words, "trainer=cpu", "model.width=8")
    assert "2 classes, 10 train, 0 validation, 2 test" in ended.stderr
    folder = str(Path(ended.stdout.strip().splitlines()[-1].removeprefix("result: ")).parent)
    judged = calls.run(
        [folder, "dataset=cloud_folder", "dataset.path=new"], tmp_path, script=ROOT / "evaluate.py"
    )
    assert judged.code == 0, judged.errors
    assert "the clouds of new" in judged.out + judged.errors
    (tmp_path / "new" / "one.xyz").write_text("1 2 3\n")
    said = calls.run([folder, "new", "to=said", "top=1"], tmp_path, script=ROOT / "predict.py")
    assert said.code == 1 and "new/one.xyz: a cloud of one point" in said.errors, said
    assert "4 clouds answered" in said.out
    lines = [json.loads(line) for line in (tmp_path / "said" / "clouds.jsonl").read_text().splitlines()]
    assert [len(line.get("classes", [])) for line in lines] == [0, 1, 1, 1, 1]
    assert {line["classes"][0]["class"] for line in lines[1:]} <= {"flat", "round"}
    (tmp_path / "mine" / "flat" / "bad.xyz").write_text("0 0 0\n1 nan 0\n")
    refused = quick(*words, "trainer=cpu", "model.width=8", "seed=1")
    assert refused.returncode == 1 and "bad.xyz (line 2 holds 1 nan 0" in refused.stderr
    assert refused.stderr.strip().count("\n") <= 2


@pytest.mark.parametrize(
    "entry",
    [entry for entry in runnable("yogi") if entry.table in ("table_modelnet", "solids")],
    ids=lambda entry: entry.name,
)
def test_a_rows_groups_exist_and_its_keys_fit(entry: Any) -> None:
    check_row(entry)


def test_modelnets_rows_are_the_recipe_of_deepsets_with_one_optimizer_each() -> None:
    adam, yogi = (
        compose([f"entry=yogi.table_modelnet.modelnet40_{name}"])[0] for name in ("adam_eps1e_3", "yogi")
    )
    assert {str(key) for key in adam if adam[key] != yogi[key]} >= {"method"}
    assert adam.dataset == yogi.dataset and adam.model == yogi.model and adam.schedule == yogi.schedule
    assert (adam.method.lr, adam.method.eps, adam.method.weight_decay) == (1e-3, 1e-3, 1e-7)
    assert (yogi.method.lr, yogi.method.eps, yogi.method.weight_decay) == (1e-2, 1e-3, 1e-7)
    assert (adam.clip, adam.dataset.batch_size, adam.dataset.points, adam.paper.epochs) == (
        5.0,
        64,
        1000,
        1000,
    )
    assert list(adam.schedule.milestones) == [0.4, 0.8]
