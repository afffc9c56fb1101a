"""Every row of every `tables.yaml`, without Hydra; one row of each table through it."""

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import nn

from common.base.errors import UserError
from common.runs.catalogue import nested
from common.runs.check import check_config, check_ranges
from common.runs.check_entries import check_row, compose_and_build
from common.tables import tables
from common.tables.tables import Entry, entries, load_tables, papers, runnable

ENTRIES = [entry for paper in papers() for entry in runnable(paper)]
FIRST_OF_TABLES = list({(entry.paper, entry.table): entry for entry in ENTRIES}.values())


def test_every_row_chooses_groups_that_exist_and_sets_keys_that_fit() -> None:
    for entry in ENTRIES:
        check_row(entry)


@pytest.mark.slow
@pytest.mark.parametrize("entry", FIRST_OF_TABLES, ids=lambda entry: f"{entry.paper}.{entry.table}")
def test_a_row_of_each_table_composes_its_model_builds_and_the_values_of_each_scale_fit(entry: Entry) -> None:
    config, model = compose_and_build([f"entry={entry.name}"])
    # constraint sets are no networks
    networks = [model] if isinstance(model, nn.Module) else []
    assert all(parameter.is_meta for network in networks for parameter in network.parameters())
    # all scales set the same keys: one composition stands for all of them
    for budget in entry.budget.values():
        scaled = OmegaConf.merge(config, nested(budget))
        assert isinstance(scaled, DictConfig)
        check_config(scaled)
        check_ranges(scaled)


def test_a_key_that_does_not_fit_is_named() -> None:
    entry = ENTRIES[0]
    wrong = Entry(**{**entry.__dict__, "values": {"method.nonsense": 1}})
    with pytest.raises(UserError, match=r"method\.nonsense is not a key"):
        check_row(wrong)


def test_numbers_from_memory_are_marked_so() -> None:
    read = {"paper_text", "official_repo", "quoted", "measured"}
    for paper in papers():
        for entry in entries(paper):
            assert entry.source["kind"] in {"none", "recalled", *read}
            if entry.source["kind"] == "none":
                assert set(entry.reported.values()) == {None}


def test_cited_rows_and_fits_are_shown_and_are_no_entries() -> None:
    names = {entry.row for entry in entries("spider") if entry.table == "table1"}
    assert {"gd_sgd", "spider_sfo", "spider_sfo_plus"} <= names
    assert not [entry for entry in runnable("spider") if entry.table == "table1"]


def test_rows_of_a_grid_are_the_product_of_its_axes() -> None:
    rows = [entry for entry in runnable("spider") if entry.table == "ifo"]
    assert len(rows) == 5 * 8 * 3
    row = next(entry for entry in rows if entry.row == "a9a_svrg_eps0p003")
    assert row.choose["dataset"] == "a9a"
    assert row.values == {"model.alpha": 0.1, "paper.eps": 0.003, "paper.until": "first_hit"}


def test_rows_of_a_grid_may_have_reported_numbers() -> None:
    rows = {entry.row: entry for entry in runnable("meta_bo") if entry.table == "fig3b"}
    assert rows["pem_bo_ucb_p003"].reported["best_at_6"] == -2.581
    assert rows["pem_bo_ucb_p003"].values["dataset.portion"] == 0.03
    assert rows["pem_bo_ucb_p003"].source["kind"] == "official_repo"


TABLE = """
paper: spider
scales: {}
tables:
  - id: t
    metrics: {m: {unit: "1"}}
    set: {paper.eps: 1}
    budget: {paper: {paper.passes: 3}, laptop: {paper.passes: 2}, smoke: {SMOKE}}
    rows: [{id: r}]
"""


@pytest.mark.parametrize(
    ("smoke", "message"), [("", "same budget keys"), ("paper.passes: 1, paper.eps: 2", "same budget keys")]
)
def test_a_scale_without_values_is_an_error(
    smoke: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(TABLE.replace("SMOKE", smoke))
    monkeypatch.setattr(tables, "load_tables", lambda paper: content)
    with pytest.raises(UserError, match=message):
        runnable("spider")


def test_a_scale_may_not_touch_what_defines_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TABLE.replace("SMOKE", "paper.passes: 1").replace("paper.eps: 1", "paper.passes: 1")
    monkeypatch.setattr(tables, "load_tables", lambda paper: yaml.safe_load(text))
    with pytest.raises(UserError, match="define the row"):
        runnable("spider")


def test_an_unknown_paper_names_the_valid_ones() -> None:
    with pytest.raises(UserError, match=r"unknown paper=spyder; did you mean spider"):
        load_tables("spyder")


def test_a_metric_that_is_called_an_error_is_better_lower_and_an_accuracy_higher() -> None:
    words = {
        "lower": {"error", "regret", "loss", "perplexity"},
        "higher": {"accuracy", "precision", "F1", "IoU"},
    }
    other = {"lower": "higher", "higher": "lower"}
    for paper in papers():
        content = load_tables(paper)
        for table in content["tables"]:
            for name, metric in table["metrics"].items():
                title = content.get("titles", {}).get(name, name.replace("_", " "))
                wrong = words.get(other.get(metric["better"], ""), set()) & set(title.split())
                assert not wrong, f"{paper}.{table['id']}: {name}: {title}"
