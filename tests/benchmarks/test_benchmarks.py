"""Every benchmark runs, at sizes that take a moment; docs/benchmarks.md shows what results.json says."""

import json
import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import figures
from benchmarks.__main__ import main
from benchmarks.figures import MARKS, PAGE, Figure, merge, names, options, read, records, with_table
from common.base.errors import UserError

# what `make setup-full` installs for benchmarks, and `make setup` does not
PEERS = {"pytorchcv", "botorch", "cvxpy", "gpytorch", "ot", "pytorch_optimizer", "torchjd"}
RECORD = {
    *("value", "unit", "what", "peer", "at_most", "at_least"),
    *("commit", "processor", "threads", "date"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_benchmark_runs_and_gives_its_figures(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        module = import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name not in PEERS:
            raise
        pytest.skip(f"{error.name} is not installed: make setup-full")
    threads = torch.get_num_threads()
    try:
        found = module.main(tiny=True)
    finally:
        torch.set_num_threads(threads)
    assert found
    for figure in found.values():
        assert isinstance(figure, Figure) and math.isfinite(figure.value)
        assert figure.line().startswith(figure.what)
        assert "|" not in figure.what + figure.peer + figure.unit


def test_the_page_shows_what_was_measured_and_nothing_else() -> None:
    text = PAGE.read_text()
    assert with_table(text, read()) == text


def test_every_record_says_which_code_made_it_where_and_belongs_to_a_benchmark() -> None:
    for name, record in read().items():
        assert name.split(".")[0] in names()
        assert set(record) == RECORD
        assert record["commit"] and record["processor"] and record["threads"] >= 1


@pytest.mark.slow
def test_the_command_measures_in_a_process_of_its_own_and_keeps_nothing_tiny() -> None:
    before = PAGE.read_bytes(), read()
    command = [sys.executable, "-m", "benchmarks", "--tiny", "data_path"]
    done = subprocess.run(command, cwd=PAGE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("== data_path\n") and " x as fast" in done.stdout
    assert (PAGE.read_bytes(), read()) == before


def test_a_benchmark_that_there_is_not_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["yogi_stepp"]) == 1
    assert capsys.readouterr().err.startswith("error: unknown yogi_stepp; valid: ablr_fit, accelegrad_grid, ")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and the page of this test's own."""
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(figures, "PAGE", tmp_path / "benchmarks.md")
    (tmp_path / "benchmarks.md").write_text("before\n{}\nold\n{}\nafter\n".format(*MARKS))
    return tmp_path


def test_a_benchmark_measured_again_replaces_its_own_figures_alone(elsewhere: Path) -> None:
    fast, slow = Figure(20.0, "x as fast", "a step", "a peer"), Figure(1234.5, "s", "a sweep")
    merge("one", records("one", {"step": fast, "gone": slow}, "abcdefghij", 1))
    merge("two", records("two", {"sweep": slow}, "abcdefghij", 1))
    again = Figure(0.5004, "x its time", "a step", "a peer")
    merge("one", records("one", {"step": again}, "abcdefghij+", 2))
    kept: dict[str, Any] = json.loads((elsewhere / "results.json").read_text())
    assert [(name, record["value"]) for name, record in kept.items()] == [
        ("one.step", 0.5004),
        ("two.sweep", 1234.5),
    ]
    lines = (elsewhere / "benchmarks.md").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    rows = [line for line in lines if line.startswith("|")]
    assert "old" not in lines
    assert [row.split(" | ")[:3] for row in rows[2:]] == [
        ["| a step", "a peer", "0.5 x its time"],
        ["| a sweep", "", "1,234 s"],
    ]
    assert all(", abcdefg, " in row for row in rows[2:])
    assert kept["one.step"]["commit"] == "abcdefghij+"


@pytest.mark.parametrize(
    ("value", "passed"), [(0.9, False), (1.0, True), (2.0, True), (2.1, False), (math.nan, False)]
)
def test_a_figure_passes_within_its_goals(value: float, passed: bool) -> None:
    figure = Figure(value, "s", "a step", at_least=1.0, at_most=2.0)
    assert figure.passed == passed
    assert figure.line().endswith("pass" if passed else "FAIL")


def benchmark(tiny: bool = False, device: str = "cpu", batch: int = 8) -> dict[str, Figure]:
    return {}


def test_the_words_of_a_command_line_become_arguments() -> None:
    words = ["--tiny", "device=cuda", "batch=2"]
    assert options(benchmark, words) == {"tiny": True, "device": "cuda", "batch": 2}
    assert options(benchmark, []) == {}


@pytest.mark.parametrize("word", ["cuda", "size=3", "batch=many", "tiny=1", "--big", "device"])
def test_a_word_that_a_benchmark_does_not_take_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=r"valid: --tiny, device=..., batch=...|not a int"):
        options(benchmark, [word])
