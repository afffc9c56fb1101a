"""What CI makes of tests that fail once, always, or take their process with them; on toy tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CI = Path(__file__).resolve().parents[1] / ".ci"

PASSING = """
import pytest
def test_passes(): pass
def test_skips(): pytest.skip("not here")
"""
# the calls of a test are counted by the lines of a file
FAILS_AT = """
from pathlib import Path
import pytest
@pytest.mark.parametrize("word", ["a b@c", "glob(*)"])
def test_{name}(word):
    calls = Path(f"{name}_{{len(word)}}")
    with calls.open("a") as file:
        file.write("x\\n")
    assert len(calls.read_text().splitlines()) not in {at}
"""
FLAKY = FAILS_AT.format(name="flaky", at=[1])
# passes alone twice, and fails at the third time
LATE = FAILS_AT.format(name="late", at=[1, 4])
FAILING = "def test_fails(): assert False\ndef test_fails_too(): assert False"
NO_TEARDOWN = """
import pytest
@pytest.fixture
def broken():
    yield
    raise RuntimeError("in its teardown")
def test_leaves_a_mess(broken): pass
"""
CRASHING = "import os\ndef test_crashes(): os._exit(3)"
CRASHES_ONCE = """
import os
from pathlib import Path
def test_crashes_once():
    try:
        Path("once").touch(exist_ok=False)
    except FileExistsError:
        return
    os._exit(3)
"""
# fails among the others and crashes alone
CRASHES_ALONE = """
import os
from pathlib import Path
def test_crashes_alone():
    try:
        Path("crash").touch(exist_ok=False)
    except FileExistsError:
        os._exit(3)
    assert False
"""
BROKEN = "import nothing_of_this_name\ndef test_never_seen(): pass"
XDIST = ["-p", "xdist", "-n", "2"]
QUIET: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "timeout": 600}
# no plugin but what is asked for: each takes its time to start
PLAIN = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def ended(folder: Path, arguments: list[str], *checks: str, **files: str) -> tuple[int, list[str]]:
    """The exit code of toy tests, and what is printed after the last of pytest's own lines."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, str(CI / "steady.py"), *checks, "--", *arguments, "."]
    environment = {name: text for name, text in os.environ.items() if "PYTEST" not in name} | PLAIN
    done = subprocess.run(command, cwd=folder, env=environment, **QUIET)
    words = ("UNSTEADY", "FAILED ", "check failed", "workers", "pytest ended", "no tests were found")
    lines = done.stdout.splitlines()
    assert done.stdout.endswith("\n") and not done.stderr, done.stderr
    start = max(index for index, line in enumerate(lines) if not line)
    assert all(line.startswith(words) for line in lines[start + 1 : -1]), done.stdout
    return done.returncode, lines[start + 1 :]


def unsteady(name: str) -> str:
    return f"UNSTEADY {name} (failed among the others, passed 3 times alone)"


FLAKY_ONES = ["test_flaky.py::test_flaky[a b@c]", "test_flaky.py::test_flaky[glob(*)]"]


def test_tests_that_pass_end_with_their_count(tmp_path: Path) -> None:
    assert ended(tmp_path, [], passing=PASSING) == (0, ["1 passed, 0 failed, 1 skipped"])


def test_the_functions_that_took_longest_are_named_with_all_their_cases_together(tmp_path: Path) -> None:
    text = """
import time, pytest
def test_short(): pass
@pytest.mark.parametrize("case", range(3))
def test_long(case): time.sleep(0.6)
"""
    (tmp_path / "test_timed.py").write_text(text)
    command = [sys.executable, str(CI / "steady.py"), "--", "."]
    lines = subprocess.run(command, cwd=tmp_path, env={**os.environ, **PLAIN}, **QUIET).stdout.splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith("longest of "))
    assert [line.split()[-1] for line in lines[place + 1 : place + 3]] == [
        "test_timed.py::test_long",
        "test_timed.py::test_short",
    ]
    assert float(lines[place + 1].split()[0]) >= 2


def test_what_fails_once_is_named_and_fails_nothing(tmp_path: Path) -> None:
    code, lines = ended(tmp_path, XDIST, passing=PASSING, flaky=FLAKY)
    assert (code, lines) == (0, [*map(unsteady, FLAKY_ONES), "3 passed, 0 failed, 1 skipped"])
    assert (tmp_path / "flaky_5").read_text() == "x\n" * 4


def test_what_fails_again_fails_the_whole_and_leaves_the_others_their_outcome(tmp_path: Path) -> None:
    files = {"passing": PASSING, "flaky": FLAKY, "late": LATE, "failing": FAILING, "mess": NO_TEARDOWN}
    code, lines = ended(tmp_path, [], **files)
    assert code == 1
    assert lines == [
        *map(unsteady, FLAKY_ONES),
        "FAILED test_failing.py::test_fails",
        "FAILED test_failing.py::test_fails_too",
        "FAILED test_late.py::test_late[a b@c]",
        "FAILED test_late.py::test_late[glob(*)]",
        "FAILED test_mess.py::test_leaves_a_mess",
        "3 passed, 5 failed, 1 skipped",
    ]


@pytest.mark.parametrize("text", [CRASHING, CRASHES_ONCE])
def test_a_worker_that_dies_fails_the_whole_though_its_test_may_pass_again(text: str, tmp_path: Path) -> None:
    code, lines = ended(tmp_path, XDIST, passing=PASSING, crash=text)
    assert code == 1
    name = text.split("def ")[1].split("(")[0]
    assert lines == [
        "workers of pytest that died: 1",
        f"FAILED test_crash.py::{name}",
        "1 passed, 1 failed, 1 skipped",
    ]


def test_pytest_that_dies_itself_names_the_test_and_what_never_ran(tmp_path: Path) -> None:
    code, lines = ended(tmp_path, [], crash=CRASHING, passing=PASSING)
    assert code == 1
    assert lines == [
        "pytest ended with code 3",
        "FAILED test_crash.py::test_crashes",
        "FAILED test_passing.py::test_passes",
        "FAILED test_passing.py::test_skips",
        "0 passed, 3 failed",
    ]


def test_a_test_that_crashes_alone_takes_no_other_with_it(tmp_path: Path) -> None:
    code, lines = ended(tmp_path, [], alone=CRASHES_ALONE, flaky=FLAKY)
    assert code == 1
    failed = "FAILED test_alone.py::test_crashes_alone"
    assert lines == [*map(unsteady, FLAKY_ONES), failed, "2 passed, 1 failed"]


@pytest.mark.parametrize("arguments", [[], XDIST])
def test_an_error_of_collection_fails_the_whole(arguments: list[str], tmp_path: Path) -> None:
    code, lines = ended(tmp_path, arguments, passing=PASSING, broken=BROKEN)
    assert code == 1
    assert "FAILED test_broken.py" in lines
    assert " 0 failed" not in lines[-1]


@pytest.mark.parametrize("arguments", [[], XDIST])
def test_no_tests_fail_the_whole(arguments: list[str], tmp_path: Path) -> None:
    code, lines = ended(tmp_path, arguments)
    assert code == 1
    assert lines == ["pytest ended with code 5", "no tests were found", "0 passed, 0 failed"]


def test_an_argument_that_pytest_does_not_know_fails_the_whole(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").touch()
    command = [sys.executable, str(CI / "steady.py"), "--", "--nothing-of-this-name"]
    done = subprocess.run(command, cwd=tmp_path, **QUIET)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "0 passed, 0 failed"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("ruff", "mypy", "failed"),
    [
        (0, 0, []),
        (2, 1, [".venv/bin/ruff check .", ".venv/bin/ruff format --check .", ".venv/bin/mypy"]),
    ],
)
def test_a_check_that_fails_hides_no_test_and_is_named_at_the_end(
    ruff: int, mypy: int, failed: list[str], tmp_path: Path
) -> None:
    shutil.copytree(CI, tmp_path / "project" / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "project"
    (folder / "Makefile").write_text("setup-full:\n")
    (folder / "pytest.ini").touch()
    (folder / "tests").mkdir()
    (folder / "tests" / "test_toy.py").write_text(PASSING)
    script(folder / ".venv/bin/ruff", f"exit {ruff}")
    script(folder / ".venv/bin/mypy", f"exit {mypy}")
    script(folder / ".venv/bin/python", f'exec {sys.executable} "$@"')
    done = subprocess.run(
        [folder / ".ci/run"], cwd="/", env={**os.environ, **PLAIN, "PYTEST_PLUGINS": "xdist.plugin"}, **QUIET
    )
    lines = done.stdout.splitlines()
    named = [line for line in lines if line.startswith("check failed")]
    assert named == [f"check failed: {name}" for name in failed]
    assert done.returncode == (1 if failed else 0)
    assert lines[-1] == "1 passed, 0 failed, 1 skipped"


def test_a_setup_that_fails_fails_the_whole_at_once(tmp_path: Path) -> None:
    shutil.copytree(CI, tmp_path / ".ci")
    (tmp_path / "Makefile").write_text("setup-full:\n\texit 3\n")
    done = subprocess.run([tmp_path / ".ci/run"], cwd="/", **QUIET)
    assert done.returncode == 2
    assert "passed" not in done.stdout
