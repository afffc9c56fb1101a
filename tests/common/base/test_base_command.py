import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.base.command import in_one_line, missing_line, os_line, refuse_options, run_or_help
from common.base.errors import UserError
from common.runs.cli import one_line
from common.tables.tables import ROOT
from papers.nasbot.transport import _simplex

PROGRAM = """
import sys
from pathlib import Path
from common.base.command import command

def main() -> int:
    Path("text").write_text("Größe")
    print(sys.argv[1], sys.flags.utf8_mode)
    return 3

sys.exit(command(main))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    ["claims.py --list", "run.py --help", "-m common.tables.tables", "report.py paper=saddle to=terminal"],
)
def test_a_reader_that_stops_early_gets_no_traceback(words: str) -> None:
    program = f"{sys.executable} {words}; echo code $? >&2"
    found = subprocess.run(
        ["bash", "-c", f"({program}) | head -c 1"], cwd=ROOT, capture_output=True, check=True
    )
    assert found.stderr.strip() == b"code 0"


def test_a_locale_without_utf8_changes_no_text(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "program.py", "ä"],
        cwd=tmp_path,
        env=os.environ | plain,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout.decode()) == (3, "ä 1\n")
    assert (tmp_path / "text").read_bytes().decode() == "Größe"


@pytest.mark.parametrize("error", [UserError("two\n  lines"), OSError("two lines")])
def test_what_the_user_can_mend_is_one_line_and_exit_code_one(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert in_one_line(work) == 1
    assert capsys.readouterr().err == "error: two lines\n"


def test_a_package_that_only_a_part_of_the_project_needs_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _simplex.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "ot"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ot", None)
    said = "this needs the package ot: make setup-full (or pip install -e '.[papers]')"
    assert in_one_line(lambda: _simplex() and None) == 1
    assert capsys.readouterr().err == f"error: {said}\n"
    with pytest.raises(ModuleNotFoundError) as caught:
        _simplex()
    assert one_line(caught.value) == said


@pytest.mark.parametrize("name", ["nothing_of_that_name", "common.nothing"])
def test_what_is_missing_for_others_or_from_the_project_itself_is_no_package_to_install(name: str) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(name)
    assert missing_line(caught.value) is None
    with pytest.raises(ModuleNotFoundError):
        in_one_line(lambda: importlib.import_module(name) and None)


def test_the_code_of_work_that_ends_is_its_own_and_a_reader_that_is_gone_is_no_error_of_it() -> None:
    def told() -> None:
        raise BrokenPipeError

    assert (in_one_line(lambda: 3), in_one_line(lambda: None)) == (3, 0)
    with pytest.raises(BrokenPipeError):
        in_one_line(told)


@pytest.mark.parametrize(
    ("words", "needs_words", "code", "printed"),
    [
        (["a", "--help"], False, 0, "HELP\n"),
        (["-h"], True, 0, "HELP\n"),
        ([], True, 1, "HELP\n"),
        ([], False, 7, "did []\n"),
        (["a=b"], True, 7, "did ['a=b']\n"),
    ],
)
def test_a_command_does_what_its_words_say_or_prints_its_help(
    words: list[str],
    needs_words: bool,
    code: int,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(given: list[str]) -> int:
        print(f"did {given}")
        return 7

    monkeypatch.setattr(sys, "argv", ["command.py", *words])
    assert run_or_help("HELP", work, needs_words=needs_words) == code
    assert capsys.readouterr().out == printed


def test_options_that_a_command_has_not_are_named_with_those_that_it_has() -> None:
    refuse_options(["a=-1", "b", "--list"], ["--list"])
    with pytest.raises(UserError, match=r"--lst: no such option \(valid: --list, --help, and words\)"):
        refuse_options(["b", "--lst"], ["--list"])


def test_a_mistyped_word_of_any_command_waits_for_neither_torch_nor_scipy() -> None:
    commands = "report.cli report.compare claims.cli claims.arena_cli runs.start runs.cli runs.cover"
    commands += " runs.evaluate runs.export runs.predict runs.tune"
    lines = ["import sys", *(f"import common.{name}" for name in commands.split())]
    lines.append("print({'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_what_the_system_refuses_names_the_file_and_where_it_may_be_written() -> None:
    read_only = OSError(errno.EROFS, "Read-only file system", "outputs")
    assert os_line(read_only).startswith("outputs: Read-only file system (valid: a folder with room")
    assert os_line(OSError(errno.ENOENT, "No such file or directory", "a")) == "a: No such file or directory"
    assert os_line(OSError("two\nlines")) == "two lines"
