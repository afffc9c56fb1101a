"""What committed pages show of results: the picture of claims, the papers, claims and rows of a paper."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from common.report.model import Report, Source
from common.report.pages import claims_picture, claims_table, in_words, measured, papers_table, rows_table


def test_the_picture_has_a_square_for_each_claim_and_any_program_draws_it(report: Report) -> None:
    svg = claims_picture(report)
    root = ElementTree.fromstring(svg)
    assert "var(" not in svg and "<style" not in svg and "class=" not in svg
    kinds = {element.tag.split("}")[1] for element in root.iter()}
    assert kinds == {"svg", "title", "rect", "g", "path", "text"}
    squares = [element for element in root if element.tag.endswith("}g")]
    claims = sum(len(paper.claims) for paper in report.papers)
    # a square of each kind stands in the legend
    assert len(squares) == claims + 4
    assert in_words(report) == next(root.iter("{http://www.w3.org/2000/svg}title")).text
    width = float(root.attrib["width"])
    places = [float(re.findall(r"[\d.]+", square.attrib["transform"])[0]) for square in squares]
    assert max(places) < width


def test_states_differ_in_the_picture_by_more_than_colour(report: Report) -> None:
    legend = re.findall(r"<g [^>]*>(.*?)</g>", claims_picture(report))[:4]
    shapes = {re.sub(r"#\w{6}", "", square) for square in legend}
    # a full square and an empty one have the same shape; they differ by light
    assert len(shapes) == 3 and len(set(legend)) == 4


def test_every_paper_has_a_row_with_a_link_in_the_list(report: Report) -> None:
    table = papers_table(report)
    assert table.count("](papers/") == sum(paper.here for paper in report.papers)
    assert "2 supported, 1 refuted, 1 not run | 14 of" in table


def test_a_papers_claims_stand_with_sentence_verdict_finding_and_size(report: Report) -> None:
    lines = claims_table(report.paper("yogi")).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith(
        "| Yogi ends lower than Adam. <script>alert(1)</script> (`yogi_is_better`) | supported | "
    )
    assert lines[2].endswith("; claimed: lower | laptop scale |")
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in lines)


def test_the_rows_of_the_main_table_stand_beside_what_is_reported(report: Report) -> None:
    paper = report.paper("yogi")
    assert paper.main is not None
    metric = next(iter(paper.main.metrics))
    rows = [
        replace(row, reported=row.reported | {metric: 4.25}, source=Source("recalled", "memory"))
        for row in paper.main.rows
    ]
    lines = rows_table(paper, replace(paper.main, rows=rows)).splitlines()
    assert len(lines) == 2 + sum(bool(row.measured) for row in rows)
    assert "| training loss (" in lines[0] and "| training loss: measured" in lines[0]
    assert all("4.25 (unverified)" in line for line in lines[2:])
    # of a row with several scales the largest one stands there
    (both,) = (row for row in rows if {"paper", "laptop"} <= set(row.measured))
    (line,) = (line for line in lines if line.startswith(f"| {both.name} |"))
    assert "| 1 | paper scale |" in line
    whole = measured(paper)
    assert "**`table_ae`**" in whole and "earlier code" not in whole
