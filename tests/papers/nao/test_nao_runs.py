"""Runs as a user makes them, the tables and the claims."""

import json
from pathlib import Path
from typing import Any

import pytest
from calls import HANGS, Calls

from common.claims.claims import load_claims
from common.runs.check_entries import check_row
from common.tables.tables import entries, load_tables, runnable
from papers.nao.cell import NAMED
from papers.nao.operations import NAO
from papers.nao.pictures import picture, places
from papers.nao.space import ConvSpace

OURS = {table["id"] for table in load_tables("nao")["tables"] if table.get("ours")}
SMALL = ["paper=nao", "scale=smoke", "trainer=cpu", "logger=none"]
SEARCH = [*SMALL, "paper.evaluations=6", "paper.batch=2", "method.searcher.initial=2"]
LANGUAGE = [
    *("paper=nao", "dataset=python_docs", "method=optimizer/ntasgd", "trainer=cpu", "logger=none"),
    *("dataset.limit=1200", "dataset.batch_size=4", "dataset.bptt=12", "model.size=6", "paper.epochs=0.6"),
    "model.test_streams=400",
]
SHARED = ["entry=nao.digits_shared.nao_ws", "scale=smoke", "trainer=cpu", "logger=none", "method.epochs=4"]


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


@pytest.mark.parametrize("words", [SEARCH, LANGUAGE, SHARED], ids=["search", "language", "shared"])
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


# --- the picture


@pytest.mark.parametrize("name", ["naonet", "naonet_ws", "nasnet_a"])
def test_a_node_stands_below_what_it_reads_and_beside_the_others(name: str) -> None:
    cell = NAMED[name].normal
    where = places(cell)
    assert len(set(where.values())) == len(where) == 7
    for number, node in enumerate(cell, 2):
        assert all(where[branch.source][1] > where[number][1] for branch in node)


def test_a_search_has_a_picture_with_its_cells_and_its_scores() -> None:
    space = {"nodes": 5, "operations": list(NAO), "one_cell": False, "tokens": "split"}
    result: dict[str, Any] = {
        "metrics": {"found": list(ConvSpace(5, NAO).encode(NAMED["naonet"]))},
        "config": {"method": space},
        "choices": {"method": "architecture_search/nao"},
        "history": {"step": [1, 2], "score": [50.0, 60.0], "best": [50.0, 60.0], "expected": [None, 61.0]},
    }
    svg = picture(result)
    assert svg is not None and svg.startswith("<?xml")
    for label in ("found by nao", "normal", "reduction", "conv 1x7 7x1", "expected by the predictor"):
        assert label in svg
    assert picture({**result, "metrics": {"test_loss": 1.0}}) is None
    recurrent = {**result, "config": {"method": {"steps": 11}}}
    assert picture(recurrent) is None


@pytest.mark.parametrize(
    ("history", "settings", "said"),
    [
        ({"score": [-0.5], "step": [1]}, {"score": "loss", "score_split": "validation"},
         ("networks evaluated", "-validation loss (nats)")),
        ({"score": [50.0], "step": [1]}, {"score": "accuracy", "score_split": "test"},
         ("networks evaluated", "test accuracy (%)")),
        ({"pool_mean": [50.0], "step": [9]}, {"score": "loss"},
         ("steps of the shared network", "validation accuracy (%)")),
    ],
)  # fmt: skip
def test_the_axes_of_a_search_say_what_was_counted_and_what_its_scores_are(
    history: dict[str, Any], settings: dict[str, Any], said: tuple[str, str]
) -> None:
    space = {"nodes": 5, "operations": list(NAO), "one_cell": False, "tokens": "split"}
    code = list(ConvSpace(5, NAO).encode(NAMED["naonet"]))
    svg = picture(
        {
            "metrics": {"found": code},
            "config": {"method": space, "paper": settings},
            "choices": {"method": "architecture_search/nao"},
            "history": history,
        }
    )
    assert svg is not None and all(f">{label}<" in svg for label in said)
