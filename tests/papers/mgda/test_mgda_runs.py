"""Runs of mgda through the runner: every table at smoke scale, diagnostics, bad input, an interrupted run."""

from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.runner import execute
from common.tables.tables import metric_keys, runnable

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def outcome(folder: Path, *words: str) -> dict[str, Any]:
    config, request = compose([*words, f"output_dir={folder}", "logger=none", "trainer=cpu"])
    return execute(config, request).result


@pytest.mark.parametrize(
    "entry",
    [
        "table1.celeba_uniform",
        "table2.celeba_mgda_exact",
        "table2.cityscapes_mgda_exact",
        "table3.multimnist_single_task",
        "table3.multimnist_kendall",
        "table3.multimnist_mgda_ub",
        "table4.cityscapes_gradnorm",
        "table4.cityscapes_single_task",
        "table5.attr7_mgda_ub",
        "fig3.grid_04",
    ],
)
def test_an_entry_runs_without_files_and_measures_what_its_table_shows(tmp_path: Path, entry: str) -> None:
    result = outcome(tmp_path, f"entry=mgda.{entry}", "scale=smoke", "dataset.source=synthetic")
    table, row = entry.split(".")
    wanted = set(metric_keys("mgda", table, row).values())
    if table == "table2":
        kind = "avg_error" if "celeba" in row else "miou instance_error disparity_error"
        wanted = {"train_hours", *(f"test_{name}" for name in kind.split())}
    assert all(result["metrics"][name] >= 0 for name in wanted)


def test_the_rows_of_an_attribute_are_one_run_and_have_their_own_numbers() -> None:
    rows = {entry.row: entry for entry in runnable("mgda") if entry.table == "table5"}
    assert len(rows) == 200 and len(runnable("mgda")) == 239
    assert {str(entry.choose) + str(entry.values) for entry in rows.values()}.__len__() == 5
    assert metric_keys("mgda", "table5", "attr17_kendall") == {"error": "test_error_attr17"}
    assert rows["attr17_kendall"].reported == {"error": 2.35}


TOY = ["paper=mgda", "dataset=pareto_quadratics", "method.optimizer.momentum=0.0"]


def test_exact_mgda_never_lets_a_loss_rise_and_ends_pareto_stationary(tmp_path: Path) -> None:
    words = [*TOY, "method=multitask/mgda", "paper.diagnostics=true", "paper.measure_stationarity=true"]
    metrics = outcome(tmp_path, *words, "paper.epochs=120", "method.optimizer.lr=0.1")["metrics"]
    assert metrics["rise_share"] == 0
    assert metrics["min_norm_sq"] < 1e-4


def test_diagnostics_change_nothing_about_the_training(tmp_path: Path) -> None:
    words = ["paper=mgda", "dataset.source=synthetic", "dataset.limit=64", "paper.epochs=2"]
    words += ["model.dropout=official", "method=multitask/mgda"]
    plain, watched = (outcome(tmp_path, *words, f"paper.diagnostics={flag}") for flag in ("false", "true"))
    assert watched["metrics"]["ascent_share"] == 0 and watched["metrics"]["descent_worst"] > 0.9
    assert plain["metrics"]["train_loss"] == pytest.approx(watched["metrics"]["train_loss"], rel=1e-5)


def test_curves_have_the_weights_of_the_tasks(tmp_path: Path) -> None:
    words = ["paper=mgda", "dataset.source=synthetic", "dataset.limit=64", "paper.epochs=2"]
    history = outcome(tmp_path, *words)["history"]
    sums = [a + b for a, b in zip(history["weight_left"], history["weight_right"], strict=True)]
    assert sums == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize(
    "method", ["mgda", "mgda_ub", "mgda_ub_safe", "mgda_official", "mgda_ub_official", "uniform"]
)
def test_a_run_that_diverges_ends_in_the_line_that_says_so(tmp_path: Path, method: str) -> None:
    words = [*TOY, f"method=multitask/{method}", "dataset.tasks=3", "method.optimizer.lr=1e30"]
    with pytest.raises(UserError, match=r"^the (final training )?loss is not finite at step \d+ \(last"):
        outcome(tmp_path, *words, "paper.epochs=20")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.tasks=3"], r"multi_digits has 2 tasks with 10, 10 outputs, the model 3 with 10, 10, 10"),
        (["paper.loss_scales=[1.0]"], r"paper.loss_scales=\[1.0\]; valid: null, or 2 numbers > 0"),
        (["paper.loss_scales=[1.0,0.0]"], r"valid: null, or 2 numbers > 0, one for each of left, right"),
        (
            ["method=multitask/fixed", "method.weights=[1.0]"],
            r"1 weights for 2 tasks; give one for each of left",
        ),
        (["method=multitask/single_task", "paper.diagnostics=true"], "separate networks share no gradients"),
        (["method.normaliser=l3"], r"method.normaliser=l3"),
        (["dataset=digits"], r"paper=mgda does not take dataset=digits"),
    ],
)
def test_bad_input_gets_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        outcome(tmp_path, "paper=mgda", "dataset.source=synthetic", "dataset.limit=32", *words)
