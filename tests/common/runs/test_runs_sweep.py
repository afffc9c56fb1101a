from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from common.runs.sweep import ForgetConfigs, leave_status, new_sweep, summarise


def test_of_a_job_that_has_ended_its_value_is_kept_and_its_configs_are_not() -> None:
    config = OmegaConf.create({"seed": 3})
    ended = JobReturn(overrides=["seed=3"], cfg=config, hydra_cfg=config, status=JobStatus.COMPLETED)
    ended.return_value = 0.5
    ForgetConfigs().on_job_end(config, ended)
    assert (ended.cfg, ended.hydra_cfg, ended.return_value) == (None, None, 0.5)


def test_rows_of_earlier_code_say_so_and_so_does_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = {"overrides": [], "seconds": 0.1, "state": "skipped"}
    leave_status(tmp_path, 0, {**done, "job": "seed=0", "text": "loss 1"})
    since = ["the code has changed since"]
    leave_status(tmp_path, 1, {**done, "job": "seed=1", "text": f"{since[0]}; loss 1", "since": since})
    leave_status(tmp_path, 2, {**done, "job": "seed=2", "text": "loss 1", "state": "passed"})
    assert summarise(tmp_path) == 0
    out = capsys.readouterr().out
    assert "the code has changed since; loss 1" in out
    last = "sweep: 1 passed, 0 failed, 2 skipped as done, 1 of them made by earlier code or data: "
    assert f"{last}force=true makes all anew" in out


def test_a_search_names_its_metric_and_the_command_of_its_best_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, value in enumerate((0.5, None, 0.25)):
        words = ["paper=yogi", f"method.lr={number}", "hydra/sweeper=optuna", "objective=validation_loss"]
        judged = {"objective": value, "metric": "validation_loss", "direction": "minimize"}
        status = {"job": f"method.lr={number}", "overrides": words, "state": "passed", "seconds": 1.0}
        leave_status(tmp_path, number, {**status, **judged, "text": f"validation_loss {value}"})
    summarise(tmp_path)
    out = capsys.readouterr().out
    assert "best: method.lr=2 (validation_loss 0.25); the run that has it:\n" in out
    assert "\n  python run.py paper=yogi method.lr=2\n" in out


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["paper=yogi"], "outputs/sweeps"),
        (["output_dir=elsewhere"], "elsewhere/sweeps"),
        (["output_dir='two words'", "seed=0,1"], "two words/sweeps"),
        (["output_dir=a,b"], "outputs/sweeps"),
    ],
)
def test_a_sweep_notes_its_jobs_within_the_outputs_that_it_is_given(words: list[str], folder: str) -> None:
    assert new_sweep(words).parent == Path(folder)
