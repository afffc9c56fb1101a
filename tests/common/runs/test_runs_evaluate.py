"""The evaluation of a finished run on another data set."""

import json
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.evaluate import evaluate, main
from common.runs.result import read_result
from common.runs.runner import execute

WORDS = ["scale=smoke", "logger=none", "trainer=cpu"]


def made(folder: Path, *words: str) -> tuple[list[str], Path]:
    """Make a run; its words and its folder."""
    asked = [*words, *WORDS, f"output_dir={folder}"]
    return asked, execute(*compose(asked)).path.parent


@pytest.mark.parametrize(
    "words", [["dataset=digits"], ["dataset=diabetes"], ["dataset=breast_cancer"]], ids=lambda words: words[0]
)
def test_on_its_own_data_set_a_run_has_its_own_test_metrics_whatever_the_limit(
    tmp_path: Path, words: list[str]
) -> None:
    asked, folder = made(tmp_path, "paper=yogi", *words, "dataset.limit=100")
    path, metrics = evaluate([*asked, *words, "dataset.limit=50"])
    result = read_result(folder / "result.json")
    assert result is not None and metrics
    assert metrics == {name: result["metrics"][name] for name in metrics}
    again, by_folder = evaluate([str(folder), *words, "dataset.limit=50"])
    assert (again, by_folder) == (path, metrics)
    written = json.loads(path.read_text())
    assert path.parent == folder and written["metrics"] == metrics
    assert written["dataset"]["limit"] == 50 and written["run"] == f"yogi/{folder.name}"


def test_other_data_are_normalised_as_those_that_the_network_was_trained_on(tmp_path: Path) -> None:
    asked, _ = made(tmp_path, "paper=yogi", "dataset=digits", "dataset.normalise=unit_interval")
    other = ["dataset=digits", "dataset.source=synthetic"]
    _, metrics = evaluate([*asked, *other])
    path, the_same = evaluate([*asked, *other, "dataset.normalise=none"])
    assert metrics == the_same
    assert json.loads(path.read_text())["facts"]["normalise"] == "unit_interval"
    _, own = evaluate([*asked, "dataset=digits"])
    assert own["test_loss"] != metrics["test_loss"]


def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path) -> None:
    asked, folder = made(tmp_path, "paper=yogi", "dataset=digits")
    for words, line in {
        "dataset=digits dataset.positive=[1]": "digits has classes 2, and .* on digits with classes 10",
        "dataset=mnist": "dataset=mnist has shape 1x28x28, and .* digits with shape 1x8x8",
        "dataset=wine": "dataset=wine has kind tabular_classification",
        "dataset=digit": "unknown dataset=digit; did you mean digits",
        "dataset=digits dataset.limit=0": "dataset.limit=0: give at least 1",
        "dataset=digits dataset.colour=red": "dataset.colour|unknown|Could not override",
        "paper.epochs=3": "name the data set to judge on",
    }.items():
        with pytest.raises((UserError, HydraException), match=line):
            evaluate([str(folder), *words.split()])
    with pytest.raises(UserError, match=r"no finished run in .*; this makes it: python run.py paper=yogi"):
        evaluate(["paper=yogi", "seed=7", *WORDS, f"output_dir={tmp_path}", "dataset=digits"])
    words, _ = made(tmp_path, "paper=spider")
    with pytest.raises(UserError, match="SpiderModule trains no network"):
        evaluate([*words, "dataset=digits"])
    assert asked


def test_the_readmes_command_prints_the_metrics_one_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = Path(__file__).resolve().parents[3] / "README.md"
    (command,) = (line for line in readme.read_text().splitlines() if line.startswith("python evaluate.py"))
    words = command.split()[2:]
    asked, _ = made(tmp_path, *words[:2])
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *asked, *words[2:]])
    assert main() == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= {"test_loss", "test_error", "test_accuracy"}
    assert last.startswith("evaluation: ") and Path(last.split()[1]).is_file()
