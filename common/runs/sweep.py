"""What a sweep did: every job leaves a status file, and the sweep ends with a table read from them.

Launchers hand results back in ways of their own, or crash; a file does not.
"""

import json
import os
import platform
import shlex
import time
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from common.base.names import fitting
from common.base.terminal import console
from common.runs.result import number, write_json

VARIABLE = "REPRISE_SWEEP"
# what a job says when it begins; what is still there at the end is all that a killed one said
RUNNING = {"state": "running", "text": "it ended without a word: killed, or out of memory", "seconds": 0.0}


class ForgetConfigs(Callback):
    """Drops the configs of a job that has ended: Hydra keeps them for all jobs of a sweep, 0.1 MB each."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **more: Any) -> None:
        job_return.cfg = job_return.hydra_cfg = None


def outputs_of(words: list[str]) -> Path:
    """The folder of outputs that a command line names; `outputs` where it names none."""
    named = [word.partition("=")[2].strip("'\"") for word in words if word.startswith("output_dir=")]
    # a folder that depends on the job is no place for what all jobs share
    return Path(named[-1] if named and not set(named[-1]) & set("$,(") else "outputs").expanduser()


def new_sweep(words: list[str]) -> Path:
    """A fresh folder for the status files of one sweep, within the outputs that its words name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return outputs_of(words) / "sweeps" / f"{stamp}-{os.getpid()}"


def current() -> Path | None:
    """The sweep that this job belongs to, if any."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def note_varying(sweep: Path, words: list[str]) -> None:
    """Keep which keys of the command line vary over the jobs: those with several values."""
    keys = [
        word.split("=", 1)[0]
        for word in words
        if any(mark in word for mark in ",(") and word[:7] != "import="
    ]
    _note(sweep, keys)


def note_different(sweep: Path, jobs: list[list[str]]) -> None:
    """Keep which keys vary over a list of jobs: those of words that not all jobs have."""
    common = set[str]().union(*jobs).intersection(*jobs)
    keys = {word.split("=", 1)[0] for job in jobs for word in job if word not in common}
    _note(sweep, sorted(keys))


def _note(sweep: Path, keys: list[str]) -> None:
    write_json(sweep / "varying.json", {"keys": keys})
    write_json(sweep / "launcher.json", {"pid": os.getpid(), "host": platform.node()})


def launched_by(sweep: Path) -> int | None:
    """The process that launched a sweep, whose jobs end with it; None where it runs on another machine."""
    launcher = json.loads((sweep / "launcher.json").read_text())
    return int(launcher["pid"]) if launcher["host"] == platform.node() else None


def varying(sweep: Path, overrides: list[str]) -> list[str]:
    """Of a job's overrides, those that other jobs have otherwise."""
    keys = json.loads((sweep / "varying.json").read_text())["keys"]
    return [word for word in overrides if word.split("=", 1)[0] in keys]


def leave_status(sweep: Path, job: int, status: dict[str, Any]) -> None:
    """Say what became of a job."""
    write_json(sweep / f"{job:06d}.json", status)


def read_statuses(sweep: Path) -> list[dict[str, Any]]:
    """The statuses of a sweep in the order of its jobs."""
    return [json.loads(path.read_text()) for path in sorted(sweep.glob("[0-9]*.json"))]


def summarise(sweep: Path) -> int:
    """Print the sweep's table; 1 if a job failed, else 0."""
    statuses = read_statuses(sweep)
    states = [status["state"] for status in statuses]
    passed, skipped = states.count("passed"), states.count("skipped")
    failed = len(statuses) - passed - skipped
    shown = console()
    shown.print(_table(statuses, shown.width))
    best = _best(statuses)
    if best is not None:
        print(f"best: {best['job']} ({best['metric']} {number(best['objective'])}); the run that has it:")
        print(f"  python run.py {shlex.join(own_words(best['overrides']))}")
    older = sum(status["state"] == "skipped" and bool(status.get("since")) for status in statuses)
    changed = f", {older} of them made by earlier code or data: force=true makes all anew" if older else ""
    print(f"sweep: {passed} passed, {failed} failed, {skipped} skipped as done{changed} ({sweep})")
    return 1 if failed else 0


def own_words(overrides: list[str]) -> list[str]:
    """A job's words without those of the search that it was a part of."""
    return [word for word in overrides if not word.lstrip("+").startswith(("hydra", "objective="))]


def _best(statuses: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The job of a search with the best objective, if any has one."""
    judged = [status for status in statuses if status.get("objective") is not None]
    sign = -1 if judged and judged[0]["direction"] == "maximize" else 1
    return min(judged, key=lambda status: sign * status["objective"], default=None)


def _table(statuses: list[dict[str, Any]], width: int) -> Table:
    """One line a job, whose name has at most two fifths of the width."""
    common, names = fitting([status["job"] for status in statuses], max(width * 2 // 5, 12))
    table = Table(title=escape(f"{common}…") if common else None, title_justify="left")
    table.add_column("job", min_width=max(map(len, names)), no_wrap=True)
    for column in ("state", "seconds", "what came out"):
        table.add_column(column)
    for status, name in zip(statuses, names, strict=True):
        state = "failed" if status["state"] == RUNNING["state"] else status["state"]
        table.add_row(Text(name), state, f"{status['seconds']:.1f}", Text(status["text"], overflow="fold"))
    return table
