"""Workers that make runs: answers, failures, pauses, deaths."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.crew import Measured
from common.base.errors import UserError
from common.runs.as_objective import Runs
from common.runs.callbacks import Checkpoints
from common.runs.crew import LocalCrew
from common.runs.pause import Pause
from common.runs.processes import Processes

WORDS = "paper=yogi dataset=digits dataset.validation=0.2 model=logistic trainer=cpu checkpoint_every=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    made = Runs(
        kind="objective", words=WORDS, metric="validation_loss", goal="minimize", lengthscale=0.3,
        parameters=["paper.epochs=int(-1,2000)", "method.lr=log(1e-4,1)"], launcher="basic", rungs=[0.5],
        warm_start=None, output_dir=str(folder), data_dir="data",
    )  # fmt: skip
    made.draw([0])
    return made


@pytest.fixture(scope="module")
def crew(runs: Runs) -> Iterator[LocalCrew]:
    made = runs.crew(1)
    assert isinstance(made, LocalCrew)
    yield made
    made.close()


def point(runs: Runs, **values: str) -> torch.Tensor:
    """Where the settings have these values, in their order."""
    units = [one.unit(value) for one, value in zip(runs.settings, values.values(), strict=True)]
    return torch.tensor(units, dtype=torch.float64)


def ended(crew: LocalCrew) -> Measured:
    while not (found := crew.wait(60.0)):
        assert crew.busy
    return found[0]


def result(folder: Path, epochs: int) -> dict[str, Any]:
    found = [json.loads(path.read_text()) for path in folder.glob("yogi/*/result.json")]
    return next(one for one in found if one["config"]["paper"]["epochs"] == epochs)


def test_a_worker_says_the_metric_of_a_run_and_why_one_failed(
    crew: LocalCrew, runs: Runs, folder: Path
) -> None:
    crew.start(0, 0, point(runs, epochs="2", lr="0.01"), 1.0)
    assert ended(crew) == Measured(0, -result(folder, 2)["metrics"]["validation_loss"])
    (worker,) = crew.idle
    crew.start(1, 0, point(runs, epochs="0", lr="0.01"), 1.0)
    failed = ended(crew)
    assert failed.value != failed.value and failed.said == "paper.epochs=0: must be positive and finite"
    assert crew.idle == [worker], "the same process makes one run after the other"


def test_a_run_pauses_at_its_rung_and_goes_on_to_the_result_that_it_has_unbroken(
    crew: LocalCrew, runs: Runs, folder: Path, tmp_path: Path
) -> None:
    here = point(runs, epochs="5", lr="0.01")
    for _ in range(2):
        # asked again it has nothing more to do
        crew.start(2, 0, here, 0.5)
        paused = ended(crew)
        assert paused.share == 0.5 and not [p for p in folder.glob("yogi/*/result.json") if epochs_of(p) == 5]
    crew.start(2, 0, here, 1.0)
    assert ended(crew).share == 1.0
    whole = result(folder, 5)
    # the first epoch's end behind half of five
    assert -paused.value == whole["history"]["validation_loss"][2]
    own = Runs.__new__(Runs)
    own.__dict__.update(runs.__dict__ | {"shared": [f"output_dir={tmp_path}", *runs.shared[1:]]})
    crew.words = own.shared
    crew.start(3, 0, here, 1.0)
    ended(crew)
    crew.words = runs.shared
    assert result(tmp_path, 5)["metrics"] == whole["metrics"]
    assert result(tmp_path, 5)["history"] == whole["history"]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_share_that_is_none_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="valid: a share of the run's length between 0 and 1"):
        Pause(share, None, Checkpoints(tmp_path / "last.ckpt", 10.0, Processes(0, 1)))


def epochs_of(path: Path) -> float:
    return float(json.loads(path.read_text())["config"]["paper"]["epochs"])


def test_a_run_whose_worker_is_killed_goes_on_and_is_given_up_when_it_is_killed_again(
    crew: LocalCrew, runs: Runs, folder: Path
) -> None:
    crew.start(4, 0, point(runs, epochs="2000", lr="0.01"), 1.0)
    before = set(folder.glob("yogi/*/last.ckpt"))
    for signalled in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        worker = crew.busy[4]
        checkpoint = wait_for_another(folder, before)
        kept = checkpoint.stat().st_mtime_ns
        while checkpoint.stat().st_mtime_ns == kept:
            time.sleep(0.02)
        os.kill(worker.process.pid, signalled)
        found: list[Measured] = []
        while crew.busy.get(4) is worker:
            found = crew.wait(60.0)
    (given_up,) = found
    assert given_up.said is not None and "ended twice without a word" in given_up.said
    steps = torch.load(checkpoint, weights_only=True)["search_state"]["steps"]
    assert steps > 0 and not crew.busy


def wait_for_another(folder: Path, before: set[Path]) -> Path:
    while not (found := set(folder.glob("yogi/*/last.ckpt")) - before):
        time.sleep(0.02)
    return found.pop()
