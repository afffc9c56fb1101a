"""The report in a terminal: claims and tables by rich."""

from rich.console import Console
from rich.table import Column
from rich.table import Table as Grid
from rich.text import Text

from common.base import terminal
from common.base.names import fitting
from common.report.model import Measured, Paper, Report, Row, Table
from common.runs.result import number

# columns of a terminal that has room for override strings
WIDE = 120
STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not run": "dim"}


def show(report: Report, wanted: list[str], console: Console | None = None) -> None:
    """Print the papers: for several an overview, then each one's claims and tables."""
    console = console or terminal.console()
    if len(wanted) > 1:
        console.print(overview(report))
    for name in wanted:
        paper = report.paper(name)
        console.rule(Text(f"{paper.name}: {paper.title}"))
        if paper.claims:
            console.print(claims(paper, console.width))
        for table in paper.tables:
            _show_table(table, console)


def overview(report: Report) -> Grid:
    """The papers that are here, and how far each is."""
    grid = Grid("paper", "entries run", "exact checks", "claims")
    for paper in report.papers:
        if not paper.here:
            continue
        counts = paper.counts
        at = ", ".join(f"{count} {scale}" for scale, count in counts.at.items() if count)
        verdicts = ", ".join(f"{count} {state}" for state, count in counts.claims.items() if count)
        grid.add_row(
            paper.name,
            f"{counts.run} of {counts.entries}" + (f" ({at})" if at else ""),
            counts.exact_text or "-",
            verdicts or "-",
        )
    absent = sum(not paper.here for paper in report.papers)
    grid.caption = f"{absent} papers are not here yet" if absent else None
    return grid


def claims(paper: Paper, width: int) -> Grid:
    """A paper's claims with their verdicts; names have at most two fifths of the width."""
    common, names = _fitting([claim.name for claim, _ in paper.claims], width)
    title = Text(f"Claims ({common}…)" if common else "Claims")
    grid = Grid(_first("claim", names), "verdict", "n", "what was found", title=title, title_justify="left")
    for name, (_, verdict) in zip(names, paper.claims, strict=True):
        scales = ", ".join(f"{scale} scale" for scale in sorted(verdict.scale))
        notes = [scales] if scales else []
        notes += [f"{verdict.stale} by earlier code"] if verdict.stale else []
        found = Text(verdict.text + (f" ({'; '.join(notes)})" if notes else ""))
        state = Text(verdict.state, style=STYLES[verdict.state])
        grid.add_row(Text(name), state, str(verdict.n), found)
    return grid


def _fitting(names: list[str], width: int) -> tuple[str, list[str]]:
    """What all names begin with, and what stands for each in two fifths of the width."""
    return fitting(names, max(width * 2 // 5, 12)) if names else ("", [])


def _first(title: str, names: list[str]) -> Column:
    """The column of names that are short enough."""
    return Column(title, no_wrap=True, min_width=max(map(len, names), default=0))


def _show_table(table: Table, console: Console) -> None:
    """Print a table's measured rows and those with reported numbers, and count the others."""
    told = [row for row in table.rows if row.measured or any(v is not None for v in row.reported.values())]
    console.print(Text(f"\n{table.name}: {table.about}"), highlight=False)
    if told:
        console.print(_grid(table, told, console.width))
    rest = len(table.rows) - len(told)
    if rest:
        console.print(Text(f"{rest} rows with nothing reported or measured", style="dim"))


def _grid(table: Table, rows: list[Row], width: int) -> Grid:
    """One line for each row and scale; in a narrow terminal without the override strings."""
    columns = []
    for metric in table.metrics:
        columns += [f"{metric}: reported", "measured"] if table.reports else [metric]
    common, names = _fitting([row.name for row in rows], width)
    strings = ["override string"] if width >= WIDE else []
    title = f"{common}…" if common else None
    grid = Grid(_first("row", names), *columns, "scale", "runs", *strings, title=title, title_justify="left")
    for row, name in zip(rows, names, strict=True):
        for scale, measured in row.measured.items() or [("", {})]:
            cells: list[str] = []
            for metric in table.metrics:
                value = measured.get(metric)
                cells += [_reported(row, metric)] if table.reports else []
                cells.append(_measured(value))
            facts = next((m.facts for m in measured.values() if m is not None), "")
            words = [row.overrides(scale or "paper") if row.runnable else ""] if strings else []
            grid.add_row(*(Text(cell) for cell in (name, *cells, scale, facts, *words)))
    return grid


def _measured(value: Measured | None) -> str:
    if value is None:
        return "-"
    return f"{value.text} ({value.note})" if value.note else value.text


def _reported(row: Row, metric: str) -> str:
    value = row.reported[metric]
    return "-" if value is None else f"{number(value)} ({row.source.label})"
