"""The page docs/your_own_paper.md: the paper that it makes is run, judged and reported as it says."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "your_own_paper.md").read_text()
FILES = re.findall(r"`((?:papers|conf)/[\w/]+\.(?:py|yaml))`[^`]*```\w+\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^python (\w+\.py) (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_example_is_short() -> None:
    assert len(FILES) == 6
    assert sum(len(text.splitlines()) for _, text in FILES) < 150


def test_the_paper_is_run_judged_and_reported(
    folder: Path, quick: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert [script for script, _ in COMMANDS] == ["run.py", "run.py", "claims.py", "report.py"]
    for script, words in COMMANDS:
        if script == "run.py":
            ended = quick(*shlex.split(words))
        else:
            ended = _command(script, shlex.split(words), folder)
        assert ended.returncode == 0, ended.stderr
        if script == "claims.py":
            assert "claims: 1 supported" in ended.stdout
        if script == "report.py":
            assert "signsgd" in ended.stdout
    refused = quick("paper=signsgd", "seed=1")
    assert refused.returncode == 1
    assert "import=papers.its_name" in refused.stderr


def _command(script: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    # without the 1,000 records of the project
    words = [*words, f"results_dir={folder / 'results'}"]
    return subprocess.run(
        [sys.executable, str(ROOT / script), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
