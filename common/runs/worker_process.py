"""A worker of this machine as a process that is asked for runs, one after the other."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any

from common.runs.listed import environment_of_runs

# how long a run may take to its checkpoint before its worker is killed
PATIENCE = 60.0

Answer = dict[str, Any]


class Worker:
    """A process of `common.runs.worker`.

    Args:
        size: of the crew, which shares the machine's cores.
        answers: where its answers go, with None when it has ended.
        threads: of the process, where they are not its share of the cores or what OMP_NUM_THREADS says.
    """

    def __init__(
        self, size: int, answers: "queue.Queue[tuple[Worker, Answer | None]]", threads: int | None = None
    ) -> None:
        environment = environment_of_runs()
        if threads is not None:
            environment |= {"OMP_NUM_THREADS": str(threads)}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // size)))
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        # a session of its own: Ctrl-C reaches the search alone, which then asks its workers to stop
        self.process = subprocess.Popen(
            [sys.executable, "-m", "common.runs.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, env=environment, text=True, start_new_session=True,
        )  # fmt: skip
        self.last_words = ""
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

    def _listen(self, answers: "queue.Queue[tuple[Worker, Answer | None]]") -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answers.put((self, json.loads(line)))
        answers.put((self, None))

    def make(self, words: list[str]) -> None:
        """Ask it for a run; of one that has just died `answers` will say so."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"words": words}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return

    def stop(self) -> None:
        """Ask it to stop: its run keeps a checkpoint."""
        self.process.terminate()

    def end(self) -> int:
        """Wait until it has ended, and be its end if it does not; its exit code."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if not self.errors.closed:
            self.errors.seek(0)
            lines = self.errors.read().decode(errors="replace").strip().splitlines()
            self.last_words = lines[-1][-200:] if lines else f"exit code {code}"
            self.errors.close()
        return code
