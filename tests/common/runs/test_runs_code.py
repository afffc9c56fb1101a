from pathlib import Path
from typing import Any

import pytest

from common.runs import code
from common.runs.code import code_hash, stale

CHOICES = {"dataset": "digits", "method": "optimizer/yogi"}
CONFIG = {"paper": {"_target_": "papers.yogi.module.YogiModule"}, "parts": [{"_target_": "torch.nn.ReLU"}]}


def test_the_hash_differs_between_papers_and_between_choices() -> None:
    assert code_hash("spider", CHOICES, CONFIG) != code_hash("yogi", CHOICES, CONFIG)
    assert code_hash("yogi", CHOICES, CONFIG) != code_hash("yogi", {**CHOICES, "dataset": "mnist"}, CONFIG)


def test_a_result_is_stale_when_its_hash_is_another() -> None:
    made = {
        "paper": "yogi",
        "choices": CHOICES,
        "config": CONFIG,
        "code": code_hash("yogi", CHOICES, CONFIG),
    }
    assert not stale(made)
    assert stale({**made, "code": "older"})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a few files in place of this one."""
    files = {
        "common/runs/runner.py": "x = 1",
        "common/training/supervised.py": "from common.data import loader\nx = 1",
        "common/data/loader.py": "x = 1",
        "common/data/digits.py": "x = 1",
        "common/data/mnist.py": "x = 1",
        "common/models/lazy.py": "x = 1",
        "papers/yogi/module.py": "import common.training.supervised\nx = 1",
        "papers/yogi/yogi.py": "def f():\n    from common.models.lazy import x\n",
        "conf/paper/yogi.yaml": "epochs: 1",
        "conf/recipe/yogi/digits.yaml": "limit: 1",
        "conf/dataset/digits.yaml": "size: 1",
        "conf/dataset/mnist.yaml": "size: 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    table = {"id": "t", "about": "old", "rows": [{"id": "r", "set": {"lr": 1}, "reported": {"loss": 1}}]}
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(code, "load_tables", lambda paper: {"tables": [table]})
    for cached in ("_settings_hash", "_sources", "_imports", "_file_hash"):
        monkeypatch.setattr(code, cached, getattr(code, cached).__wrapped__)
    return tmp_path


RUN: dict[str, Any] = {
    "paper": {"_target_": "papers.yogi.module.YogiModule"},
    "dataset": {"_target_": "common.data.digits.Digits"},
    "method": {"steps": [{"_target_": "papers.yogi.yogi.Yogi"}]},
}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("papers/yogi/module.py", True),
        ("common/training/supervised.py", True),
        ("common/data/loader.py", True),
        ("common/data/digits.py", True),
        ("papers/yogi/yogi.py", True),
        ("common/models/lazy.py", True),
        ("conf/paper/yogi.yaml", True),
        ("conf/recipe/yogi/digits.yaml", True),
        ("conf/dataset/digits.yaml", True),
        ("common/data/mnist.py", False),
        ("common/runs/runner.py", False),
        ("papers/yogi/new.py", False),
        ("conf/dataset/mnist.yaml", False),
        ("papers/yogi/README.md", False),
    ],
)
def test_the_hash_follows_what_decides_a_result_and_nothing_else(
    name: str, changes: bool, project: Path
) -> None:
    before = code_hash("yogi", {"dataset": "digits"}, RUN)
    (project / name).write_text("changed = 2")
    assert (code_hash("yogi", {"dataset": "digits"}, RUN) != before) == changes


@pytest.mark.parametrize(("key", "changes"), [("set", True), ("reported", False)])
def test_the_hash_follows_the_settings_of_a_row_and_not_what_was_reported(
    key: str, changes: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"id": "r", "set": {"lr": 1}, "reported": {"loss": 1}}
    monkeypatch.setattr(code, "load_tables", lambda paper: {"tables": [{"rows": [row]}]})
    before = code_hash("yogi", {}, RUN)
    row[key] = {"lr": 2}
    assert (code_hash("yogi", {}, RUN) != before) == changes
