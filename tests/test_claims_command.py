"""`claims.py` as a user types it, over tiny claims in a folder of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calls import Calls

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]
Call = Run

# claims.py with another folder of papers' claims, and the number of threads left to it
DRIVER = """
import os
import sys
from pathlib import Path
from common.claims import claims, cli
claims.papers_folder = lambda: Path(__file__).parent / "papers"
os.environ.pop("OMP_NUM_THREADS", None)
if __name__ == "__main__":
    code = cli.main()
    print("imported torch:", "torch" in sys.modules)
    sys.exit(code)
"""
COMMON = """
  source: {kind: ours, where: a test}
  runs: [paper=yogi, dataset=digits, scale=smoke]
"""
CLAIMS = f"""
faster:
  says: Three epochs end at a lower loss than one.{COMMON}
  seeds: [0, 1]
  paired: {{metric: train_loss, a: [paper.epochs=8], b: [paper.epochs=1], better: lower}}
slower:
  says: The same with its sides swapped.{COMMON}
  seeds: [0, 1]
  paired: {{metric: train_loss, a: [paper.epochs=1], b: [paper.epochs=8], better: lower}}
fraction:
  says: An accuracy is at most 1.{COMMON}
  seeds: [0]
  bound: {{metric: test_accuracy, at_most: 1, each: [[paper.epochs=1], [paper.epochs=8]]}}
"""
ENDLESS = "[method=optimizer/sgd, method.lr=1e30, paper.epochs=3]"
BROKEN = f"""
diverges:
  says: Its second run cannot end.{COMMON}
  seeds: [0]
  bound: {{metric: train_loss, at_least: 0, each: [[paper.epochs=1], {ENDLESS}]}}
refused:
  says: It names no method that there is.{COMMON}
  seeds: [0]
  bound: {{metric: train_loss, at_least: 0, each: [[method=optimizer/nothing]]}}
"""


@pytest.fixture
def call(calls: Calls, tmp_path: Path, data_dir: Path) -> Call:
    """Call `claims.py` over claims of this test in a folder of its own; without its start-up, or `anew`."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    write_claims(tmp_path, CLAIMS)
    environment = {"PYTHONPATH": str(ROOT), "DATA_DIR": str(data_dir)}

    def run(*words: str, anew: bool = False) -> subprocess.CompletedProcess[str]:
        words = (*words, f"results_dir={tmp_path / 'results'}")
        if anew:
            command = [sys.executable, str(driver), *words]
            own: dict[str, Any] = {"cwd": tmp_path, "env": os.environ | environment, "timeout": 600}
            return subprocess.run(command, capture_output=True, text=True, check=False, **own)
        ended = calls.run([*words], tmp_path, script=driver, **environment)
        return subprocess.CompletedProcess([*words], ended.code, ended.out, ended.errors)

    return run


def write_claims(folder: Path, text: str) -> None:
    (folder / "papers" / "yogi").mkdir(parents=True, exist_ok=True)
    (folder / "papers" / "yogi" / "claims.yaml").write_text(text)


def made(folder: Path) -> list[Path]:
    return sorted((folder / "outputs" / "yogi").glob("*/result.json"))


def recorded(folder: Path) -> list[Path]:
    return sorted((folder / "results" / "yogi").glob("*.json"))


def test_claims_are_run_once_recorded_judged_and_run_again_where_results_are_deleted(
    call: Call, tmp_path: Path
) -> None:
    first = call("hydra/launcher=joblib", "record=true")
    assert first.returncode == 0, first.stderr
    assert "4 of 4 runs to make" in first.stdout
    assert "4 passed, 0 failed, 0 skipped" in first.stdout
    assert "paper.epochs=8 seed=1" in first.stdout
    assert "yogi.faster: supported" in first.stdout
    assert "yogi.slower: refuted" in first.stdout
    assert "yogi.fraction: supported" in first.stdout
    assert first.stdout.rstrip().splitlines()[-2] == "claims: 2 supported, 1 refuted"
    assert len(made(tmp_path)) == len(recorded(tmp_path)) == 4
    assert {json.loads(path.read_text())["threads"] for path in made(tmp_path)} == {1}

    again = call(anew=True)
    assert again.returncode == 0
    assert "to make" not in again.stdout
    assert "imported torch: False" in again.stdout
    assert again.stdout.splitlines()[-8:-2] == first.stdout.splitlines()[-8:-2]

    lost = made(tmp_path)[0]
    lost.unlink()
    assert "to make" not in call("yogi.faster").stdout
    (tmp_path / "results" / "yogi" / f"{lost.parent.name}.json").unlink()
    third = call("yogi.f*")
    assert third.returncode == 0
    assert "1 of 4 runs to make" in third.stdout
    assert lost.exists()


def test_what_is_there_is_not_computed_again_and_is_recorded_where_that_is_asked_for(
    call: Call, quick: Run, tmp_path: Path
) -> None:
    done = quick("paper=yogi", "scale=smoke")
    assert done.returncode == 0, done.stderr
    (first,) = made(tmp_path)
    result = call("yogi.fraction", "record=true")
    assert "1 passed, 0 failed, 1 skipped" in result.stdout, (
        "asked for by other words, it is found by its key"
    )
    assert json.loads(first.read_text())["asked"] == [
        ["paper=yogi", "scale=smoke"],
        ["dataset=digits", "paper.epochs=1", "paper=yogi", "scale=smoke", "seed=0"],
    ]
    names = [path.parent.name for path in made(tmp_path)]
    assert [path.stem for path in recorded(tmp_path)] == names

    shutil.rmtree(tmp_path / "results")
    again = call("yogi.fraction", "record=true")
    assert "to make" not in again.stdout
    assert [path.stem for path in recorded(tmp_path)] == names


def test_runs_that_fail_leave_their_claims_not_run_and_the_others_judged(call: Call, tmp_path: Path) -> None:
    write_claims(tmp_path, CLAIMS + BROKEN)
    done = call("yogi.fraction", "yogi.diverges", "yogi.refused")
    assert done.returncode == 1
    assert "2 passed, 2 failed" in done.stdout
    assert "yogi.fraction: supported" in done.stdout
    assert (
        "not run: 1 of 2 runs missing (paper=yogi dataset=digits scale=smoke method=optimizer/sgd"
        in done.stdout
    )
    assert "not run: 1 of 1 runs missing" in done.stdout
    assert "unknown method=optimizer/nothing" in done.stderr
    assert "not finite" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_list_says_what_there_is_and_loads_nothing_heavy(call: Call) -> None:
    done = call("--list", anew=True)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["yogi.faster", "yogi.slower", "yogi.fraction"]
    assert lines[2].split(maxsplit=6)[1:] == ["bound", "0", "of", "2", "runs", "An accuracy is at most 1."]
    assert lines[-1] == "imported torch: False"


def test_a_claim_is_shown_with_its_sentence_its_entries_and_what_it_would_run(
    call: Call, tmp_path: Path
) -> None:
    done = call("yogi.fraction", "--show")
    assert done.returncode == 0
    first, source, judged, entries, runs, *commands, _ = done.stdout.splitlines()
    assert first == "yogi.fraction: An accuracy is at most 1."
    assert source.startswith("  source: ") and judged.startswith("  judged: ")
    assert entries == "  entries: none, its runs are its own"
    assert runs == "  runs: 2, of which 0 are there, to run:"
    assert len(commands) == 2 and all(line.startswith("    python run.py paper=yogi ") for line in commands)
    assert not (tmp_path / "outputs").exists()


def test_runs_of_earlier_code_are_made_anew_where_that_is_asked_for_and_no_others(
    call: Call, tmp_path: Path
) -> None:
    assert call("yogi.fraction", "record=true").returncode == 0
    old, fresh = made(tmp_path)
    for path in (old, tmp_path / "results" / "yogi" / f"{old.parent.name}.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "earlier"}))
    before = fresh.read_text()
    assert "to make" not in call("yogi.fraction").stdout

    shown = call("yogi.fraction", "--show", "--renew").stdout.splitlines()
    assert "  runs: 2, of which 2 are there (1 of earlier code), to run:" in shown
    assert sum(line.startswith("    python run.py ") for line in shown) == 1
    renewed = call("yogi.fraction", "--renew", "record=true")
    assert "1 of 2 runs to make" in renewed.stdout
    assert "1 passed, 0 failed, 0 skipped" in renewed.stdout
    assert fresh.read_text() == before
    for path in (old, *recorded(tmp_path)):
        assert json.loads(path.read_text())["code"] != "earlier"
    assert "to make" not in call("yogi.fraction", "--renew").stdout


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("yogi.fater", "unknown claim yogi.fater; did you mean yogi.faster"),
        ("spider.*", "unknown claim spider.*"),
        ("--lst", "--lst: no such option (valid: --list, --show, --renew, --help, and words)"),
        ("scale=laptop", "scale=laptop: a claim fixes its runs in claims.yaml"),
        ("hydra/sweeper=optuna", "a claim fixes its runs"),
        ("hydra/launcher=jobl", "unknown hydra/launcher=jobl; did you mean joblib?"),
    ],
)
def test_a_wrong_word_is_refused_in_one_line(word: str, advice: str, call: Call, tmp_path: Path) -> None:
    done = call(word)
    assert done.returncode == 1
    assert advice in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def test_help_names_what_can_be_passed_on() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "claims.py"), "--help"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0
    assert "record=true" in done.stdout
