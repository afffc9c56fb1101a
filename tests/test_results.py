"""The records in results/: each is read and shown somewhere, and committed pages say what they say."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.report.model import Report, build, scales_of
from common.report.pages import pages
from common.report.records import orphans
from common.runs.evidence import Evidence
from common.tables.tables import papers

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence.read(ROOT / "no_outputs", ROOT / "results")


@pytest.fixture(scope="module")
def report(evidence: Evidence) -> Report:
    return build(evidence)


def test_every_file_in_results_is_a_record_of_a_paper(evidence: Evidence) -> None:
    found = (path for path in (ROOT / "results").rglob("*") if path.is_file())
    # a lock is left where runs were recorded, and costs of entries by `cover.py`
    files = [path for path in found if path.name not in (".lock", "costs.json")]
    assert {f"{path.parent.name}/{path.stem}" for path in files} == set(evidence.by_key)
    assert {path.parent.name for path in files} <= set(papers())


def test_every_record_stands_behind_a_row_a_claim_or_an_arena(report: Report, evidence: Evidence) -> None:
    assert orphans(report, evidence) == []


def test_a_record_that_nothing_leads_to_is_found_and_one_that_another_needed_is_none(
    report: Report, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = next(one for one in evidence.all() if one["entries"])
    stray = result | {"entries": [], "asked": [["paper=yogi", "seed=999"]], "stages": {}}
    more = replace(evidence, by_key=evidence.by_key | {"yogi/0123456789ab": stray})
    assert orphans(report, more) == ["yogi/0123456789ab"]
    monkeypatch.setitem(result, "stages", {"teacher": {"key": "yogi/0123456789ab"}})
    assert orphans(report, more) == []


def test_records_stand_in_the_rows_that_they_were_asked_for_as(report: Report, evidence: Evidence) -> None:
    rows = {row.entry: row for paper in report.papers for table in paper.tables for row in table.rows}
    for result in evidence.all():
        for name in result["entries"]:
            for scale in scales_of(result, name):
                # by identity: comparing thousands of results number by number takes a quarter of a minute
                assert any(run is result for run in rows[name].runs[scale])


def test_the_pages_show_what_the_records_say(report: Report) -> None:
    stale = [path.as_posix() for path, text in pages(report).items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `python report.py to=pages`"
