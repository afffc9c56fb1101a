"""Who makes the runs of a search: processes of this machine that make one after the other, or a launcher."""

import queue
import signal
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from common.base.crew import Crew, Measured
from common.runs.listed import make_by_launcher
from common.runs.worker import INTERRUPTED
from common.runs.worker_process import Answer, Worker

# launchers whose work is done by processes of this machine, which need not be started for each run
HERE = ("basic", "joblib")
# deaths of its worker that a trial survives, going on from its checkpoint
LIVES = 1
# by which a worker is stopped from outside
STOPS = (-signal.SIGTERM, -signal.SIGINT)

Command = Callable[[int, Tensor], list[str]]
Read = Callable[[dict[str, Any]], float]


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
