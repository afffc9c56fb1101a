import re

import pytest
from runs_made_up import over_seeds, result, runs

from common.base.errors import UserError
from common.claims.judge import mean_interval
from common.report import comparison
from common.report.comparison import compare, natural
from common.report.selection import Selection, Unfinished

ADAM, SGD = "method=optimizer/adam", "method=optimizer/sgd"


@pytest.fixture(autouse=True)
def current_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "stale", lambda one: one["code"] == "old")


def test_a_row_a_method_holds_mean_deviation_and_interval_over_its_seeds() -> None:
    found = compare(runs(*over_seeds([0.1, 0.2, 0.4], ADAM), *over_seeds([0.3, 0.5], SGD)), ["test_error"])
    assert [row.name for row in found.rows] == ["adam", "sgd"]
    (column,) = found.columns
    cell = found.rows[0].cells[column]
    interval = mean_interval([0.1, 0.2, 0.4])
    assert cell.sample is not None and cell.sample.mean == pytest.approx(0.7 / 3)
    assert cell.std == pytest.approx(0.15275252)
    assert (cell.low, cell.high) == (interval.low, interval.high)
    assert [row.n for row in found.rows] == ["3", "2"]


def test_the_best_is_marked_where_it_is_significant_and_only_there() -> None:
    near = [0.11, 0.10, 0.13, 0.11, 0.12]
    far = [0.30, 0.31, 0.33, 0.30, 0.32]
    mine = [0.10, 0.11, 0.12, 0.10, 0.13]
    clear = compare(runs(*over_seeds(mine, ADAM), *over_seeds(far, SGD)), ["test_error"])
    assert [row.cells[clear.columns[0]].place for row in clear.rows] == ["best", ""]
    assert "adam is significantly best, p < 0.0001 (paired t test over common seeds)" in clear.notes[0]
    close = [*over_seeds(mine, ADAM), *over_seeds(far, SGD), *over_seeds(near, "method=optimizer/any")]
    both = compare(runs(*close), ["test_error"])
    assert [row.cells[both.columns[0]].place for row in both.rows] == ["leads", "", ""]
    assert re.search(r"adam leads, not significantly before any \(p = [\d.]+\)", both.notes[0])


@pytest.mark.parametrize(
    ("metric", "best"), [("test_error", "adam"), ("test_accuracy", "sgd"), ("relative_gap", "adam")]
)
def test_which_way_is_better_follows_from_the_metric(metric: str, best: str) -> None:
    selection = runs(
        *over_seeds([0.1, 0.11, 0.12], ADAM, metric=metric),
        *over_seeds([0.5, 0.51, 0.53], SGD, metric=metric),
    )
    found = compare(selection, [metric])
    assert [row.name for row in found.rows if row.cells[found.columns[0]].place == "best"] == [best]


def test_a_word_says_which_way_is_better_where_the_name_does_not() -> None:
    selection = runs(
        *over_seeds([1.0, 1.1, 1.2], ADAM, metric="zest"), *over_seeds([5.0, 5.1, 5.3], SGD, metric="zest")
    )
    silent = compare(selection, ["zest"])
    assert all(not cell.place for row in silent.rows for cell in row.cells.values())
    assert "say better=higher or better=lower" in silent.notes[0]
    for told in ({"zest": "higher"}, {"": "higher"}):
        found = compare(selection, ["zest"], better=told)  # type: ignore[arg-type]
        assert found.rows[1].cells[found.columns[0]].place == "best"


def test_a_direction_of_a_metric_that_is_not_shown_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown better=test_eror; did you mean test_error\?"):
        compare(runs(*over_seeds([0.1, 0.2], ADAM)), ["test_error"], better={"test_eror": "lower"})


def test_differences_without_spread_are_said_to_have_none() -> None:
    found = compare(runs(*over_seeds([0.1] * 3, ADAM), *over_seeds([0.2] * 3, SGD)), ["test_error"])
    assert "not significantly before sgd (p = 0.25, no spread over seeds)" in found.notes[0]


def test_seeds_that_differ_are_compared_by_welch_and_that_is_said() -> None:
    later = [result(seed + 10, SGD, test_error=0.4 + 0.01 * seed) for seed in range(4)]
    found = compare(runs(*over_seeds([0.1, 0.12, 0.11, 0.1], ADAM), *later), ["test_error"])
    assert "(Welch's t test)" in found.notes[0]


def test_a_single_seed_has_no_interval_and_is_not_best() -> None:
    found = compare(runs(*over_seeds([0.1], ADAM), *over_seeds([0.5, 0.6], SGD)), ["test_error"])
    cell = found.rows[0].cells[found.columns[0]]
    assert (cell.low, cell.std, cell.place) == (None, None, "leads")
    assert found.rows[0].notes == ("1 seed: no interval",)
    assert "sgd (one seed)" in found.notes[0]


def test_a_single_run_of_replicates_has_their_interval_and_is_compared() -> None:
    def searched(method: str, best: float) -> dict[str, object]:
        return result(0, method, best=best, best_sem=0.1, replicates=25)

    found = compare(runs(searched(ADAM, 1.0), searched(SGD, 2.0)), ["best"], better={"best": "higher"})
    cell = found.rows[1].cells[found.columns[0]]
    assert cell.std == pytest.approx(0.5) and cell.place == "best"
    assert (cell.low, cell.high) == (pytest.approx(2 - 0.196), pytest.approx(2 + 0.196))
    assert found.rows[1].notes == ("1 seed of 25 replicates, whose interval it is",)


def test_a_run_without_a_value_is_said_and_its_method_not_compared() -> None:
    lost = [result(0, SGD, test_error=0.01), result(1, SGD, test_error=None)]
    found = compare(runs(*over_seeds([0.1, 0.2], ADAM), *lost), ["test_error"])
    assert found.rows[1].notes == ("1 seed: no interval", "1 of 2 without a value, so not compared")
    assert found.rows[1].cells[found.columns[0]].place == ""
    none = compare(runs(*over_seeds([0.1, 0.2], ADAM), result(1, SGD, test_error=None)), ["test_error"])
    assert none.rows[1].cells[none.columns[0]].sample is None


def test_unfinished_runs_and_earlier_code_are_said_on_the_row() -> None:
    old = over_seeds([0.1, 0.2, 0.15], ADAM)
    old[1]["code"] = "old"
    jobs = [
        Unfinished(("paper=yogi", ADAM, "seed=3"), "failed"),
        Unfinished(("paper=yogi", ADAM, "seed=4", "logger=none"), "running or killed"),
        Unfinished(("paper=yogi", "method=optimizer/any", "seed=0"), "failed"),
    ]
    selection = Selection(runs(*old, *over_seeds([0.3, 0.4], SGD)).runs, jobs, True)
    found = compare(selection, ["test_error"])
    assert found.rows[0].notes == ("2 unfinished", "earlier code (1 of 3)")
    assert (found.rows[0].unfinished, found.rows[0].stale) == (2, 1)
    assert found.rows[1].notes == ()
    assert "1 job came to no result, and is on no row (failed: paper=yogi" in found.notes[-1]


def test_of_two_runs_with_one_seed_the_newer_counts() -> None:
    older, newer = result(0, ADAM, test_error=0.9), result(0, ADAM, test_error=0.1)
    older["finished"] = "2025-01-01T00:00:00Z"
    found = compare(runs(newer, older, result(1, ADAM, test_error=0.1)), ["test_error"])
    cell = found.rows[0].cells[found.columns[0]]
    assert cell.sample is not None and cell.sample.mean == 0.1
    assert found.rows[0].notes == ("1 left out, made again with the same seed",)


def test_data_sets_are_columns_and_each_has_its_best() -> None:
    selection = runs(
        *over_seeds([0.1, 0.11, 0.12], ADAM),
        *over_seeds([0.5, 0.51, 0.53], SGD),
        *over_seeds([0.9, 0.91, 0.92], ADAM, "dataset=mnist", "model=large"),
        *over_seeds([0.5, 0.51, 0.53], SGD, "dataset=mnist", "model=large"),
    )
    found = compare(selection, ["test_error"])
    assert [column.title for column in found.columns] == ["test_error on digits", "test_error on mnist"]
    # a model that follows from the data is no word
    assert [row.name for row in found.rows] == ["adam", "sgd"]
    digits, mnist = found.columns
    assert found.rows[0].cells[digits].place == "best" and found.rows[1].cells[mnist].place == "best"


def test_a_metric_that_no_run_has_is_named_with_those_that_are_near() -> None:
    selection = runs(*over_seeds([0.1, 0.2], ADAM))
    with pytest.raises(UserError, match=r"unknown metric=tset_error; did you mean test_error\?"):
        compare(selection, ["tset_error"])
    with pytest.raises(UserError, match=r"running_loss is a curve.*curve=running_loss"):
        compare(selection, ["running_loss"])
    listed = runs(result(0, ADAM, test_error=0.1, by_seed=[1, 2]))
    with pytest.raises(UserError, match="unknown metric=by_seed"):
        compare(listed, ["by_seed"])


def test_a_metric_that_some_methods_lack_leaves_their_cells_empty() -> None:
    found = compare(runs(*over_seeds([0.1, 0.2], ADAM), result(0, SGD, other=1.0)), ["test_error"])
    assert found.columns[0] not in found.rows[1].cells


def test_without_a_metric_the_usual_one_that_all_have_is_shown() -> None:
    found = compare(runs(*over_seeds([0.1, 0.2], ADAM, metric="test_loss"), result(0, SGD, test_loss=1.0)))
    assert found.columns[0].metric == "test_loss"
    with pytest.raises(UserError, match="say metric="):
        compare(runs(result(0, ADAM, zest=1.0), result(0, SGD, zeal=1.0)))


def test_time_and_memory_of_runs_are_metrics_too() -> None:
    found = compare(runs(*over_seeds([0.1, 0.2], ADAM)), ["wall_seconds"])
    cell = found.rows[0].cells[found.columns[0]]
    assert cell.sample is not None and cell.sample.mean == 8.0


def test_numbers_in_names_are_ordered_as_numbers() -> None:
    assert sorted(["lr=10", "lr=0.5", "lr=1e-05", "a"], key=natural) == ["a", "lr=1e-05", "lr=0.5", "lr=10"]
