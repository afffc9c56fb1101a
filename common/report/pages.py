"""What committed pages show of the committed results: README's picture of all claims and its list of papers,
who is first in the arenas, and the claims and measured rows on each paper's page.

`python report.py to=pages` writes them, each between two marks in a page that is otherwise written by hand.
They hold nothing that changes with the code alone (whether a run is of earlier code is the site's to say), so
they change only with the results, the claims and the tables; a test holds them to that.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from common.base.marked import marked
from common.claims.arena_cli import ahead
from common.claims.judge import State
from common.report.figures import MOST_ROWS, with_unit
from common.report.model import SIZES, STATES, Measured, Paper, Report, Row, Table
from common.runs.result import number
from common.tables.tables import ROOT, SCALES

BY = "by python report.py to=pages"
PICTURE = ("<!-- all claims as a picture, " + BY + " -->", "<!-- end of the picture -->")
PAPERS = ("<!-- the papers, " + BY + " -->", "<!-- end of the papers -->")
MEASURED = ("<!-- claims and rows, " + BY + " -->", "<!-- end of claims and rows -->")
FIRST = ("<!-- who is first, " + BY + " -->", "<!-- end of who is first -->")
README, CLAIMS_SVG, EVIDENCE = Path("README.md"), Path("docs/claims.svg"), Path("docs/evidence.md")

# of the picture, in pixels: a square for each claim, a line for each paper
SIDE, STEP, LINE, LEFT, WIDTH = 10, 13, 18, 130, 760
INK, SOFT, GROUND = "#1c2024", "#59626d", "#ffffff"
# each state has a colour and a shape of its own: fill, edge, and what is drawn into the square
LOOKS: dict[State, tuple[str, str, str]] = {
    "supported": ("#157a3c", "#157a3c", ""),
    "refuted": ("#b5123f", "#b5123f", "M2.5,2.5 L7.5,7.5 M7.5,2.5 L2.5,7.5"),
    "inconclusive": ("#fdf1d5", "#a86a00", "M1.5,8.5 L8.5,1.5"),
    "not run": ("#ffffff", "#a3acb7", ""),
}


def pages(report: Report) -> dict[Path, str]:
    """Every committed page that shows results, by its path below the project's folder, as it should be."""
    readme = (ROOT / README).read_text()
    readme = marked(readme, PICTURE, f"![{in_words(report)}]({CLAIMS_SVG.as_posix()})")
    found = {README: marked(readme, PAPERS, papers_table(report)), CLAIMS_SVG: claims_picture(report)}
    found[EVIDENCE] = marked((ROOT / EVIDENCE).read_text(), FIRST, first_table(report))
    for paper in _here(report):
        path = Path("papers", paper.name, "README.md")
        found[path] = marked((ROOT / path).read_text(), MEASURED, measured(paper))
    return found


def write(report: Report) -> list[Path]:
    """Write these pages; those that were not so already."""
    changed = []
    for path, text in pages(report).items():
        if not (ROOT / path).exists() or (ROOT / path).read_text() != text:
            (ROOT / path).write_text(text)
            changed.append(path)
    return changed


def in_words(report: Report) -> str:
    """How all claims came out.

    As in `230 claims of 23 papers (130 recalled, not read) and 43 questions of ours: 168 supported`.
    """
    total = _total(report)
    states = ", ".join(f"{total[state]} {state}" for state in STATES if total[state])
    ours = sum(paper.counts.claims_of_ours for paper in _here(report))
    recalled = sum(paper.counts.recalled_claims for paper in _here(report))
    how = f" ({recalled} recalled, not read)" if recalled else ""
    more = f" and {ours} questions of ours" if ours else ""
    return f"{sum(total.values()) - ours} claims of {len(_here(report))} papers{how}{more}: {states}"


def _here(report: Report) -> list[Paper]:
    """The papers of this project, without those of the current folder."""
    return [paper for paper in report.papers if (ROOT / "papers" / paper.name / "tables.yaml").exists()]


def _total(report: Report) -> Counter[str]:
    return Counter(verdict.state for paper in _here(report) for _, verdict in paper.claims)


def first_table(report: Report) -> str:
    """Of each field of each arena, who is first by the measure that decides."""
    lines = ["| arena | field | first |", "|---|---|---|"]
    # those of the current folder are none of this project's
    ours = [
        (arena, fields)
        for arena, fields in report.arenas
        if (ROOT / f"conf/arena/{arena.name}.yaml").exists()
    ]
    for arena, fields in ours:
        lines += [f"| `{arena.name}` | {one.name} | {ahead(one, arena.fields[one.name])} |" for one in fields]
    return "\n".join(lines)


# the list of papers


def papers_table(report: Report) -> str:
    """The papers in Markdown, a row each, with its claims by verdict and its entries with numbers."""
    lines = []
    for group, papers in _by_group(report):
        lines += [f"**{group}**", ""]
        lines += ["| paper | what it says | claims | entries with a number |", "|---|---|---|---|"]
        lines += [
            f"| [{paper.name}](papers/{paper.name}/README.md) | {paper.line.replace('|', '/')} "
            f"| {_claims(paper)} | {paper.counts.run} of {paper.counts.entries} |"
            for paper in papers
        ]
        lines.append("")
    return "\n".join(lines).rstrip()


def _claims(paper: Paper) -> str:
    parts = [f"{paper.counts.claims[state]} {state}" for state in STATES if paper.counts.claims[state]]
    return ", ".join(parts) or "none"


def _by_group(report: Report) -> Iterator[tuple[str, list[Paper]]]:
    for group in dict.fromkeys(paper.group for paper in _here(report)):
        yield group[:1].upper() + group[1:], [p for p in _here(report) if p.group == group]


def measured(paper: Paper) -> str:
    """A paper's claims, and the rows of its main table that have numbers, in Markdown."""
    parts = [f"**Claims** (`python claims.py '{paper.name}.*'`): {_claims(paper)}.", claims_table(paper)]
    table = paper.main
    rows = [] if table is None else [row for row in table.rows if row.measured]
    if table is not None and rows:
        about = f"**`{table.id}`**: {' '.join(table.about.split()).rstrip('.')}."
        long = f"{len(rows)} rows have numbers, which `python report.py paper={paper.name}` shows."
        parts += [about, rows_table(paper, table)] if len(rows) <= MOST_ROWS else [f"{about} {long}"]
    return "\n\n".join(parts)


def rows_table(paper: Paper, table: Table) -> str:
    """The rows of a table that have numbers: what is reported, and the mean with its interval over n runs.

    Of a row that was run at several scales the largest one stands here.
    """
    told = [
        metric for metric in table.metrics if any(row.reported.get(metric) is not None for row in table.rows)
    ]
    heads = ["row"]
    for metric, spec in table.metrics.items():
        title = table.title(metric)
        heads += [f"{with_unit(title, spec.get('unit'))}: reported"] * (metric in told)
        heads += [f"{title}: measured" if metric in told else with_unit(title, spec.get("unit"))]
    lines = [[*heads, "n", "size"], ["---"] * (len(heads) + 2)]
    for row in table.rows:
        scale = next((scale for scale in SCALES if scale in row.measured), None)
        if scale is not None:
            lines.append([*_cells(row, row.measured[scale], told), SIZES[paper.size(row, scale)]])
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cells(row: Row, numbers: dict[str, Measured | None], told: list[str]) -> list[str]:
    """A row's name, its metrics (the reported one before those that are told), and the runs behind them."""
    cells = [row.name]
    for metric, value in numbers.items():
        cells += [_reported(row, metric)] * (metric in told)
        cells.append("-" if value is None else value.text + (f" ({value.note})" if value.note else ""))
    behind = [value for value in numbers.values() if value is not None]
    # a metric that no run came to has as many runs behind it as the others
    counts = {value.n: value.count for value in [one for one in behind if one.n] or behind}
    data = sorted({value.data for value in numbers.values() if value is not None and value.data})
    runs = " to ".join(count for _, count in sorted(counts.items())) or "-"
    return [*cells, ", ".join([runs, *data])]


def _reported(row: Row, metric: str) -> str:
    value = row.reported.get(metric)
    return "-" if value is None else f"{number(value)}{' (unverified)' if row.source.unverified else ''}"


def claims_table(paper: Paper) -> str:
    """A paper's claims in Markdown, a row each: what it says, the verdict, what was found, at which size."""
    lines = ["| claim | verdict | found | size |", "|---|---|---|---|"]
    for claim, verdict in paper.claims:
        sizes = ", ".join(SIZES[size] for size in paper.sizes(claim, verdict))
        name = claim.name.removeprefix(f"{paper.name}.")
        ours = "ours, " if claim.source.kind == "ours" else ""
        cells = [f"{claim.says} ({ours}`{name}`)", verdict.state, verdict.text, sizes or "-"]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Text within a cell of a table: of one line, with `*` and `|` as signs."""
    return re.sub(r"([|*])", r"\\\1", " ".join(text.split()))


# the picture


def claims_picture(report: Report) -> str:
    """All claims as SVG, a square each, in plain shapes that any program draws."""
    parts, y = _legend(_total(report)), 62
    for group, papers in _by_group(report):
        parts.append(_text(LEFT - 8, y + 9, group, SOFT, "end"))
        y += LINE
        for paper in papers:
            parts.append(_text(LEFT - 8, y + 9, paper.name, INK, "end"))
            states = sorted((verdict.state for _, verdict in paper.claims), key=STATES.index)
            parts += [_square(LEFT + STEP * index, y, state) for index, state in enumerate(states)]
            y += LINE
        y += 6
    size = f'width="{WIDTH}" height="{y + 6}" viewBox="0 0 {WIDTH} {y + 6}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="sans-serif" font-size="12">'
    )
    ground = f'<rect width="{WIDTH}" height="{y + 6}" rx="6" fill="{GROUND}"/>'
    title = f"<title>{escape(in_words(report))}</title>"
    return "\n".join([head, title, ground, *parts, "</svg>", ""])


def _legend(total: Counter[str]) -> list[str]:
    title = "The papers' claims and our questions, and what came of them here"
    parts = [f'<text x="16" y="24" fill="{INK}" font-size="14" font-weight="bold">{title}</text>']
    for index, state in enumerate(STATES):
        x = 16 + 150 * index
        parts += [_square(x, 36, state), _text(x + 16, 45, f"{total[state]} {state}", INK, "start")]
    return parts


def _square(x: int, y: int, state: State) -> str:
    fill, edge, sign = LOOKS[state]
    box = f'<rect x="0.5" y="0.5" width="{SIDE - 1}" height="{SIDE - 1}" fill="{fill}" stroke="{edge}"/>'
    stroke = GROUND if fill == edge else edge
    drawn = f'<path d="{sign}" fill="none" stroke="{stroke}" stroke-width="1.5"/>' if sign else ""
    return f'<g transform="translate({x},{y})">{box}{drawn}</g>'


def _text(x: int, y: int, text: str, colour: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'
