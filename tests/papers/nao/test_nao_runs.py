"""Runs as a user makes them, the tables and the claims."""

import json
from pathlib import Path
from typing import Any

import pytest
from calls import HANGS, Calls

from common.claims.claims import load_claims
from common.runs.check_entries import check_row
from common.tables.tables import entries, load_tables, runnable

OURS = {table["id"] for table in load_tables("nao")["tables"] if table.get("ours")}
SMALL = ["paper=nao", "scale=smoke", "trainer=cpu", "logger=none"]
SEARCH = [*SMALL, "paper.evaluations=6", "paper.batch=2", "method.searcher.initial=2"]
LANGUAGE = [
    *("paper=nao", "dataset=python_docs", "method=optimizer/ntasgd", "trainer=cpu", "logger=none"),
    *("dataset.limit=1200", "dataset.batch_size=4", "dataset.bptt=12", "model.size=6", "paper.epochs=0.6"),
    "model.test_streams=400",
]


def results(folder: Path) -> dict[str, dict[str, Any]]:
    found = folder.glob("outputs/nao/*/result.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def finish(calls: Calls, folder: Path, *words: str) -> str:
    ended = calls.wait(calls.start(list(words), folder), HANGS)
    assert ended is not None and ended.code == 0, ended
    return ended.out


def test_all_70_rows_are_there_and_46_are_only_cited() -> None:
    rows = [entry for entry in entries("nao") if entry.table not in OURS]
    assert len(rows) == 70
    assert sum(entry.cited for entry in rows) == 46


@pytest.mark.parametrize("entry", runnable("nao"), ids=lambda entry: entry.name)
def test_a_rows_groups_exist_and_its_keys_fit(entry: Any) -> None:
    check_row(entry)


def test_every_claim_loads() -> None:
    assert {claim.name for claim in load_claims("nao")} >= {"nao.gradient_steps_beat_the_pool"}


@pytest.mark.parametrize("words", [SEARCH, LANGUAGE], ids=["search", "language"])
def test_a_run_killed_on_its_way_ends_as_an_unbroken_one(
    calls: Calls, tmp_path: Path, words: list[str]
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(calls, unbroken, *words)
    calls.killed_at(1, 3, words, broken)
    finish(calls, broken, *words)
    (expected,), (found,) = results(unbroken).values(), results(broken).values()
    assert found["metrics"] == expected["metrics"] and found["history"] == expected["history"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dataset=python_docs"], "the data are a text (valid: optimizer/ntasgd"),
        (["method=architecture_search/nao_recurrent"], "a text, as dataset=python_docs"),
        (["model=lenet_300_100"], "has no cells to search (valid: model=naonet)"),
        (["method.searcher.top=9"], "method.searcher.top=9; valid: 1 to the 4 of the first pool"),
        (["method.table=nowhere.npz"], "table nowhere.npz: nowhere.npz is missing"),
        (["paper.references=[0 99]"], "2 numbers (0 99): valid: 8 for each node"),
        (["paper.references=[naonet]"], "has 5 nodes; valid in this space: 2"),
        (["dataset.validation=0"], "this run needs a validation split"),
        (["paper.held_out=4"], "paper.held_out=4; valid: up to the first pool less two"),
        (["dataset=python_docs", "method=optimizer/ntasgd", "method.patience=-1"], "method.patience=-1"),
    ],
)
def test_wrong_words_are_one_line(calls: Calls, tmp_path: Path, words: list[str], says: str) -> None:
    ended = calls.wait(calls.start([*SMALL, *words], tmp_path), HANGS)
    assert ended is not None and ended.code == 1
    (line,) = [line for line in ended.errors.splitlines() if line.strip() and not line.startswith("[")]
    assert says in line
