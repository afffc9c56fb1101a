"""Runs as a user makes them, the tables, the claims and the picture."""

import json
from pathlib import Path
from typing import Any

import pytest
from calls import HANGS, Calls

from common.claims.claims import load_claims
from common.metrics.macs import count_macs
from common.models.weightless import weightless
from common.runs.check_entries import check_row
from common.runs.compose import compose
from common.tables.tables import entries, load_tables, runnable
from papers.dpc.cell import ASPP_CELL, NAMED, TOP1, cell_of
from papers.dpc.heads import map_of, table_cost
from papers.dpc.network import DeepLab
from papers.dpc.pictures import picture, places
from papers.dpc.space import CellSpace

WORDS = [
    "paper=dpc",
    "scale=smoke",
    "dataset.limit=18",
    "paper.evaluations=6",
    "paper.batch=2",
    "trainer=cpu",
]
OURS = {table["id"] for table in load_tables("dpc")["tables"] if table.get("ours")}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    found = folder.glob("outputs/dpc/*/result.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def finish(calls: Calls, folder: Path, *words: str) -> str:
    ended = calls.wait(calls.start([*WORDS, "logger=none", *words], folder), HANGS)
    assert ended is not None and ended.code == 0, ended
    return ended.out


# --- tables


def test_all_35_rows_are_there_and_eleven_are_only_cited() -> None:
    rows = [entry for entry in entries("dpc") if entry.table not in OURS]
    assert len(rows) == 35
    assert sum(entry.cited for entry in rows) == 11


@pytest.mark.parametrize("entry", runnable("dpc"), ids=lambda entry: entry.name)
def test_a_rows_groups_exist_and_its_keys_fit(entry: Any) -> None:
    check_row(entry)


@pytest.mark.parametrize("row", ["xception71_dpc_trainfine", "xception65_aspp_trainfine_ms"])
def test_an_official_rows_network_counts_as_it_says(row: str) -> None:
    config, _ = compose([f"entry=dpc.official_checkpoints.{row}", "dataset.source=synthetic"])
    settings: Any = dict(config.model)
    settings.pop("_target_")
    with weightless():
        network = DeepLab(shape=(3, *config.dataset.size), classes=19, **settings)
    billions = count_macs(network, (3, *config.paper.cost_size)) / 1e9
    views = sum(scale**2 for scale in network.test_scales) * (2 if network.test_flip else 1)
    (entry,) = [e for e in entries("dpc") if e.row == row]
    assert views * billions == pytest.approx(entry.reported["madds"], rel=1e-3)


@pytest.mark.parametrize("entry", [e for e in entries("dpc") if e.table == "table1"], ids=lambda e: e.row)
def test_table_1_prints_the_branches_costs_but_for_two_numbers_of_aspp(entry: Any) -> None:
    cell = TOP1 if entry.values["model.head"] == "top1" else ASPP_CELL
    channels = 320 if "mobilenet" in entry.row else 2048
    cost = table_cost(cell, channels, 256, map_of((1025, 2049), 16))
    if cell == TOP1:
        assert cost.parameters / 1e6 == pytest.approx(entry.reported["params"], abs=0.006)
    else:
        # 777 weights a channel are printed: no count of what the figure shows
        assert 777 * channels / 1e6 == pytest.approx(entry.reported["params"], abs=0.006)
        assert cost.parameters == 1307 * channels
    # of ASPP on Xception 18.12 is printed
    assert cost.madds / 1e9 == pytest.approx(entry.reported["madds"], rel=0.005)


def test_every_claim_loads() -> None:
    assert {claim.name for claim in load_claims("dpc")} >= {"dpc.search_beats_the_hand_made_module"}


# --- runs


def test_a_search_killed_in_its_cache_and_in_its_rounds_ends_as_an_unbroken_one(
    calls: Calls, tmp_path: Path
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(calls, unbroken)
    words = [*WORDS, "logger=none", "checkpoint_every=0"]
    for stage in (1, 2, 1):
        calls.killed_at(stage, 1, words, broken)
    finish(calls, broken)
    expected, found = results(unbroken), results(broken)
    assert len(expected) == 2 and found.keys() == expected.keys()
    for key, one in found.items():
        for result in (one, expected[key]):
            result["metrics"] = {k: v for k, v in result["metrics"].items() if "minutes" not in k}
        assert one["metrics"] == expected[key]["metrics"]
        assert one["history"] == expected[key]["history"]
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.glob("outputs/dpc/*/*.npy")}
        for folder in (unbroken, broken)
    ]
    assert len(files[0]) == 6 and files[0] == files[1]


def test_searches_share_the_cache_and_whole_networks_train_in_the_same_paper(
    calls: Calls, tmp_path: Path
) -> None:
    finish(calls, tmp_path)
    finish(calls, tmp_path, "method=architecture_search/evolution", "method.searcher.population=2",
           "method.searcher.tournament=1")  # fmt: skip
    out = finish(calls, tmp_path, "method=optimizer/adam", "method.lr=0.01")
    assert len(results(tmp_path)) == 4
    assert "head_millions" in out and "branch0_rank" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["method.features=null"], "method.features=null: name what is to be used"),
        (["dataset.validation=0"], "the data have no such split (valid: test, or dataset.validation="),
        (["paper.references=[psp]"], "cell psp: valid: top1"),
        (["method.rates=[1,1]"], "method.rates=[1, 1]; valid: different whole numbers"),
        (["method=optimizer/adam", "model.head=[{op: conv, kernel: 1, input: 0}]"], "branch 0 reads itself"),
        (["method=caching/backbone", "model=erfnet"], "has none that it knows"),
        (["paper.launcher=slurm"], "launcher"),
    ],
)
def test_wrong_words_are_one_line(calls: Calls, tmp_path: Path, words: list[str], says: str) -> None:
    ended = calls.wait(calls.start([*WORDS, "logger=none", *words], tmp_path), HANGS)
    assert ended is not None and ended.code == 1
    (line,) = [line for line in ended.errors.splitlines() if line.strip() and not line.startswith("[")]
    assert says in line


# --- the picture


@pytest.mark.parametrize("name", NAMED)
def test_a_branch_stands_below_its_input_and_beside_the_others(name: str) -> None:
    cell = cell_of(name)
    where = places(cell)
    assert len(set(where.values())) == len(cell.branches) + 1
    for number, (source, _) in enumerate(cell.branches):
        assert where[number][1] == where[source][1] - 1


def test_a_search_has_a_picture_with_its_cell_and_the_front() -> None:
    space = {"branches": 5, "rates": [1, 3, 6, 9, 12, 15, 18, 21], "grids": [1, 2, 4, 8]}
    code = list(CellSpace().encode(TOP1))
    result: dict[str, Any] = {
        "metrics": {"found": code, "found_test": 71.25},
        "config": {"method": space},
        "choices": {"method": "architecture_search/mixture"},
        "history": {"step": [1, 2, 3], "score": [50.0, 60.0, None], "parameters": [1e3, 2e3, 3e3]},
    }
    svg = picture(result)
    assert svg is not None and svg.startswith("<?xml")
    for label in ("0: 3x3 1x6", "4: 3x3 6x21", "concat, 1x1", "Pareto front", "71.2"):
        assert label in svg
    assert picture({**result, "metrics": {"test_loss": 1.0}}) is None
