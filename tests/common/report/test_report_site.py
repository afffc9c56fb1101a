"""The pages as files: what stands in them, and what must not."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from common.claims.arena import arenas
from common.claims.judge import Interval, mean_interval
from common.report.model import Report, catalogue
from common.report.site import (
    breakable,
    coded,
    currency,
    draw_page,
    effect,
    markdown,
    rounded,
    sentence,
    uneven,
    write,
)
from common.tables.tables import load_tables, papers, runnable

VOID = {"meta", "link", "br", "img", "input", "wbr", "hr"}
SHAPES = {"line", "polyline", "circle"}


class Parsed(HTMLParser):
    """A page's elements, its text, and the faults of its nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[tuple[str, str]] = []
        self.feed(text)
        self.faults += [f"never closed: {tag}" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th", "article"):
            self.cells.append((dict(attrs).get("class") or "", ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"closed out of turn: {tag}")

    def handle_data(self, data: str) -> None:
        if self.cells and {"td", "th", "article"} & set(self.open):
            name, text = self.cells[-1]
            self.cells[-1] = (name, f"{text} {data.strip()}")


Pages = dict[str, str]
AllParsed = dict[str, Parsed]


@pytest.fixture(scope="module")
def pages(site: Path) -> Pages:
    return {path.stem: path.read_text() for path in site.glob("*.html")}


@pytest.fixture(scope="module")
def parsed(pages: Pages) -> AllParsed:
    return {name: Parsed(text) for name, text in pages.items()}


def test_every_page_is_well_nested_with_unique_names(parsed: AllParsed) -> None:
    assert set(parsed) == {"index", *papers(), *(f"arena_{name}" for name in arenas())}
    for name, page in parsed.items():
        assert page.faults == [], name
        ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(ids) == len(set(ids)), name


def test_every_link_within_the_site_leads_somewhere(parsed: AllParsed, site: Path) -> None:
    for page in parsed.values():
        ids = {attrs.get("id") for _, attrs in page.elements}
        for tag, attrs in page.elements:
            target = attrs.get("href" if tag == "a" else "src") or ""
            if target.startswith("#"):
                assert target[1:] in ids
            # these claims are made up, and have no file
            elif tag in ("a", "img") and not target.startswith("https:") and "claims.yaml" not in target:
                assert (site / target).exists(), target


def test_nothing_is_loaded_from_a_network(pages: Pages, parsed: AllParsed, site: Path) -> None:
    for name, page in parsed.items():
        loading = [attrs for tag, attrs in page.elements if tag in ("img", "script", "link", "iframe")]
        assert all("://" not in (attrs.get("src") or attrs.get("href") or "") for attrs in loading)
        assert "@import" not in pages[name] and "url(" not in pages[name]
        assert "default-src 'none'" in pages[name]
    for path in site.rglob("*.svg"):
        assert not re.search(r'(?:href|src)="(?!#)', path.read_text()), path.name


@pytest.mark.parametrize("paper", papers())
def test_every_entry_stands_on_its_papers_page_with_a_copy_button(paper: str, parsed: AllParsed) -> None:
    copied = {attrs["data-copy"] for tag, attrs in parsed[paper].elements if tag == "button"}
    for entry in runnable(paper):
        assert any(f"entry={entry.name}" in (text or "").split() for text in copied), entry.name


def test_all_papers_stand_on_the_front_page(report: Report, pages: Pages, parsed: AllParsed) -> None:
    for paper in report.papers:
        assert str(breakable(paper.title)).replace("<wbr>", "") in pages["index"]
    rows = [attrs["data-rows"] for _, attrs in parsed["index"].elements if "data-item" in attrs]
    assert (len(rows), rows.count("not-here")) == (23, 23 - len(papers()))


def test_what_comes_from_results_and_claims_is_escaped(pages: Pages, parsed: AllParsed, hostile: str) -> None:
    page = pages["yogi"]
    assert hostile not in page and "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert [tag for tag, _ in parsed["yogi"].elements].count("script") == 1
    assert all(not name.startswith("on") for _, attrs in parsed["yogi"].elements for name in attrs)


def test_a_number_of_a_smaller_scale_always_stands_beside_its_badge(parsed: AllParsed) -> None:
    measured = [text for name, text in parsed["yogi"].cells if name == "measured" and "±" in text]
    assert len(measured) == 2 * 14
    assert all("laptop scale" in text for text in measured)
    alone = [
        text
        for name, text in parsed["yogi"].cells
        if name == "measured" and "paper scale as recalled" in text
    ]
    assert len(alone) == 2


def test_recalled_numbers_are_marked_unverified(parsed: AllParsed) -> None:
    cells = [text for name, text in parsed["spider"].cells if name == "reported"]
    assert any("-3.333" in text and "unverified" in text for text in cells)
    assert any("d*eps^-3" in text and "the paper" in text and "unverified" not in text for text in cells)


def test_verdicts_effects_and_sizes_stand_in_the_claims(parsed: AllParsed, pages: Pages) -> None:
    cards = {name: text for name, text in parsed["yogi"].cells if name.startswith("claim")}
    for state in ("supported", "refuted", "not-run"):
        assert f"claim {state}" in cards
    assert 'data-claims="refuted"' in pages["yogi"]
    assert "-2" in cards["claim refuted"] and " 3 " in cards["claim refuted"]


def test_seeds_that_all_differ_by_the_same_have_no_spread_and_no_interval_of_width_0(pages: Pages) -> None:
    claim = pages["yogi"].split('id="claim-yogi.yogi_is_better"')[1].split("</article>")[0]
    assert "<dt>95 % interval</dt><dd>no spread</dd>" in claim
    assert "<figcaption>loss, one dot a run</figcaption>" in claim


def test_a_page_begins_with_the_main_table_under_its_figure_and_claims_are_closed_below_it(
    report: Report, pages: Pages
) -> None:
    page, main = pages["yogi"], report.paper("yogi").main
    assert main is not None and main.id == "table_ae"
    places = [page.index(f'id="{name}"') for name in ("about", "main", "table-table_ae", "claims", "tables")]
    assert places == sorted(places)
    headline = page.index('<figure class="headline">')
    assert places[1] < headline < places[2]
    claims = page[places[3] : places[4]]
    assert claims.count("<details>") == claims.count("<article") == 4
    # what is closed is what a verdict rests on; the sentence and the verdict stand outside
    summary = claims.split("<summary>")[1].split("</summary>")[0]
    assert "Yogi ends lower than Adam." in summary and "supported" in summary


def test_a_page_begins_with_the_figure_that_its_paper_is_listed_with_where_it_is_drawn(
    report: Report,
) -> None:
    page = draw_page(report.paper("yogi"))
    first, *_ = page.figures["table_ae"]
    assert page.headline == first and page.headline_table == page.paper.main
    table, other = next(
        (name, found[-1]) for name, found in page.figures.items() if found[-1:] not in ([], [first])
    )
    listed = replace(page, paper=replace(page.paper, figure=other.name))
    assert listed.headline == other and listed.headline_table is not None
    assert listed.headline_table.id == table
    assert replace(page, paper=replace(page.paper, figure="yogi.none")).headline == first


def test_the_figures_that_pages_begin_with_are_of_tables_of_their_papers() -> None:
    named = {spec["name"]: spec["figure"] for spec in catalogue() if "figure" in spec}
    assert "spider" in named
    for paper, figure in named.items():
        assert figure.split(".")[1] in {table["id"] for table in load_tables(paper)["tables"]}


def test_a_figure_is_of_the_papers_size_where_all_its_rows_are(report: Report) -> None:
    page = draw_page(report.paper("yogi"))
    table = next(table for table in page.paper.tables if table.id == "table_ae")
    figure = next(figure for figure in page.figures["table_ae"] if figure.scale == "paper")
    told = [replace(row, reported=dict.fromkeys(row.reported, 1.0)) for row in table.rows]
    assert page.size_of(replace(table, rows=told), figure) == "paper"
    assert page.size_of(table, figure) == "recalled"
    ours = replace(table, rows=[replace(row, ours=True) for row in table.rows])
    assert page.size_of(ours, figure) == "own"


def test_a_page_without_numbers_begins_with_the_claims(report: Report, pages: Pages) -> None:
    page = pages["accelegrad"]
    assert report.paper("accelegrad").main is None
    assert 'id="main"' not in page and '<figure class="headline">' not in page
    assert page.index('id="about"') < page.index('id="claims"') < page.index('id="tables"')
    assert page.count("Reported stands beside measured") == pages["yogi"].count("Reported stands beside") == 1


def test_a_claim_says_what_its_verdict_is_about_and_what_a_pilot_had_shown(pages: Pages) -> None:
    assert "loss of yogi lower than that of adam, over 3 seeds" in pages["yogi"]
    assert "<strong>Pilot before the runs:</strong> it does" in pages["yogi"]
    assert "against batch, both axes logarithmic" not in pages["yogi"]  # nobody ran it, so nothing is drawn


def test_what_no_paper_has_is_not_called_the_papers_scale(report: Report) -> None:
    spider, yogi = report.paper("spider"), report.paper("yogi")
    assert not spider.experiments and yogi.experiments
    escape = next(table for table in spider.tables if table.id == "saddle_escape").rows[0]
    assert [spider.size(escape, scale) for scale in ("paper", "laptop")] == ["own", "laptop"]
    reported = next(row for table in yogi.tables for row in table.rows if row.name == "mnist_yogi")
    # of its settings no number tells whether they are the paper's
    assert yogi.size(reported, "paper") == "recalled"
    told = replace(reported, reported={"test_loss": 3.5})
    assert yogi.size(told, "paper") == "paper"
    claim, verdict = yogi.claims[0]
    # its runs name no entry
    assert yogi.sizes(claim, replace(verdict, scale={"paper", "laptop"})) == ["own", "laptop"]


def test_the_front_page_says_how_far_and_how_current_all_is(report: Report, pages: Pages) -> None:
    total = report.total
    assert (total.judged, total.run) == (3, 17)
    assert f"<strong>3 of {sum(total.claims.values())}</strong> claims judged" in pages["index"]
    assert f"<strong>17 of {total.entries}</strong> rows of tables measured" in pages["index"]
    assert currency(total) in pages["index"]
    one = replace(total, stale=1, stale_claims=2)
    assert currency(one) == "By the code as it is: 1 of 3 claims and 16 of 17 measured rows"
    assert currency(replace(total, claims={}, run=0)) == "Nothing has been run yet"


def test_a_table_of_another_ones_rows_says_so(pages: Pages) -> None:
    section = pages["moonshine"].split('id="table-fig3a"')[1].split("</section>")[0]
    assert "rows of table2" in section and "not ours to run" not in section


def test_a_changed_reported_number_shows_on_the_page(report: Report, tmp_path: Path) -> None:
    paper = report.paper("spider")
    tables = list(paper.tables)
    rows = [replace(tables[0].rows[0], reported={"online_eps_exponent": -17.25, "finite_sum": None})]
    tables[0] = replace(tables[0], rows=[*rows, *tables[0].rows[1:]])
    changed = replace(report, papers=[replace(paper, tables=tables)])
    assert write(changed, tmp_path, ["spider"]) == tmp_path / "spider.html"
    assert "-17.25" in (tmp_path / "spider.html").read_text()


def test_figures_of_an_earlier_report_go_away(report: Report, tmp_path: Path) -> None:
    old = tmp_path / "figures" / "yogi" / "old.svg"
    old.parent.mkdir(parents=True)
    old.write_text("<svg/>")
    write(report, tmp_path, ["yogi"])
    assert not old.exists() and len(list(old.parent.glob("*.svg"))) > 3


def test_every_figure_and_plot_has_words(parsed: AllParsed) -> None:
    for tag, attrs in parsed["yogi"].elements:
        if tag == "img":
            assert len(attrs.get("alt") or "") > 60
        if tag == "svg":
            assert attrs.get("role") == "img" and len(attrs.get("aria-label") or "") > 20


def test_markdown_is_rendered_without_raw_html_or_scripts() -> None:
    html = str(
        markdown("<script>x</script> [a](javascript:alert(1)) [b](module.py)\n\n|h|\n|-|\n|c|\n", "../p")
    )
    assert "<script>" not in html and 'href="javascript' not in html
    assert 'href="../p/module.py"' in html
    assert '<th scope="col">h</th>' in html and 'class="scroll"' in html


def test_numbers_of_an_arena_are_as_exact_as_their_intervals() -> None:
    assert rounded(Interval(76.37168, 75.989, 76.754)) == ("76.372", "75.99 to 76.75")
    # what is below its interval's last digit may still decide a rank
    assert rounded(Interval(-0.40967, -0.68207, -0.13727)) == ("-0.410", "-0.68 to -0.14")
    assert rounded(Interval(0.00138, 0.0, 0.0026)) == ("0.00138", "0.0000 to 0.0026")
    assert rounded(Interval(3.0, 3.0, 3.0)) == ("3", "no spread")
    assert rounded(Interval(3.0, 3.0 - 1e-15, 3.0 + 1e-15)) == ("3", "no spread")
    assert rounded(mean_interval([2.5])) == ("2.5", "no interval")
    assert rounded(Interval(1e-9, 0.0, 2e-9)) == ("1e-09", "0 to 2e-09")


def test_an_effect_has_its_unit_and_the_digits_of_its_interval(report: Report) -> None:
    claim, verdict = report.paper("yogi").claims[0]
    known = replace(claim, rule=replace_metric(claim.rule, "train_squared_error"))
    found = replace(verdict, effect=15.2738, low=-56.455, high=87.003)
    assert effect(known, found) == ("15.3 squared error", "-56 to 87")
    assert effect(claim, found) == ("15.3", "-56 to 87")
    assert effect(claim, replace(found, low=None, high=None)) == ("15.274", "")
    bound = replace(known, kind="bound")
    assert effect(bound, replace(found, low=15.2738, high=15.2738)) == (
        "15.274 squared error",
        "no spread",
    )


def replace_metric(rule: Any, metric: str) -> Any:
    return rule.model_copy(update={"metric": metric})


def test_a_description_has_one_full_stop() -> None:
    assert [sentence(text) for text in ("rows", "more alike?", "rows.")] == ["rows.", "more alike?", "rows."]


def test_a_table_says_which_of_its_rows_cannot_be_compared(report: Report) -> None:
    table = next(table for table in report.paper("yogi").tables if table.id == "table_ae")
    # at paper scale one row was run, at laptop scale all with the same seeds
    assert uneven(table) == []
    row = next(row for row in table.rows if "laptop" in row.runs)
    fewer = replace(row, runs={**row.runs, "laptop": row.runs["laptop"][:1]})
    assert uneven(replace(table, rows=[fewer, *table.rows])) == [
        "At laptop scale rows rest on 1 to 3 runs: compare those of the same."
    ]
    few, many = (
        replace(row, runs={"laptop": [run | {"metrics": {"examples": n}} for run in row.runs["laptop"]]})
        for n in (10, 1000)
    )
    assert uneven(replace(table, rows=[few, many])) == [
        "At laptop scale rows rest on 10 to 1,000 examples: compare those of the same."
    ]


def test_text_of_tables_is_escaped_whatever_marks_it_holds() -> None:
    assert str(coded("see `a<b`")) == "see <code>a&lt;b</code>"
    assert str(coded("odd ` tick <")) == "odd ` tick &lt;"
    assert str(breakable("a_b<c")) == "a_<wbr>b&lt;c"
