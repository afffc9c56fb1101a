"""`tune.py`: words handed over, refusals before any training, the answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.base.errors import UserError
from common.runs.tune import search_words
from common.tables.tables import ROOT

RUN = ["paper=saddle", "dataset=b1", "paper.max_iterations=3000"]
EPS = "paper.eps=log(0.01,1)"


def test_words_are_divided_between_the_search_and_its_runs() -> None:
    words = search_words([*RUN, EPS, "metric=f_final", "evaluations=30", "seed=3", "searcher=search/tpe"])
    assert words == [
        "paper=maxacq",
        "dataset=runs",
        "dataset.words='paper=saddle dataset=b1 paper.max_iterations=3000'",
        "dataset.parameters=['paper.eps=log(0.01,1)']",
        "dataset.metric=f_final",
        "paper.evaluations=30",
        "paper.repeats=1",
        "paper.batch=1",
        "method=search/tpe",
        "dataset.goal=minimize",
        "paper.initial=4",
        "seed=3",
    ]


def test_words_of_the_search_itself_are_handed_over_and_quoted_where_they_are_words() -> None:
    given = ["rungs=[0.1,0.3]", "warm_start='paper=saddle dataset=b1'", "batch=2", "hydra/launcher=ray"]
    words = search_words([*RUN, EPS, "metric=f_final", *given])
    for word in (
        *("dataset.rungs=[0.1,0.3]", "dataset.warm_start='paper=saddle dataset=b1'"),
        *("paper.batch=2", "dataset.launcher=ray"),
    ):
        assert word in words
    bare = search_words([*RUN, EPS, "metric=f_final", "warm_start=paper=saddle dataset=b1"])
    assert "dataset.warm_start='paper=saddle dataset=b1'" in bare


def test_searchers_of_additive_functions_get_a_surrogate_that_is_one() -> None:
    words = search_words([*RUN, EPS, "metric=f_final", "searcher=search/qff_ts"])
    assert words[-4:] == ["model=gp_se", "model.groups=one_dim", "model.fit=fixed", "model.noise=0.1"]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("ablr", "search/ablr"),
        ("search/tpe", "search/tpe"),
        ("ei", "acquisition/ei"),
        ("sobol", "search/sobol"),
    ],
)
def test_a_searcher_is_known_by_its_name_alone(name: str, full: str) -> None:
    words = search_words(
        ["paper=yogi", "dataset.validation=0.2", "method.lr=log(1e-4,1)", f"searcher={name}"]
    )
    assert f"method={full}" in words


def test_a_searcher_that_there_is_not_is_refused_with_the_near_ones() -> None:
    with pytest.raises(UserError, match="unknown searcher=sobool; did you mean sobol"):
        search_words(["paper=yogi", "dataset.validation=0.2", "method.lr=log(1e-4,1)", "searcher=sobool"])


def test_an_accuracy_is_to_be_large_unless_it_is_said_otherwise() -> None:
    words = ["paper=yogi", "dataset=digits", "dataset.validation=0.2", "method.lr=log(1e-4,1)"]
    assert "dataset.goal=maximize" in search_words([*words, "metric=validation_accuracy"])
    assert "dataset.goal=minimize" in search_words([*words, "metric=validation_accuracy", "goal=minimize"])
    assert "dataset.goal=minimize" in search_words(words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (RUN, "nothing to search; valid: at least one word such as"),
        ([*RUN, EPS, "-m"], "-m: valid: words as key=value"),
        ([*RUN, EPS, "metric=test_loss"], "a search must not look at the test set"),
        ([*RUN, EPS, "metric=test_loss"], "metric=test_loss: a search"),
        ([*RUN, EPS, "evaluations=many"], "evaluations=many; valid: a whole number"),
        ([*RUN, EPS, "batch=0"], "batch=0; valid: a whole number, at least 1"),
        ([*RUN, EPS, "replicates=-1"], "replicates=-1; valid: a whole number"),
        ([*RUN, EPS, "goal=low"], "unknown goal=low (valid: minimize, maximize)"),
        ([*RUN, EPS, "rungs=[0.3,0.1]"], "rungs=[0.3,0.1]; valid: ascending shares"),
        ([*RUN, EPS, "rungs=0.3"], "rungs=0.3; valid: ascending shares"),
        ([*RUN, EPS, "evals=3"], "unknown word evals=3; did you mean evaluations=3?"),
        ([*RUN, EPS, "hydra/launcher=jobl"], "unknown hydra/launcher=jobl; did you mean joblib?"),
        ([*RUN, "paper.eps=lg(0.01,1)"], "paper.eps=lg(0.01,1): valid: KEY=float(low,high)"),
        ([*RUN, EPS, "epochs=3"], "unknown key epochs"),
        ([*RUN, "paper.eps=log(1,0.1)"], "low=1, high=0.1; valid: low < high"),
        (["paper=sadle", "dataset=b1", EPS], "unknown paper=sadle; did you mean saddle"),
        ([*RUN, "method=choice(escape/perturbed_pgd,escape/perturbd)"], "did you mean escape/perturbed_pgd"),
        (["paper=yogi", "dataset=digits", "method.lr=log(1e-4,1)"], "the run keeps no validation split"),
        (
            ["paper=yogi", "dataset=table", "dataset.path=a.csv", "method.lr=log(1e-4,1)"],
            "the run keeps no validation split",
        ),
    ],
)
def test_what_makes_no_sense_gets_one_line_before_anything_is_trained(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as raised:
        search_words(words)
    assert line in " ".join(str(raised.value).split())


def tune(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tune.py", *words, "logger=none"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_key_that_no_run_has_is_named_with_the_near_ones() -> None:
    done = tune(*RUN, "paper.epz=log(0.01,1)")
    assert done.returncode == 1 and done.stdout == ""
    assert "unknown key paper.epz; did you mean eps" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_search_ends_with_its_trials_and_the_command_of_the_best(tmp_path: Path) -> None:
    words = [*RUN, EPS, "metric=f_final", "evaluations=2", "initial=2", f"output_dir={tmp_path}"]
    done = tune(*words)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("maxacq/*/result.json")
    conclusion = json.loads(path.read_text())["conclusion"]
    trials = conclusion["trials"]
    assert len(trials) == 2 and conclusion["value"] == min(trial["f_final"] for trial in trials)
    best = min(trials, key=lambda trial: trial["f_final"])
    assert conclusion["words"] == [*RUN, f"paper.eps={best['settings']['paper.eps']}", "seed=0"]
    lines = done.stdout.splitlines()
    assert lines[-2] == f"  python run.py {' '.join(conclusion['words'])}"
    assert len(list(tmp_path.glob("saddle/*/result.json"))) == 2
