"""When early stopping ends a training, and that gradients are clipped just before their step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import open_dict

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.keys import run_key
from common.runs.result import read_result
from common.runs.runner import execute
from common.training.early_stopping import EarlyStopping

WORDS = ["paper=yogi", "dataset=digits", "scale=smoke", "logger=none", "trainer=cpu", "dataset.limit=200"]
STOP = ["stop=early", "stop.patience=2", "dataset.validation=0.2", "stop.min_delta=1000", "paper.epochs=9"]


def rule(**changes: Any) -> EarlyStopping:
    settings: dict[str, Any] = {"metric": "validation_loss", "mode": "min", "patience": 2, "min_delta": 0.0}
    return EarlyStopping(**(settings | changes))


def stopped_at(stop: EarlyStopping, values: list[float]) -> float | None:
    for epoch, value in enumerate(values, start=1):
        stop.after_epoch(epoch, {stop.metric: value}, last=epoch == len(values))
        if stop.stopped is not None:
            break
    return stop.stopped


def test_it_stops_after_that_many_epochs_without_improvement_on_the_best() -> None:
    assert stopped_at(rule(), [3, 2, 2.5, 1, 1, 1, 0]) == 6
    assert stopped_at(rule(mode="max"), [1, 3, 2, 2, 4]) == 4
    assert stopped_at(rule(min_delta=0.5), [3, 2.8, 2.6, 1]) == 3
    nan = float("nan")
    assert stopped_at(rule(), [nan, nan, 1]) == 2
    # the budget's own end is no early one
    assert stopped_at(rule(), [1, 2, 3]) is None


def test_its_state_survives() -> None:
    first = rule()
    first.after_epoch(1, {"validation_loss": 1.0}, last=False)
    first.after_epoch(2, {"validation_loss": 1.0}, last=False)
    other = rule()
    other.load_state_dict(first.state_dict())
    other.after_epoch(3, {"validation_loss": 1.0}, last=False)
    assert other.results() == {
        "stopped_early": True,
        "stopped_epoch": 3,
        "best_epoch": 1,
        "best_validation_loss": 1.0,
    }


def test_bad_settings_are_refused_in_one_line() -> None:
    for changes, line in (
        ({"metric": "test_error"}, "stop.metric=test_error; valid: one of the validation split"),
        ({"patience": 0}, "stop.patience=0; valid: at least 1"),
        ({"min_delta": -1.0}, "stop.min_delta=-1.0; valid"),
    ):
        with pytest.raises(UserError, match=line):
            rule(**changes)
    with pytest.raises(
        UserError, match=r"stop.metric=validation_f1: is not measured; valid: validation_loss"
    ):
        rule(metric="validation_f1").after_epoch(1, {"validation_loss": 1.0}, last=False)


def test_a_run_stops_early_and_says_at_which_epoch(tmp_path: Path) -> None:
    outcome = execute(*compose([*WORDS, *STOP, f"output_dir={tmp_path}"]))
    metrics, history = outcome.result["metrics"], outcome.result["history"]
    assert metrics["stopped_early"] is True
    assert metrics["stopped_epoch"] == metrics["epochs"] == history["epoch"][-1] < 9
    assert metrics["epochs"] == metrics["best_epoch"] + 2
    # no improvement is as large as what the rule asks for
    assert metrics["best_epoch"] == 1 and metrics["best_validation_loss"] == history["validation_loss"][0]
    assert read_result(outcome.path) is not None


def test_clipping_changes_a_run_and_bounds_each_step_of_plain_gradient_descent(tmp_path: Path) -> None:
    words = [*WORDS, "method=optimizer/sgd", "method.lr=1.0", "method.momentum=0.0", f"output_dir={tmp_path}"]
    moved = {}
    for clip in ("null", "1e-3"):
        config, request = compose([*words, f"clip={clip}", "paper.epochs=0.01"])
        from common.runs.runner import trained_module

        before = torch.cat([p.detach().flatten() for p in _seeded(trained_module, config, request)])
        path = execute(config, request).path
        state = torch.load(path.parent / "last.ckpt", weights_only=True)["state_dict"]
        after = torch.cat([value.flatten() for value in state.values()])
        moved[clip] = float((after - before).norm())
    assert moved["null"] > 1e-2
    assert moved["1e-3"] == pytest.approx(1e-3, rel=1e-3)


def _seeded(trained_module: Any, config: Any, request: Any) -> Any:
    """The parameters that a run starts from."""
    import pytorch_lightning as pl

    pl.seed_everything(int(config.seed), workers=True, verbose=False)
    return trained_module(config, request).network().parameters()


def test_what_cannot_stop_or_clip_says_so_in_one_line(tmp_path: Path) -> None:
    out = f"output_dir={tmp_path}"
    spider = ["paper=spider", "scale=smoke", "logger=none", "trainer=cpu", out]
    for words, line in (
        ([*spider, "stop=early"], "stop: SpiderModule trains no network by epochs"),
        ([*spider, "clip=1.0"], "clip=1.0: SpiderModule trains no network by minibatches"),
        ([*WORDS, out, "clip=0.0"], "clip=0.0; valid: null, or the largest norm"),
        ([*WORDS, out, "clip=high"], "clip=high"),
        ([*WORDS, out, "stop=early"], r"there is no validation split \(valid: dataset.validation=0.1"),
        ([*WORDS, out, "stop=early", "stop.patience=x"], "stop.patience=x"),
    ):
        with pytest.raises(UserError, match=line):
            execute(*compose(words))


def test_a_run_that_neither_stops_nor_clips_has_the_key_that_it_had_before_there_were_any() -> None:
    config, _ = compose(WORDS)
    key = run_key(config)
    assert key == run_key(compose([*WORDS, "stop=none", "clip=null"])[0])
    assert (
        len({key, run_key(compose([*WORDS, "clip=1.0"])[0]), run_key(compose([*WORDS, "stop=early"])[0])})
        == 3
    )
    with open_dict(config):
        del config["clip"]
        config.pop("stop", None)
    assert key == run_key(config)
