"""Runs as a user makes them, the tables and the claims."""

import json
from pathlib import Path
from typing import Any

import pytest
from calls import HANGS, Calls

from common.runs.check_entries import check_row
from common.runs.compose import compose
from common.runs.inheritance import stage_words
from common.tables.tables import entries, load_tables, runnable

WORDS = [
    "paper=transfer_automl", "dataset=design_family", "scale=smoke", "paper.trials=400", "trainer=cpu",
    "logger=none",
]  # fmt: skip
TRANSFER = [
    "method=design_search/t_naml", "dataset.tasks=[task9]",
    "method.pretrained=dataset.tasks=[task0,task1] method=design_search/multitask_naml paper.trials=400",
]  # fmt: skip
OURS = {table["id"] for table in load_tables("transfer_automl")["tables"] if table.get("ours")}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    found = folder.glob("outputs/transfer_automl/*/result.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def finish(calls: Calls, folder: Path, *words: str) -> str:
    ended = calls.wait(calls.start([*WORDS, *words], folder), HANGS)
    assert ended is not None and ended.code == 0, ended
    return ended.out


# --- tables


def test_all_130_rows_are_there_and_seventeen_are_only_cited() -> None:
    rows = [entry for entry in entries("transfer_automl") if entry.table not in OURS]
    assert len(rows) == 130
    assert sum(entry.cited for entry in rows) == 17


def test_no_number_is_printed_but_the_two_of_the_abstract_and_what_the_successor_prints() -> None:
    told = {
        entry.name.removeprefix("transfer_automl."): entry.reported
        for entry in entries("transfer_automl")
        if any(value is not None for value in entry.reported.values())
    }
    own = {name: value for name, value in told.items() if not name.startswith("ref_adapters2019")}
    assert own == {
        "table_image.cifar10_naml": {"test_accuracy": 95.3},
        "table_image.cifar10_t_naml": {"test_accuracy": 97.1},
    }
    assert len(told) == 19


@pytest.mark.parametrize("entry", runnable("transfer_automl"), ids=lambda entry: entry.name)
def test_a_rows_groups_exist_and_its_keys_fit(entry: Any) -> None:
    check_row(entry)


@pytest.mark.parametrize("scale", ["paper", "laptop", "smoke"])
def test_a_transferred_row_is_pretrained_on_other_tasks_at_its_own_scale(scale: str) -> None:
    config, _ = compose(["entry=transfer_automl.table_nlp_accuracy.sms_spam_t_naml", f"scale={scale}"])
    words = stage_words(config, "method", "pretrained")
    assert words is not None and "sms_spam" not in words and "${" not in words
    assert f"paper.repeats={config.paper.repeats}" in words and f"seed={config.seed}" in words
    assert config.method.reference is not None and "random_search" in config.method.reference


# --- runs


def test_a_transferred_search_killed_in_both_of_its_runs_ends_as_an_unbroken_one(
    calls: Calls, tmp_path: Path
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(calls, unbroken, *TRANSFER)
    words = [*WORDS, *TRANSFER, "checkpoint_every=0"]
    for stage in (1, 2, 1):
        calls.killed_at(stage, 1, words, broken)
    finish(calls, broken, *TRANSFER)
    expected, found = results(unbroken), results(broken)
    assert len(expected) == 2 and found.keys() == expected.keys()
    for key, one in found.items():
        assert one["metrics"] == expected[key]["metrics"]
        assert one["history"] == expected[key]["history"]
        assert one["conclusion"] == expected[key]["conclusion"]


def test_a_search_that_trains_texts_is_killed_and_goes_on(calls: Calls, tmp_path: Path) -> None:
    words = [
        "dataset=text_tasks", "dataset.source=synthetic", "dataset.limit=60", "paper.trials=16",
        "paper.repeats=1", "paper.share=0.0001", "paper.top=3", "paper.batch=4",
    ]  # fmt: skip
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(calls, unbroken, *words)
    calls.killed_at(1, 2, [*WORDS, *words, "checkpoint_every=0"], broken)
    finish(calls, broken, *words)
    (one,), (other,) = results(unbroken).values(), results(broken).values()
    assert one["metrics"] == other["metrics"] and one["history"] == other["history"]
    assert one["metrics"]["substitute_embedding"] == 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dataset.tasks=[task99]"], "has no task task99"),
        (["dataset=text_table", "model=two_tower"], "holds the trainings of model=two_tower_small"),
        (["paper.trials=0"], "paper.trials=0: must be at least 1"),
        (["method.norm=mean"], "method.norm=mean"),
        ([*TRANSFER, "method.pretrained=method=design_search/random_search"], "has no controller"),
        (["paper.launcher=slurm"], "launcher"),
        (["method.train=embedding"], "needs a pretrained controller"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_line(calls: Calls, tmp_path: Path, words: list[str], says: str) -> None:
    ended = calls.wait(calls.start([*WORDS, *words], tmp_path), HANGS)
    assert ended is not None and ended.code == 1
    (line,) = [line for line in ended.errors.splitlines() if line.strip() and not line.startswith("[")]
    assert says in line
