"""A list of runs in a process of its own: `python -m common.runs.listed`, the list as JSON on its input."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.base.errors import UserError
from common.runs.evidence import Evidence
from common.runs.result import read_result
from common.runs.sweep import VARIABLE, read_statuses
from common.tables.tables import ROOT


def environment_of_runs() -> dict[str, str]:
    """That of processes that make runs within another one: of no sweep, with this project on the path."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    return environment


def make_runs(jobs: list[list[str]], words: list[str]) -> Evidence:
    """Make runs, by any launcher, from within another run, whose Hydra and Lightning they must not touch.

    Args:
        jobs: the overrides of each.
        words: what they share; `output_dir=...` among them.

    Returns:
        The results of that folder, where those of runs that failed are missing.

    Raises:
        UserError: none of them could be launched.
    """
    text = json.dumps({"jobs": jobs, "words": words})
    command = [sys.executable, "-m", "common.runs.listed"]
    done = subprocess.run(command, input=text, env=environment_of_runs(), capture_output=True, text=True)
    for line in done.stderr.splitlines():
        if line.startswith("error: ["):
            print(line, file=sys.stderr, flush=True)
    folder = next(word.split("=", 1)[1] for word in words if word.startswith("output_dir="))
    evidence = Evidence.read(Path(folder), Path(folder) / "none")
    if done.returncode and not any(evidence.find([*words, *job]) for job in jobs):
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        raise UserError(lines[0].removeprefix("error: ") if lines else done.stderr.strip()[-200:])
    return evidence


def make_by_launcher(job: list[str], words: list[str]) -> dict[str, Any]:
    """Make one run by a launcher; what came of it, as `common.runs.worker` says it.

    Args:
        job, words: the overrides of the run, and those of how it is made, its launcher among them.
    """
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps({"jobs": [job], "words": words, "statuses": folder})
        command = [sys.executable, "-m", "common.runs.listed"]
        done = subprocess.run(
            command,
            input=text,
            env=environment_of_runs(),
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        statuses = read_statuses(Path(folder))
    if not statuses:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return {"said": lines[0].removeprefix("error: ") if lines else done.stderr.strip()[-200:]}
    status = statuses[0]
    if "paused" in status:
        return {"metrics": status["paused"]["last"], "share": status["paused"]["share"]}
    if status["state"] not in ("passed", "skipped"):
        return {"said": status["text"]}
    result = read_result(Path(status["result"]))
    return {"metrics": {} if result is None else result["metrics"], "share": 1.0}


def main() -> int:
    """Make the runs on standard input; 1 if one failed."""
    from common.runs.cli import run_list

    asked = json.load(sys.stdin)
    folder = asked.get("statuses")
    return run_list(asked["jobs"], asked["words"], None if folder is None else Path(folder))


if __name__ == "__main__":
    sys.exit(main())
