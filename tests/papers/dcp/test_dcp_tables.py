"""The tables: chains of runs fit together, what defines a row stays, and a row's keys are its method's."""

import re
from dataclasses import replace
from typing import Any

import pytest

from common.base.errors import UserError
from common.runs.catalogue import read
from common.runs.check_entries import check_row
from common.tables.tables import SCALES, Entry, entries, load_tables, runnable

ROWS = {entry.name: entry for entry in entries("dcp")}
RUN = runnable("dcp")
STAGES = ("start", "method.selection", "method.prepared")


def stages(entry: Entry) -> dict[str, Entry]:
    """The entries that a row's run needs, by the key that names them."""
    words = {key: entry.values[key] for key in STAGES if entry.values.get(key) is not None}
    return {key: ROWS[text.split()[0].removeprefix("entry=")] for key, text in words.items()}


def test_only_the_nine_rows_that_the_paper_cites_are_no_entries() -> None:
    assert len(ROWS) - len(RUN) == 9
    assert sum(entry.cited for entry in ROWS.values()) == 9
    ours = {table["id"] for table in load_tables("dcp")["tables"] if table.get("ours")}
    assert sum(entry.table not in ours for entry in RUN) == 141


@pytest.mark.parametrize("key", ["method.optimizer.nonsense", "method.nonsense", "method.rate.nonsense"])
def test_a_key_within_a_node_that_defaults_make_is_looked_up_there(key: str) -> None:
    # its file holds no more than a score, and takes the rest from another
    entry = ROWS["dcp.table1.vggnet_random_dcp"]
    check_row(entry)
    assert {"method.optimizer.lr", "method.rate"} < set(entry.values)
    with pytest.raises(UserError, match=key):
        check_row(replace(entry, values={**entry.values, key: 1}))


def chosen(entry: Entry) -> dict[str, Any]:
    """What the stages of a run must share with it."""
    return {
        "dataset": entry.choose["dataset"],
        "model": entry.choose["model"],
        **{key: value for key, value in entry.values.items() if key.startswith("model.")},
    }


@pytest.mark.parametrize("entry", [e for e in RUN if stages(e)], ids=lambda entry: entry.name)
def test_a_row_starts_from_its_own_network_and_prunes_at_its_own_rate(entry: Entry) -> None:
    found = stages(entry)
    start = found["start"]
    assert start.values["start"] is None
    assert start.choose["method"] == "optimizer/sgd"
    assert chosen(start) == chosen(entry)
    for key in ("method.selection", "method.prepared"):
        stage = found.get(key)
        if stage is not None:
            assert chosen(stage) == chosen(entry)
            assert stages(stage)["start"] == start
            for setting in ("method.rate", "method.losses", "method.epsilon", "method.layers"):
                if setting in stage.values and setting in entry.values:
                    assert stage.values[setting] == entry.values[setting], setting


@pytest.mark.parametrize("entry", [e for e in RUN if "method.selection" in e.values], ids=lambda e: e.name)
def test_a_fine_tuned_row_says_of_its_selection_all_that_the_selection_is(entry: Entry) -> None:
    selected = stages(entry)["method.selection"]
    kind = entry.choose["method"].removeprefix("pruning/")
    score = {"random_dcp": "random", "dcp": "fro"}.get(kind)
    assert selected.choose["method"] == f"selection/{'dcp' if score else kind}"
    assert selected.values.get("method.score") == score
    for setting in ("method.rate", "method.epsilon", "method.layers"):
        assert selected.values.get(setting) == entry.values.get(setting), setting
    if score:
        prepared = stages(selected)["method.prepared"]
        assert selected.values["method.losses"] == entry.values["method.losses"]
        assert prepared.values["method.losses"] == entry.values["method.losses"]


@pytest.mark.parametrize("entry", [e for e in RUN if stages(e)], ids=lambda entry: entry.name)
def test_a_stage_has_its_rows_data_at_every_scale(entry: Entry) -> None:
    for stage in stages(entry).values():
        for scale in SCALES:
            mine, its = (
                {key: value for key, value in one.budget[scale].items() if key.startswith("dataset.")}
                for one in (entry, stage)
            )
            assert its == mine, (stage.name, scale)


def test_rates_and_tolerances_are_those_of_the_rows_names() -> None:
    for entry in RUN:
        told = re.search(r"(?:eta|dcp)(\d+)$", entry.row)
        if told is not None and "method.rate" in entry.values:
            assert entry.values["method.rate"] == pytest.approx(int(told[1]) / 100), entry.name
        told = re.fullmatch(r"(?:vggnet_)?eps_(0p\d+)", entry.row)
        if told is not None:
            assert entry.values["method.epsilon"] == float(told[1].replace("p", "."))
        told = re.fullmatch(r"lambda_(\d[p\d]*)", entry.row)
        if told is not None:
            assert entry.values["method.discrimination"] == float(told[1].replace("p", "."))
        told = re.search(r"losses_(\d+)$", entry.row)
        if told is not None:
            assert entry.values["method.losses"] == int(told[1])
        told = re.fullmatch(r"samples_(\d+)", entry.row)
        if told is not None:
            assert entry.values["method.samples"] == int(told[1])


def test_a_figures_rows_prune_one_block_each() -> None:
    rows = [entry for entry in RUN if entry.table == "figs1"]
    assert len(rows) == 32
    for entry in rows:
        stage, block = re.fullmatch(r"\w+_res(\d)([ab])", entry.row).groups()  # type: ignore[union-attr]
        assert entry.values["method.layers"] == [f"stages.{int(stage) - 2}.{'ab'.index(block)}"]
        assert entry.reported["top1_increase"] is not None
        assert entry.choose["method"] == f"selection/{entry.row.rsplit('_', 1)[0]}"


def test_runs_that_count_read_no_data_and_start_from_nothing() -> None:
    for entry in RUN:
        if entry.choose["method"] == "pruning/count":
            assert entry.values["start"] is None
            assert entry.values["dataset.source"] == "synthetic"
            assert read("method", "pruning/count")["batch"] == entry.values["method.batch"] == 32


def test_a_table_of_layers_is_one_run() -> None:
    rows = [entry for entry in RUN if entry.table == "tables6"]
    first = ROWS["dcp.table1.vggnet_dcp_adapt"]
    for number, entry in enumerate(rows):
        assert (entry.choose, entry.values, entry.budget) == (first.choose, first.values, first.budget)
        assert entry.result == {"kept": f"kept_{number}"}
