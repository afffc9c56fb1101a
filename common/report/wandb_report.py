"""The report as a W&B Report: claims and tables as markdown, and panels over the runs that were logged.

Panels find their runs by the facts that `common.runs.loggers` gives each of them: paper, table, row, scale,
method. Only `publish` talks to W&B; `build` and the markdown need no network.
"""

import os
import re
import urllib.request
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

from common.base.errors import UserError
from common.claims.claims import Claim, Trend
from common.claims.judge import Verdict
from common.report.model import Measured, Paper, Row, Source, Table
from common.runs.catalogue import read
from common.runs.evidence import key_of
from common.runs.loggers import OFFLINE, logged_in
from common.runs.result import number

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import PanelGrid, Report, Runset

# what Lightning's W&B logger calls the x axis of a history
STEP = "trainer/global_step"
# W&B's limit
TITLE_LENGTH = 128


def build(papers: list[Paper], project: str, entity: str) -> "Report":
    """The W&B report of some papers, not yet saved.

    Args:
        papers: those that are not here yet are left out.
        project, entity: where the runs were logged, and where the report will stand.
    """
    from wandb_workspaces.reports.v2 import MarkdownBlock, Report, TableOfContents

    here = [paper for paper in papers if paper.here]
    blocks: list[Any] = [TableOfContents()]
    if len(here) > 1:
        blocks.append(MarkdownBlock(overview(here)))
    for paper in here:
        blocks += _page(paper, project, entity)
    title = f"Reprise: {here[0].title}" if len(here) == 1 else f"Reprise: {len(here)} papers"
    return Report(project=project, entity=entity, title=title[:TITLE_LENGTH], blocks=blocks, width="fluid")


def publish(papers: list[Paper]) -> str:
    """Save the report of some papers at W&B, in the project that `conf/logger/wandb.yaml` names.

    Returns:
        Its address.

    Raises:
        UserError: the package, the login or the network is missing, or W&B refuses.
    """
    host = _ready()
    import wandb

    settings = read("logger", "wandb")
    try:
        api = wandb.Api()
        entity = str(settings["entity"] or api.default_entity)
        if settings["project"] not in {project.name for project in api.projects(entity)}:
            api.create_project(settings["project"], entity)
        return build(papers, settings["project"], entity).save().url
    except (wandb.errors.Error, ValueError) as error:
        raise UserError(f"to=wandb: {host} refuses: {error}") from error


def _ready() -> str:
    """The address of W&B, if all is there that a report needs.

    Raises:
        UserError: what is missing, and how to get it.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb
        import wandb_workspaces.reports.v2  # noqa: F401
    except ImportError as error:
        raise UserError("to=wandb needs the package wandb-workspaces: pip install -e '.[report]'") from error
    if os.environ.get("WANDB_MODE") in OFFLINE:
        raise UserError(f"to=wandb needs W&B online, but WANDB_MODE={os.environ['WANDB_MODE']}: unset it")
    if not logged_in():
        raise UserError("to=wandb needs a login at W&B: wandb login")
    host = wandb.setup().settings.base_url
    try:
        urllib.request.urlopen(host, timeout=10).close()
    except HTTPError:
        # whatever it answers, it is there
        pass
    except OSError as error:
        raise UserError(f"to=wandb needs a network: {host} cannot be reached ({error})") from error
    return host


# a paper


def _page(paper: Paper, project: str, entity: str) -> list[Any]:
    from wandb_workspaces.reports.v2 import H1, H2, H3, MarkdownBlock

    blocks: list[Any] = [
        H1(f"{paper.name}: {paper.title}"),
        MarkdownBlock(_portable(paper.about or paper.line)),
    ]
    if paper.claims:
        blocks += [H2(f"{paper.name}: claims"), MarkdownBlock(claims_markdown(paper.claims))]
        for claim, verdict in paper.claims:
            if verdict.state != "not run":
                blocks += [H3(claim.name), _claim_grid(claim, project, entity)]
    for table in paper.tables:
        blocks += [H2(table.name), MarkdownBlock(table_markdown(table))]
        if any(row.runs for row in table.rows):
            blocks.append(_table_grid(table, project, entity))
    if paper.differences:
        blocks += [H2(f"{paper.name}: what to know beside the authors' code")]
        blocks.append(MarkdownBlock(_portable(paper.differences)))
    return blocks


def _portable(text: str) -> str:
    """A README's text without links to files beside it, which are not at W&B."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


# panels


def _table_grid(table: Table, project: str, entity: str) -> "PanelGrid":
    """The runs of a table, averaged over seeds only: a line for each method and row at each scale."""
    from wandb_workspaces.reports.v2 import BarPlot, LinePlot, Metric, PanelGrid, SummaryMetric

    facts = {"paper": table.paper, "table": table.id}
    runs = _runs(table.name, facts, project, entity, groupby=["scale", "method", "row"])
    lines = [LinePlot(title=key, x=Metric(STEP), y=[Metric(key)]) for key in history_keys(table)]
    bars = [
        BarPlot(title=_heading(name, table), metrics=[SummaryMetric(f"final/{key}")])
        for name, key in table.results.items()
    ]
    return PanelGrid(runsets=[runs], panels=[*lines, *bars])


def history_keys(table: Table) -> list[str]:
    """What the runs of a table log on their way, besides how far they are."""
    runs = [run for row in table.rows for found in row.runs.values() for run in found]
    return sorted({key for run in runs for key in run["history"]} - {"step", "epoch"})


def _claim_grid(claim: Claim, project: str, entity: str) -> "PanelGrid":
    """The metric of a claim in each of its runs: against the series' key where there is one."""
    from wandb_workspaces.reports.v2 import BarPlot, Config, PanelGrid, ScatterPlot, SummaryMetric

    rule, metric = claim.rule, SummaryMetric(f"final/{claim.rule.metric}")
    panel: BarPlot | ScatterPlot = BarPlot(title=rule.metric, metrics=[metric])
    if isinstance(rule, Trend) and rule.over is not None:
        x, log = Config(f"config.{rule.over}"), rule.slope is not None
        title = f"{rule.metric} against {rule.over}"
        panel = ScatterPlot(title=title, x=x, y=metric, log_x=log, log_y=log)
    return PanelGrid(runsets=[_runs(claim.name, common_facts(claim), project, entity)], panels=[panel])


def common_facts(claim: Claim) -> dict[str, str]:
    """The logged facts that all runs of a claim share, by the words that ask for them."""
    runs = [dict(word.split("=", 1) for word in run.words) for run in claim.all_runs()]
    plain = [{"scale": "paper"} | {key_of(f"{key}="): value for key, value in run.items()} for run in runs]
    shared = set.intersection(*(set(run.items()) for run in plain))
    groups = {"entry", "scale", "dataset", "model", "method"}
    return {"paper": claim.paper} | {key: value for key, value in sorted(shared) if key in groups}


def _runs(
    name: str, facts: dict[str, str], project: str, entity: str, groupby: Sequence[str] = ()
) -> "Runset":
    """The runs that were logged with these facts."""
    from wandb_workspaces import expr
    from wandb_workspaces.reports.v2 import Runset

    filters = expr.And(*(expr.Config(key) == value for key, value in facts.items()))
    groups = [f"config.{key}" for key in groupby]
    return Runset(project=project, entity=entity, name=name, filters=filters, groupby=groups)


# markdown


def overview(papers: Iterable[Paper]) -> str:
    """How far each paper is."""
    lines = []
    for paper in papers:
        counts = paper.counts
        at = ", ".join(f"{count} at {scale} scale" for scale, count in counts.at.items() if count)
        verdicts = ", ".join(f"{count} {state}" for state, count in counts.claims.items() if count)
        run = f"{counts.run} of {counts.entries}" + (f" ({at})" if at else "")
        lines.append([plain(cell) for cell in (paper.name, paper.title, run, verdicts or "-")])
    return markdown_table(["Paper", "Title", "Entries run", "Claims"], lines)


def claims_markdown(claims: Iterable[tuple[Claim, Verdict]]) -> str:
    """Claims with their verdicts."""
    lines = []
    for claim, verdict in claims:
        source = Source(claim.source.kind, claim.source.where)
        found = verdict.text + (f" ({verdict.stale} runs by earlier code)" if verdict.stale else "")
        says = f"{claim.says} ({source.label}: {source.where})"
        scale = ", ".join(sorted(verdict.scale)) or "-"
        cells = [claim.name, says, verdict.state, _effect(verdict), str(verdict.n), scale, found]
        lines.append([plain(cell) for cell in cells])
    return markdown_table(["Claim", "It says", "Verdict", "Effect", "n", "Scale", "What was found"], lines)


def _effect(verdict: Verdict) -> str:
    """`0.42 [0.31, 0.53]`."""
    if verdict.effect is None:
        return "-"
    if verdict.low is None and verdict.high is None:
        return number(verdict.effect)
    return f"{number(verdict.effect)} [{number(verdict.low)}, {number(verdict.high)}]"


def table_markdown(table: Table) -> str:
    """A table: what it is about, a line for each row, metric and scale, and where the numbers come from."""
    lines = [line for row in table.rows for metric in table.metrics for line in _lines(row, metric, table)]
    columns = ["Row", "Metric", "Reported", "Measured ± 95 % CI", "n", "Scale", "Device", "Override"]
    places = {row.source for row in table.rows if row.source.where and not row.ours}
    sources = [f"- Reported ({place.label}): {plain(place.where)}" for place in sorted(places, key=str)]
    parts = [plain(table.about), markdown_table(columns, lines), "\n".join(sources)]
    return "\n\n".join(part for part in parts if part)


def _lines(row: Row, metric: str, table: Table) -> list[list[str]]:
    """The lines of one row and metric: one for each scale that was measured, or one that says so."""
    start = [row.name, _heading(metric, table), _reported(row, metric)]
    found = [
        ([*start, *cells], row.command(scale))
        for scale, measured in row.measured.items()
        if (cells := _measured(measured.get(metric))) is not None
    ]
    state = "only cited" if row.cited else "not measured"
    told = found or [([*start, state, "", "", ""], row.command())]
    return [
        [*(plain(cell) for cell in cells), code(command if row.runnable else "")] for cells, command in told
    ]


def _heading(metric: str, table: Table) -> str:
    """`test_loss [loss], lower is better`."""
    spec = table.metrics[metric]
    unit = f" [{spec['unit']}]" if spec.get("unit") else ""
    return f"{metric}{unit}" + (f", {spec['better']} is better" if spec.get("better") else "")


def _reported(row: Row, metric: str) -> str:
    value = row.reported[metric]
    if value is None:
        return "- (ours)" if row.ours else f"- ({row.source.label})"
    return f"{number(value)} ({row.source.label})"


def _measured(measured: Measured | None) -> list[str] | None:
    """A measured number with its n, its scale and its device; None where the metric was not measured."""
    if measured is None:
        return None
    notes = [measured.note] if measured.note else []
    notes += [f"{measured.without} runs without a value"] if measured.without else []
    notes += [f"{measured.stale} runs by earlier code"] if measured.stale else []
    value = measured.text + (f" ({'; '.join(notes)})" if notes else "")
    n = f"{measured.n} × {measured.repeats} repeats" if measured.repeats > 1 else str(measured.n)
    scale = measured.scale if measured.scale == "paper" else f"{measured.scale}, smaller than the paper's"
    return [value, n, scale, measured.device]


def markdown_table(columns: list[str], lines: Iterable[list[str]]) -> str:
    """A markdown table.

    Args:
        lines: cells as `plain` or `code` give them.
    """
    ruled = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ruled)


def plain(text: str) -> str:
    """Plain text as markdown on one line: nothing in it ends a cell, opens a tag or changes the style."""
    special = r"[\\|*`<>\[\]$~]|(?<!\w)_|_(?!\w)"
    return re.sub(special, lambda match: f"\\{match.group()}", " ".join(text.split()))


def code(text: str) -> str:
    """Text as code in a cell."""
    return "`{}`".format(text.replace("|", r"\|")) if text else ""
