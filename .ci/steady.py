"""Run pytest; run what failed again, alone; end with the names of the failed tests and one line of counts.

    python .ci/steady.py [--failed CHECK]... -- PYTEST_ARGUMENTS

A test that failed among the others and then passes three times in another process is UNSTEADY: it is named,
and does not fail the whole. What fails once more does, and so does all that a second run cannot clear: a
crash of pytest or of one of xdist's workers, an error of collection, tests that were collected and never
ran, no tests at all, and each check that the caller names as failed. The last line is `N passed, N failed`,
with `, N skipped` where there are any; the exit code is 0 or 1. The functions that took longest, all cases
together, stand before it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

RERUNS = 3
# functions of tests that are named for their time
LONGEST = 60
# xdist's word for the phase of a test during which its worker died
CRASHED = "???"


class Recorder:
    """A pytest plugin that appends what happens to a file, line by line, so that a crash loses nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _write(self, **event: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(collected=[item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._write(collected=list(ids))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        if error:
            self._write(worker=str(error))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(uncollected=report.nodeid)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(started=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._write(
            test=report.nodeid, when=report.when, outcome=report.outcome, seconds=round(report.duration, 3)
        )


@dataclass
class Run:
    """What one process of pytest came to, by the names of the tests."""

    code: int
    collected: set[str] = field(default_factory=set)
    uncollected: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    crashed: set[str] = field(default_factory=set)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    dead_workers: int = 0

    def add(self, event: dict[str, Any]) -> None:
        """Take one line of a `Recorder`."""
        self.collected |= set(event.get("collected", []))
        self.started |= {event["started"]} if "started" in event else set()
        self.uncollected |= {event["uncollected"]} if "uncollected" in event else set()
        self.dead_workers += "worker" in event
        if "test" not in event:
            return
        name, when, outcome = event["test"], event["when"], event["outcome"]
        self.seconds[name.partition("[")[0]] += event["seconds"]
        if when == CRASHED:
            self.crashed.add(name)
        elif outcome == "failed":
            self.failed.add(name)
        elif outcome == "skipped":
            self.skipped.add(name)
        elif when == "call":
            self.passed.add(name)

    def settle(self) -> None:
        """Give each test one outcome, the worst; one that was under way when pytest died has crashed."""
        reported = self.passed | self.failed | self.skipped | self.crashed
        if self.code not in (0, 1):
            self.crashed |= self.started - reported
        self.failed -= self.crashed
        self.skipped -= self.failed | self.crashed
        self.passed -= self.failed | self.crashed | self.skipped

    @property
    def never_ran(self) -> set[str]:
        """What was collected and has no outcome."""
        return self.collected - self.passed - self.failed - self.skipped - self.crashed


def run(arguments: list[str]) -> Run:
    """Run pytest with these arguments in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events"
        log.touch()
        command = [sys.executable, __file__, "--record", str(log), "--", *arguments]
        found = Run(subprocess.run(command, check=False).returncode)
        for line in log.read_text().splitlines():
            found.add(json.loads(line))
    found.settle()
    return found


def alone(names: set[str]) -> set[str]:
    """Run these tests one after the other in one process; those that passed.

    Where a test takes the process with it, another process goes on with the tests after it.
    """
    passed: set[str] = set()
    left = set(names)
    while left:
        found = run(["-p", "no:xdist", *sorted(left)])
        passed |= found.passed
        done = found.passed | found.failed | found.skipped | found.crashed
        if not found.crashed or not done & left:
            break
        left -= done
    return passed & names


def steady(arguments: list[str], checks: list[str]) -> int:
    """Run the tests and say how they ended; the exit code.

    Args:
        arguments: pytest's.
        checks: what failed before, by name.
    """
    first = run(arguments)
    unsteady = set(first.failed)
    for number in range(1, RERUNS + 1):
        if unsteady:
            print(f"\n== {len(unsteady)} failed tests alone, {number} of {RERUNS}", flush=True)
            unsteady = alone(unsteady)
    lost = first.crashed | first.uncollected | first.never_ran
    failed = (first.failed - unsteady) | lost
    faults = [f"check failed: {name}" for name in checks]
    if first.dead_workers:
        faults.append(f"workers of pytest that died: {first.dead_workers}")
    if first.code not in (0, 1) or (first.code == 1 and not first.failed | lost):
        faults.append(f"pytest ended with code {first.code}")
    if not first.collected and not failed:
        faults.append("no tests were found")
    _print(first, unsteady, failed, faults)
    return 1 if failed or faults else 0


def _print(first: Run, unsteady: set[str], failed: set[str], faults: list[str]) -> None:
    print(f"\nlongest of {sum(first.seconds.values()):,.0f} s in all:")
    for name, seconds in sorted(first.seconds.items(), key=lambda item: -item[1])[:LONGEST]:
        print(f"{seconds:6.0f} s {name}")
    print()
    for name in sorted(unsteady):
        print(f"UNSTEADY {name} (failed among the others, passed {RERUNS} times alone)")
    for fault in faults:
        print(fault)
    for name in sorted(failed):
        print(f"FAILED {name}")
    skipped = f", {len(first.skipped)} skipped" if first.skipped else ""
    print(f"{len(first.passed | unsteady)} passed, {len(failed)} failed{skipped}", flush=True)


def main() -> int:
    """Read the command line; the exit code."""
    words = sys.argv[1:]
    place = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(usage="steady.py [--failed CHECK]... -- PYTEST_ARGUMENTS")
    parser.add_argument("--failed", action="append", default=[], help="a check that failed before")
    parser.add_argument("--record", type=Path, help="run pytest once, and write its events to this file")
    options, arguments = parser.parse_args(words[:place]), words[place + 1 :]
    if options.record is not None:
        return int(pytest.main(arguments, plugins=[Recorder(options.record)]))
    return steady(arguments, options.failed)


if __name__ == "__main__":
    sys.exit(main())
