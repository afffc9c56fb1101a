"""Calls of commands by the thousand: started, killed and waited for through a server that forks them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOWHERE = "http://127.0.0.1:9"
SERVER = Path(__file__).with_name("call_server.py")
RUN = Path(__file__).resolve().parents[1] / "run.py"
# no machine is so slow: what takes longer hangs
HANGS = 600.0


@dataclass(frozen=True)
class Ended:
    """A call that has ended: its exit code (minus the signal), and what it printed."""

    code: int
    out: str
    errors: str


class Calls:
    """Starts commands in folders; a context manager that leaves no process behind."""

    def __init__(self) -> None:
        # what wandb has put into this process's environment stays here
        environment = {name: text for name, text in os.environ.items() if not name.startswith("WANDB_")}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        environment |= {"WANDB__SERVICE_WAIT": "300"}
        # a mistyped name of a data set is no reason to download it
        environment |= {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE}
        self.server = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self._read() == "ready"
        self.folders: dict[int, Path] = {}

    def __enter__(self) -> "Calls":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in list(self.folders):
            self.kill(pid)
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait(timeout=HANGS)

    def start(
        self,
        words: list[str],
        folder: Path,
        pause: tuple[int, int] | None = None,
        script: Path = RUN,
        **environment: str,
    ) -> int:
        """Start a call in a folder, which is made; its process number.

        Args:
            words, folder, environment: of the call.
            pause: (run, save): it stands still, for good, after so many checkpoints of this run of its, both
                counted from 1; see `killed_at`.
            script: what is called.
        """
        folder.mkdir(parents=True, exist_ok=True)
        call = {"words": words, "folder": str(folder), "script": str(script), "pause": pause}
        pid = self._ask(do="start", environment=environment, **call)
        self.folders[pid] = folder
        return int(pid)

    def killed_at(self, run: int, save: int, words: list[str], folder: Path) -> None:
        """Kill a call once it has saved so many checkpoints of its `run`-th run, before it has a result."""
        pid = self.start([*words, "checkpoint_every=0"], folder, pause=(run, save))
        until(lambda: (folder / "paused").exists() or self.wait(pid, 0) is not None)
        assert pid in self.folders, f"it ended before: {_text(folder / 'stderr')}"
        assert self.kill(pid).code == -signal.SIGKILL
        (folder / "paused").unlink()

    def wait(self, pid: int, seconds: float) -> Ended | None:
        """What became of a call; None if it still runs after so many seconds."""
        code = self._ask(do="wait", pid=pid, seconds=seconds)
        if code is None:
            return None
        folder = self.folders.pop(pid)
        return Ended(code, _text(folder / "stdout"), _text(folder / "stderr"))

    def kill(self, pid: int) -> Ended:
        """Kill a call and what it started (SIGKILL)."""
        self._ask(do="kill", pid=pid)
        ended = self.wait(pid, HANGS)
        assert ended is not None
        return ended

    def run(
        self, words: list[str], folder: Path, seconds: float = HANGS, script: Path = RUN, **environment: str
    ) -> Ended:
        """A call to its end.

        Raises:
            TimeoutError: it hangs; it is killed then.
        """
        pid = self.start(words, folder, script=script, **environment)
        ended = self.wait(pid, seconds)
        if ended is None:
            self.kill(pid)
            raise TimeoutError(f"still running after {seconds} s: {' '.join(words)}")
        return ended

    def _ask(self, **call: Any) -> Any:
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(call) + "\n")
        self.server.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self.server.stdout is not None
        return json.loads(self.server.stdout.readline())


def until(true: Callable[[], object]) -> None:
    """Wait for what must come.

    Raises:
        AssertionError: it hangs.
    """
    end = time.monotonic() + HANGS
    while not true():
        assert time.monotonic() < end, f"it did not come in {HANGS} s"
        time.sleep(0.02)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
