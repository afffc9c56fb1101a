"""Runs as a user makes them, the tables, the claims and the picture."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from calls import HANGS, Calls

from common.base.errors import UserError
from common.claims.claims import load_claims
from common.data.tables.bundled import Diabetes
from common.runs.check_entries import check_row
from common.runs.compose import compose
from common.tables.tables import entries, load_tables, runnable
from papers.nasbot.graph import Network
from papers.nasbot.network import GraphRegression
from papers.nasbot.objectives import TrainedObjective
from papers.nasbot.pictures import picture
from papers.nasbot.search import NetworkSearch, NetworkSearchModule
from papers.nasbot.searchers import Evolution
from papers.nasbot.synthetic import NetworkFunction
from papers.nasbot.trainings import Trainings

WORDS = ["paper=nasbot", "scale=smoke", "paper.evaluations=5", "paper.batch=2", "trainer=cpu", "logger=none"]
OURS = {table["id"] for table in load_tables("nasbot")["tables"] if table.get("ours")}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    found = folder.glob("outputs/nasbot/*/result.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def finish(calls: Calls, folder: Path, *words: str) -> str:
    ended = calls.wait(calls.start([*WORDS, *words], folder), HANGS)
    assert ended is not None and ended.code == 0, ended
    return ended.out


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result["metrics"].items() if "minutes" not in name}


# --- tables


def test_all_77_rows_are_there_and_can_be_run() -> None:
    rows = [entry for entry in entries("nasbot") if entry.table not in OURS]
    assert len(rows) == 77 and not any(entry.cited for entry in rows)
    assert sum(entry.table == "table3" for entry in rows) == 34
    (known,) = [e for e in rows if e.table == "table3" and e.row == "cifar10_120k_nasbot"]
    assert known.reported["test_score"] == 0.0869 and known.source["kind"] == "quoted"


@pytest.mark.parametrize("entry", runnable("nasbot"), ids=lambda entry: entry.name)
def test_a_rows_groups_exist_and_its_keys_fit(entry: Any) -> None:
    check_row(entry)


def test_both_pools_of_evolution_and_all_kernels_are_entries() -> None:
    values = {f"{entry.table}.{entry.row}": entry.values for entry in runnable("nasbot")}
    assert values["laptop_variants.ea_pool_paper"]["method.initial_pool"] == "fixed"
    assert values["laptop_variants.ea_pool_code"]["method.initial_pool"] == "official_bug"
    kernels = {name: v["method.searcher.distances"] for name, v in values.items() if "ablation_dist" in name}
    assert sorted(kernels.values()) == ["both", "d", "normalised"]


def test_every_claim_loads_and_names_entries() -> None:
    names = {claim.name for claim in load_claims("nasbot")}
    assert {"nasbot.nasbot_beats_random_search", "nasbot.nasbot_beats_evolution"} <= names


# --- runs


def test_a_search_killed_twice_ends_as_an_unbroken_one_and_trains_nothing_twice(
    calls: Calls, tmp_path: Path
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(calls, unbroken)
    words = [*WORDS, "checkpoint_every=0"]
    for _ in range(2):
        calls.killed_at(1, 1, words, broken)
    finish(calls, broken)
    (expected,), (found,) = results(unbroken).values(), results(broken).values()
    assert timeless(found) == timeless(expected)
    assert found["history"] == expected["history"]
    table = list(Trainings(broken / "outputs/nasbot/trainings"))
    assert len(table) == 5 and len({row["network"] for row in table}) == 5
    drawn = picture(found)
    assert drawn is not None and drawn.startswith("<?xml")
    assert "test error" in drawn and ">least validation error so far<" in drawn


def test_searches_share_trainings_and_a_found_network_is_trained_from_its_file(
    calls: Calls, tmp_path: Path
) -> None:
    for method in ("evolution", "random", "nasbot"):
        finish(calls, tmp_path, f"method=network_search/{method}", "paper.evaluations=3", "paper.batch=1")
    # each evaluates the two networks of the pool that are first, and one of its own
    assert len(list(Trainings(tmp_path / "outputs/nasbot/trainings"))) <= 5
    (found,) = [p for p, r in results(tmp_path).items() if "nasbot" in r["choices"]["method"].split("/")[1]]
    file = tmp_path / "outputs/nasbot" / found / "found.json"
    assert Network.from_json(json.loads(file.read_text())).kind == "mlp"
    out = finish(calls, tmp_path, "method=optimizer/adam", f"model.network={file}", "paper.epochs=1")
    assert "test_rmse" in out


def test_functions_of_shape_are_searched_by_every_method(calls: Calls, tmp_path: Path) -> None:
    out = finish(
        calls, tmp_path, "dataset=network_function", "dataset.function=cnn", "model=graph_cnn",
        "method=network_search/treebo",
    )  # fmt: skip
    assert "best_validation" in out
    (found,) = results(tmp_path).values()
    drawn = picture(found)
    assert drawn is not None and ", value " in drawn and ">largest value so far<" in drawn
    assert not list(Trainings(tmp_path / "outputs/nasbot/trainings"))


def test_a_budget_below_the_initial_pool_ends_with_one_line(calls: Calls, tmp_path: Path) -> None:
    ended = calls.wait(calls.start([*WORDS, "paper.evaluations=1"], tmp_path), HANGS)
    assert ended is not None and ended.code == 1
    (line,) = [line for line in ended.errors.splitlines() if line.strip()]
    assert "paper.evaluations=1 is smaller than the initial pool (method.searcher.initial=2" in line


def module(**changes: Any) -> NetworkSearchModule:
    """A search as the config would make it."""
    given = {"validation": 0.25, "units": [8, 16], "evaluations": 3, "checks": 2} | changes
    data = Diabetes(
        kind="regression", data_dir="data", seed=0, source="real", limit=60, validation=given["validation"],
        normalise="standard", verify=True, batch_size=16, positive=None,
    )  # fmt: skip
    method = NetworkSearch(
        searcher=Evolution(initial=2, temperature=2.0), optimizer=torch.optim.Adam, layers=[5, 12],
        units=given["units"], in_degree=5, out_degree=5, edges=200, mass=None, halvings=5,
        initial_pool="fixed",
    )  # fmt: skip
    regression = GraphRegression(shape=(10,), classes=None, network=None, loss="l1")
    return NetworkSearchModule(
        data=given.get("data", data), model=given.get("model", regression), method=method, seed=0,
        evaluations=given["evaluations"], batch=1, steps=3, proxy_share=1.0, rerank=1, checks=given["checks"],
        processes=1, launcher="joblib", threads=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluations": 1}, "smaller than the initial pool"),
        ({"units": [8]}, "method.units=[8]; valid: two numbers"),
        ({"data": NetworkFunction(kind="network_function", function="cnn")}, "but model is of kind mlp"),
        ({"model": torch.nn.Linear(2, 2)}, "needs a network of a graph"),
        ({"checks": 0}, "paper.checks=0"),
    ],
)
def test_what_cannot_be_searched_gets_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        module(**changes)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_data_without_a_validation_split_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a validation split"):
        module(validation=0.0).on_fit_start()


def test_scores_that_are_nan_stay_in_the_record_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def half(self: TrainedObjective, architecture: Network, budget: int) -> dict[str, float]:
        tried.append(architecture.key)
        return {"score": float("nan") if len(tried) == 2 else -1.0 / len(tried), "test": -1.0}

    monkeypatch.setattr(TrainedObjective, "train", half)
    search = module(evaluations=5)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False,
        default_root_dir=tmp_path / "run", enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    trainer.fit(search)
    found = search.results()
    assert found["evaluations"] == 5 and found["failed_evaluations"] == 1
    assert len(set(tried[:5])) == 5 and found["best_validation"] == 1.0 / 5
    assert found["curve"][1] == found["curve"][0] == 1.0


def test_an_entry_composes_to_the_papers_budget() -> None:
    config, _ = compose(["entry=nasbot.table3.naval_nasbot"])
    assert config.method.searcher._target_.endswith("Nasbot")
    assert config.paper.steps == 20_000 and config.method.units == [8, 1024]
    with pytest.raises(UserError):
        compose(["entry=nasbot.table3.naval_nothing"])
