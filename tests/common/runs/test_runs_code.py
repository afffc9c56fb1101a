from pathlib import Path

import pytest

from common.runs import code
from common.runs.code import code_hash, stale

CHOICES = {"dataset": "digits", "method": "optimizer/yogi"}


def test_the_hash_differs_between_papers_and_between_choices() -> None:
    assert code_hash("spider", CHOICES) != code_hash("yogi", CHOICES)
    assert code_hash("yogi", CHOICES) != code_hash("yogi", {**CHOICES, "dataset": "mnist"})


def test_a_result_is_stale_when_its_hash_is_another() -> None:
    made = {"paper": "yogi", "choices": CHOICES, "code": code_hash("yogi", CHOICES)}
    assert not stale(made)
    assert stale({**made, "code": "older"})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a few files in place of this one."""
    files = {
        "common/runs/runner.py": "x = 1",
        "common/report/page.py": "y = 1",
        "papers/yogi/yogi.py": "z = 1",
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
    monkeypatch.setattr(code, "_source_hash", code._source_hash.__wrapped__)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("common/runs/runner.py", True),
        ("papers/yogi/yogi.py", True),
        ("papers/yogi/new.py", True),
        ("conf/paper/yogi.yaml", True),
        ("conf/recipe/yogi/digits.yaml", True),
        ("conf/dataset/digits.yaml", True),
        ("conf/dataset/mnist.yaml", False),
        ("common/report/page.py", False),
        ("papers/yogi/README.md", False),
    ],
)
def test_the_hash_follows_what_decides_a_result_and_nothing_else(
    name: str, changes: bool, project: Path
) -> None:
    before = code_hash("yogi", {"dataset": "digits"})
    (project / name).write_text("changed")
    assert (code_hash("yogi", {"dataset": "digits"}) != before) == changes


@pytest.mark.parametrize(("key", "changes"), [("set", True), ("reported", False)])
def test_the_hash_follows_the_settings_of_a_row_and_not_what_was_reported(
    key: str, changes: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"id": "r", "set": {"lr": 1}, "reported": {"loss": 1}}
    monkeypatch.setattr(code, "load_tables", lambda paper: {"tables": [{"rows": [row]}]})
    before = code_hash("yogi", {})
    row[key] = {"lr": 2}
    assert (code_hash("yogi", {}) != before) == changes
