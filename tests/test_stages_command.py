"""Runs that need a teacher, as processes: two at once, and killed in each of their stages."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import HANGS, Calls, until
from filelock import FileLock

TEACHER = "model=lenet_300_100 method=distillation/none paper.epochs=16"
STUDENT = [
    *("paper=yogi", "dataset=digits", "model=lenet_300_100", "method=distillation/kd", "paper.epochs=16"),
    *(f"teacher='{TEACHER}'", "logger=none", "trainer=cpu"),
]


def finish(calls: Calls, call: int) -> str:
    """Wait for a call that ends well; its stderr."""
    ended = calls.wait(call, HANGS)
    assert ended is not None and ended.code == 0, ended
    return ended.errors


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by their run keys."""
    found = folder.glob("outputs/*/*/result.json")
    return {f"{path.parts[-3]}/{path.parts[-2]}": json.loads(path.read_text()) for path in found}


def waits(folder: Path) -> bool:
    """Whether a call has said that it waits for another."""
    path = folder / "stderr"
    return path.exists() and "waiting for another process" in path.read_text(errors="replace")


@pytest.fixture(scope="module")
def unbroken(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student's run, with its teacher's."""
    folder = tmp_path_factory.mktemp("unbroken")
    finish(calls, calls.start([*STUDENT, "seed=0"], folder))
    return folder


def test_two_students_that_want_the_teacher_at_once_train_one(
    unbroken: Path, calls: Calls, tmp_path: Path
) -> None:
    """The test holds the teacher's lock until both stand at it."""
    (teacher,) = [key for key, result in results(unbroken).items() if not result["stages"]]
    outputs, folders = tmp_path / "outputs", [tmp_path / name for name in "01"]
    (outputs / teacher).mkdir(parents=True)
    with FileLock(outputs / teacher / ".lock"):
        both = [
            calls.start([*STUDENT, f"seed={seed}", f"output_dir={outputs}"], folder)
            for seed, folder in enumerate(folders)
        ]
        until(lambda: all(map(waits, folders)))
    until((outputs / teacher / "result.json").exists)
    seconds = results(tmp_path)[teacher]["wall_seconds"]
    for call in both:
        finish(calls, call)
    made = results(tmp_path)
    assert len(made) == 3
    used = [result["stages"]["teacher"]["key"] for result in made.values() if result["stages"]]
    assert used == [teacher, teacher]
    assert made[teacher]["wall_seconds"] == seconds


@pytest.mark.parametrize(("stage", "number"), [("teacher", 1), ("student", 2)])
def test_killed_in_a_stage_and_run_again_the_result_is_that_of_an_unbroken_run(
    stage: str, number: int, unbroken: Path, calls: Calls, tmp_path: Path
) -> None:
    calls.killed_at(number, 6, STUDENT, tmp_path)
    assert len(results(tmp_path)) == number - 1
    finish(calls, calls.start(STUDENT, tmp_path))
    assert results(tmp_path).keys() == results(unbroken).keys()
    for key, found in results(tmp_path).items():
        expected = results(unbroken)[key]
        assert found["metrics"] == expected["metrics"]
        assert found["history"] == expected["history"]
        states = [
            torch.load(folder / "outputs" / key / "last.ckpt", weights_only=True)["state_dict"]
            for folder in (unbroken, tmp_path)
        ]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
