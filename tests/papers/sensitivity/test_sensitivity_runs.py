"""Runs of pruning methods through the runner: what their results hold, and what survives a kill."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.errors import UserError
from common.models.mlp import MLP
from common.runs.compose import compose
from common.runs.runner import execute
from common.tables.tables import metric_keys, runnable

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
METHODS = ["sensitivity", "sensitivity_specific", "l2", "none", "lobster", "han", "dns", "sparse_vd", "sws"]


class Killed(Exception):
    """What takes the place of a kill."""


def outcome(folder: Path, *words: str) -> dict[str, Any]:
    config, request = compose([*words, f"output_dir={folder}", "logger=none", "trainer=cpu"])
    return execute(config, request).result


def checkpoint(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/*/last.ckpt")
    return torch.load(path, weights_only=True)


SMALL = ["model.hidden=[12]", "dataset.limit=200", "paper.epochs=3"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_ends_sparse_and_its_metrics_are_those_of_its_checkpoint(
    tmp_path: Path, method: str
) -> None:
    words = ["paper=sensitivity", "model=lenet_300_100", f"method=pruning/{method}", *SMALL]
    words += ["method.zero=0.5"] if method == "sws" else []
    words += ["method.quality={fc1: 0.5, fc2: 0.2}"] if method == "han" else []
    metrics = outcome(tmp_path, *words)["metrics"]
    state = checkpoint(tmp_path)["state_dict"]
    weights = [state["model.layers.1.weight"], state["model.layers.3.weight"]]
    nonzero = sum(int(w.count_nonzero()) for w in weights)
    assert metrics["nonzero"] == nonzero
    assert metrics["compression"] == pytest.approx(888 / nonzero)
    assert metrics["density_fc2"] == pytest.approx(100 * int(weights[1].count_nonzero()) / 120)
    assert metrics["csr_kb"] > 0
    if method != "sparse_vd":
        assert nonzero < 888


@pytest.mark.parametrize("paper", ["yogi", "one", "factor_transfer", "moonshine"])
def test_a_table_of_a_paper_has_the_metrics_that_its_rows_end_with(tmp_path: Path, paper: str) -> None:
    """Named by the papers of supervised training; those that take pruning measure sparsity too."""
    config, _ = compose([f"paper={paper}", "dataset=digits"])
    if "pruning" not in config.accepts.methods:
        pytest.skip(f"{paper} takes no pruning yet")
    words = [
        f"paper={paper}",
        "dataset=digits",
        "model=mlp",
        "method=pruning/l2",
        "dataset.limit=60",
        "paper.epochs=1",
    ]
    words += ["model.hidden=[8]", "teacher=null"]
    assert outcome(tmp_path, *words)["metrics"]["nonzero"] > 0


@pytest.mark.parametrize(
    "words",
    [
        ["method=pruning/sensitivity", "method.decay=0.01", "method.optimizer.momentum=0.9"],
        [
            "method=pruning/sensitivity",
            "method.pruning=plateau",
            "method.check=0.2",
            "method.patience=0.2",
            "dataset.validation=0.2",
        ],
        ["method=pruning/sensitivity", "method.outputs=signs", "method.directions=2", "method.every=0.3"],
        ["method=pruning/han", "method.quality=0.4"],
        ["method=pruning/dns", "method.c=0.2", "method.gamma=1.0"],
        ["method=pruning/sparse_vd", "method.initial=-3.0"],
        ["method=pruning/sws", "method.zero=0.5"],
    ],
    ids=lambda words: " ".join(words[:2]).replace("method=pruning/", "").replace("method.", ""),
)
def test_a_run_killed_in_its_midst_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    from common.base import loader
    from common.training import supervised

    monkeypatch.setattr(loader, "LARGEST_BLOCK", 1)
    monkeypatch.setattr(loader, "BLOCK_SECONDS", (0.0, 0.0))
    words = [
        "paper=sensitivity",
        "model=mlp",
        "model.hidden=[9]",
        "dataset.limit=150",
        "dataset.batch_size=50",
        "paper.epochs=4",
        "method.begin=0.2",
        *words,
    ]
    whole = outcome(tmp_path / "whole", *words)
    original = supervised.SupervisedModule._account
    count = [0]

    def killed(self: Any, losses: torch.Tensor) -> None:
        original(self, losses)
        count[0] += 1
        if count[0] == 8:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(supervised.SupervisedModule, "_account", killed)
        with pytest.raises(Killed):
            outcome(tmp_path / "broken", *words, "checkpoint_every=0.0")
    resumed = outcome(tmp_path / "broken", *words)
    assert resumed["metrics"] == whole["metrics"]
    first, second = (
        checkpoint(tmp_path / "whole")["state_dict"],
        checkpoint(tmp_path / "broken")["state_dict"],
    )
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]


@pytest.mark.parametrize(
    "entry", ["digits_tradeoff.unspecific_max_5e_3", "digits_baselines.unpruned", "digits_baselines.dns"]
)
def test_a_row_measures_all_that_its_table_shows(tmp_path: Path, entry: str) -> None:
    table, row = entry.split(".")
    metrics = outcome(tmp_path, f"entry=sensitivity.{entry}", "scale=smoke")["metrics"]
    assert set(metric_keys("sensitivity", table, row).values()) <= metrics.keys()


def test_a_threshold_above_every_weight_ends_the_run_with_one_line_and_its_checkpoint_stays(
    tmp_path: Path,
) -> None:
    words = ["paper=sensitivity", "model=mlp", "model.hidden=[9]", "dataset.limit=150", "paper.epochs=2"]
    with pytest.raises(
        UserError, match=r"method\.threshold=9\.0: layers\.1\.weight would lose all its weights"
    ) as raised:
        outcome(tmp_path, *words, "method.threshold=9.0")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("method.alpha=both", r"method\.alpha=both.*unspecific"),
        ("method.pruning=never", r"method\.pruning=never.*plateau"),
        ("method.decay=2", r"method\.decay=2"),
        ("method.pruning=plateau", r"there is no validation split"),
    ],
)
def test_an_unknown_choice_or_a_missing_split_is_one_line_that_says_what_is_valid(
    tmp_path: Path, word: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        outcome(tmp_path, "paper=sensitivity", "model=mlp", "dataset.limit=100", "paper.epochs=1", word)
    assert "\n" not in str(raised.value)


def test_pruning_starts_from_the_network_of_another_run(tmp_path: Path) -> None:
    trained = "method=distillation/none paper.epochs=8 method.optimizer.lr=0.05"
    words = ["paper=sensitivity", "model=mlp", "dataset.limit=300", "method=pruning/han", "method.begin=0.0"]
    result = outcome(tmp_path, *words, "paper.epochs=0.3", "method.quality=0.3", f"start='{trained}'")[
        "metrics"
    ]
    assert result["nonzero"] < 64 * 128 + 1280
    assert result["test_error"] < 50


def test_the_rows_that_the_paper_ran_are_entries_and_the_cited_ones_are_not() -> None:
    names = {entry.name.removeprefix("sensitivity.") for entry in runnable("sensitivity")}
    assert {
        "table1.s_low",
        "table1.sspec_high",
        "table2.s",
        "table3.sspec",
        "fig_tradeoff.lenet5_l2",
    } <= names
    assert not names & {"table1.han", "table1.sws", "table2.dns", "table3.han"}


def test_the_sizes_of_tables_one_and_two_are_those_of_their_networks() -> None:
    lenet300 = MLP(shape=(1, 28, 28), classes=10, hidden=[300, 100], activation="relu")
    assert sum(p.numel() for p in lenet300.parameters() if p.dim() > 1) == 266_200
