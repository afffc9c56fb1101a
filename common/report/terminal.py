"""The report in a terminal: claims and tables by rich."""

import os

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from common.report.model import Measured, Paper, Report, Row, Table
from common.runs.result import number

STYLES = {"supported": "green", "refuted": "red", "inconclusive": "yellow", "not run": "dim"}


def show(report: Report, wanted: list[str], console: Console | None = None) -> None:
    """Print the papers: for several an overview, then each one's claims and tables."""
    console = console or Console(width=None if os.isatty(1) else 160)
    if len(wanted) > 1:
        console.print(overview(report))
    for name in wanted:
        paper = report.paper(name)
        console.rule(Text(f"{paper.name}: {paper.title}"))
        if paper.claims:
            console.print(claims(paper))
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


def claims(paper: Paper) -> Grid:
    """A paper's claims with their verdicts."""
    grid = Grid("claim", "verdict", "n", "what was found", title="Claims", title_justify="left")
    for claim, verdict in paper.claims:
        scales = ", ".join(f"{scale} scale" for scale in sorted(verdict.scale))
        notes = [scales] if scales else []
        notes += [f"{verdict.stale} by earlier code"] if verdict.stale else []
        found = Text(verdict.text + (f" ({'; '.join(notes)})" if notes else ""))
        state = Text(verdict.state, style=STYLES[verdict.state])
        grid.add_row(Text(claim.name), state, str(verdict.n), found)
    return grid


def _show_table(table: Table, console: Console) -> None:
    """Print a table's measured rows and those with reported numbers, and count the others."""
    told = [row for row in table.rows if row.measured or any(v is not None for v in row.reported.values())]
    console.print(Text(f"\n{table.name}: {table.about}"), highlight=False)
    if told:
        console.print(_grid(table, told))
    rest = len(table.rows) - len(told)
    if rest:
        console.print(Text(f"{rest} rows with nothing reported or measured", style="dim"))


def _grid(table: Table, rows: list[Row]) -> Grid:
    """One line for each row and scale."""
    columns = []
    for metric in table.metrics:
        columns += [f"{metric}: reported", "measured"] if table.reports else [metric]
    grid = Grid("row", *columns, "scale", "runs", "override string")
    for row in rows:
        for scale, measured in row.measured.items() or [("", {})]:
            cells: list[str] = []
            for metric in table.metrics:
                value = measured.get(metric)
                cells += [_reported(row, metric)] if table.reports else []
                cells.append(_measured(value))
            facts = next((m.facts for m in measured.values() if m is not None), "")
            words = row.overrides(scale or "paper") if row.runnable else ""
            grid.add_row(*(Text(cell) for cell in (row.name, *cells, scale, facts, words)))
    return grid


def _measured(value: Measured | None) -> str:
    if value is None:
        return "-"
    return f"{value.text} ({value.note})" if value.note else value.text


def _reported(row: Row, metric: str) -> str:
    value = row.reported[metric]
    return "-" if value is None else f"{number(value)} ({row.source.label})"
