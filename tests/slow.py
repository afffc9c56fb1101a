"""Which tests are slow: those of which a case took long when the whole suite was last timed.

`slow.txt` has a line for each, `file::function` below tests/, written by `make slow`.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

NAMES = Path(__file__).with_name("slow.txt")
# seconds of a case, with its fixtures
LIMIT = 0.1


def function_of(nodeid: str) -> str:
    """The line that a test has in `slow.txt`: all its cases share one."""
    return nodeid.partition("[")[0].removeprefix("tests/")


class Timed:
    """A pytest plugin that times all tests and writes the slow ones at the end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        write(test for test, seconds in self.seconds.items() if seconds >= LIMIT)


def write(tests: Iterable[str]) -> None:
    NAMES.write_text("".join(f"{name}\n" for name in sorted({function_of(test) for test in tests})))
