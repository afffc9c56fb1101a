"""A table of the user's own: its columns, scores, meta-features, pipelines, processes, and the saved file."""

import csv
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from calls import until
from pmf_automl_toys import settings
from scipy.stats import kurtosis, skew
from sklearn.datasets import load_iris
from sklearn.metrics import balanced_accuracy_score, r2_score

from common.base.errors import UserError
from common.data.tables.sheet import table_of
from papers.pmf_automl import saved
from papers.pmf_automl.baselines import Portfolio
from papers.pmf_automl.judging import balanced_accuracy, interval, plausible, r_squared, resampled
from papers.pmf_automl.meta_features import in_order, meta_features
from papers.pmf_automl.own_table import PipelineTable, fold_of_rows, matched, told
from papers.pmf_automl.pipelines import (
    CLASSIFIERS,
    DEFAULTS,
    MAJORITY,
    REGRESSORS,
    built,
    effective,
    trusted,
)
from papers.pmf_automl.preparation import Plan, plans, prepared, unknown_cells
from papers.pmf_automl.table_search import TableModule, Tried
from papers.pmf_automl.trial import Outcome, Table, Trial, cross_validated

DATA = Path("data")


class Foreign:
    """A type that no pipeline has."""


def table(path: Path, **changed: Any) -> PipelineTable:
    usual: dict[str, Any] = {
        "kind": "tabular_classification", "data_dir": "nowhere", "seed": 0, "source": "real", "limit": None,
        "validation": 0.0, "normalise": "standard", "verify": True, "batch_size": 128, "positive": None,
        "path": str(path), "test_path": None, "test": 0.2, "target": "y", "drop": [], "encoding": "utf-8",
        "minutes": 1.0, "seconds": None, "memory": 4.0, "folds": 5, "jobs": 1,
    }  # fmt: skip
    found = PipelineTable(**{**usual, **changed})
    found.setup()
    return found


def written(path: Path, rows: Any) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def odd(count: int) -> list[list[Any]]:
    draw = random.Random(0)
    rows: list[list[Any]] = [["id", "when", "flag", "same", "x", "x", "twin", "mixed", "word", "y"]]
    for i in range(count):
        mixed = "oops" if i == 3 else draw.random()
        target = "rare" if i == 5 else "" if i == 7 else "pq"[(i // 3) % 2]
        word = draw.choice(["u", "v", "wé", ""])
        rows.append(
            [
                f"id{i}",
                f"2024-{i % 12 + 1:02d}-03",
                ["true", "no", ""][i % 3],
                7,
                i,
                i / 7,
                i,
                mixed,
                word,
                target,
            ]
        )
    return rows


def test_each_kind_of_column_is_prepared_and_said(tmp_path: Path) -> None:
    data = table(written(tmp_path / "odd.csv", odd(45)))
    kinds = {plan.name: plan.kind for plan in data.plans}
    assert kinds == {
        "id": "left out", "when": "date", "flag": "boolean", "same": "left out", "x": "number",
        "x (2)": "number", "twin": "left out", "mixed": "number", "word": "words",
    }  # fmt: skip
    assert data.X.shape == (44, 8) and data.words.tolist() == [False] * 7 + [True]
    assert data.labels == ["p", "q", "rare"] and len(data.y_test) == 0
    said = {plan.name: plan.said for plan in data.plans}
    assert said["same"] == "left out: all cells are '7'"
    assert said["twin"] == "left out: its cells are those of 'x'"
    assert said["mixed"] == "a number, 1 cells that are none taken as missing"
    assert np.isnan(data.X[:, 3]).sum() == 15


def test_words_and_cells_that_training_has_not_are_nothing_and_counted() -> None:
    found = plans(["w", "n"], [["a", "b", "a", ""], ["1", "2", "", "4"]])
    columns = [["b", "new", ""], ["5", "x", ""]]
    X = prepared(found, columns, 3).X
    np.testing.assert_array_equal(X[:, 0], [2, -1, 0])
    np.testing.assert_array_equal(X[:, 1], [5, np.nan, np.nan])
    assert [unknown_cells(plan, cells) for plan, cells in zip(found, columns, strict=True)] == [1, 1]


@pytest.mark.parametrize(
    ("cells", "kind", "said"),
    [
        (
            [f"{i / 7:.2f}" if i % 3 else "PrivacySuppressed" for i in range(90)],
            "number",
            "30 cells that are none",
        ),
        ([str(i % 5) if i % 3 else "more" for i in range(90)], "words", "6 words"),
        ([f"{i}e300" for i in range(1, 40)], "number", "in units of 3.9e+301"),
        ([f"{i}e-300" for i in range(1, 40)], "number", "in units of 3.9e-299"),
        ([*map(str, range(1, 40)), "1e300", "-inf"], "number", "2 without end taken as missing"),
        (["inf", "-Infinity", "1", "2", "3"] * 4, "number", "8 without end"),
        ([str(2**60 + i) for i in range(20)], "number", "a number"),
        ([f"{i % 28 + 1}/02/2011 0:{i:02d}" for i in range(40)], "date", "a date"),
        ([f"{i % 28 + 1}-Mar-2011" for i in range(40)] + ["-", "?"], "date", "a date"),
        ([f"2011-{i % 12 + 1:02d}" for i in range(40)], "date", "a date"),
        ([f"Dec-{2000 + i}" for i in range(20)], "date", "a date"),
        ([f"{i % 12 + 1}:30:00 PM" for i in range(20)], "date", "a date"),
        ([f"{i}.2.{i}" for i in range(40, 80)], "left out", "40 different words"),
        (["", "", "x"], "words", "1 words, 2 missing as one of their own"),
    ],
)
def test_columns_as_they_are_downloaded_have_their_kind(cells: list[str], kind: str, said: str) -> None:
    plan = plans(["x"], [cells])[0]
    assert (plan.kind, said in plan.said) == (kind, True)
    values = plan.encoded(cells)
    assert (np.isnan(values) | (np.abs(values) <= 3.5e38)).all()
    assert len(np.unique(values[~np.isnan(values)])) == 0 or np.square(values[np.isfinite(values)]).max() > 0
    assert Plan.of(json.loads(json.dumps(plan.told()))) == plan


def test_days_and_months_are_told_apart_by_all_cells() -> None:
    cells = [f"{day}/{month}/2011" for day in range(1, 14) for month in range(1, 12)]
    plan = plans(["x"], [cells])[0]
    assert plan.form == "%d/%m/%Y"
    assert plan.encoded(["13/1/2011"])[0, 1:].tolist() == [1, 3]


@pytest.mark.parametrize("cell", ["5more", "3 doors", "1,5"])
def test_one_new_row_is_read_as_training_was_and_not_as_it_would_be_alone(tmp_path: Path, cell: str) -> None:
    # alone, 5more would be the number 5, in units of more
    rows = [["w", "y"], *([word, "pq"[i % 2]] for i, word in enumerate(["2", cell, "x"] * 4))]
    training = table(written(tmp_path / "a.csv", rows))
    read = table_of(str(written(tmp_path / "new.csv", [["w"], [cell]])))
    taken, _ = matched(training.plans, read, "new.csv")
    place = training.plans[0].words.index(cell)
    assert training.plans[0].encoded(taken[0]).tolist() == [[place]]


def test_new_numbers_are_read_in_the_form_of_training(tmp_path: Path) -> None:
    rows = [["price", "size", "y"], *([f"{i}.000,5 €", f"{i},5", "pq"[i % 2]] for i in range(1, 30))]
    training = table(written(tmp_path / "a.csv", rows))
    read = table_of(
        str(written(tmp_path / "new.csv", [["size", "price"], ["2.5", "4.000"], ["-", "1.000,5 €"]]))
    )
    taken, _ = matched(training.plans, read, "new.csv")
    X = prepared(training.plans, taken, 2).X
    np.testing.assert_array_equal(X, [[4000, 2.5], [1000.5, np.nan]])
    assert unknown_cells(training.plans[1], taken[1]) == 0


def test_a_second_table_is_read_as_the_first_and_its_rows_without_a_target_do_not_count(
    tmp_path: Path,
) -> None:
    rows = [["price", "w", "y"], *([f"{i},5 €", "uv"[i % 2], "pq"[i % 2]] for i in range(1, 30))]
    first = written(tmp_path / "a.csv", rows)
    second = written(
        tmp_path / "b.csv", [["y", "w", "price"], ["q", "u", "2,5 €"], ["?", "v", "7"], ["p", "x", "-"]]
    )
    data = table(first, test_path=str(second))
    np.testing.assert_array_equal(data.X_test, [[2.5, 0], [np.nan, -1]])
    assert [data.labels[c] for c in data.y_test] == ["q", "p"] and len(data.y) == 29
    numbers = table(first, kind="regression", target="price", test_path=str(second.parent / "b.csv"))
    np.testing.assert_array_equal(numbers.y_test, [2.5, 7])
    with pytest.raises(UserError, match="1 classes are not those of training: z"):
        table(first, test_path=str(written(second, [["y", "w", "price"], ["z", "u", "1"]])))
    with pytest.raises(UserError, match=r"dataset\.test_path=.*: no column 'y'"):
        table(first, test_path=str(written(second, [["w", "price"], ["u", "1"]])))


def test_a_column_that_counts_the_rows_is_left_out_where_it_may_tell_classes(tmp_path: Path) -> None:
    rows = [["Id", "x", "y"], *([i + 1, i * 7 % 5, "pq"[i > 20]] for i in range(40))]
    data = table(written(tmp_path / "a.csv", rows))
    assert data.plans[0].said == "left out: it counts the rows"
    numbers = table(tmp_path / "a.csv", kind="regression", target="x")
    assert numbers.plans[0].kind == "number"


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_a_regression_is_as_good_in_any_unit_of_its_target(unit: float) -> None:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(60, 2))
    y = X[:, 0] + 0.1 * draw.normal(size=60)
    for name in ("kSVM", "lSVM", "DT", "Perceptron", "GNB"):
        description = next(one for one in DEFAULTS if one["algorithm"] == name)
        one, other = (
            built(description, False, np.zeros(2, bool), 60, 0).fit(X, made).predict(X)
            for made in (y, unit * y)
        )
        np.testing.assert_allclose(other / unit, one, rtol=1e-3, atol=1e-3)


def test_words_with_thousands_of_levels_have_their_moments_without_a_column_each() -> None:
    draw = np.random.default_rng(0)
    words = np.concatenate([np.arange(40), draw.integers(0, 40, 200)])
    encoded = (words[:, None] == np.arange(40)).astype(float)
    X = np.stack([words.astype(float), draw.normal(size=240)], 1)
    found = meta_features(X, np.array([True, False]), draw.integers(0, 2, 240), 0)
    both = np.hstack([encoded, X[:, 1:]])
    assert found["KurtosisMax"] == pytest.approx(kurtosis(both).max())
    assert found["KurtosisSTD"] == pytest.approx(kurtosis(both).std())
    assert found["SkewnessMean"] == pytest.approx(skew(both).mean())


def test_a_table_without_a_useful_column_is_one_column_of_zeros(tmp_path: Path) -> None:
    data = table(written(tmp_path / "none.csv", [["a", "y"], *([7, i % 2] for i in range(12))]))
    assert data.X.shape == (12, 1) and not data.X.any()


def test_the_held_out_rows_are_a_fifth_and_a_long_table_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["a", "y"], *([i, "pq"[i % 10 == 0]] for i in range(300))]
    data = table(written(tmp_path / "long.csv", rows), limit=100)
    assert "100 of 300 rows are taken, of each class alike" in capsys.readouterr().err
    assert (len(data.y), len(data.y_test)) == (80, 20)
    assert data.y.sum() + data.y_test.sum() == 10


@pytest.mark.parametrize(
    ("rows", "changed", "line"),
    [
        ([["a", "y"], [1, "p"], [2, "p"]], {}, "it has one class"),
        ([["a", "b"], [1, 2], [2, 3]], {}, r"dataset\.target=y: no such column"),
        ([["a", "b", "y"], [1, 2, 3], [1, 2]], {}, "row 3 has 2 cells"),
        ([["a", "y"], [1, "p"], [2, "3"]], {"kind": "regression"}, "'p' .line 2. is no number"),
        ([["a", "y"], [1, "p"], [2, "q"]], {"minutes": 0.0}, "minutes"),
        ([["a", "y"], [1, 2.5], [2, 2.5]], {"kind": "regression"}, "it is 2.5 in all rows"),
    ],
)
def test_bad_tables_get_one_line(
    tmp_path: Path, rows: list[list[Any]], changed: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        table(written(tmp_path / "bad.csv", rows), **changed)


def test_folds_spread_each_class_and_there_are_at_least_two() -> None:
    y = np.repeat([0, 1], [20, 10])
    folds = fold_of_rows(y, 5, True)
    assert all(np.bincount(folds[y == c], minlength=5).tolist() == [20 // 5 // (c + 1)] * 5 for c in (0, 1))
    assert set(fold_of_rows(np.array([0, 1, 2]), 5, True)) == {0, 1, 2}


def test_scores_are_scikit_learns_and_resamples_lie_around_them() -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 200)
    good, bad = np.where(draw.random(200) < 0.8, y, 0), draw.integers(0, 3, 200)
    assert balanced_accuracy(y, good) == pytest.approx(balanced_accuracy_score(y, good))
    drawn = resampled(y, [good, bad], True)
    np.testing.assert_allclose(
        drawn.mean(0), [balanced_accuracy(y, good), balanced_accuracy(y, bad)], atol=0.01
    )
    right = np.array([(good[y == c] == c).mean() for c in range(3)])
    count = np.bincount(y)
    assert drawn[:, 0].std() == pytest.approx(np.sqrt((right * (1 - right) / count).sum()) / 3, rel=0.1)
    z = draw.normal(size=200)
    near = z + 0.5 * draw.normal(size=200)
    assert r_squared(z, near) == pytest.approx(r2_score(z, near))
    low, high = interval(resampled(z, [near], False)[:, 0])
    assert low < r_squared(z, near) < high
    assert r_squared(np.ones(3), np.ones(3)) == 0


def test_what_is_right_in_all_of_few_rows_may_still_be_wrong() -> None:
    y = np.repeat([0, 1], 10)
    low, high = interval(plausible(y, y))
    assert 0.8 < low < 0.95 and high > 0.99


def test_meta_features_are_those_of_the_papers_table() -> None:
    X, y = load_iris(return_X_y=True)
    X = np.where(np.arange(150)[:, None] % 50 == 7, np.nan, X)
    both, words = np.hstack([X, (y % 2)[:, None]]), np.array([False] * 4 + [True])
    found = meta_features(both, words, y, 0)
    assert found["NumberOfClasses"] == 3 and found["ClassEntropy"] == pytest.approx(np.log2(3))
    assert found["NumberOfMissingValues"] == 12 and found["PercentageOfInstancesWithMissingValues"] == 3 / 150
    assert found["SymbolsMax"] == 2 and found["RatioNumericalToNominal"] == 4
    middle = np.where(np.isnan(X), np.nanmedian(X, 0), X)
    encoded = np.hstack([middle, (y % 2 == 0)[:, None], (y % 2 == 1)[:, None]])
    assert found["KurtosisMean"] == pytest.approx(kurtosis(encoded).mean())
    assert found["LandmarkLDA"] > 0.9 > found["LandmarkRandomNodeLearner"]
    assert len(found) == 46 and np.isnan(in_order(found, ["ClassEntropy", "other"])[1])


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "pmf_automl").exists(), reason="no data/pmf_automl")
def test_all_46_names_of_the_papers_table_are_computed() -> None:
    X, y = load_iris(return_X_y=True)
    names = next(csv.reader((DATA / "pmf_automl" / "data_feats_featurized.csv").open()))[1:]
    found = meta_features(X, np.zeros(4, bool), y, 0)
    assert set(found) == set(names)


def test_meta_features_of_the_smallest_and_emptiest_tables_are_there() -> None:
    for X in (np.zeros((5, 1)), np.full((5, 2), np.nan), np.arange(10.0).reshape(5, 2)):
        for y in (np.array([0, 1, 0, 1, 0]), np.arange(5)):
            assert len(meta_features(X, np.zeros(X.shape[1], bool), y, 0)) == 46


SHAPES = [(True, name) for name in CLASSIFIERS] + [(False, name) for name in REGRESSORS]


@pytest.mark.parametrize(("classes", "name"), SHAPES)
def test_each_algorithm_learns_from_gaps_and_words_and_is_read_back_without_pickle(
    tmp_path: Path, classes: bool, name: str
) -> None:
    draw = np.random.default_rng(0)
    X = np.hstack([draw.normal(size=(40, 2)), draw.integers(0, 3, (40, 1))])
    y = (X[:, 0] > 0).astype(int) if classes else X[:, 0] + 0.1 * draw.normal(size=40)
    X[::7, 1] = np.nan
    description = next(one for one in DEFAULTS if one["algorithm"] == name)
    pipeline = built(description, classes, np.array([False, False, True]), 40, 0).fit(X, y)
    skops.io.dump(pipeline, tmp_path / "one.skops")
    assert set(skops.io.get_untrusted_types(file=tmp_path / "one.skops")) <= set(trusted())
    again = skops.io.load(tmp_path / "one.skops", trusted=trusted())
    X[0, 2] = -1
    np.testing.assert_array_equal(again.predict(X), pipeline.predict(X))


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "oboe").exists(), reason="no data/oboe")
def test_each_setting_of_oboes_matrix_is_one_that_scikit_learn_takes() -> None:
    from papers.pmf_automl.scores import read_oboe_whole

    _, descriptions, _ = read_oboe_whole(DATA)
    X = np.random.default_rng(0).normal(size=(30, 2))
    for description in descriptions:
        model = built(description, True, np.zeros(2, bool), 30, 0)
        model[-1]._validate_params()
        if description["algorithm"] in ("Logit", "kSVM"):
            model.fit(X, (X[:, 0] > 0).astype(int))
        built(description, False, np.zeros(2, bool), 30, 0)[-1].regressor._validate_params()
    # of the twins many are the same
    assert 120 < len({effective(one, False, 30) for one in descriptions}) < len(descriptions)


def shared(folder: Path, rows: int = 60) -> Table:
    draw = np.random.default_rng(0)
    X = draw.normal(size=(rows, 2))
    parts = {"X": X, "y": (X[:, 0] > 0).astype(int), "words": np.zeros(2, bool), "folds": np.arange(rows) % 3}
    for name, values in parts.items():
        np.save(folder / f"{name}.npy", values)
    return Table(folder, 2, 0)


@pytest.mark.slow
def test_a_process_gives_what_this_one_would_and_says_why_it_fails(tmp_path: Path) -> None:
    own = shared(tmp_path)
    tree = {"algorithm": "DT", "hyperparameters": {"min_samples_split": 2}}
    done = Trial(own, tree, 60.0, 4 << 30).result()
    np.testing.assert_array_equal(done.predictions, cross_validated(own, tree))
    wrong = Trial(
        own, {"algorithm": "DT", "hyperparameters": {"min_samples_split": -1}}, 60.0, 4 << 30
    ).result()
    assert wrong.predictions is None and wrong.why is not None and "min_samples_split" in wrong.why
    late = Trial(own, {"algorithm": "RF", "hyperparameters": {}}, 0.001, 4 << 30).result()
    assert late.why is not None and "out of time" in late.why
    many = {"algorithm": "RF", "hyperparameters": {"n_estimators": 200_000}}
    large = Trial(own, many, 3.0, 8 << 20).result()
    assert large.predictions is None and large.why is not None


def test_a_fold_of_all_of_a_rare_class_is_answered_by_the_other_one(tmp_path: Path) -> None:
    own = shared(tmp_path)
    np.save(tmp_path / "y.npy", (np.arange(60) == 0).astype(int))
    linear = {"algorithm": "Logit", "hyperparameters": {}}
    assert not cross_validated(own, linear).any()


ASKS = """
import sys, time
from pathlib import Path
from papers.pmf_automl.trial import Table, Trial
forest = {"algorithm": "RF", "hyperparameters": {"n_estimators": 200_000}}
trial = Trial(Table(Path(sys.argv[1]), 2, 0), forest, 600.0, 4 << 30)
while not trial.begun:
    trial.outcome(0.1)
print(trial.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_process_ends_with_the_one_that_asked_for_it(tmp_path: Path) -> None:
    shared(tmp_path)
    asks = subprocess.Popen([sys.executable, "-c", ASKS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert asks.stdout is not None
    works = int(asks.stdout.readline())
    assert Path(f"/proc/{works}").exists()
    asks.kill()
    asks.wait()
    asks.stdout.close()
    until(lambda: not Path(f"/proc/{works}").exists())


def searching(tmp_path: Path, **outcomes: float) -> TableModule:
    """A search in a fixed order, of which pipelines of some algorithms were tried; NaN is a failure."""
    data = table(written(tmp_path / "odd.csv", odd(45)))
    method = Portfolio()
    found = TableModule(data=data, model=settings(), method=method, seed=0, iterations=20)
    found.pipelines, found.order, found.learning = list(DEFAULTS), list(range(len(DEFAULTS))), False
    found.built_as = [effective(one, True, 40) for one in DEFAULTS]
    for name, value in outcomes.items():
        number = next(n for n, one in enumerate(DEFAULTS) if one["algorithm"] == name)
        found.tried.append(Tried(number, DEFAULTS[number], Outcome(None, None, 1.0), value))
    return found


def proposed(search: TableModule) -> str:
    number = search._next()
    assert number is not None
    return str(search.pipelines[number]["algorithm"])


def test_where_nothing_is_better_than_the_majority_class_the_quickest_come_next(tmp_path: Path) -> None:
    assert proposed(searching(tmp_path)) == "RF"
    assert proposed(searching(tmp_path, RF=0.9)) == "GBT"
    assert proposed(searching(tmp_path, RF=np.nan)) == "GNB"
    assert proposed(searching(tmp_path, RF=np.nan, GNB=0.3)) == "DT"
    assert proposed(searching(tmp_path, RF=np.nan, GNB=0.3, DT=0.9)) == "GBT"
    tried = dict.fromkeys(["RF", "GNB", "DT", "KNN", "Logit"], np.nan)
    assert proposed(searching(tmp_path, **tried)) == "GBT"


def test_what_scikit_learn_builds_the_same_is_tried_once(tmp_path: Path) -> None:
    search = searching(tmp_path)
    rbf = {"C": 1.0, "kernel": "rbf"}
    search.pipelines = [{"algorithm": "kSVM", "hyperparameters": {**rbf, "coef0": c}} for c in (0, 10)]
    search.pipelines += [{"algorithm": "KNN", "hyperparameters": {"n_neighbors": n}} for n in (50, 60)]
    search.order = list(range(4))
    search.built_as = [effective(one, True, 40) for one in search.pipelines]
    search.tried = [Tried(n, search.pipelines[n], Outcome(None, None, 1.0), 0.9) for n in (0, 2)]
    assert search._next() is None


def test_a_pipeline_that_is_at_work_when_the_minutes_are_over_is_given_up(tmp_path: Path) -> None:
    class Working:
        seconds, stopped = 3.0, False

        def outcome(self, wait: float) -> None:
            return None

        def stop(self) -> None:
            self.stopped = True

    search, trial = searching(tmp_path), Working()
    search.running, search.started = {0: trial}, time.perf_counter()  # type: ignore[dict-item]
    search.before = search.budget
    search._collect(0.0)
    assert not trial.stopped and search.running
    search.before = 1.1 * search.budget + 5.0
    search._collect(0.0)
    assert trial.stopped and not search.running
    assert search.tried[0].outcome.why == "out of time: the minutes were over"


def test_other_settings_of_an_algorithm_that_has_only_failed_come_last(tmp_path: Path) -> None:
    assert proposed(searching(tmp_path, RF=0.9, GBT=np.nan)) == "Logit"
    search = searching(tmp_path, RF=0.9, GBT=np.nan)
    tried = []
    while (number := search._next()) is not None:
        tried.append(DEFAULTS[number]["algorithm"])
        search.tried.append(Tried(number, DEFAULTS[number], Outcome(None, None, 1.0), 0.8))
    assert "GBT" not in tried[:-2] and tried[-2:] == ["GBT", "GBT"]


def test_while_the_matrix_is_learnt_only_what_needs_no_model_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = searching(tmp_path, RF=0.9)
    search.order, search.learning, search.started = [0], True, time.perf_counter()
    search.method.first, search.method.steps = [np.array([0, 4, 2])], 10
    assert search._learns() and search._next() == 4
    search.running = {4: None, 2: None}  # type: ignore[dict-item]
    assert search._next() is None
    search.method.taken = 10
    monkeypatch.setattr(search, "_proposed", lambda x, y, free: 7)
    assert search._next() == 7


def test_the_best_default_is_the_first_to_be_started_and_may_have_failed(tmp_path: Path) -> None:
    search = searching(tmp_path, GBT=0.9)
    assert search._default() is None and search._said_of(None).endswith(": not tried")
    outcome = Outcome(None, "out of time: not done after 6 s", 6.0)
    search.tried.append(Tried(0, DEFAULTS[0], outcome, np.nan))
    assert search._said_of(search._default()) == "RF min_samples_split=2: out of time: not done after 6 s"


def test_all_minutes_are_for_trials_until_one_is_better_than_the_majority_class(tmp_path: Path) -> None:
    for outcomes, share in (({}, 1.0), ({"RF": np.nan}, 1.0), ({"RF": 0.2}, 1.0), ({"RF": 0.9}, 0.8)):
        search = searching(tmp_path, **outcomes)
        assert search._end() == pytest.approx(share * search.budget)


def test_a_last_fit_has_the_time_of_the_cross_validation_also_where_none_is_left(tmp_path: Path) -> None:
    search = searching(tmp_path, RF=0.9)
    search.started, search.before = time.perf_counter(), search.budget
    search.tried[0].outcome = Outcome(None, None, 33.0)
    assert search._left(search.tried[0]) == 33.0


def test_a_saved_pipeline_answers_new_rows_by_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(written(tmp_path / "odd.csv", odd(45)))
    tree = {"algorithm": "DT", "hyperparameters": {"min_samples_split": 2}}
    pipeline = built(tree, True, data.words, 44, 0).fit(data.X, data.y)
    skops.io.dump(pipeline, tmp_path / saved.PIPELINE)
    (tmp_path / saved.ABOUT).write_text(json.dumps(told(data)))
    rows = [[row[-1], *row[:-1]] for row in odd(6)]
    rows[1][-1] = "unheard"
    where = saved.predict_rows(tmp_path, written(tmp_path / "new.csv", rows), tmp_path / "to")
    found = list(csv.reader(where.open()))
    assert found[0] == ["y", "probability of p", "probability of q", "probability of rare"]
    assert [row[0] for row in found[2:]] == [str(row[-1]) for row in odd(6)[2:]]
    assert "1 cells of column 'word' are nothing that training has" in capsys.readouterr().err
    with pytest.raises(UserError, match="it lacks"):
        saved.predict_rows(tmp_path, written(tmp_path / "few.csv", [["x"], [1]]), tmp_path / "to")


def test_a_saved_file_with_other_types_is_not_loaded(tmp_path: Path) -> None:
    skops.io.dump(built(MAJORITY, True, np.zeros(1, bool), 2, 0), tmp_path / saved.PIPELINE)
    (tmp_path / saved.ABOUT).write_text("{}")
    saved.load(tmp_path)
    skops.io.dump(Foreign(), tmp_path / saved.PIPELINE)
    with pytest.raises(UserError, match="Foreign, which no pipeline of this project has"):
        saved.load(tmp_path)
