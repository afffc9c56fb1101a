"""`report.py` as a user calls it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from calls import Calls

from common.base.errors import UserError
from common.report import cli, model
from common.report.model import Paper
from common.tables.tables import ROOT

Report = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(calls: Calls, tmp_path: Path) -> Report:
    """Call `report.py` in an empty folder of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        given = [f"results_dir={tmp_path}/results", *words]
        ended = calls.run(given, tmp_path, script=ROOT / "report.py")
        return subprocess.CompletedProcess(given, ended.code, ended.out, ended.errors)

    return run


def test_an_arena_with_an_error_is_one_line_and_the_report_is_made(call: Report, tmp_path: Path) -> None:
    (tmp_path / "conf" / "arena").mkdir(parents=True)
    (tmp_path / "conf" / "arena" / "mine.yaml").write_text("title: t\n")
    done = call("paper=yogi")
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("without an arena: ") and "mine.yaml" in done.stderr
    assert "mine cannot be shown" in (tmp_path / "report" / "index.html").read_text()


def test_committed_pages_lose_no_arena_to_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        "common.report.model.build", lambda *_: model.Report([], 0, refused={"mine": "wrong"})
    )
    monkeypatch.setitem(cli.TARGETS, "pages", lambda *_: written.append("pages"))
    with pytest.raises(UserError, match="wrong"):
        cli._report(["to=pages", f"results_dir={tmp_path}"])
    assert written == []


def test_the_site_of_no_results_is_built_and_its_front_page_named(call: Report, tmp_path: Path) -> None:
    done = call()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "report: report/index.html"
    assert {path.name for path in (tmp_path / "report").glob("*.html")} >= {
        "index.html",
        "yogi.html",
        "spider.html",
    }


def test_one_paper_goes_into_the_folder_that_is_asked_for(call: Report, tmp_path: Path) -> None:
    done = call("paper=yogi", "into=elsewhere")
    assert done.stdout.splitlines()[-1] == "report: elsewhere/yogi.html"
    assert (tmp_path / "elsewhere" / "index.html").exists()
    assert not (tmp_path / "elsewhere" / "spider.html").exists()


def test_the_terminal_shows_the_tables(call: Report) -> None:
    done = call("paper=spider", "to=terminal")
    assert done.returncode == 0
    assert "spider.table_zo: zeroth-order function-query cost" in done.stdout


def test_to_wandb_publishes_the_papers_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published: list[str] = []

    def publish(papers: list[Paper]) -> str:
        published.extend(paper.name for paper in papers)
        return "https://wandb.example/report"

    monkeypatch.setitem(sys.modules, "common.report.wandb_report", SimpleNamespace(publish=publish))
    cli._report(["to=wandb", "paper=yogi", f"output_dir={tmp_path}", f"results_dir={tmp_path}"])
    assert published == ["yogi"]
    assert capsys.readouterr().out == "report: https://wandb.example/report\n"


def test_what_wandb_lacks_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def publish(papers: list[Paper]) -> str:
        raise UserError("to=wandb needs a login at W&B: wandb login")

    monkeypatch.setitem(sys.modules, "common.report.wandb_report", SimpleNamespace(publish=publish))
    nowhere = [f"output_dir={tmp_path}", f"results_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["report.py", "to=wandb", *nowhere])
    assert cli.main() == 1
    assert capsys.readouterr().err == "error: to=wandb needs a login at W&B: wandb login\n"


def test_help_names_the_ways_to_see_a_report(call: Report) -> None:
    done = call("--help")
    assert done.returncode == 0
    assert all(f"to={name}" in done.stdout for name in ("terminal", "wandb"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["to=pdf"], "unknown to=pdf (valid: html, terminal, wandb, pages)"),
        (["paper=yogy"], "unknown paper=yogy; did you mean yogi? (valid: "),
        (["papers=yogi"], "unknown word papers; did you mean paper? (valid: paper, to, into, output_dir,"),
        (["yogi"], "unknown word yogi (valid: paper, to, into, output_dir, results_dir)"),
        (["into="], "into= has no value"),
        (["to=pages", "paper=yogi"], "paper=: committed pages show all papers (valid: to=pages alone)"),
    ],
)
def test_a_wrong_word_gets_one_line_with_the_valid_ones(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as raised:
        cli._report(words)
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_a_wrong_word_ends_with_one_line_and_exit_code_1(call: Report) -> None:
    done = call("to=pdf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: unknown to=pdf (valid: html, terminal, wandb, pages)\n"


def test_a_folder_that_cannot_be_written_gets_one_line(call: Report, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = call("into=taken")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "taken" in done.stderr
