"""A W&B run imports Launch only where inputs of a job were staged, and then sends them."""

import sys
from typing import Any

import pytest

from common.runs.wandb_speed import STAGED, Run

ask: Any = Run._detect_and_apply_job_inputs


def test_without_launch_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("wandb.sdk.launch")]:
        monkeypatch.delitem(sys.modules, name)
    ask(object())
    assert not any(name.startswith("wandb.sdk.launch") for name in sys.modules)


def test_inputs_that_were_staged_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []

    class Staged:
        def apply(self, run: object) -> None:
            sent.append(run)

    internal = type(sys)(STAGED)
    monkeypatch.setattr(internal, "StagedLaunchInputs", Staged, raising=False)
    monkeypatch.setitem(sys.modules, STAGED, internal)
    run = object()
    ask(run)
    assert sent == [run]
