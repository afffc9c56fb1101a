"""The list of slow tests."""

import re
from pathlib import Path

import pytest
from slow import LIMIT, NAMES, Timed, function_of

TESTS = Path(__file__).parent


def functions(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return set(re.findall(r"^ *def (\w+)", path.read_text(), re.MULTILINE))


def test_each_line_names_a_test_that_there_is_once_and_in_order() -> None:
    lines = NAMES.read_text().splitlines()
    assert lines == sorted(set(lines))
    there: dict[str, set[str]] = {}
    for line in lines:
        file, _, name = line.rpartition("::")
        assert name in there.setdefault(file, functions(TESTS / file)), line


def test_cases_of_a_test_share_a_line() -> None:
    assert function_of("tests/papers/a/test_a.py::test_it[1-x::y]") == "papers/a/test_a.py::test_it"
    assert function_of("tests/test_b.py::test_it") == "test_b.py::test_it"


def report(test: str, when: str, duration: float) -> pytest.TestReport:
    return pytest.TestReport(test, ("", 0, ""), {}, "passed", None, when, duration=duration)  # type: ignore[arg-type]


def test_a_test_is_slow_where_one_of_its_cases_is_with_its_fixtures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slow.NAMES", tmp_path / "slow.txt")
    timed = Timed()
    for test, seconds in {"test_c[1]": 0.0, "test_c[2]": LIMIT, "test_b": LIMIT / 2, "test_a": LIMIT}.items():
        timed.pytest_runtest_logreport(report(f"tests/x.py::{test}", "setup", seconds / 2))
        timed.pytest_runtest_logreport(report(f"tests/x.py::{test}", "call", seconds / 2))
    timed.pytest_sessionfinish()
    assert (tmp_path / "slow.txt").read_text() == "x.py::test_a\nx.py::test_c\n"
