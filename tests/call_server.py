"""A process that has imported everything and forks a child for each call of a command, without start-up then.

Children are processes of their own: each leads a session, works in its folder, and can be killed. Calls come
as JSON lines on the standard input, and are answered on the standard output.
"""

import gc
import json
import os
import resource
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def _import_all() -> None:
    import torch

    from common.runs.catalogue import register
    from common.tables.tables import papers

    torch.set_num_threads(1)
    for paper in papers():
        for path in sorted((ROOT / "papers" / paper).glob("*.py")):
            __import__(f"papers.{paper}.{path.stem}")
    # reads every table once, for all children
    register([])


def _pause_at(run: int, save: int) -> None:
    """Let this process stand still, for good, once it has saved so many checkpoints of its `run`-th run.

    It says so by a file `paused` in its folder. Both count from 1; stages are runs too. With
    `checkpoint_every=0` every run saves at least twice, the last time before its result is written.
    """
    from common.runs.callbacks import Checkpoints

    save_checkpoint = Checkpoints.save
    saved: dict[Path, int] = {}

    def save_and_count(self: Checkpoints, trainer: Any) -> None:
        save_checkpoint(self, trainer)
        saved[self.path] = saved.get(self.path, 0) + 1
        if len(saved) == run and saved[self.path] == save:
            Path("paused").touch()
            while True:
                signal.pause()

    Checkpoints.save = save_and_count  # type: ignore[method-assign]


def _start(
    words: list[str], folder: str, environment: dict[str, str], pause: list[int] | None, script: str
) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ.update(environment)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if pause is not None:
            _pause_at(*pause)
        sys.argv = [script, *words]
        code = _run(script)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(script: str) -> int:
    """Run a script as `python script` does; its exit code."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    return 0


def _wait(pid: int, seconds: float) -> int | None:
    """The exit code (minus the signal that ended it), None while it runs."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def _kill(pid: int) -> None:
    """The process, and whatever it started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)


def answer(call: dict[str, Any]) -> Any:
    """What a call asks for."""
    match call["do"]:
        case "start":
            words = ("words", "folder", "environment", "pause", "script")
            return _start(*(call[word] for word in words))
        case "wait":
            return _wait(call["pid"], call["seconds"])
        case "kill":
            return _kill(call["pid"])


def main() -> None:
    """Answer calls until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _import_all()
    # what is there for good is no work for the children's garbage collections
    gc.freeze()
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
