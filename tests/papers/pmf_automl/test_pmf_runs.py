"""Through the command: a row of a method, the ranked comparison, recorded curves, one's own table."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from calls import RUN, Calls
from sklearn.datasets import load_iris

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("pmf_automl.fig_rank.pmf_it10", "mean_rank_pmf_at_10 "),
        ("pmf_automl.askl_raw.askl_equal_it10", "auc_at_10 "),
        ("pmf_automl.fig_missing.missing_90", "nll_per_dataset "),
    ],
)
def test_rows_run_at_smoke_scale(quick: Run, entry: str, shown: str) -> None:
    done = quick(f"entry={entry}", "scale=smoke")
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_a_killed_search_on_a_table_goes_on_and_its_pipeline_answers_new_rows(
    calls: Calls, need: Callable[[str], Path], data_dir: Path, tmp_path: Path
) -> None:
    need("oboe/error_matrix.csv")
    X, y = load_iris(return_X_y=True)
    rows = [
        [*x, "ab"[i % 2], f"kind {t}"] for i, (x, t) in enumerate(zip(X.tolist(), y.tolist(), strict=True))
    ]
    names = ["length", "width", "petal", "across", "word", "y"]
    with (tmp_path / "iris.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    words = ["paper=pmf_automl", "dataset=table", f"dataset.path={tmp_path / 'iris.csv'}", "dataset.target=y"]
    words += ["dataset.minutes=20", "paper.iterations=3", "method.epochs=2", "logger=none", "trainer=cpu"]
    words += [f"data_dir={data_dir}"]
    calls.killed_at(1, 6, words, tmp_path)
    ended = calls.run(words, tmp_path)
    assert ended.code == 0 and "goes on" in ended.out + ended.errors, ended
    (path,) = tmp_path.glob("outputs/pmf_automl/*/result.json")
    result = json.loads(path.read_text())
    assert result["metrics"]["pipelines_tried"] == 3 and result["metrics"]["score"] > 0.8
    (tmp_path / "new.csv").write_text("word,across,petal,width,length\nunheard,0.2,1.4,3.5,5.1\nb,,,,\n")
    said = calls.run(
        [str(path.parent), "new.csv", "to=answers"], tmp_path, script=RUN.with_name("predict.py")
    )
    assert said.code == 0 and "1 cells of column 'word'" in said.errors, said
    found = list(csv.reader((tmp_path / "answers/predictions.csv").open()))
    assert found[0][0] == "y" and found[1][0] == "kind 0" and len(found) == 3
    (tmp_path / "few.csv").write_text("word,across\na,0.2\n")
    lacks = calls.run(
        [str(path.parent), "few.csv", "to=answers"], tmp_path, script=RUN.with_name("predict.py")
    )
    assert lacks.code == 1 and lacks.errors.count("\n") <= 2 and "it lacks 3 columns" in lacks.errors, lacks
