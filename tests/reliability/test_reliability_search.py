"""A search over runs whose processes are all killed in the middle of trials."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from common.tables.tables import ROOT

RUN = (
    "paper=yogi dataset=digits dataset.validation=0.2 model=logistic trainer=cpu paper.epochs=60 "
    "checkpoint_every=0.1"
)
SEARCH = [
    *(
        "paper=maxacq",
        "dataset=runs",
        f"dataset.words='{RUN}'",
        "dataset.parameters=['method.lr=log(1e-3,1)']",
    ),
    *("paper.evaluations=4", "paper.initial=3", "paper.batch=2", "logger=none"),
]


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "run.py", *SEARCH, f"output_dir={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def checkpoints(folder: Path) -> dict[Path, int]:
    """The steps that each trial has behind it by its checkpoint."""
    found = {}
    for path in folder.glob("yogi/*/last.ckpt"):
        found[path] = int(torch.load(path, weights_only=True)["search_state"]["steps"])
    return found


def mark(path: Path) -> None:
    """Leave a word in a checkpoint, by which what goes on from it is known."""
    kept: dict[str, Any] = torch.load(path, weights_only=True)
    length = len(kept["history"].get("step", []))
    kept["history"]["went_on"] = [1.0] * length
    torch.save(kept, path)


def test_trials_that_were_under_way_go_on_from_their_checkpoints_with_their_own_settings(
    tmp_path: Path,
) -> None:
    search = start(tmp_path)
    while sum(steps > 100 for steps in checkpoints(tmp_path).values()) < 2:
        assert search.poll() is None, search.communicate()[1]
        time.sleep(0.1)
    workers = children(search.pid)
    for pid in (search.pid, *workers):
        os.kill(pid, signal.SIGKILL)
    search.communicate()
    # what is not finished by then; the kill may have come between two of its lines
    under_way = [path for path in checkpoints(tmp_path) if not path.with_name("result.json").exists()]
    assert under_way
    for path in under_way:
        mark(path)
    (log,) = tmp_path.glob("maxacq/*/under_way/trials.jsonl")
    before = log.read_text()

    again = start(tmp_path)
    out, errors = again.communicate()
    assert again.returncode == 0, errors
    assert log.read_text().startswith(before), "what had happened stays"
    for path in under_way:
        history = json.loads(path.with_name("result.json").read_text())["history"]
        assert 1.0 in history["went_on"], "it went on, and did not begin anew"
    assert len(list(tmp_path.glob("yogi/*"))) == 4, "no other settings were tried"
    (found,) = [json.loads(p.read_text()) for p in tmp_path.glob("maxacq/*/result.json")]
    trials = found["conclusion"]["trials"]
    assert len(trials) == 4 and found["metrics"]["failed_evaluations"] == 0
    assert found["history"]["trials"] == [1, 2, 3, 4], "its curve has each trial once"
    points = [json.loads(line)["point"] for line in log.read_text().splitlines() if "point" in line]
    assert len({tuple(point) for point in points}) == 4
    assert f"best validation_loss: {found['conclusion']['value']:.5g}" in out
