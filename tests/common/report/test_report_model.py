"""The report's model: what counts as a measurement, and what is said about it."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.report_site import made_up
from common.report import model
from common.report.model import Measured, Report, Row, build, interval
from common.runs.evidence import Evidence, asked
from common.tables import tables
from common.tables.tables import Entry, load_tables, papers, runnable

Result = dict[str, Any]
NAME = "yogi.table_ae.mnist_yogi"


def entry(name: str = NAME) -> Entry:
    return next(entry for entry in runnable(name.split(".")[0]) if entry.name == name)


def row_of(results: list[Result], name: str = NAME) -> Row:
    paper, table, _ = name.split(".", 2)
    report = build(Evidence.of({str(i): result for i, result in enumerate(results)}), [paper])
    found = next(one for one in report.paper(paper).tables if one.id == table)
    return next(row for row in found.rows if row.entry == name)


def asked_by(result: Result, *words: str) -> Result:
    return result | {"overrides": list(words), "asked": [list(asked(words))]}


numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(st.lists(numbers, min_size=3, max_size=8))
def test_mean_and_interval_are_those_of_students_t(values: list[float]) -> None:
    mean, low, high = interval(values)
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-9)
    if len(set(values)) == 1:
        assert (low, high) == (values[0], values[0])
    else:
        expected = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
        assert (low, high) == pytest.approx(expected, rel=1e-9)


def test_one_run_of_many_replicates_has_the_interval_of_its_own_standard_error() -> None:
    metrics = {"best": 5.0, "best_sem": 0.5, "other": 1.0}
    run = made_up(next(iter(runnable("yogi"))), "laptop", 0) | {"metrics": metrics}
    found = model.summary([run], "paper", "best")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((5.0 - 0.98, 5.0 + 0.98), abs=1e-4)
    # Student's t with 4 degrees of freedom has 95 % within 2.7764
    run["config"]["paper"]["repeats"] = 5
    few = model.summary([run], "paper", "best")
    assert few is not None
    assert few.high == pytest.approx(5.0 + 0.5 * 2.7764, abs=1e-4)
    assert few.count == "1 × 5 repeats"
    without = model.summary([run], "paper", "other")
    assert without is not None and without.low is None


def test_a_standard_error_that_is_rounding_alone_is_0() -> None:
    run = made_up(next(iter(runnable("yogi"))), "laptop", 0)
    for mean, error, shown in ((-3.3521, 6.3e-17, "0"), (5.0, 0.5, "0.5"), (0.0, 1e-17, "1e-17")):
        found = model.summary([run | {"metrics": {"best": mean, "best_sem": error}}], "paper", "best_sem")
        assert found is not None and found.text == shown
    # what is no standard error of anything may be as small as it is
    alone = model.summary([run | {"metrics": {"gap_sem": 1e-17}}], "paper", "gap_sem")
    assert alone is not None and alone.text == "1e-17"


def test_a_share_of_few_examples_has_the_interval_that_its_run_gives() -> None:
    metrics = {"noncertified_error": 30.0, "noncertified_low": 6.67, "noncertified_high": 65.2}
    run = made_up(next(iter(runnable("yogi"))), "laptop", 0) | {"metrics": metrics}
    found = model.summary([run], "laptop", "noncertified_error")
    assert found is not None
    assert found.text == "30 [7, 65]"
    # as many digits as the nearer end needs
    assert replace(found, mean=100.0, low=99.63, high=100.0).text == "100 [99.63, 100.00]"
    assert replace(found, mean=1234.0, low=1100.0, high=1500.0).text == "1234 [1,100, 1,500]"
    assert replace(found, mean=1.0, low=-math.inf, high=math.inf).text == "1"
    # how many examples it is over stands beside it, and no number of examples beside another interval
    few = model.summary([run | {"metrics": metrics | {"examples": 10}}], "laptop", "noncertified_error")
    assert few is not None and few.facts.startswith("n = 1, 10 examples, ")
    sem = {"best": 5.0, "best_sem": 0.5, "examples": 10}
    other = model.summary([run | {"metrics": sem}], "laptop", "best")
    assert other is not None and "examples" not in other.facts
    # of several runs it is the one over them
    several = model.summary([run, run], "laptop", "noncertified_error")
    assert several is not None
    assert several.text == "30 ± 0"


@pytest.mark.parametrize(
    ("source", "said"), [("stand_in", "stand-in data"), ("synthetic", "synthetic data"), ("real", "")]
)
def test_a_number_on_other_data_than_its_tables_says_so_and_is_of_our_own_size(
    source: str, said: str
) -> None:
    run = made_up(entry(), "paper", 0)
    run["config"]["dataset"]["source"] = source
    found = model.summary([run], "paper", "test_squared_error")
    assert found is not None
    assert found.data == said
    assert (said in found.facts) or not said
    row = replace(row_of([run]), ours=False, source=model.Source("paper_text", "table 1"))
    changed = replace(row, measured={"paper": {"test_loss": found}})
    page = model.build(Evidence.of({}), ["yogi"]).paper("yogi")
    assert page.size(changed, "paper") == ("own" if said else "paper")


def test_a_table_may_say_what_its_runs_have_in_place_of_its_data() -> None:
    run = made_up(entry(), "laptop", 0)
    found = model.summary([run], "laptop", "test_squared_error", stand_in="breast cancer as a stand-in")
    assert found is not None and "breast cancer as a stand-in" in found.facts
    # what a run says of itself goes first
    run["config"]["dataset"]["source"] = "synthetic"
    own = model.summary([run], "laptop", "test_squared_error", stand_in="breast cancer as a stand-in")
    assert own is not None and own.data == "synthetic data"
    fel = next(table for table in load_tables("qff")["tables"] if table["id"] == "fig_fel")
    assert fel["stand_in"]["paper"] == "stand-in data"


def test_what_no_run_came_to_is_said_of_as_many_runs_as_there_are() -> None:
    never = Measured(None, None, None, n=0, scale="laptop", device="cpu", without=2, repeats=20)
    assert never.facts == "n = 2 × 20 repeats, all without a value, cpu" and never.text == "no value"
    assert replace(never, mean=1.0, n=3).facts == "n = 3 × 20 repeats, 2 without a value, cpu"


def test_a_tiny_mean_is_as_exact_as_its_interval() -> None:
    tiny = Measured(3.09788e-10, 1.8e-10, 4.4e-10, n=3, scale="paper", device="cpu")
    assert tiny.text == "3.1e-10 ± 1.3e-10"
    assert replace(tiny, mean=-3.35214, low=-3.35214 - 1e-9, high=-3.35214 + 1e-9).text == "-3.3521 ± 1e-09"


def test_one_run_has_a_mean_and_no_interval() -> None:
    assert interval([2.5]) == (2.5, None, None)
    assert interval([]) == (None, None, None)


def test_a_row_holds_the_mean_of_its_seeds_at_each_scale_apart() -> None:
    results = [made_up(entry(), "laptop", seed) for seed in range(3)] + [made_up(entry(), "paper", 0)]
    row = row_of(results)
    laptop, paper = row.measured["laptop"]["test_loss"], row.measured["paper"]["test_loss"]
    assert laptop is not None and paper is not None
    values = [result["metrics"]["test_squared_error"] for result in results]
    assert (laptop.n, laptop.scale, laptop.mean) == (3, "laptop", pytest.approx(sum(values[:3]) / 3))
    assert (paper.n, paper.scale, paper.mean, paper.high) == (1, "paper", values[3], None)


@pytest.mark.parametrize(
    "change",
    [
        lambda result: asked_by(result, f"entry={NAME}", "scale=laptop", "dataset.augment=none"),
        lambda result: result | {"config": result["config"] | {"paper": {"epochs": 1.0, "pixels": "sum"}}},
        lambda result: result | {"choices": result["choices"] | {"method": "optimizer/adam"}},
        lambda result: asked_by(result, "paper=yogi", "dataset=mnist"),
    ],
    ids=["another word", "another budget", "another method", "asked for otherwise"],
)
def test_a_run_with_other_settings_than_its_entry_is_left_out(change: Callable[[Result], Result]) -> None:
    row = row_of([change(made_up(entry(), "laptop", 0))])
    assert row.measured == {}
    assert row.left_out == 1


@pytest.mark.parametrize(("trials", "is_of_it"), [(200, True), (100, False)])
def test_a_run_whose_stage_has_numbers_of_the_run_itself_is_of_its_row(trials: int, is_of_it: bool) -> None:
    name = "transfer_automl.text_table.docs_kind_naml"
    result = made_up(entry(name), "laptop", 3)
    result["config"]["paper"]["share"] = 1.0
    assert "${paper.share}" in result["config"]["method"]["reference"]
    result["config"]["method"]["reference"] = (
        f"method=design_search/random_search paper.trials={trials} paper.repeats=20 paper.share=1.0 "
        "paper.top=10 seed=3"
    )
    assert bool(row_of([result], name).measured) is is_of_it


def test_words_that_change_no_result_leave_a_run_in() -> None:
    words = (f"entry={NAME}", "scale=laptop", "seed=0", "logger=none", "trainer=gpu", "hydra/launcher=joblib")
    assert list(row_of([asked_by(made_up(entry(), "laptop", 0), *words)]).measured) == ["laptop"]


def test_of_two_runs_of_a_seed_the_newest_counts() -> None:
    old, new = made_up(entry(), "laptop", 0), made_up(entry(), "laptop", 0)
    new = new | {"finished": "2026-02-01T00:00:00Z", "metrics": {"test_squared_error": 7.0}}
    measured = row_of([new, old]).measured["laptop"]["test_loss"]
    assert measured is not None and (measured.mean, measured.n) == (7.0, 1)


def test_a_run_that_never_reached_its_target_is_told_and_not_averaged() -> None:
    results = [made_up(entry(), "laptop", seed) for seed in range(3)]
    results[1]["metrics"]["test_squared_error"] = None
    measured = row_of(results).measured["laptop"]["test_loss"]
    assert measured is not None
    assert (measured.n, measured.without) == (2, 1)
    assert "1 without a value" in measured.facts


def test_a_changed_reported_number_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = copy.deepcopy(load_tables("spider"))
    row = next(row for row in changed["tables"][0]["rows"] if row["id"] == "gd_sgd")
    row["reported"] = row["reported"] | {"online_eps_exponent": -17.25}
    original = load_tables

    def load(paper: str) -> Any:
        return changed if paper == "spider" else original(paper)

    monkeypatch.setattr(tables, "load_tables", load)
    monkeypatch.setattr(model, "load_tables", load)
    found = row_of([], "spider.table1.gd_sgd")
    assert found.reported["online_eps_exponent"] == -17.25


def test_a_row_of_a_complexity_table_gets_the_slope_of_the_runs_that_it_names() -> None:
    results = []
    for eps_name, eps in (("eps0p2", 0.2), ("eps0p1", 0.1), ("eps0p05", 0.05)):
        result = made_up(entry(f"spider.ifo_online.online_sgd_{eps_name}"), "paper", 0)
        results.append(result | {"metrics": {"sfo_calls": 3.0 * eps**-2.5}})
    row = row_of(results, "spider.table1.gd_sgd")
    measured = row.measured["paper"]["online_eps_exponent"]
    assert measured is not None and measured.mean == pytest.approx(-2.5)
    assert row.measured["paper"]["finite_sum"] is None


def test_the_override_string_names_entry_scale_and_seeds() -> None:
    row = row_of([made_up(entry(), "laptop", seed) for seed in range(2)])
    assert row.command() == f"python run.py entry={NAME}"
    assert row.command("laptop") == f"python run.py -m entry={NAME} scale=laptop seed=0,1"


def test_verdicts_are_those_of_the_claims(report: Report) -> None:
    states = {claim.name: verdict.state for claim, verdict in report.paper("yogi").claims}
    assert states == {
        "yogi.yogi_is_better": "supported",
        "yogi.adam_is_better": "refuted",
        "yogi.loss_is_small": "supported",
        "yogi.nobody_ran_this": "not run",
    }


def test_counts_add_up(report: Report) -> None:
    counts = report.paper("yogi").counts
    assert (counts.entries, counts.run) == (len(runnable("yogi")), 14)
    assert counts.at == {"paper": 1, "laptop": 14, "smoke": 0}
    assert counts.claims == {"supported": 2, "refuted": 1, "inconclusive": 0, "not run": 1}
    assert counts.exact_text == "1 of 1 hold"


def test_every_paper_of_the_plan_is_listed_once_and_those_with_a_folder_are_here(report: Report) -> None:
    names = [paper.name for paper in report.papers]
    assert len(names) == len(set(names)) == 23
    assert {paper.name for paper in report.papers if paper.here} == set(papers())


def test_a_readme_gives_its_introduction_and_its_sections_on_what_differs_and_what_to_mind() -> None:
    readme = "# yogi: title\n\nWhat it is.\n\n## Claims\n\nc\n\n## Paper, authors' code, ours\n\nDifferent.\n"
    assert model.introduction(readme) == "What it is."
    assert model.sections(readme, model.DIFFERENCES) == "Different."
    minded = f"{readme}\n## Measured\n\nm\n\n## What to know\n\nOracles.\n"
    assert model.sections(minded, model.DIFFERENCES) == "Different.\n\nOracles."
    assert model.sections("# x\n\ny\n", model.DIFFERENCES) == ""


def test_two_runs_that_differ_have_no_interval_and_three_have_one() -> None:
    assert interval([1.0, 3.0]) == (2.0, None, None)
    assert interval([2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert interval([1.0, 2.0, 3.0])[1:] == (pytest.approx(-0.484, abs=1e-3), pytest.approx(4.484, abs=1e-3))


def test_what_ran_on_made_up_data_is_of_our_own_size_and_held_against_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = made_up(entry(), "paper", 0)
    assert row_of([run]).told("paper") == row_of([run]).reported
    content = {**load_tables("yogi"), "stand_ins": {entry().choose["dataset"]: "noise"}}
    monkeypatch.setattr(model, "load_tables", lambda paper: content)
    row = row_of([run])
    assert row.told("paper") == {}
    assert {one.data for one in row.measured["paper"].values() if one is not None} == {"noise"}
    assert build(Evidence.of({"0": run}), ["yogi"]).paper("yogi").size(row, "paper") == "own"


@pytest.mark.parametrize("paper", papers())
def test_every_paper_that_is_here_says_what_it_is_about(paper: str) -> None:
    about = model.introduction((Path(tables.ROOT) / "papers" / paper / "README.md").read_text())
    assert len(about) > 50


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (3.24567, 0.1234, "3.25 ± 0.12"),
        (1234.5, 56.7, "1,234 ± 57"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.91234, 0.00456, "0.9123 ± 0.0046"),
    ],
)
def test_a_mean_is_written_as_exactly_as_its_interval_allows(mean: float, half: float, text: str) -> None:
    assert Measured(mean, mean - half, mean + half, 3, "paper", "cpu").text == text


def test_the_numeric_axis_of_a_grid_is_the_x_of_its_figure(report: Report) -> None:
    axes = {table.id: table.axis for table in report.paper("yogi").tables}
    batch = axes["fig_batch"]
    assert batch is not None
    assert (batch.key, list(batch.values.values())) == ("dataset.batch_size", [32, 128, 512, 2048])
    assert axes["table_ae"] is None


def test_a_metric_is_called_as_its_paper_says_and_else_by_its_name_with_spaces(report: Report) -> None:
    drawn = next(table for table in report.paper("yogi").tables if table.id == "table_ae")
    assert drawn.title("train_loss") == "training loss"
    assert "test_loss" not in load_tables("yogi")["titles"] and drawn.title("test_loss") == "test loss"


def test_a_page_begins_with_that_of_the_papers_own_tables_which_most_claims_are_about(report: Report) -> None:
    paper = report.paper("yogi")
    run = SimpleNamespace(words=("entry=yogi.fig_batch.yogi_b32", "seed=0"))
    claim: Any = SimpleNamespace(all_runs=lambda: [run])
    assert next(table.id for table in paper.tables if table.scales()) == "table_ae"
    begins = replace(paper, claims=[(claim, paper.claims[0][1])]).main
    assert begins is not None and begins.id == "fig_batch"
    listed = replace(paper, claims=[(claim, paper.claims[0][1])], table="table_ae").main
    assert listed is not None and listed.id == "table_ae"


def test_the_table_that_a_paper_is_listed_with_is_one_of_its_own() -> None:
    for spec in model.catalogue():
        known = {table["id"] for table in load_tables(spec["name"])["tables"]}
        assert spec.get("table") in {None, *known}
