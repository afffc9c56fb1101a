"""The report in a terminal."""

import io
from dataclasses import replace

from rich.console import Console

from common.report.model import Report
from common.report.terminal import show
from common.tables.tables import runnable


def text(report: Report, *papers: str, width: int = 250) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(report, list(papers), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_an_overview_stands_before_several_papers(report: Report) -> None:
    shown = text(report, "spider", "yogi")
    assert f"14 of {len(runnable('yogi'))} (1 paper, 14 laptop)" in shown
    # all of them are
    assert "papers are not here yet" not in shown


def test_claims_stand_with_verdict_size_and_scale(report: Report) -> None:
    lines = text(report, "yogi").splitlines()
    refuted = next(line for line in lines if "yogi.adam_is_better" in line)
    assert "refuted" in refuted and "higher by 2" in refuted


def test_rows_stand_with_reported_and_measured_numbers_and_their_override_string(report: Report) -> None:
    lines = text(report, "spider", "yogi").splitlines()
    row = next(line for line in lines if "mnist_adam_default" in line)
    assert "±" in row and "laptop" in row
    assert "entry=yogi.table_ae.mnist_adam_default scale=laptop seed=0,1,2" in row
    reported = next(line for line in lines if "zo_gd" in line)
    assert "n*d*eps^-2 (recalled, unverified)" in reported


def test_square_brackets_are_text_and_no_markup(report: Report) -> None:
    yogi = report.paper("yogi")
    marked = replace(yogi, tables=[replace(yogi.tables[0], about="of [red]one[/red] kind")])
    assert "of [red]one[/red] kind" in text(replace(report, papers=[marked]), "yogi")


def test_in_eighty_columns_names_lack_what_they_share_and_not_their_ends(report: Report) -> None:
    shown = text(report, "yogi", width=80)
    assert max(map(len, shown.splitlines())) <= 80
    ends = [line.split("│")[1].strip()[-8:] for line in shown.splitlines() if "│" in line]
    for claim, _ in report.paper("yogi").claims:
        assert any(end and claim.name.endswith(end) for end in ends)
    assert "entry=yogi" not in shown
