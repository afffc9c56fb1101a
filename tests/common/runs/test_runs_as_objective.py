"""Runs of the project as an objective: words, results, failures, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.crew import Measured
from common.base.errors import UserError
from common.runs.as_objective import Runs
from common.runs.crew import LauncherCrew, LocalCrew

SETTINGS: dict[str, Any] = {
    "kind": "objective", "words": "paper=saddle dataset=b1 paper.max_iterations=3000", "metric": "f_final",
    "goal": "minimize", "parameters": ["paper.eps=log(0.01,1)"],
    "lengthscale": 0.3, "launcher": "basic", "rungs": None, "warm_start": None, "data_dir": "data",
}  # fmt: skip


def runs(tmp_path: Path, **given: Any) -> Runs:
    made = Runs(**(SETTINGS | {"output_dir": str(tmp_path)} | given))
    made.draw([3, 4])
    return made


def test_a_point_is_the_words_of_a_run(tmp_path: Path) -> None:
    parameters = [
        "paper.eps=log(0.01,1)",
        "paper.max_iterations=int(10,20)",
        "method=choice(escape/a,escape/b)",
        "paper.gamma=float(-1,3) if method=escape/b",
    ]
    made = runs(tmp_path, parameters=parameters, words="paper=saddle")
    words = made.command(1, torch.tensor([0.5, 0.26, 0.7, 0.25], dtype=torch.float64))
    assert words == [
        *("paper=saddle", "paper.eps=0.1", "paper.max_iterations=12"),
        *("method=escape/b", "paper.gamma=0", "seed=4"),
    ]
    words = made.command(0, torch.tensor([0.5, 0.26, 0.2, 0.25], dtype=torch.float64))
    assert words[3:] == ["method=escape/a", "seed=3"]


def test_the_seed_of_the_words_counts_for_all_replicates(tmp_path: Path) -> None:
    made = runs(tmp_path, words="paper=saddle seed=9")
    assert made.command(1, torch.zeros(1)) == ["paper=saddle", "seed=9", "paper.eps=0.01"]


def test_values_are_the_metrics_of_runs_which_are_kept_and_a_failed_run_is_nan_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runs(tmp_path, parameters=["paper.eps=float(-0.5,0.5)"])
    values = made.values(torch.tensor([[[0.1], [0.625], [1.0]]], dtype=torch.float64))
    # eps = -0.4 is refused by the run itself; with a smaller eps f ends nearer to its minimum, -1/4
    assert values.isnan().tolist() == [[True, False, False]]
    assert 0.25 > values[0, 1] > values[0, 2] > 0.1
    assert len(list(tmp_path.glob("saddle/*/result.json"))) == 2
    said = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("error: [paper.eps=-0.4")
    ]
    assert len(said) == 1 and "valid" in said[0]
    # a search that is warm-started knows them
    monkeypatch.setattr("common.runs.as_objective.ROOT", tmp_path / "nowhere")
    given = {"parameters": ["paper.eps=float(-0.5,0.5)"], "warm_start": "paper=saddle dataset=b1"}
    (known,) = runs(tmp_path, **given).earlier()
    assert "2 results of these very runs, 0 results of 0 others" in capsys.readouterr().err
    assert sorted(known.x.flatten().tolist()) == [0.625, 1.0] and known.same
    assert known.y.tolist() == [float(values[0, 1 if x == 0.625 else 2]) for x in known.x.flatten()]
    assert runs(tmp_path).earlier() == ()


@pytest.mark.parametrize("key", ["seed", "output_dir", "logger", "force", "trainer", "hydra/launcher"])
def test_what_decides_no_result_is_not_searched(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"parameters={key}: valid|parameters={key}.*no seed"):
        runs(tmp_path, parameters=["paper.eps=log(0.01,1)", f"{key}=choice(1,2)"])


def test_a_metric_that_the_run_lacks_ends_a_search_with_those_that_it_has(tmp_path: Path) -> None:
    crew = runs(tmp_path).crew(1)
    assert isinstance(crew, LocalCrew)
    metrics = {"f_start": 1.0, "test_loss": 0.5}
    with pytest.raises(UserError, match=r"no such metric \(valid: f_start\)"):
        crew._measured(0, {"metrics": metrics, "share": 1.0})
    assert crew._measured(0, {"metrics": {"f_final": 2.0}, "share": 0.5}) == Measured(0, -2.0, 0.5)
    assert crew._measured(0, {"metrics": {"f_final": None}, "share": 1.0}).value != 0


def test_each_launcher_has_its_crew(tmp_path: Path) -> None:
    for launcher, kind in (("basic", LocalCrew), ("joblib", LocalCrew), ("ray", LauncherCrew)):
        crew = runs(tmp_path, launcher=launcher).crew(2)
        assert type(crew) is kind and crew.size == 2
        crew.close()


def test_runs_that_all_cannot_be_launched_end_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown paper=sadle; did you mean saddle"):
        runs(tmp_path, words="paper=sadle").value(0, torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"metric": "test_accuracy"}, "a search must not look at the test set"),
        ({"goal": "up"}, "dataset.goal=up"),
        ({"parameters": []}, "give at least one"),
        ({"parameters": ["seed=log(0,1)"]}, "low > 0"),
    ],
)
def test_settings_out_of_range_get_one_line(tmp_path: Path, given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as raised:
        runs(tmp_path, **given)
    assert line in str(raised.value)
