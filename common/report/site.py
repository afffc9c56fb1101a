"""The report as a static site: one page in front, one a paper, figures as SVG files beside them.

Every page is whole by itself (style and script inside), opens from disk and loads nothing from a network.
What comes from results, tables and claims is escaped by jinja2; READMEs are rendered without raw HTML.
"""

import base64
import hashlib
import math
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from joblib import Parallel, cpu_count, delayed
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from common.claims.arena_cli import ahead, how_sure
from common.claims.judge import Interval
from common.report.claim_plots import ClaimPlot, claim_plot, unit_of
from common.report.figures import Figure, table_figures
from common.report.model import SIZES, STATES, Counts, Paper, Report, Table
from common.report.pictures import own_pictures
from common.report.whiskers import field_plots
from common.runs.result import number
from common.tables.tables import in_roots

TEMPLATES = Path(__file__).parent / "templates"
# what each verdict is called on a page: never by colour alone
SIGNS = {"supported": "✓", "refuted": "✗", "inconclusive": "≈", "not run": "–"}
# what a claim's effect is
EFFECTS = {
    "paired": "Better by",
    "slope": "Slope",
    "monotone": "Least sure step",
    "bound": "Worst margin",
    "identity": "Worst difference",
}


@dataclass(frozen=True)
class Page:
    """A paper with what only its page has: figures by table, plots by claim."""

    paper: Paper
    figures: dict[str, list[Figure]]
    plots: dict[str, ClaimPlot | None]

    @property
    def main_id(self) -> str:
        """The table that the page begins with; "" for none."""
        return self.paper.main.id if self.paper.main else ""

    @property
    def headline(self) -> Figure | None:
        """The figure that the page begins with: the one that its paper is listed with, where that is drawn,
        else the first of the main table.
        """
        drawn = [figure for figures in self.figures.values() for figure in figures]
        listed = [figure for figure in drawn if self.paper.figure == figure.name]
        return next(iter([*listed, *self.figures.get(self.main_id, [])]), None)

    @property
    def headline_table(self) -> Table | None:
        """The table that the headline is drawn from."""
        return next((table for table in self.paper.tables if self.headline in self.figures[table.id]), None)

    def size_of(self, table: Table, figure: Figure) -> str:
        """What the size of a figure's runs is (`common.report.model.SIZES`): the paper's where all are."""
        found = {self.paper.size(row, figure.scale) for row in table.rows if figure.scale in row.measured}
        return next((size for size in ("own", "recalled") if size in found), figure.scale)


def write(report: Report, into: Path, pages: Iterable[str]) -> Path:
    """Write the front page and the pages of some papers, of all searches over runs, and of own runs.

    Returns:
        The page to open: the front page, or that of the only paper.
    """
    into.mkdir(parents=True, exist_ok=True)
    named = [paper for paper in report.papers if paper.here and paper.name in set(pages)]
    # pages are drawn by all processors: figures are nearly all of the time, and no page needs another
    Parallel(n_jobs=min(cpu_count(), len(named)) or 1)(delayed(_write_page)(paper, into) for paper in named)
    environment = _environment(into)
    for search in report.searches:
        text = environment.get_template("search.html").render(search=search)
        _write(into / f"{search.name}.html", text)
    if report.own:
        _write_own(report.own, environment, into)
    else:
        (into / "own.html").unlink(missing_ok=True)
    for arena, fields in report.arenas:
        drawn = [(one, spec := arena.fields[one.name], list(field_plots(spec, one))) for one in fields]
        page_of = environment.get_template("arena.html").render(arena=arena, fields=drawn)
        _write(into / f"arena_{arena.name}.html", page_of)
    linked = {paper.name for paper in report.papers if (into / f"{paper.name}.html").exists()}
    groups = by_group(report.papers)
    front = environment.get_template("index.html").render(report=report, groups=groups, linked=linked)
    _write(into / "index.html", front)
    return into / (f"{named[0].name}.html" if len(named) == 1 else "index.html")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_page(paper: Paper, into: Path) -> None:
    page = draw_page(paper)
    _write_figures(page, into)
    _write(into / f"{paper.name}.html", _environment(into).get_template("paper.html").render(page=page))


def draw_page(paper: Paper) -> Page:
    """Draw all figures and plots of a paper's page."""
    figures = {table.id: [*table_figures(table), *own_pictures(table)] for table in paper.tables}
    return Page(paper, figures, {claim.name: claim_plot(claim, verdict) for claim, verdict in paper.claims})


def _write_own(sections: Sequence[Any], environment: Environment, into: Path) -> None:
    """Write the page of the user's own runs (`common.report.own`)."""
    _write_drawn([figure for section in sections for figure in section.figures], into / "figures" / "own")
    _write(into / "own.html", environment.get_template("own.html").render(sections=sections))


def _write_figures(page: Page, into: Path) -> None:
    figures = [figure for figures in page.figures.values() for figure in figures]
    _write_drawn(figures, into / "figures" / page.paper.name)


def _write_drawn(figures: Iterable[Figure], folder: Path) -> None:
    """Write the figures of a page, and remove those that it had before."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {f"{figure.name}.svg": figure for figure in figures}
    for path in folder.glob("*.svg"):
        if path.name not in drawn:
            path.unlink()
    for name, figure in drawn.items():
        _write(folder / name, figure.svg)


# templates


def _environment(into: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "report.js").read_text()
    environment.filters |= {
        "number": number,
        "breakable": breakable,
        "coded": coded,
        "token": token,
        "first_number": first_number,
        "markdown": lambda text, paper: markdown(text, _relative(in_roots(f"papers/{paper}"), into)),
    }
    environment.globals |= {
        "ahead": ahead,
        "how_sure": how_sure,
        "rounded": rounded,
        "sentence": sentence,
        "uneven": uneven,
        "style": Markup((TEMPLATES / "report.css").read_text()),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "signs": SIGNS,
        "states": STATES,
        "sizes": SIZES,
        "currency": currency,
        "effect_name": effect_name,
        "effect": effect,
        "sources": sources,
        "folder": lambda paper: _relative(in_roots(f"papers/{paper}"), into),
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }
    return environment


def _relative(path: Path, into: Path) -> str:
    return Path(os.path.relpath(path, into)).as_posix()


def by_group(papers: list[Paper]) -> dict[str, list[Paper]]:
    """The papers that are here by their group, then the others."""
    groups: dict[str, list[Paper]] = {}
    for paper in sorted(papers, key=lambda paper: not paper.here):
        title = paper.group[:1].upper() + paper.group[1:] if paper.here else "Not here yet"
        groups.setdefault(title, []).append(paper)
    return groups


def coded(text: str) -> Markup:
    """Escaped text with `code` between backticks."""
    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:
        return escape(text)
    marked = [Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts)]
    return Markup("").join(marked)


def breakable(text: Any) -> Markup:
    """Escaped text that a browser may break after `_`, `.` and `/`."""
    parts = re.split(r"(?<=[_./])", str(text))
    return Markup("<wbr>").join(escape(part) for part in parts if part)


def first_number(text: str) -> str:
    """The number that a cell begins with, for sorting; empty where it begins with none."""
    found = re.match(r"-?[\d,]+(\.\d+)?(e[-+]?\d+)?", text)
    return found[0].replace(",", "") if found else ""


def currency(counts: Counts) -> str:
    """How much of what was judged and measured stands on the code as it is, in a sentence."""
    parts = [
        f"{total - stale} of {total} {what}"
        for total, stale, what in (
            (counts.judged, counts.stale_claims, "claims"),
            (counts.run, counts.stale, "measured rows"),
        )
        if total
    ]
    return f"By the code as it is: {' and '.join(parts)}" if parts else "Nothing has been run yet"


def rounded(one: Interval) -> tuple[str, str]:
    """A mean and its interval as texts, each as exact as the interval bears."""
    mean, low, high = one.texts
    if not one.bounded:
        return mean, "no interval"
    return mean, "no spread" if one.flat else f"{low} to {high}"


def sentence(text: str) -> str:
    """A text with a full stop, where it does not end with a sign of its own."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def uneven(table: Table) -> list[str]:
    """Why rows of a table cannot all be compared: at one scale they have other seeds, or other examples."""
    found = []
    for scale in table.scales():
        rows = [row.runs[scale] for row in table.rows if scale in row.runs]
        seeds = {tuple(sorted(run["seed"] for run in runs)) for runs in rows}
        examples = {count for runs in rows for run in runs if (count := run["metrics"].get("examples"))}
        counts = sorted({len(one) for one in seeds})
        other = [f"{_span(counts)} runs" if len(counts) > 1 else "other seeds"] if len(seeds) > 1 else []
        other += [f"{_span(sorted(examples))} examples"] if len(examples) > 1 else []
        if other:
            found.append(
                f"At {scale} scale rows rest on {' and on '.join(other)}: compare those of the same."
            )
    return found


def _span(counts: Sequence[int]) -> str:
    return f"{counts[0]:,} to {counts[-1]:,}"


def token(text: str) -> str:
    """A state as a word without spaces, for classes and filters."""
    return text.replace(" ", "-")


def effect_name(claim: Any) -> str:
    """What the number of a claim's verdict is."""
    monotone = getattr(claim.rule, "monotone", None) is not None
    kind = ("monotone" if monotone else "slope") if claim.kind == "trend" else claim.kind
    return EFFECTS[kind]


def effect(claim: Any, verdict: Any) -> tuple[str, str]:
    """What a verdict rests on, with its unit, and its interval or range ("" for none), as texts.

    It is in percent where the claim is about a fraction; a slope of logarithms has no unit.
    """
    one = Interval(verdict.effect, *(math.inf if end is None else end for end in (verdict.low, verdict.high)))
    known = verdict.low is not None and verdict.high is not None
    if getattr(claim.rule, "relative", False):
        mean, low, high = (f"{100 * value:.3g} %" for value in (one.mean, one.low, one.high))
        return mean, ("no spread" if low == high else f"{low} to {high}") if known else ""
    if not known:
        mean, ends = number(one.mean), ""
    elif claim.kind in ("bound", "identity"):
        low, high = number(one.low), number(one.high)
        mean, ends = number(one.mean), "no spread" if low == high else f"{low} to {high}"
    else:
        mean, ends = rounded(one)
    unit = None if getattr(claim.rule, "slope", None) is not None else unit_of(claim)
    return f"{mean} {_UNITS.get(unit or '', unit or '')}".strip(), ends


# units as they stand behind a difference
_UNITS = {"%": "points", "1": ""}


def sources(table: Table) -> list[tuple[str, str]]:
    """Where a table's reported numbers come from: label and place, each once."""
    return list(dict.fromkeys((row.source.label, row.source.where) for row in table.rows if row.source.where))


@cache
def _renderer() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def markdown(text: str, folder: str) -> Markup:
    """Markdown as HTML, without raw HTML; links to files are taken from `folder`, wide tables scroll."""
    tokens = _renderer().parse(text)
    for part in tokens:
        for child in part.children or []:
            for name in ("href", "src"):
                if name in child.attrs:
                    child.attrs[name] = _from_folder(str(child.attrs[name]), folder)
    html = _renderer().renderer.render(tokens, _renderer().options, {})
    box = '<div class="scroll" tabindex="0" role="region" aria-label="Table">'
    html = html.replace("<table>", f"{box}<table>").replace("</table>", "</table></div>")
    html = html.replace("<th>", '<th scope="col">').replace("<pre>", '<pre tabindex="0">')
    return Markup(html)


def _from_folder(address: str, folder: str) -> str:
    return address if urlsplit(address).scheme or address.startswith("#") else f"{folder}/{address}"
