"""Runs of one through the runner: what their results hold, and what they leave to deploy."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.runs.compose import compose
from common.runs.runner import execute

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def outcome(folder: Path, *words: str) -> dict[str, Any]:
    config, request = compose([*words, f"output_dir={folder}", "logger=none", "trainer=cpu"])
    return execute(config, request).result


@pytest.mark.parametrize(
    "row", ["vanilla", "one", "one_no_distill", "one_no_share", "one_no_gate", "dml", "net3", "snapshot"]
)
def test_a_row_measures_what_its_table_shows(tmp_path: Path, row: str) -> None:
    metrics = outcome(tmp_path, f"entry=one.digits_small.{row}", "scale=smoke")["metrics"]
    assert metrics["test_error"] == pytest.approx(100 * (1 - metrics["test_accuracy"]))
    assert metrics["train_cost"] >= metrics["test_cost"] > 0
    assert metrics["parameters"] == 5122
    assert metrics["test_loss_rise"] == pytest.approx(
        sum(metrics["perturbed_test_loss"]) / 5 - metrics["test_loss"], abs=1e-6
    )
    if row != "vanilla":
        assert 0 <= metrics["test_ensemble_error"] <= 100
        assert 0 <= metrics["test_branch_error_mean"] <= 100


def test_a_curve_of_branches_is_in_the_history(tmp_path: Path) -> None:
    words = ["entry=one.digits_small.one", "scale=smoke", "paper.epochs=3", "paper.test_every=1"]
    history = outcome(tmp_path, *words)["history"]
    assert sum(value is not None for value in history["test_branch_variance"]) == 3


def test_the_checkpoint_holds_the_plain_network_and_what_is_dropped_apart(tmp_path: Path) -> None:
    outcome(tmp_path, "entry=one.digits_small.one", "scale=smoke")
    (path,) = tmp_path.glob("one/*/last.ckpt")
    state = torch.load(path, weights_only=True)["state_dict"]
    parts = {name.split(".")[0] for name in state}
    assert parts == {"model", "training_method"}
    assert any(name.startswith("training_method.gate.") for name in state)
    assert not any("stem" in name for name in state if name.startswith("training_method."))
