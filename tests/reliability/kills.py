"""Kill a run at random moments and start it again until it is done: the result must be the same."""

import json
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from calls import Calls

COMMON = ["logger=none", "trainer=cpu", "checkpoint_every=0.02"]
# one of every shape that a run can have
SHAPES = {
    "minibatches": ["paper=yogi", "dataset=digits", "model=lenet_300_100", "paper.epochs=20"],
    "replicates": ["paper=spider", "dataset=digits", "paper.passes=80", "paper.repeats=4", "paper.eps=1e-9"],
    "two stages": [
        *("paper=factor_transfer", "dataset=digits", "scale=smoke", "model=lenet_300_100"),
        *("method=distillation/kd", "paper.epochs=20"),
        "teacher='model=lenet_300_100 method=distillation/none paper.epochs=20'",
    ],
    "programme": ["paper=accelegrad", "dataset=synthetic_regression", "paper.epochs=1000"],
    "search": ["paper=qff", "dataset=stybtang", "paper.evaluations=100", "paper.repeats=4"],
    "certification": [
        *("paper=sdp_cert", "dataset=digits", "method=certifier/lp", "paper.examples=24", "paper.batch=2"),
        "teacher='model=mlp model.hidden=[16] method=robust/pgd paper.epochs=3'",
    ],
}


@dataclass(frozen=True)
class Outcome:
    """What runs came to, by run key: metrics, curves, and all tensors and numbers of their checkpoints."""

    metrics: dict[str, Any]
    history: dict[str, Any]
    state: dict[str, Any]


def outcome(folder: Path) -> Outcome:
    """What lies in a folder after a command; times are left out."""
    metrics, history, state = {}, {}, {}
    for path in sorted(folder.glob("outputs/*/*/result.json")):
        result = json.loads(path.read_text())
        key = f"{path.parts[-3]}/{path.parts[-2]}"
        metrics[key] = {name: v for name, v in result["metrics"].items() if "seconds" not in name}
        history[key] = result["history"]
        kept = torch.load(path.with_name("last.ckpt"), weights_only=True)
        state[key] = {name: kept.get(name) for name in ("state_dict", "search_state", "history")}
    return Outcome(metrics, history, state)


def difference(first: Any, second: Any, place: str = "") -> str | None:
    """Where two nested states differ by a bit, None where they do not; times are passed over."""
    if isinstance(first, torch.Tensor):
        same = isinstance(second, torch.Tensor) and first.dtype == second.dtype
        equal = same and torch.equal(torch.nan_to_num(first), torch.nan_to_num(second))
        return None if equal else place
    if isinstance(first, dict):
        if set(first) != set(second):
            return f"{place}: {set(first) ^ set(second)}"
        pairs: Any = [(f"{place}.{k}", first[k], second[k]) for k in first if "seconds" not in str(k)]
    elif isinstance(first, list | tuple):
        if len(first) != len(second):
            return f"{place}: lengths"
        pairs = [(f"{place}[{i}]", a, b) for i, (a, b) in enumerate(zip(first, second, strict=True))]
    else:
        return None if first == second or (first != first and second != second) else place
    return next((found for p, a, b in pairs if (found := difference(a, b, p)) is not None), None)


class Broken:
    """One shape of run: its unbroken outcome, and broken ones to hold against it."""

    def __init__(self, calls: Calls, name: str, folder: Path) -> None:
        self.calls, self.name, self.folder = calls, name, folder
        self.words = [*SHAPES[name], *COMMON]
        start = time.monotonic()
        ended = calls.run(self.words, folder / "unbroken")
        assert ended.code == 0, ended.errors
        self.seconds = time.monotonic() - start
        self.unbroken = outcome(folder / "unbroken")

    def once(self, chance: random.Random, most: int) -> int:
        """Kill at most so many times, then let it end; how often it was killed.

        Raises:
            AssertionError: it came out otherwise than the unbroken run.
        """
        folder = self.folder / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        kills = 0
        while kills < most:
            pid = self.calls.start(self.words, folder)
            ended = self.calls.wait(pid, chance.uniform(0.2, max(0.9, 0.8 * self.seconds)))
            if ended is not None:
                assert ended.code == 0, f"{self.name}: {ended.errors}"
                break
            self.calls.kill(pid)
            kills += 1
        ended = self.calls.run(self.words, folder)
        assert ended.code == 0, f"{self.name} after {kills} kills: {ended.errors}"
        found = outcome(folder)
        for what in ("metrics", "history", "state"):
            place = difference(getattr(self.unbroken, what), getattr(found, what))
            assert place is None, f"{self.name} after {kills} kills: {what}{place} is another"
        assert not list(folder.glob("outputs/*/*/*.partial")), "a killed run left a partial checkpoint"
        return kills
