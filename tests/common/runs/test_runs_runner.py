"""What a run that goes on from a checkpoint says of its data and code, and whom a finished one serves."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.base.errors import UserError
from common.data.shared.fingerprint import fingerprint_of
from common.runs.callbacks import Checkpoints, random_states
from common.runs.code import settings_hash
from common.runs.processes import Processes
from common.runs.runner import _resume_from, _served

Make = Callable[..., Any]


@pytest.fixture
def module(tmp_path: Path) -> Any:
    """A module with a data set of one file."""
    (tmp_path / "table.csv").write_text("1,2")
    data = SimpleNamespace(sources=lambda: {"table.csv": tmp_path / "table.csv"}, SUFFIXES=())
    return SimpleNamespace(data=data)


def checkpoint(folder: Path, **known: Any) -> Path:
    path = folder / "last.ckpt"
    torch.save({"callbacks": {"Checkpoints": known}}, path)
    return path


def test_a_run_on_other_data_is_refused_until_they_are_put_back(module: Any, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, data=fingerprint_of(module.data), codes=["aaa"])
    (tmp_path / "table.csv").write_text("2,1")
    with pytest.raises(UserError, match=r"table.csv holds files of other contents \(valid: put them back"):
        _resume_from(path, module, "aaa")
    (tmp_path / "table.csv").write_text("1,2")
    assert _resume_from(path, module, "aaa") == path


@pytest.mark.parametrize(("code", "said"), [("aaa", False), ("bbb", True)])
def test_other_code_than_made_the_checkpoint_is_said(
    code: str, said: bool, module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path, data=None, codes=["aaa"])
    assert _resume_from(path, module, code) == path
    assert ("two codes made it" in capsys.readouterr().err) == said


def test_a_checkpoint_of_before_says_neither(module: Any, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, random=random_states())
    assert _resume_from(path, module, "aaa") == path


@pytest.mark.parametrize(
    ("before", "now", "codes"),
    [(["a"], "a", ["a"]), (["a"], "b", ["a", "b"]), (["a", "b"], "b", ["a", "b"]), ([], "a", ["a"])],
)
def test_a_resumed_run_knows_all_codes_that_made_it(before: list[str], now: str, codes: list[str]) -> None:
    callback = Checkpoints(Path("last.ckpt"), 10.0, Processes(0, 1), now)
    callback.load_state_dict({"random": random_states(), "seconds": 1.0, "codes": before})
    assert callback.codes == codes
    assert callback.state_dict()["codes"] == codes


def test_a_finished_run_that_serves_another_scale_keeps_the_settings_of_both() -> None:
    row = "yogi.counterexample.adam"
    laptop = {f"{row} scale=laptop": settings_hash(row, "laptop")}
    result = {"paper": "yogi", "scale": "laptop", "entries": [row], "reported": {}, "settings": laptop}
    asked_for = SimpleNamespace(entry=row, overrides=[f"entry={row}"], choices={"scale": "paper"})
    served = _served({**result, "asked": [[f"entry={row}", "scale=laptop"]]}, asked_for)
    assert served["settings"] == laptop | {f"{row} scale=paper": settings_hash(row, "paper")}
    assert served["asked"] == [[f"entry={row}", "scale=laptop"], [f"entry={row}"]]
