"""The page docs/your_own_paper.md: the paper that it makes is run, judged and reported as it says."""

import re
import shlex
from pathlib import Path

import pytest
from calls import Calls

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


def test_the_paper_is_run_judged_and_reported(folder: Path, calls: Calls) -> None:
    assert [script for script, _ in COMMANDS] == [
        "run.py",
        "run.py",
        "claims.py",
        "report.py",
        "report.py",
    ]
    for script, words in COMMANDS:
        # claims.py and report.py without the 1,000 records of the project
        more = "logger=none" if script == "run.py" else f"results_dir={folder / 'results'}"
        ended = calls.run([*shlex.split(words), more], folder, script=ROOT / script)
        assert ended.code == 0, ended.errors
        if script == "claims.py":
            assert "claims: 1 supported" in ended.out
        if words.endswith("to=terminal"):
            assert "signsgd" in ended.out
    assert "signsgd" in (folder / "report" / "index.html").read_text()
    refused = calls.run(["paper=signsgd", "seed=1"], folder)
    assert refused.code == 1
    assert "import=papers.signsgd" in refused.errors
