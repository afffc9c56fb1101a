"""Debug runs: what they do, where they are refused, and that none counts as a result."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.debug import Debug
from common.runs.evidence import Evidence
from common.runs.keys import run_key

Run = Callable[..., subprocess.CompletedProcess[str]]
YOGI = ["paper=yogi", "dataset=digits", "dataset.batch_size=32"]


def made(done: subprocess.CompletedProcess[str], folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder and the result of a run that has passed."""
    assert done.returncode == 0, done.stderr
    path = folder / done.stdout.splitlines()[-1].removeprefix("result: ")
    return path.parent, json.loads(path.read_text())


def test_overfit_learns_one_batch_by_heart_and_says_the_loss(quick: Run, tmp_path: Path) -> None:
    done = quick(*YOGI, "scale=smoke", "debug=overfit")
    _, result = made(done, tmp_path)
    first, last = result["metrics"]["first_loss"], result["metrics"]["last_loss"]
    assert last < first / 100
    assert f"one batch of 32 examples: loss {first:.4g}, after 200 steps {last:.4g}" in done.stderr
    losses = [loss for loss in result["history"]["loss"] if loss is not None]
    assert (losses[0], losses[-1], len(losses)) == (first, last, 200)


def test_all_steps_of_overfit_see_the_same_batch_and_with_other_presets_each_its_own(
    quick: Run, tmp_path: Path
) -> None:
    still = ["method=optimizer/sgd", "method.lr=1e-30", "debug.steps=3"]

    def losses(preset: str) -> set[float]:
        _, result = made(quick(*YOGI, f"debug={preset}", *still), tmp_path)
        return {loss for loss in result["history"]["loss"] if loss is not None}

    assert len(losses("overfit")) == 1
    assert len(losses("one_step")) == 3


def test_overfit_says_that_the_loss_did_not_halve(quick: Run, tmp_path: Path) -> None:
    done = quick(*YOGI, "debug=overfit", "debug.steps=2", "method=optimizer/sgd", "method.lr=1e-9")
    assert done.returncode == 0
    assert "(not half of it: look at the network, the loss and the step size)" in done.stderr


def test_profile_writes_a_table_and_a_trace_of_the_steps_after_the_first(quick: Run, tmp_path: Path) -> None:
    done = quick(*YOGI, "debug=profile", "debug.steps=6", "debug.profile_from=2")
    folder, result = made(done, tmp_path)
    assert result["metrics"]["steps"] == 6
    table, trace = folder / "profile.txt", folder / "trace.json"
    assert "aten::addmm" in table.read_text()
    names = {event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {name for name in names if name.startswith("ProfilerStep#")} == {
        f"ProfilerStep#{step}" for step in range(2, 6)
    }
    said = done.stderr.replace(f"{tmp_path}/", "")
    assert str(table.relative_to(tmp_path)) in said
    assert str(trace.relative_to(tmp_path)) in said
    assert "profile of 4 steps" in said


def test_one_step_is_the_first_of_the_run_and_is_made_anew_each_time(quick: Run, tmp_path: Path) -> None:
    folder, result = made(quick(*YOGI, "debug=one_step"), tmp_path)
    assert result["metrics"]["steps"] == 1
    again = quick(*YOGI, "debug=one_step")
    assert made(again, tmp_path) == (folder, {**result, **{k: made(again, tmp_path)[1][k] for k in CHANGING}})
    assert "already done" not in again.stdout


# what two runs of one command need not agree on
CHANGING = ("wall_seconds", "finished", "peak_memory_mb")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["paper=spider", "debug=overfit"], "debug=overfit: SpiderModule does not train a network"),
        (["paper=saddle", "debug=one_step"], "debug=one_step: SaddleModule does not train a network"),
        ([*YOGI, "debug=overfit", "record=true"], "a run with debug=overfit is no evidence"),
        ([*YOGI, "debug=one_step", "trainer=ddp"], "debug=one_step: one process makes a debug run"),
        ([*YOGI, "debug=overfti"], "did you mean overfit?"),
        ([*YOGI, "debug=overfit", "debug.steps=0"], "debug.steps=0: must be at least 1"),
        (
            ["paper=one", "method=distillation/kd", "model=resnet8", "teacher=model=resnet8 debug=one_step"],
            "a debug run is nothing to learn from",
        ),
    ],
)
def test_where_there_is_no_debug_run_one_line_says_so(quick: Run, words: list[str], line: str) -> None:
    done = quick(*words)
    assert done.returncode == 1
    (error,) = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert line in error


@pytest.mark.parametrize(("steps", "profile_from"), [(0, None), (5, 5), (5, 0), (1, 1)])
def test_settings_out_of_range_are_refused(steps: int, profile_from: int | None) -> None:
    with pytest.raises(UserError, match=r"debug\."):
        Debug(steps=steps, one_batch=False, profile_from=profile_from)


def test_each_preset_has_a_key_of_its_own_and_a_run_without_one_knows_nothing_of_it() -> None:
    configs = [
        compose([*YOGI, f"debug={preset}"])[0] for preset in ("overfit", "profile", "one_step", "none")
    ]
    assert len({run_key(config) for config in configs}) == 4
    plain = compose(YOGI)[0]
    assert "debug" not in plain
    assert run_key(plain) == run_key(configs[-1])


def test_a_debug_run_of_an_entry_is_no_evidence_for_it(quick: Run, tmp_path: Path) -> None:
    words = ["entry=yogi.table_ae.mnist_yogi", "dataset=digits", "model=lenet_300_100", "scale=smoke"]
    folder, result = made(quick(*words, "debug=one_step"), tmp_path)
    assert (result["entries"], result["reported"]) == ([], {})
    committed = tmp_path / "results" / "yogi" / f"{folder.name}.json"
    committed.parent.mkdir(parents=True)
    shutil.copy(folder / "result.json", committed)
    assert not Evidence.read(tmp_path / "outputs", tmp_path / "results").all()
