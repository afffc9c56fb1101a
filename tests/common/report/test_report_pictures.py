"""Pictures that papers draw of their runs: each run once, labelled, in both modes."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from common.report import pictures
from common.report.figures import MODES
from common.report.model import Report, Row, Table
from common.report.pictures import own_pictures

PLATE = """<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt">
<path d="M0,0 H9" style="fill: #ffffff"/><path d="M0,0 H9" style="fill: #eef2f7"/>
<use style="fill: #f7fbff"/><text>words</text></svg>"""


@pytest.fixture
def standin(report: Report, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Rows of fig_regret: two read one run, each at an iteration of its own, one another run."""
    drawn = SimpleNamespace(picture=lambda result: PLATE)
    monkeypatch.setattr(pictures, "import_module", lambda name: drawn)
    row = next(one for one in report.paper("pmf_automl").tables if one.id == "fig_regret").rows[0]
    metrics = {"regret": 0.0, "regret_at_10": 0.0159, "regret_at_50": 0.0051}
    run: dict[str, Any] = {"seed": 0, "metrics": metrics}
    rows = [named(row, f"pmf_it{at}", run) for at in (10, 50)] + [named(row, "random_1x_it10", dict(run))]
    return replace(
        next(one for one in report.paper("pmf_automl").tables if one.id == "fig_regret"), rows=rows
    )


def named(row: Row, name: str, run: dict[str, Any]) -> Row:
    return replace(row, name=name, runs={"laptop": [run]})


def test_a_run_that_several_rows_read_has_one_picture_with_the_number_of_each(standin: Table) -> None:
    first, second = own_pictures(standin)
    assert first.title == "fig_regret: pmf, seed 0"
    assert first.alt.startswith("pmf_automl fig_regret: pmf, seed 0 (laptop scale).")
    assert "pmf_it10: regret 0.0159. pmf_it50: regret 0.0051." in first.alt
    assert second.title == "fig_regret: random_1x_it10, seed 0"


def test_a_picture_has_no_white_plate_in_dark_mode_and_is_whole_for_any_program(standin: Table) -> None:
    svg = next(own_pictures(standin)).svg
    root = ElementTree.fromstring(svg)
    assert root.attrib["width"] == "9" and "var(" not in svg
    assert 'path[style*="fill: #ffffff"]{fill:none!important}' in svg
    assert f"text{{fill:{MODES['#1c2024']}}}" in svg


def test_a_pale_area_is_dark_in_dark_mode_and_a_pale_dot_keeps_its_colour(standin: Table) -> None:
    svg = next(own_pictures(standin)).svg
    (dark,) = re.findall(r'fill: #eef2f7"\]\{fill:#(\w{6})!important', svg)
    assert max(bytes.fromhex(dark)) < 0x40
    assert 'fill: #f7fbff"]' not in svg


def test_a_paper_whose_code_is_not_imported_has_no_pictures_of_its_own(standin: Table) -> None:
    assert list(own_pictures(replace(standin, paper="of_the_current_folder"))) == []
