"""Runs that need a teacher, as processes: two at once, and killed in each of their stages."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import Calls

TEACHER = "model=lenet_300_100 method=distillation/none paper.epochs=40"
STUDENT = [
    *("paper=yogi", "dataset=digits", "model=lenet_300_100", "method=distillation/kd", "paper.epochs=40"),
    *(f"teacher='{TEACHER}'", "logger=none", "trainer=cpu", "checkpoint_every=0.05"),
]


def finish(calls: Calls, call: int) -> str:
    """Wait for a call that ends well; its stderr."""
    ended = calls.wait(call, 250)
    assert ended is not None and ended.code == 0, ended
    return ended.errors


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by their run keys."""
    found = folder.glob("outputs/*/*/result.json")
    return {f"{path.parts[-3]}/{path.parts[-2]}": json.loads(path.read_text()) for path in found}


@pytest.fixture(scope="module")
def two(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder, and the stderr, of two students that were started at once."""
    folder = tmp_path_factory.mktemp("two")
    output = f"output_dir={folder / 'outputs'}"
    both = [calls.start([*STUDENT, f"seed={seed}", output], folder / str(seed)) for seed in (0, 1)]
    return folder, [finish(calls, call) for call in both]


def test_two_students_started_at_once_train_one_teacher(two: tuple[Path, list[str]]) -> None:
    folder, errors = two
    assert len(list(folder.glob("outputs/*/*/result.json"))) == 3
    assert sum("waiting for another process" in text for text in errors) == 1


@pytest.mark.parametrize("stage", ["teacher", "student"])
def test_killed_in_a_stage_and_run_again_the_result_is_that_of_an_unbroken_run(
    stage: str, two: tuple[Path, list[str]], calls: Calls, tmp_path: Path
) -> None:
    call = calls.start(STUDENT, tmp_path)
    wanted = {"teacher": 1, "student": 2}[stage]
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("outputs/*/*/last.ckpt"))) < wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    calls.kill(call)
    assert len(results(tmp_path)) == wanted - 1, "killed too late to prove anything"
    finish(calls, calls.start(STUDENT, tmp_path))
    for key, found in results(tmp_path).items():
        unbroken = results(two[0])[key]
        assert found["metrics"] == unbroken["metrics"]
        assert found["history"] == unbroken["history"]
        states = [
            torch.load(folder / "outputs" / key / "last.ckpt", weights_only=True)["state_dict"]
            for folder in (two[0], tmp_path)
        ]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
