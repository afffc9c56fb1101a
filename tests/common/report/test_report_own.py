"""The page of the user's own runs: what stands in it, and where."""

from pathlib import Path
from typing import Any

import pytest
from runs_made_up import over_seeds, result
from test_report_site import Parsed

from common.report import comparison, own
from common.report.model import Report
from common.report.own import Section, own_sections
from common.report.site import first_number, write
from common.runs.evidence import Evidence

ADAM, HOSTILE = "method=optimizer/adam", "method=optimizer/<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def current_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "stale", lambda one: False)


def evidence(mine: list[dict[str, Any]], committed: list[dict[str, Any]]) -> Evidence:
    keys = [f"yogi/{i:012x}" for i in range(len(mine) + len(committed))]
    results = dict(zip(keys, [*mine, *committed], strict=True))
    return Evidence.of(results, frozenset(keys[len(mine) :]))


def sections(*mine: dict[str, Any], committed: list[dict[str, Any]] | None = None) -> list[Section]:
    return own_sections(evidence(list(mine), committed or []))


def test_own_runs_stand_beside_the_committed_ones_on_the_same_data() -> None:
    other_data = over_seeds([0.5, 0.6], "dataset.crop=3")
    committed = [*over_seeds([0.2, 0.21, 0.23], "method=optimizer/sgd"), *other_data]
    (section,) = sections(*over_seeds([0.1, 0.12, 0.11], ADAM), committed=committed)
    assert [(row.name, row.own) for row in section.rows] == [("adam", True), ("sgd", False)]
    assert section.rows[0].cells == [("0.110 ± 0.025", True)]
    assert (section.beside, section.beside_shown) == (1, True)
    assert section.rows[0].command == "python run.py paper=yogi method=optimizer/adam seed=0"
    assert section.command == "python compare.py paper=yogi dataset=digits metric=test_error"
    assert [figure.kind for figure in section.figures] == ["curves"]
    assert section.figures[0].title.endswith(" against steps, mean over seeds, no spread")


def test_committed_runs_alone_have_no_page_and_searches_have_their_own() -> None:
    assert sections(committed=over_seeds([0.1, 0.2], ADAM)) == []
    search = result(0) | {"conclusion": {"trials": []}}
    assert sections(search) == []


def test_too_many_committed_methods_are_counted_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "ROWS", 2)
    committed = [one for rate in (1, 2, 3) for one in over_seeds([0.2, 0.3], f"method.lr={rate}")]
    (section,) = sections(*over_seeds([0.1, 0.12], ADAM), committed=committed)
    assert len(section.rows) == 1 and (section.beside, section.beside_shown) == (3, False)


def test_data_sets_and_papers_are_sections_the_newest_first() -> None:
    older = result(0, ADAM) | {"finished": "2026-01-01T00:00:00Z"}
    newer = result(0, ADAM, "dataset=mnist") | {"finished": "2026-02-01T00:00:00Z"}
    assert [section.title for section in sections(older, newer)] == ["yogi on mnist", "yogi on digits"]


def test_the_page_is_well_nested_escapes_names_and_is_linked_from_the_front(tmp_path: Path) -> None:
    found = sections(*over_seeds([0.1, 0.12, 0.11], ADAM), *over_seeds([0.3, 0.33], HOSTILE))
    write(Report([], 1, own=tuple(found)), tmp_path, [])
    page = (tmp_path / "own.html").read_text()
    assert not Parsed(page).faults
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert f'href="own.html#{found[0].id}"' in (tmp_path / "index.html").read_text()
    for tag, attributes in Parsed(page).elements:
        if tag == "img":
            assert (tmp_path / str(attributes["src"])).exists() and attributes["alt"]
    write(Report([], 1), tmp_path, [])
    assert not (tmp_path / "own.html").exists()


def test_cells_are_sorted_by_the_number_that_they_begin_with() -> None:
    cells = ["1,234.5 ± 3", "-0.5 ± 0.1", "1.5e-09 ± 2e-10", "no value", "-"]
    assert [first_number(cell) for cell in cells] == ["1234.5", "-0.5", "1.5e-09", "", ""]
