"""`cover.py`: measures entries that are cheap, those without numbers first, and says what is left."""

import json
import math
import os
import queue
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from common.base.command import refuse_options, run_or_help
from common.base.errors import UserError
from common.base.terminal import console
from common.runs.coverage import Cost, Item, cheap, chosen, items_of
from common.runs.evidence import Evidence, folders_of, values_of
from common.runs.record import alone_in
from common.runs.refusal import check_passed_on
from common.runs.result import number, write_json
from common.runs.worker import INTERRUPTED
from common.runs.worker_process import PATIENCE, Worker

HELP = """Measure every entry that is cheap, and keep the numbers in results/: those that nobody has measured
first, the cheapest before the untried, then those of earlier code, the oldest first; what failed here at
its last try, as files are missing, comes after all others. It can be stopped at any time and goes on where
it was.

  python cover.py                               all papers, for an hour, entries of at most two minutes each
  python cover.py 'spider.*' 'yogi.ae_small.*'  those of some tables
  python cover.py hours=8 within=600 jobs=4     eight hours, ten minutes each, four at a time
  python cover.py --list                        what has numbers, what is left, and what that would cost

An entry runs at laptop scale, and at paper scale where that costs as little. One that takes longer is stopped
with a checkpoint, and its cost is noted (results/costs.json): with a larger within= it goes on from there.
Other words with = pass on to run.py: trainer=cpu, output_dir=..., results_dir=..."""
OWN = {"hours": 1.0, "within": 120.0, "jobs": float(os.cpu_count() or 1)}
LIST = "--list"
LOOK_EVERY = 0.5
Report = Callable[[str], Any]


def main() -> int:
    """Run the command line; 1 for a wrong word, or where an entry failed."""
    return run_or_help(HELP, _cover)


def _cover(words: list[str]) -> int:
    settings, patterns, passed_on = read_words(words)
    within, entries, folders = settings["within"], chosen(patterns), Folders(passed_on)

    def items() -> list[Item]:
        return items_of(entries, folders.evidence(), folders.costs(), within)

    failed = 0
    if LIST not in words:
        failures = folders.failures()
        # the order stays among those that failed, and among the others
        waiting = sorted(cheap(items(), within), key=lambda item: item.name in failures)
        failed = measure(waiting, settings, passed_on, folders)
    show(items(), within, folders.failures())
    return 1 if failed else 0


def read_words(words: Sequence[str]) -> tuple[dict[str, float], list[str], list[str]]:
    """The command's own settings, names of entries, and what passes on to run.py.

    Raises:
        UserError: a setting that is no positive number, or a word that would change what an entry measures.
    """
    refuse_options(words, [LIST])
    settings, patterns, passed_on = dict(OWN), [], []
    for word in words:
        key, equals, value = word.partition("=")
        if key in OWN and equals:
            settings[key] = _positive(word, value)
        elif not equals:
            patterns += [word] if word != LIST else []
        else:
            passed_on.append(word)
    valid = (
        f"{', '.join(f'{key}=' for key in OWN)}, names of entries with * and ?, and words that change no "
        "result, as trainer=cpu"
    )
    check_passed_on(passed_on, "an entry fixes what it measures", valid, ("force", "record"))
    if settings["jobs"] < 1:
        raise UserError(f"jobs={settings['jobs']:g}; valid: at least 1")
    return settings, patterns, passed_on


def _positive(word: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise UserError(f"{word}; valid: a number above 0")
    return found


class Folders:
    """Where results and costs lie.

    Args:
        words: of run.py, which may name the folders.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.outputs, self.results = folders_of(values_of(words))

    def evidence(self) -> Evidence:
        return Evidence.read(self.outputs, self.results)

    @property
    def path(self) -> Path:
        return self.results / "costs.json"

    def costs(self) -> dict[str, Cost]:
        """By `coverage.key_of`; those of machines as fast as the one that noted them."""
        if not self.path.exists():
            return {}
        return {name: Cost(**cost) for name, cost in json.loads(self.path.read_text()).items()}

    def note(self, item: Item, cost: Cost) -> None:
        """Keep what an item costs; it has not failed."""
        with alone_in(self.results):
            costs = {**self.costs(), item.name: cost}
            write_json(self.path, {name: asdict(costs[name]) for name in sorted(costs)})
            failures = self.failures()
            if failures.pop(item.name, None) is not None:
                write_json(self.failures_path, failures)

    @property
    def failures_path(self) -> Path:
        # beside the runs: another machine that shares the results may have the files that are missing here
        return self.outputs / "cover_failures.json"

    def failures(self) -> dict[str, str]:
        """What each item said that failed here at its last try, by name."""
        path = self.failures_path
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def note_failure(self, item: Item, said: str) -> None:
        """Keep what an item said that failed."""
        with alone_in(self.results):
            failures = self.failures() | {item.name: said}
            write_json(self.failures_path, {name: failures[name] for name in sorted(failures)})


def measure(items: Sequence[Item], settings: dict[str, float], words: Sequence[str], folders: Folders) -> int:
    """Make runs by worker processes, as many at a time as there are jobs; how many failed.

    Ctrl-C and the end of the time stop those under way, with checkpoints.
    """
    crew = Sitting(items, settings, words, folders, lambda line: print(line, flush=True))
    before = {sign: signal.signal(sign, crew.ask) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        crew.run()
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    return crew.failed


class Sitting:
    """Runs of items within a time.

    Args:
        items: in the order in which they begin.
        settings: hours in all, seconds within which an item must end, jobs at a time.
        words: that all runs get.
        folders: where costs are noted.
        report: told a line of each that has ended.
    """

    def __init__(
        self,
        items: Sequence[Item],
        settings: dict[str, float],
        words: Sequence[str],
        folders: Folders,
        report: Report,
    ) -> None:
        self.waiting, self.words, self.folders, self.report = list(items), list(words), folders, report
        self.within, self.jobs = settings["within"], int(settings["jobs"])
        self.ends = time.monotonic() + 3600 * settings["hours"]
        self.answers: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()
        self.busy: dict[Worker, tuple[Item, float]] = {}
        self.idle: list[Worker] = []
        # when each was last asked to stop
        self.stopping: dict[Worker, float] = {}
        self.failed = self.total = 0
        self.asked_to_stop = False

    def ask(self, *_: object) -> None:
        """End soon: what is under way keeps a checkpoint."""
        self.asked_to_stop = True

    @property
    def over(self) -> bool:
        return self.asked_to_stop or time.monotonic() >= self.ends

    def run(self) -> None:
        """Until all items have ended, or the time has."""
        self.total = len(self.waiting)
        while self.busy or (self.waiting and not self.over):
            while self.waiting and len(self.busy) < self.jobs and not self.over:
                self._begin(self.waiting.pop(0))
            self._stop_late_ones()
            try:
                worker, answer = self.answers.get(timeout=LOOK_EVERY)
            except queue.Empty:
                continue
            if worker in self.busy:
                self._ended(worker, answer)
            elif worker in self.idle:
                # killed from outside while it waited
                self.idle.remove(worker)
        for worker in self.idle:
            worker.stop()
        for worker in self.idle:
            worker.end()

    def _begin(self, item: Item) -> None:
        worker = self.idle.pop() if self.idle else Worker(self.jobs, self.answers)
        self.busy[worker] = item, time.monotonic()
        worker.make([*item.words, "record=true", "logger=none", *self.words])

    def _stop_late_ones(self) -> None:
        """Ask a late run to stop at its next step; where that is long in coming, again, which ends it."""
        for worker, (_, started) in self.busy.items():
            now = time.monotonic()
            late = now - started > self.within
            if (late or self.over) and now - self.stopping.get(worker, -math.inf) > PATIENCE:
                self.stopping[worker] = now
                worker.stop()

    def _ended(self, worker: Worker, answer: dict[str, Any] | None) -> None:
        item, started = self.busy.pop(worker)
        seconds = time.monotonic() - started
        stopped = self.stopping.pop(worker, None) is not None
        if answer is None or answer.get(INTERRUPTED):
            worker.end()
        else:
            self.idle.append(worker)
        made = self.total - len(self.waiting) - len(self.busy)
        self.report(
            f"[{made}/{self.total}] {item.name}: {self._what(item, answer, seconds, stopped, worker)}"
        )

    def _what(
        self, item: Item, answer: dict[str, Any] | None, seconds: float, stopped: bool, worker: Worker
    ) -> str:
        """Note the cost of what has ended; what came of it, in words."""
        # a run that went on from a checkpoint took longer than this sitting saw
        spent = max(seconds, (answer or {}).get("seconds", 0.0))
        if answer is not None and "metrics" in answer:
            self.folders.note(item, Cost(round(spent, 1), True))
            shown = ", ".join(
                f"{name} {number(value)}" for name, value in list(answer["metrics"].items())[:4]
            )
            return f"{seconds:.0f} s, {shown}"
        if stopped and (answer is None or answer.get(INTERRUPTED)):
            share = (answer or {}).get("share")
            # without a share it was not even at the end of its first step, or of a long one
            whole = spent / share if share else 2 * spent
            with_sitting = self.over and seconds <= self.within
            known = math.inf if item.cost is None else item.cost.seconds
            if not with_sitting or spent > known:
                self.folders.note(item, Cost(round(whole, 1), False))
            if with_sitting:
                kept = "; it goes on from its checkpoint" if share else " before it ended a step"
                return f"stopped with the sitting{kept}"
            if not share:
                return f"takes more than {spent:,.0f} s; stopped"
            return f"takes about {whole:,.0f} s; stopped with a checkpoint"
        self.failed += 1
        said = (answer or {}).get("said") or f"its worker ended: {worker.last_words}"
        self.folders.note_failure(item, said)
        return f"failed: {said}"


def show(items: Sequence[Item], within: float, failures: Mapping[str, str]) -> None:
    """Print a line a paper, and what is left to measure.

    Args:
        failures: see `Folders.failures`.
    """
    papers = sorted({item.entry.split(".")[0] for item in items})
    paper_column = Column("paper", no_wrap=True, min_width=max(map(len, papers), default=0))
    known = "fresh", "earlier code", "not measured", "of these cheap", "dear", "failed here", "untried"
    table = Table(paper_column, *known)
    for paper in papers:
        own = [item for item in items if item.entry.startswith(f"{paper}.")]
        states = Counter(item.state for item in own)
        left = [item for item in own if item.state == "not measured"]
        low = sum(item.cost is not None and item.cost.seconds <= within for item in left)
        dear = sum(item.cost is not None for item in left) - low
        failed = sum(item.cost is None and item.name in failures for item in left)
        table.add_row(
            paper,
            *(str(states[state] or "-") for state in ("fresh", "earlier code", "not measured")),
            *(str(count or "-") for count in (low, dear, failed, len(left) - low - dear - failed)),
        )
    console().print(table)
    left = [item for item in items if item.state != "fresh"]
    hours = sum(item.cost.seconds for item in left if item.cost is not None) / 3600
    without = [item.name for item in left if item.cost is None]
    failed = sum(name in failures for name in without)
    print(
        f"{len(items) - len(left)} of {len(items)} are measured by this code; the others would take about "
        f"{hours:,.1f} hours of a processor's share as known, {len(without) - failed} are untried, "
        f"and {failed} failed here"
    )
