"""A pruning run as processes, killed in its selection and in its fine-tuning.

Its other two stages, training and heads, are supervised runs as those of `test_stages_command.py`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import HANGS, Calls

pytestmark = pytest.mark.slow

WORDS = [
    *("paper=dcp", "scale=smoke", "dataset.limit=80", "dataset.batch_size=40", "model.widths=[4,4,6,6]"),
    *("paper.epochs=2", "method.samples=40", "logger=none", "trainer=cpu"),
]


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by their run keys."""
    found = folder.glob("outputs/dcp/*/result.json")
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def finish(calls: Calls, folder: Path) -> None:
    ended = calls.wait(calls.start(WORDS, folder), HANGS)
    assert ended is not None and ended.code == 0, ended


def test_killed_in_selection_and_fine_tuning_a_pruning_ends_as_an_unbroken_one(
    calls: Calls, tmp_path: Path
) -> None:
    """The second call goes on with the selection, its first run then, and is killed in the next one."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(calls, unbroken)
    for run, done in ((3, 2), (2, 3)):
        calls.killed_at(run, 1, WORDS, broken)
        assert len(results(broken)) == done
    finish(calls, broken)
    expected = results(unbroken)
    assert len(expected) == 4
    assert results(broken).keys() == expected.keys()
    for key, found in results(broken).items():
        for timed in (found, expected[key]):
            timed["metrics"].pop("selection_seconds", None)
        assert found["metrics"] == expected[key]["metrics"]
        assert found["history"] == expected[key]["history"]
        states = [
            torch.load(folder / "outputs/dcp" / key / "last.ckpt", weights_only=True)["state_dict"]
            for folder in (unbroken, broken)
        ]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
