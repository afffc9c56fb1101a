"""Who makes the runs of a search: processes of this machine that make one after the other, or a launcher."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

from torch import Tensor

from common.base.crew import Crew, Measured
from common.runs.listed import environment_of_runs, make_by_launcher
from common.runs.worker import INTERRUPTED

# launchers whose work is done by processes of this machine, which need not be started for each run
HERE = ("basic", "joblib")
# how long a run may take to its checkpoint before its worker is killed
PATIENCE = 60.0
# deaths of its worker that a trial survives, going on from its checkpoint
LIVES = 1
# by which a worker is stopped from outside
STOPS = (-signal.SIGTERM, -signal.SIGINT)

Command = Callable[[int, Tensor], list[str]]
Read = Callable[[dict[str, Any]], float]
Answer = dict[str, Any]


class RunCrew(Crew):
    """Evaluates a point by making a run.

    Args:
        size: runs at a time.
        command: the words of the run of a replicate at a point.
        read: f of a run's metrics.
        words: of how all runs are made.
        metric: that a run must have measured before it pauses.
    """

    def __init__(self, size: int, command: Command, read: Read, words: Sequence[str], metric: str) -> None:
        self.size, self.command, self.read = size, command, read
        self.words, self.metric = list(words), metric

    def start(self, number: int, replicate: int, point: Tensor, share: float) -> None:
        pause = [f"pause={share}", f"objective={self.metric}"] if share < 1.0 else []
        self._send(number, [*self.command(replicate, point), *self.words, *pause])

    @abstractmethod
    def _send(self, number: int, words: list[str]) -> None:
        """Let a free worker make a run."""

    def _measured(self, number: int, answer: Answer) -> Measured:
        """What an answer means.

        Raises:
            UserError: the run has no such metric.
        """
        if "said" in answer:
            return Measured(number, float("nan"), 1.0, answer["said"])
        return Measured(number, self.read(answer["metrics"]), answer["share"])


class LocalCrew(RunCrew):
    """Worker processes, each of which makes one run after the other (`common.runs.worker`).

    A worker that dies is replaced. Its run goes on from its checkpoint: once if it was killed, as by a
    machine that is out of memory; as often as it takes if it was asked to stop.
    """

    def __init__(self, size: int, command: Command, read: Read, words: Sequence[str], metric: str) -> None:
        super().__init__(size, command, read, words, metric)
        self.answers: queue.Queue[tuple[Worker, Answer | None]] = queue.Queue()
        self.idle: list[Worker] = []
        self.busy: dict[int, Worker] = {}
        self.asked: dict[int, list[str]] = {}
        self.deaths: dict[int, int] = {}

    def _send(self, number: int, words: list[str]) -> None:
        worker = self.idle.pop() if self.idle else Worker(self.size, self.answers)
        self.asked[number], self.busy[number] = words, worker
        worker.make(words)

    def wait(self, seconds: float) -> list[Measured]:
        try:
            worker, answer = self.answers.get(timeout=seconds)
        except queue.Empty:
            return []
        number = next((n for n, one in self.busy.items() if one is worker), None)
        if number is None:
            # an idle worker that was killed
            self.idle = [one for one in self.idle if one is not worker]
            return []
        del self.busy[number]
        if answer is not None and not answer.get(INTERRUPTED):
            self.idle.append(worker)
            return [self._measured(number, answer)]
        code = worker.end()
        if answer is None and code not in STOPS:
            self.deaths[number] = self.deaths.get(number, 0) + 1
            if self.deaths[number] > LIVES:
                said = f"its worker ended twice without a word: killed, or out of memory? {worker.last_words}"
                return [Measured(number, float("nan"), 1.0, said)]
        self._send(number, self.asked[number])
        return []

    def close(self) -> None:
        workers = [*self.busy.values(), *self.idle]
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.end()
        self.busy, self.idle = {}, []


class Worker:
    """A process of `common.runs.worker`.

    Args:
        size: of the crew, which shares the machine's cores.
        answers: where its answers go, with None when it has ended.
    """

    def __init__(self, size: int, answers: "queue.Queue[tuple[Worker, Answer | None]]") -> None:
        environment = environment_of_runs()
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


class LauncherCrew(RunCrew):
    """A launcher of Hydra, which gets each run by itself: a job of Slurm, a task of Ray."""

    def __init__(self, size: int, command: Command, read: Read, words: Sequence[str], metric: str) -> None:
        super().__init__(size, command, read, words, metric)
        self.threads = ThreadPoolExecutor(size)
        self.ended: queue.Queue[tuple[int, Answer]] = queue.Queue()

    def _send(self, number: int, words: list[str]) -> None:
        launcher = [word for word in words if word.startswith("hydra/")]
        own = [word for word in words if word not in launcher]

        def ended(future: "Future[Answer]") -> None:
            error = future.exception() if not future.cancelled() else None
            self.ended.put((number, {"said": str(error)} if error is not None else future.result()))

        self.threads.submit(make_by_launcher, own, launcher).add_done_callback(ended)

    def wait(self, seconds: float) -> list[Measured]:
        try:
            number, answer = self.ended.get(timeout=seconds)
        except queue.Empty:
            return []
        return [self._measured(number, answer)]

    def close(self) -> None:
        """Jobs that a cluster has go on by themselves; the search finds what they have made."""
        self.threads.shutdown(wait=False, cancel_futures=True)
