"""`compare.py` as a user calls it: its chapter in docs/, and wrong words."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from calls import Calls
from pages import blocks, chapter, commands
from runs_made_up import result

from common.report import compare
from common.runs import evidence
from common.runs.sweep import leave_status

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]
CHAPTER = chapter("Numbers for your own paper")
# those of the other pages too, README's among them
COMMANDS = commands("python compare.py")
SWEEP = next(line for line in commands("python run.py", CHAPTER) if "-m" in line)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the chapter's commands find: a sweep of two methods, two learning rates and three seeds."""
    job = 0
    for method in ("adam", "yogi"):
        for rate in (0.001, 0.01):
            for seed in range(3):
                value = 0.1 * (method == "adam") + rate + 0.003 * seed**2
                words = [f"method=optimizer/{method}", f"method.lr={rate}"]
                one = result(seed, *words, test_error=value, test_loss=2 * value)
                one["history"]["epoch"] = [1.0, 2.0, 3.0]
                path = tmp_path / "outputs" / "yogi" / f"{job:012x}" / "result.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps(one))
                leave_status(tmp_path / "outputs/sweeps/1", job, {"state": "passed", "result": str(path)})
                job += 1
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_pages_works(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)[2:]
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    assert compare.main() == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "over n seeds" in said
    files = next((word.removeprefix("into=").split(",") for word in words if word.startswith("into=")), [])
    for name in files:
        assert (folder / name).stat().st_size > 100
        assert f"written: {name}" in said


def test_the_chapters_notebook_gives_the_numbers_of_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "ROOT", folder)
    pytest.importorskip("pandas")
    (code,) = blocks("python", CHAPTER)
    names: dict[str, object] = {}
    exec(code, names)
    frame = names["numbers"]
    ours = frame[frame["name"] == "yogi lr=0.001"]  # type: ignore[index]
    assert ours["mean"].item() == pytest.approx(0.001 + 0.005)
    assert ours["n"].item() == 3


def test_the_chapters_sweep_is_compared_by_its_folder(quick: Run, calls: Calls, tmp_path: Path) -> None:
    words = shlex.split(SWEEP)[2:]
    made = quick(*words, "scale=smoke", "method=optimizer/adam", "seed=0,1")
    assert made.returncode == 0, made.stderr
    done = calls.run([], tmp_path, script=ROOT / "compare.py")
    assert (done.code, done.errors) == (0, "")
    assert "lr=0.001" in done.out and "lr=0.01 " in done.out and "paired t test over common seeds" in done.out
    assert "earlier code" not in done.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["metric=tset_error"], "unknown metric=tset_error; did you mean test_error or test_loss?"),
        (
            ["metric=running_loss"],
            "metric=running_loss is a curve, and no single number (valid: curve=",
        ),
        (["curve=runing_loss", "into=a.svg"], "unknown curve=runing_loss; did you mean running_loss?"),
        (["curve=running_loss"], "curve=running_loss needs a file"),
        (["into=a.svg"], "into=a.svg: a picture shows a curve"),
        (["into=a.xlsx"], "into=a.xlsx: valid endings: .csv, .md, .tex, .parquet, .svg, .pdf, .png"),
        (["into=a"], "into=a: valid endings"),
        (["spread=sd"], "unknown spread=sd; did you mean std? (valid: interval, std)"),
        (["better=more"], "better=more (valid: higher, lower, or METRIC:higher,METRIC:lower)"),
        (["--metric", "x"], "--metric: no such option (valid: --help, and words)"),
        (["metric="], "metric= has no value"),
        (["yogi.nothing.*"], "no run matches yogi.nothing.*: it is no path, and no entry that was run"),
        (["results"], "no run matches results"),
        (["outputs/sweps/1"], "outputs/sweps/1 does not exist (there is sweeps, yogi in"),
        (["method=optimizer/yogy"], "none has it; did you mean optimizer/yogi?"),
    ],
)
def test_a_wrong_word_gets_one_line_and_writes_nothing(
    words: list[str],
    line: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["compare.py", *words, f"results_dir={folder}/none"])
    assert compare.main() == 1
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and line in told.err and len(told.err.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


def test_a_file_that_cannot_be_written_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "taken").write_text("")
    monkeypatch.setattr(sys, "argv", ["compare.py", "into=taken/a.csv", f"results_dir={folder}/none"])
    assert compare.main() == 1
    assert capsys.readouterr().err.startswith("error: into=taken/a.csv: it cannot be written (")


def test_a_terminal_without_the_signs_gets_others() -> None:
    assert compare.printable("0.1 ± 0.2 über", "ascii") == "0.1 +- 0.2 ?ber"
    assert compare.printable("0.1 ± 0.2", "utf-8") == "0.1 ± 0.2"


def test_help_and_wrong_words_import_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; from common.report.compare import main; sys.argv[1:] = [{}]; main(); "
        "print(any(name in sys.modules for name in ('torch', 'scipy', 'matplotlib')))"
    )
    for word in ("'--help'", "'outputs/nowhere'"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(word)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "False"
