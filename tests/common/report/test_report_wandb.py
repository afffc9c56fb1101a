import itertools
import json
import os
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from markdown_it import MarkdownIt
from wandb_workspaces.reports import v2 as wr
from wandb_workspaces.reports.v2 import interface

from common.base.errors import UserError
from common.claims.claims import Bound, Claim, Point, Trend
from common.claims.claims import Source as ClaimSource
from common.claims.judge import Verdict
from common.report import model
from common.report.model import Counts, Measured, Paper, Row, Source, Table
from common.report.wandb_report import (
    build,
    claims_markdown,
    common_facts,
    history_keys,
    publish,
    table_markdown,
)
from common.runs.evidence import Evidence
from common.runs.loggers import run_facts

CHOICES = {"paper": "p", "scale": "laptop", "dataset": "d", "model": "m", "method": "k/x"}
RECALLED = Source("recalled", "memory of the paper | Table 1")


def measured(scale: str, **other: Any) -> Measured:
    return Measured(mean=0.25, low=0.21, high=0.29, n=3, scale=scale, device="cpu", **other)


def row(name: str, **other: Any) -> Row:
    facts: dict[str, Any] = {
        "entry": f"p.table_1.{name}",
        "name": name,
        "reported": {"loss": None},
        "source": RECALLED,
        "measured": {},
        "runs": {},
        "cited": False,
        "ours": False,
        "fit": False,
        "choose": {},
        "values": {},
        "point": {},
    }
    return Row(**facts | other)


def runs(*seeds: int) -> list[dict[str, Any]]:
    history = {"step": [1.0], "epoch": [1.0], "running_loss": [0.5], "grad_norm": [None]}
    return [{"seed": seed, "history": history} for seed in seeds]


ROWS = [
    row(
        "both",
        reported={"loss": 0.2},
        measured={"laptop": {"loss": measured("laptop")}, "paper": {"loss": measured("paper", stale=2)}},
        runs={"laptop": runs(0, 1, 2), "paper": runs(0)},
    ),
    row("neither", reported={"loss": 12345.6}, source=Source("paper_text", "Table 1")),
    row("others", cited=True),
]
TABLE = Table(
    paper="p",
    id="table_1",
    about="loss |w|_1 of <b>both</b> *methods*",
    metrics={"loss": {"unit": "nats|bit", "better": "lower"}},
    results={"loss": "test_loss"},
    rows=ROWS,
    ours=False,
    axes=[],
    axis=None,
)


def claim(name: str, rule: Bound | Trend, words: tuple[str, ...]) -> Claim:
    return Claim(
        name=f"p.{name}",
        paper="p",
        says="|grad f| falls",
        source=ClaimSource(kind="recalled", where="Theorem 2"),
        pilot="",
        seeds=(0, 1),
        words=words,
        deterministic=False,
        kind="trend" if isinstance(rule, Trend) else "bound",
        rule=rule,
    )


TREND = claim(
    "falls",
    Trend(metric="loss", over="dataset.batch_size", values=(1, 4, 16), slope=(-2.0, -0.5)),
    ("paper=p", "dataset=d", "method.lr=0.1", "scale=laptop"),
)
BOUND = claim(
    "bounded", Bound(metric="loss", at_most=1.0, each=(("method=k/x",), ("method=k/y",))), ("paper=p",)
)
SUPPORTED = Verdict("supported", 2, -1.0, -1.2, -0.8, "slope -1 [-1.2, -0.8]", [], 1, {"laptop"})
NOT_RUN = Verdict("not run", 0, None, None, None, "not run: 2 of 2 runs missing", [], 0, set())
PAPER = Paper(
    name="p",
    title="On P",
    group="optimization",
    line="P in one line.",
    arxiv=None,
    here=True,
    about="What P is, see [tables](tables.yaml) and [arXiv](https://arxiv.org/abs/1).",
    differences="Ours has no bug.",
    claims=[(TREND, SUPPORTED), (BOUND, NOT_RUN)],
    tables=[TABLE, replace(TABLE, id="table_2", rows=ROWS[1:])],
    counts=Counts(entries=2, run=1, at={"paper": 1, "laptop": 1}, claims={"supported": 1, "not run": 1}),
)


def cells(markdown: str) -> list[list[str]]:
    """The cells of the only table in a markdown text, as a reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    found: list[list[str]] = []
    for before, token in itertools.pairwise(tokens):
        if before.type == "tr_open":
            found.append([])
        if before.type in ("th_open", "td_open"):
            assert not {child.type for child in token.children or []} - {
                "text",
                "code_inline",
                "text_special",
            }
            found[-1].append(unescape("".join(child.content for child in token.children or [])))
    return found


class Api:
    """In place of `wandb.Api`: a user with one project."""

    default_entity = "me"

    def __init__(self) -> None:
        self.names = ["another", "runs"]

    def projects(self, entity: str) -> list[Any]:
        assert entity == self.default_entity
        return [SimpleNamespace(name=name) for name in self.names]

    def create_project(self, name: str, entity: str) -> None:
        assert name not in self.names
        self.names.append(name)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, api: Api) -> list[dict[str, Any]]:
    """In place of W&B's server: what it was asked to do."""
    asked: list[dict[str, Any]] = []

    def answer(_: Any, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" not in query:
            known = variables["projectName"] in api.names
            return {"project": {"internalId": "UHJvamVjdDox"} if known else None}
        asked.append(variables)
        project = {"name": variables["projectName"], "entityName": variables["entityName"]}
        view = {"id": "Vmlldzox", "name": "n", "displayName": variables["displayName"], "type": "runs"}
        view |= {"description": "", "project": project, "spec": variables["spec"], "updatedAt": None}
        return {"upsertView": {"view": view}}

    monkeypatch.setattr(interface, "execute_graphql", answer)
    monkeypatch.setattr(interface, "_get_api", lambda: api)
    monkeypatch.setattr(interface, "get_app_url", lambda api: "https://wandb.example")
    return asked


def grids(report: wr.Report) -> list[dict[str, Any]]:
    """The panel grids as they would be sent."""
    spec = json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]


def panels(grid: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(panel["viewType"], panel["config"]) for panel in grid["panelBankSectionConfig"]["panels"]]


def filters(grid: dict[str, Any]) -> dict[str, Any]:
    (runset,) = grid["runSets"]
    found = runset["filters"]["filters"]
    assert all(one["op"] == "=" and one["key"]["section"] == "config" for one in found)
    assert all(one["connector"] == "AND" for one in found[1:])
    return {one["key"]["name"]: one["value"] for one in found}


# tables and claims


def test_every_cell_of_a_table_reads_as_what_it_is() -> None:
    heading, *lines = cells(table_markdown(TABLE))
    assert heading == ["Row", "Metric", "Reported", "Measured ± 95 % CI", "n", "Scale", "Device", "Override"]
    metric = "loss [nats|bit], lower is better"
    command = "python run.py"
    smaller = "laptop, smaller than the paper's"
    swept = f"{command} -m entry=p.table_1.both scale=laptop seed=0,1,2"
    known = "0.2 (recalled, unverified)"
    old = "0.250 ± 0.040 (2 runs by earlier code)"
    assert lines == [
        ["both", metric, known, "0.250 ± 0.040", "3", smaller, "cpu", swept],
        ["both", metric, known, old, "3", "paper", "cpu", f"{command} entry=p.table_1.both"],
        [
            "neither",
            metric,
            "12,346 (the paper)",
            "not measured",
            "",
            "",
            "",
            f"{command} entry=p.table_1.neither",
        ],
        ["others", metric, "- (recalled, unverified)", "only cited", "", "", "", ""],
    ]


def test_an_override_may_hold_a_pipe() -> None:
    table = replace(TABLE, rows=[row("a|b_c")])
    _, line = cells(table_markdown(table))
    assert (line[0], line[-1]) == ("a|b_c", "python run.py entry=p.table_1.a|b_c")


def test_markup_in_a_tables_text_stays_text() -> None:
    html = MarkdownIt("commonmark").enable("table").render(table_markdown(TABLE))
    assert "<p>loss |w|_1 of &lt;b&gt;both&lt;/b&gt; *methods*</p>" in html
    assert "<li>Reported (recalled, unverified): memory of the paper | Table 1</li>" in html


def test_repeats_and_runs_without_a_value_are_told() -> None:
    lost = replace(measured("paper", without=3, repeats=5, note="exponent of n|d"), mean=None)
    table = replace(TABLE, rows=[row("x", measured={"paper": {"loss": lost}})])
    _, line = cells(table_markdown(table))
    assert line[3:5] == ["no value (exponent of n|d; 3 runs without a value)", "3 × 5 repeats"]


def test_a_claim_stands_with_verdict_effect_interval_n_scale_and_source() -> None:
    _, trend, bound = cells(claims_markdown(PAPER.claims))
    assert trend == [
        "p.falls",
        "|grad f| falls (recalled, unverified: Theorem 2)",
        "supported",
        "-1 [-1.2, -0.8]",
        "2",
        "laptop",
        "slope -1 [-1.2, -0.8] (1 runs by earlier code)",
    ]
    assert bound[2:6] == ["not run", "-", "0", "-"]


# the report


def test_a_report_has_each_papers_text_claims_tables_and_panels_in_order() -> None:
    blocks = build([PAPER, replace(PAPER, name="absent", here=False)], "runs", "team").blocks
    shape = [(type(block).__name__, getattr(block, "text", "")) for block in blocks]
    kinds = [kind for kind, _ in shape]
    assert [text for kind, text in shape if kind.startswith("H")] == [
        "p: On P",
        "p: claims",
        "p.falls",
        "p.table_1",
        "p.table_2",
        "p: what to know beside the authors' code",
    ]
    grid = ["H3", "PanelGrid", "H2", "MarkdownBlock", "PanelGrid", "H2", "MarkdownBlock"]
    assert kinds == [
        "TableOfContents",
        "H1",
        "MarkdownBlock",
        "H2",
        "MarkdownBlock",
        *grid,
        "H2",
        "MarkdownBlock",
    ]
    assert shape[2][1] == "What P is, see tables and [arXiv](https://arxiv.org/abs/1)."


def test_several_papers_begin_with_how_far_each_is() -> None:
    report = build([PAPER, replace(PAPER, name="q", title="On | Q")], "runs", "team")
    first = next(block for block in report.blocks if isinstance(block, wr.MarkdownBlock))
    assert cells(first.text)[1:] == [
        [name, title, "1 of 2 (1 at paper scale, 1 at laptop scale)", "1 supported, 1 not run"]
        for name, title in (("p", "On P"), ("q", "On | Q"))
    ]
    assert report.title == "Reprise: 2 papers"
    assert len(build([replace(PAPER, title="x" * 200)], "runs", "team").title) <= 128


def test_the_runs_of_a_table_are_found_and_averaged_by_facts_that_are_logged(
    server: list[dict[str, Any]],
) -> None:
    grid = grids(build([PAPER], "runs", "team"))[1]
    assert filters(grid) == {"paper": "p", "table": "table_1"}
    (runset,) = grid["runSets"]
    assert runset["project"]["name"] == "runs"
    assert runset["project"]["entityName"] == "team"
    groups = [(key["section"], key["name"]) for key in runset["grouping"]]
    assert groups == [("config", "scale.value"), ("config", "method.value"), ("config", "row.value")]
    logged = run_facts(CHOICES, "p.table_1.both", 0)
    assert set(filters(grid)) | {"scale", "method", "row"} <= set(logged)
    assert {key: logged[key] for key in filters(grid)} == filters(grid)


def test_panels_show_what_the_runs_log(server: list[dict[str, Any]]) -> None:
    assert history_keys(TABLE) == ["grad_norm", "running_loss"]
    *lines, bar = panels(grids(build([PAPER], "runs", "team"))[1])
    assert [(kind, config["xAxis"], config["metrics"]) for kind, config in lines] == [
        ("Run History Line Plot", "trainer/global_step", ["grad_norm"]),
        ("Run History Line Plot", "trainer/global_step", ["running_loss"]),
    ]
    assert bar[0] == "Bar Chart"
    assert bar[1]["metrics"] == ["summary_metrics.final/test_loss"]


def test_a_trend_is_plotted_over_its_key_among_the_runs_of_its_words(server: list[dict[str, Any]]) -> None:
    grid = grids(build([PAPER], "runs", "team"))[0]
    assert filters(grid) == {"paper": "p", "dataset": "d", "scale": "laptop"}
    ((kind, config),) = panels(grid)
    assert kind == "Scatter Plot"
    assert config["xAxis"] == "config:config.value.dataset.batch_size"
    assert config["yAxis"] == "summary:final/loss"
    assert config["xAxisLogScale"] and config["yAxisLogScale"]


def test_words_that_differ_between_a_claims_runs_filter_nothing() -> None:
    assert common_facts(BOUND) == {"paper": "p", "scale": "paper"}
    points = (Point(x=1, words=("dataset=d1",)), Point(x=2, words=("dataset=d2",)))
    rule = Trend(metric="loss", points=points, monotone="falling")
    assert common_facts(claim("c", rule, ("paper=p", "method=k/x"))) == {
        "paper": "p",
        "scale": "paper",
        "method": "k/x",
    }


def test_a_series_without_a_key_is_shown_as_bars(server: list[dict[str, Any]]) -> None:
    paper = replace(PAPER, claims=[(BOUND, replace(SUPPORTED, state="refuted"))], tables=[])
    (grid,) = grids(build([paper], "runs", "team"))
    assert panels(grid) == [("Bar Chart", {**panels(grid)[0][1], "metrics": ["summary_metrics.final/loss"]})]


def test_the_papers_that_are_here_make_a_report_without_any_result(server: list[dict[str, Any]]) -> None:
    papers = [paper for paper in model.build(Evidence.of({})).papers if paper.here]
    report = build(papers, "runs", "team")
    texts = [block.text for block in report.blocks if isinstance(block, wr.MarkdownBlock)]
    commands = [line[-1] for text in texts for line in cells(text) if line[-1].startswith("python run.py")]
    entries = [row.entry for paper in papers for table in paper.tables for row in table.rows if row.runnable]
    assert set(entries) == {command.split("entry=")[1] for command in commands}
    assert grids(report) == []


# publishing


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: Api) -> pytest.MonkeyPatch:
    """A user with a key, online."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(wandb, "Api", lambda: api)
    return monkeypatch


def test_a_report_is_saved_in_the_project_of_the_logger(
    login: pytest.MonkeyPatch, server: list[dict[str, Any]], api: Api
) -> None:
    assert publish([PAPER]) == "https://wandb.example/me/reprise/reports/Reprise:-On-P--Vmlldzox"
    assert api.names == ["another", "runs", "reprise"]
    (saved,) = server
    assert (saved["entityName"], saved["projectName"]) == ("me", "reprise")
    assert [block["type"] for block in json.loads(saved["spec"])["blocks"]].count("panel-grid") == 2


def refused() -> str:
    """The line that a user reads."""
    with pytest.raises(UserError) as error:
        publish([PAPER])
    line = str(error.value)
    assert "\n" not in line and line.startswith("to=wandb")
    return line


def test_without_the_package_one_line_says_how_to_get_it(login: pytest.MonkeyPatch) -> None:
    login.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert refused().endswith("pip install -e '.[report]'")


def test_without_a_login_one_line_says_so(login: pytest.MonkeyPatch) -> None:
    login.delenv("WANDB_API_KEY")
    assert refused().endswith("wandb login")


def test_an_offline_mode_is_named(login: pytest.MonkeyPatch) -> None:
    login.setenv("WANDB_MODE", "offline")
    assert "WANDB_MODE=offline" in refused()


def test_without_a_network_one_line_says_so(login: pytest.MonkeyPatch) -> None:
    login.undo()
    login.delenv("WANDB_MODE", raising=False)
    login.setenv("WANDB_API_KEY", "a" * 40)
    nowhere = SimpleNamespace(settings=SimpleNamespace(base_url="http://127.0.0.1:9"))
    login.setattr(wandb, "setup", lambda: nowhere)
    assert "needs a network: http://127.0.0.1:9 cannot be reached" in refused()


def test_what_wandb_refuses_is_told(login: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise wandb.errors.AuthenticationError("the key is wrong")

    login.setattr(wandb, "Api", refuse)
    assert refused().endswith("refuses: the key is wrong")
