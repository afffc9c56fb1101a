"""Claims, tables and the whole pipeline from teacher to student, at the smallest scale."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from common.claims.claims import load_claims
from common.runs.catalogue import all_entries
from common.runs.compose import compose
from common.runs.inheritance import stage_key, stage_keys
from common.runs.keys import run_key
from common.runs.request import Request
from common.runs.runner import execute
from common.tables.tables import entries, metric_keys, runnable

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def test_every_run_of_a_claim_is_an_entry_and_its_metric_one_of_the_tables() -> None:
    known = all_entries()
    claims = load_claims("factor_transfer")
    assert len(claims) >= 7
    for claim in claims:
        assert len(claim.seeds) >= 5
        for run in claim.all_runs():
            words = dict(word.split("=", 1) for word in run.words)
            entry = known[words["entry"]]
            assert set(words) == {"scale", "entry", "seed"}
            assert claim.rule.metric in metric_keys("factor_transfer", entry.table).values()


def test_the_two_sides_of_a_pair_differ_in_the_method_alone() -> None:
    for claim in load_claims("factor_transfer"):
        if claim.kind != "paired":
            continue
        words = [dict(w.split("=", 1) for w in run.words) for run in claim.all_runs() if run.seed == 0]
        first, second = (compose([f"entry={w['entry']}", "scale=laptop"])[0] for w in words)
        differing = {str(key) for key in first if first[key] != second[key]}
        assert differing - {"teacher"} == {"method"}


def test_every_row_that_learns_from_a_teacher_names_an_entry_that_trains_one() -> None:
    known = all_entries()
    for entry in runnable("factor_transfer"):
        teacher = entry.values.get("teacher")
        if entry.choose["method"] in ("distillation/none", "optimizer/sgd") and teacher is None:
            continue
        name = str(teacher).split()[0].removeprefix("entry=")
        assert known[name].choose["method"] == "distillation/none", entry.name
        if entry.table in ("table1", "table3"):
            assert name.split(".")[-1].removesuffix("_teacher") in entry.name


def test_the_rows_of_a_pair_share_its_budget_with_its_teacher() -> None:
    for entry in runnable("factor_transfer"):
        teacher = str(entry.values.get("teacher", "")).removeprefix("entry=")
        if entry.table.startswith("table") and teacher:
            assert all_entries()[teacher].budget["paper"] == entry.budget["paper"]
            assert all_entries()[teacher].choose["dataset"] == entry.choose["dataset"]


def test_what_the_paper_only_cites_and_detection_are_no_entries() -> None:
    cited = {entry.name for entry in entries("factor_transfer") if entry.cited}
    assert len(cited) == 23
    assert {name.split(".")[1] for name in cited} == {"table2", "table_imagenet", "table_voc"}


def composed(folder: Path, *words: str) -> tuple[DictConfig, Request]:
    fixed = ["scale=smoke", "dataset.source=synthetic", "logger=none", "trainer=cpu"]
    return compose([*words, *fixed, f"output_dir={folder}"])


def needed(folder: Path, *words: str) -> set[str]:
    """The folders of a run and of its stages; nothing is trained."""
    config, request = composed(folder, *words)
    stages = {
        stage_key(config[group][key], key, config, request) for key, group in stage_keys(config).items()
    }
    return {key.split("/")[-1] for key in stages | {run_key(config)}}


def finished(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("factor_transfer/*/result.json")}


def test_one_entry_trains_teacher_paraphraser_and_student_and_the_next_the_student_alone(
    tmp_path: Path,
) -> None:
    entry = "entry=factor_transfer.digits.ft"
    metrics = execute(*composed(tmp_path, entry)).result["metrics"]
    made = finished(tmp_path)
    assert len(made) == 3 and made == needed(tmp_path, entry)
    # factors are unit vectors of 256 numbers
    assert 0 < metrics["test_factor_loss"] < 2 / 256**0.5
    assert metrics["parameters"] == 1382
    assert metrics["teacher_test_accuracy"] > 0
    assert metrics["paraphraser_test_relative_error"] > 0
    execute(*composed(tmp_path, entry, "paper.epochs=2"))
    assert len(finished(tmp_path) - made) == 1


def test_other_entries_and_seeds_share_the_stages_that_are_the_same(tmp_path: Path) -> None:
    entry = "entry=factor_transfer.digits.ft"
    made = needed(tmp_path, entry)
    # another seed draws other examples, for all three
    assert not needed(tmp_path, entry, "seed=1") & made
    # the paraphraser of the claims is the one that students use
    assert needed(tmp_path, "entry=factor_transfer.paraphraser.k_0p5") < made
    other = needed(tmp_path, "entry=factor_transfer.digits.ft_no_translator")
    assert len(other) == 3 and len(other - made) == 2
