"""Imports run downward: the contracts of pyproject.toml, and that each of them can break."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINT = "import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(no_cache=True, no_logo=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True)


def test_no_import_runs_upward_or_in_a_circle() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_each_contract_breaks_where_an_import_goes_astray(tmp_path: Path) -> None:
    for package in ("common", "papers"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=lambda _, names: _not_code(names))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    astray = {
        "common/base/errors.py": "import common.runs.keys",
        "common/extra/__init__.py": "",
        "common/data/shared/decode.py": "import common.data.images.digits",
        "papers/yogi/module.py": "import papers.spider.module",
        "papers/spider/module.py": "import papers.yogi.module",
        "common/runs/keys.py": "import run",
    }
    for name, line in astray.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")
    done = lint(tmp_path)
    kept = re.findall(r"^(.*) KEPT", done.stdout, re.MULTILINE)
    assert (done.returncode, kept) == (1, []), done.stdout + done.stderr
    assert len(re.findall(r" BROKEN$", done.stdout, re.MULTILINE)) == 6


def _not_code(names: list[str]) -> list[str]:
    return [name for name in names if "." in name and not name.endswith(".py")]


@pytest.mark.parametrize("module", ["common.base.errors", "common.tables.tables", "common.runs.code"])
def test_what_refuses_a_word_needs_no_torch(module: str) -> None:
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
