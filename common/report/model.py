"""What a report says, as plain data: `terminal`, `site` and `wandb_report` all render this.

`build` joins the tables and claims of the papers with the evidence. A result counts for an entry at a scale
only where it was asked for by exactly that (`entry=`, `scale=`, `seed=` and nothing that changes the result)
and where its config still holds what the row says today; one result counts for each seed, the newest.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

from common.base.digits import MOST_DECIMALS, decimals, fixed
from common.base.files import read_yaml
from common.claims.arena import Arena, FieldStandings, all_standings
from common.claims.claims import Claim, load_claims
from common.claims.judge import State, Verdict, judge, mean_interval
from common.runs.code import stale
from common.runs.evidence import Evidence, asked_forms
from common.runs.keys import OPTIONAL, STAGED
from common.runs.matching import NOTHING, value_at
from common.runs.neutral import NEUTRAL_IN
from common.runs.result import number
from common.tables.checked import SMOKE
from common.tables.fits import slope
from common.tables.tables import SCALES, SOURCES, Entry, entries, in_roots, load_tables, metric_keys, papers

Result = dict[str, Any]

STATES: tuple[State, ...] = get_args(State)
# sizes of runs as a report says them: those of the scales; at scale=paper "recalled" where the settings were
# written down from memory without a number to compare, and "own" where no paper has such an experiment
SIZES = {
    "paper": "paper scale",
    "recalled": "paper scale as recalled",
    "own": "our own size",
    "laptop": "laptop scale",
    SMOKE: "smoke scale",
}
# claims that hold or do not hold, without any statistics
EXACT = ("identity", "bound")
# words in the titles of a README's sections on what differs from the authors' code, and what to mind
DIFFERENCES = ("authors'", "official code", "differences", "differs", "what to know", "does not", "ours")
# a metric that is the standard error of another; and the share of that one below which it is rounding
ERROR, ROUNDING = "_sem", 1e-15


@dataclass(frozen=True)
class Source:
    """Where a reported number comes from."""

    kind: str
    where: str

    @property
    def label(self) -> str:
        return SOURCES.get(self.kind, self.kind)

    @property
    def unverified(self) -> bool:
        return self.kind in ("recalled", "")


@dataclass(frozen=True)
class Measured:
    """A metric over the runs of one entry at one scale: the mean and its 95 % t interval over seeds.

    Attributes:
        low, high: None for a single run.
        n: runs that have a value.
        without: runs that ended without one (a target that was never reached).
        repeats: replicates inside each run, which the run itself averages.
        stale: runs whose code has changed since.
        examples: over how many examples the interval of a single run is; 0 where it is over something else.
        note: what the number is, where it is no mean over seeds.
        data: "stand-in data", "synthetic data" or the like where the runs had no real data of that name.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    scale: str
    device: str
    without: int = 0
    repeats: int = 1
    stale: int = 0
    note: str = ""
    data: str = ""
    examples: int = 0

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.mean is None or self.high is None else self.high - self.mean

    @property
    def text(self) -> str:
        """`3.25 ± 0.12`, the mean as exact as its interval lets it be; `30 [7, 65]` where it is skew."""
        if self.mean is None:
            return "no value"
        if self.half is None or self.low is None or self.high is None:
            return number(self.mean)
        if not math.isfinite(self.half):
            return number(self.mean)
        sides = self.half, self.mean - self.low
        if not math.isclose(*sides, rel_tol=0.01, abs_tol=1e-12):
            places = decimals(min(side for side in sides if side > 0))
            places = MOST_DECIMALS if places is None else places
            return f"{number(self.mean)} [{fixed(self.low, places)}, {fixed(self.high, places)}]"
        if self.half == 0:
            return f"{number(self.mean)} ± 0"
        places = decimals(self.half)
        if places is None:
            return f"{self._tiny} ± {self.half:.2g}"
        return f"{fixed(self.mean, places)} ± {fixed(self.half, places)}"

    @property
    def _tiny(self) -> str:
        """A mean whose interval is tiny: a tiny one itself to the digits that its interval lets it have."""
        assert self.mean is not None and self.half is not None
        if not 0 < abs(self.mean) < 1e-3:
            return number(self.mean)
        places = math.floor(math.log10(abs(self.mean))) - math.floor(math.log10(self.half)) + 1
        return f"{self.mean:.{max(0, places)}e}"

    @property
    def count(self) -> str:
        """The runs behind it, and the replicates in each: `3` or `1 × 5 repeats`."""
        runs = self.n or self.without
        return f"{runs} × {self.repeats} repeats" if self.repeats > 1 else str(runs)

    @property
    def facts(self) -> str:
        """What stands behind the number, without its scale: `n = 3, cpu`."""
        parts = [f"n = {self.count}", *([self.data] if self.data else [])]
        parts += [f"{self.examples:,} examples"] if self.examples else []
        parts += [f"{self.without if self.n else 'all'} without a value"] if self.without else []
        return ", ".join([*parts, self.device, *(["earlier code"] if self.stale else [])])


@dataclass(frozen=True)
class Row:
    """One row of a table: what is reported for it, and what was measured at each scale."""

    entry: str
    name: str
    reported: dict[str, Any]
    source: Source
    measured: dict[str, dict[str, Measured | None]]
    runs: dict[str, list[Result]]
    cited: bool
    ours: bool
    fit: bool
    choose: dict[str, str]
    values: dict[str, Any]
    point: dict[str, str]
    left_out: int = 0
    # what is reported for metrics that the row reads from keys of its own: {auc_at_5: 0.81}
    own: dict[str, Any] = field(default_factory=dict)

    @property
    def runnable(self) -> bool:
        return not self.cited and not self.fit

    @property
    def stale(self) -> bool:
        """Whether a number of it stands on a run by earlier code."""
        return any(
            one is not None and one.stale for found in self.measured.values() for one in found.values()
        )

    def told(self, scale: str) -> dict[str, Any]:
        """What is reported for it, unless its runs at a scale are on other data than that."""
        other = any(one is not None and one.data for one in self.measured.get(scale, {}).values())
        return {} if other else self.reported

    @property
    def state(self) -> str:
        """ "measured" or "not measured", as the filters of the pages say it."""
        return "measured" if self.measured else "not measured"

    def overrides(self, scale: str = "paper") -> str:
        """The override string that gives the row; with all seeds of the runs that were made of it."""
        words = [f"entry={self.entry}"] + ([f"scale={scale}"] if scale != "paper" else [])
        seeds = sorted(run["seed"] for run in self.runs.get(scale, []))
        return " ".join(words + ([f"seed={','.join(map(str, seeds))}"] if seeds not in ([], [0]) else []))

    def command(self, scale: str = "paper") -> str:
        """What to type for it: a sweep (-m) where there are several seeds."""
        sweep = "-m " if len(self.runs.get(scale, [])) > 1 else ""
        return f"python run.py {sweep}{self.overrides(scale)}"


@dataclass(frozen=True)
class Axis:
    """The axis of a table's grid that is a number: the x of its figure."""

    name: str
    key: str
    values: dict[str, float]


def title_of(paper: str, metric: str) -> str:
    """What a paper's tables call a metric where people read it; else its name with spaces."""
    return load_tables(paper).get("titles", {}).get(metric) or spaced(metric)


def spaced(name: str) -> str:
    """A name in the words that it is made of: `test error` of `test_error`."""
    return name.replace("_", " ")


@dataclass(frozen=True)
class Table:
    """One table, or one figure, of a paper."""

    paper: str
    id: str
    about: str
    metrics: dict[str, dict[str, Any]]
    results: dict[str, str]
    rows: list[Row]
    ours: bool
    axes: list[str]
    axis: Axis | None
    # two metrics, x and y, that a figure sets against each other; None for none
    plane: tuple[str, str] | None = None
    # what the steps of its runs' curves are, "none" where these mean nothing; "" for what the runs say
    curves: str = ""
    # where the numbers stand that this table or figure shows again; "" for what has its own
    shows: str = ""

    @property
    def name(self) -> str:
        return f"{self.paper}.{self.id}"

    @property
    def reports(self) -> bool:
        """Whether the paper reports something for it, even if the numbers could not be read."""
        return not self.ours or any(v is not None for row in self.rows for v in row.reported.values())

    def title(self, metric: str) -> str:
        """What a metric is called where people read it."""
        return title_of(self.paper, metric)

    def scales(self) -> list[str]:
        """The scales at which some row was measured, the paper's first."""
        return [scale for scale in SCALES if any(scale in row.measured for row in self.rows)]


@dataclass(frozen=True)
class Counts:
    """How far a paper is.

    Attributes:
        entries: rows that can be run; cited: rows that are only shown.
        run: entries with at least one run, a smoke run aside, which shows only that it runs; at: entries by
            scale; full: of those at scale=paper how many are of which size.
        claims_of_ours: claims that no paper makes, which are questions of this project.
        recalled_claims: claims that a paper makes as far as it was recalled, and was not read.
        stale: of those that were run, the ones with a run by earlier code.
        claims: number of claims by state; exact: the same of identities and bounds alone.
        stale_claims: claims with a run by earlier code.
        left_out: results that name an entry but were made with other settings than it has.
    """

    entries: int = 0
    cited: int = 0
    run: int = 0
    at: dict[str, int] = field(default_factory=dict)
    full: dict[str, int] = field(default_factory=dict)
    stale: int = 0
    stale_claims: int = 0
    claims: dict[str, int] = field(default_factory=dict)
    claims_of_ours: int = 0
    recalled_claims: int = 0
    exact: dict[str, int] = field(default_factory=dict)
    left_out: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """How many entries were run at each size (`SIZES`); none where none was."""
        at = {size: self.at.get(size, 0) for size in SIZES if size != "paper"}
        at |= self.full
        return {size: at[size] for size in SIZES if at.get(size)}

    @property
    def judged(self) -> int:
        """Claims that have a verdict."""
        return sum(count for state, count in self.claims.items() if state != "not run")

    @property
    def exact_text(self) -> str:
        """`3 of 4 hold, 1 not run`; empty where there are none."""
        total = sum(self.exact.values())
        rest = [f"{count} {state}" for state, count in self.exact.items() if count and state != "supported"]
        return ", ".join([f"{self.exact['supported']} of {total} hold", *rest]) if total else ""


@dataclass(frozen=True)
class Paper:
    """One page: a paper, its claims with their verdicts, and its tables.

    Attributes:
        figure: the name of the figure that shows what it claims first of all; "" for the first of its main
            table.
        table: the id of the table that its page begins with; "" for the one with most claims.
    """

    name: str
    title: str
    group: str
    line: str
    arxiv: str | None
    here: bool
    about: str
    differences: str
    claims: list[tuple[Claim, Verdict]]
    tables: list[Table]
    counts: Counts
    figure: str = ""
    table: str = ""

    @property
    def main(self) -> Table | None:
        """The table that its page begins with; None while none has numbers.

        It is the one that its paper is listed with, else that of the paper's own, else of ours, which most
        claims are about; the first of such tables.
        """
        known = [table for table in self.tables if table.scales()]
        words = [
            word for claim, _ in self.claims for word in {w for run in claim.all_runs() for w in run.words}
        ]
        about = Counter(
            table.name for table in known for word in words if word.startswith(f"entry={table.name}.")
        )
        return min(
            known,
            key=lambda table: (table.id != self.table, table.ours, -about[table.name]),
            default=None,
        )

    @property
    def experiments(self) -> bool:
        """Whether the paper has any that can be run; where it has none all sizes are ours."""
        return _has_experiments(self.tables)

    def size(self, row: Row, scale: str) -> str:
        """What the size of a row's run at a scale is (`SIZES`)."""
        return _full_size(row, self.experiments) if scale == "paper" else scale

    def sizes(self, claim: Claim, verdict: Verdict) -> list[str]:
        """What the sizes of a claim's runs are: that of the paper only where all of them are its entries."""
        full = {row.entry: self.size(row, "paper") for table in self.tables for row in table.rows}
        asked = [next((w[6:] for w in run.words if w.startswith("entry=")), "") for run in claim.all_runs()]
        told = {full.get(entry, "own") for entry in asked}
        largest = next((size for size in ("own", "recalled") if size in told), "paper")
        found = {largest if scale == "paper" else scale for scale in verdict.scale}
        return [size for size in SIZES if size in found]


@dataclass(frozen=True)
class Report:
    """All papers, in the order of the front page; searches over runs (`common.report.searches`), and the
    user's own runs (`common.report.own`); by name the arenas that cannot be shown, with what is wrong.
    """

    papers: list[Paper]
    results: int
    searches: tuple[Any, ...] = ()
    own: tuple[Any, ...] = ()
    arenas: list[tuple[Arena, list[FieldStandings]]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        """The counts of all papers together."""
        counts = [paper.counts for paper in self.papers]
        return Counts(
            entries=sum(one.entries for one in counts),
            run=sum(one.run for one in counts),
            stale=sum(one.stale for one in counts),
            stale_claims=sum(one.stale_claims for one in counts),
            claims={state: sum(one.claims.get(state, 0) for one in counts) for state in STATES},
            claims_of_ours=sum(one.claims_of_ours for one in counts),
            recalled_claims=sum(one.recalled_claims for one in counts),
        )

    @property
    def claim_sizes(self) -> dict[str, int]:
        """How many claims were judged on runs of each size (`SIZES`); none where none was."""
        found = Counter(
            size for paper in self.papers for claim in paper.claims for size in paper.sizes(*claim)
        )
        return {size: found[size] for size in SIZES if found[size]}

    def paper(self, name: str) -> Paper:
        return next(paper for paper in self.papers if paper.name == name)


@cache
def catalogue() -> list[dict[str, str]]:
    """The 23 papers of `papers.yaml`, and after them any other that has a folder."""
    listed = read_yaml(Path(__file__).parent / "papers.yaml")
    known = {paper["name"] for paper in listed}
    more = [name for name in papers() if name not in known]
    return listed + [{"name": name, "title": name, "group": "others", "line": ""} for name in more]


def build(evidence: Evidence, wanted: Iterable[str] | None = None) -> Report:
    """The report over all results.

    Args:
        evidence: the results.
        wanted: names of papers; those of the others are listed without their tables and claims.
    """
    here = set(papers())
    names = here if wanted is None else set(wanted) & here
    found = [_paper(spec, evidence, spec["name"] in names, spec["name"] in here) for spec in catalogue()]
    fought, refused = all_standings(evidence)
    return Report(found, len(evidence.all()), arenas=fought, refused=refused)


def _paper(spec: dict[str, str], evidence: Evidence, wanted: bool, here: bool) -> Paper:
    name = spec["name"]
    tables = _tables(name, evidence) if wanted else []
    claims = [(claim, judge(claim, evidence)) for claim in load_claims(name)] if wanted else []
    readme = _readme(name) if wanted else ""
    return Paper(
        name=name,
        title=spec["title"],
        group=spec["group"],
        line=spec["line"],
        arxiv=spec.get("arxiv"),
        here=here,
        about=introduction(readme),
        differences=sections(readme, DIFFERENCES),
        claims=claims,
        tables=tables,
        counts=_counts(tables, claims),
        figure=spec.get("figure", ""),
        table=spec.get("table", ""),
    )


def _full_size(row: Row, experiments: bool) -> str:
    """What a row at scale=paper is (`SIZES`).

    Args:
        experiments: whether its paper has any.
    """
    measured = row.measured.get("paper", {}).values()
    if row.ours or not experiments or any(one is not None and one.data for one in measured):
        return "own"
    untold = all(value is None for value in row.reported.values())
    return "recalled" if row.source.unverified and untold else "paper"


def _has_experiments(tables: Iterable[Table]) -> bool:
    return any(not table.ours and any(row.runnable for row in table.rows) for table in tables)


def _counts(tables: list[Table], claims: list[tuple[Claim, Verdict]]) -> Counts:
    rows = [row for table in tables for row in table.rows]
    run = [row for row in rows if row.runnable and set(row.runs) - {SMOKE}]
    experiments = _has_experiments(tables)
    states = [verdict.state for _, verdict in claims]
    exact = [verdict.state for claim, verdict in claims if claim.kind in EXACT]
    return Counts(
        entries=sum(row.runnable for row in rows),
        cited=sum(not row.runnable for row in rows),
        run=len(run),
        at={scale: sum(scale in row.runs for row in rows) for scale in SCALES},
        full=Counter(_full_size(row, experiments) for row in rows if "paper" in row.runs),
        stale=sum(row.stale for row in run),
        stale_claims=sum(verdict.state != "not run" and bool(verdict.stale) for _, verdict in claims),
        claims={state: states.count(state) for state in STATES},
        claims_of_ours=sum(claim.source.kind == "ours" for claim, _ in claims),
        recalled_claims=sum(claim.source.kind == "recalled" for claim, _ in claims),
        exact={state: exact.count(state) for state in STATES},
        left_out=sum(row.left_out for row in rows),
    )


# README


def _readme(paper: str) -> str:
    path = in_roots(f"papers/{paper}/README.md")
    return path.read_text() if path.exists() else ""


def introduction(readme: str) -> str:
    """A README's text between its title and its first section."""
    body = readme.split("\n", 1)[1] if readme.startswith("# ") and "\n" in readme else readme
    return _before_heading(body).strip()


def sections(readme: str, words: Iterable[str]) -> str:
    """The texts of all sections whose titles hold one of the words."""
    known = tuple(words)
    found = []
    for part in readme.split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        title = heading.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        found += [body.strip()] if any(word in title for word in known) else []
    return "\n\n".join(found)


def _before_heading(text: str) -> str:
    return text.removeprefix("## ") if text.startswith("## ") else text.split("\n## ", 1)[0]


# tables


def _tables(paper: str, evidence: Evidence) -> list[Table]:
    by_table: dict[str, list[Entry]] = {}
    for entry in entries(paper):
        by_table.setdefault(entry.table, []).append(entry)
    tables = [
        _table(paper, raw, by_table.get(raw["id"], []), evidence) for raw in load_tables(paper)["tables"]
    ]
    return [_with_fits(table, by_table.get(table.id, []), tables) for table in tables]


def _table(paper: str, raw: dict[str, Any], rows: list[Entry], evidence: Evidence) -> Table:
    keys = metric_keys(paper, raw["id"])
    points = _points(raw)
    return Table(
        paper=paper,
        id=raw["id"],
        about=raw["about"],
        metrics=raw["metrics"],
        results=keys,
        rows=[_row(entry, raw, keys, points.get(entry.row, {}), evidence) for entry in rows],
        ours=bool(raw.get("ours", False)),
        axes=list(raw.get("grid", {}).get("axes", {})),
        axis=_numeric_axis(raw),
        plane=tuple(raw["plane"]) if "plane" in raw else None,
        curves=raw.get("curves", ""),
        shows=f"rows of {raw['shows']}" if "shows" in raw else "",
    )


def _points(raw: dict[str, Any]) -> dict[str, dict[str, str]]:
    """For each row that a grid spans, the name of its value on each axis."""
    grid = raw.get("grid")
    if grid is None:
        return {}
    names = [
        dict(zip(grid["axes"], point, strict=True)) for point in itertools.product(*grid["axes"].values())
    ]
    return {grid["row"].format(**point): point for point in names}


def _numeric_axis(raw: dict[str, Any]) -> Axis | None:
    """The first axis of a grid whose values, three or more, each set one key to another number."""
    for name, values in raw.get("grid", {}).get("axes", {}).items():
        settings = [(part or {}).get("set", {}) for part in values.values()]
        keys = {key for setting in settings for key in setting}
        if len(values) < 3 or len(keys) != 1 or any(part.get("choose") for part in values.values() if part):
            continue
        key = keys.pop()
        numbers = [setting.get(key) for setting in settings]
        if all(isinstance(number, int | float) for number in numbers) and len(set(numbers)) == len(numbers):
            return Axis(name, key, {n: float(number) for n, number in zip(values, numbers, strict=True)})
    return None


def _row(
    entry: Entry, raw: dict[str, Any], keys: dict[str, str], point: dict[str, str], evidence: Evidence
) -> Row:
    runs, left_out = _runs(entry, evidence)
    made_up = load_tables(entry.paper).get("stand_ins", {}).get(entry.choose.get("dataset"), "")
    source = Source(entry.source.get("kind", ""), entry.source.get("where", ""))
    return Row(
        entry=entry.name,
        name=entry.row,
        reported={metric: entry.reported.get(metric) for metric in keys},
        source=source,
        measured={
            scale: _measure(found, scale, keys | entry.result, raw.get("stand_in", {}).get(scale, made_up))
            for scale, found in runs.items()
        },
        runs=runs,
        cited=entry.cited,
        ours=bool(raw.get("ours", False)) or source.kind == "none",
        fit=entry.fit is not None,
        choose=entry.choose,
        values=entry.values,
        point=point,
        left_out=left_out,
        own={key: entry.reported.get(metric) for metric, key in entry.result.items()},
    )


# the runs of a row


def _runs(entry: Entry, evidence: Evidence) -> tuple[dict[str, list[Result]], int]:
    """The runs of an entry at each scale, by seed; and how many results name it but are not of it."""
    if entry.cited or entry.fit is not None:
        return {}, 0
    newest: dict[tuple[str, int], Result] = {}
    left_out = 0
    for result in sorted(evidence.of_entry(entry.name), key=lambda result: str(result.get("finished"))):
        scales = [scale for scale in scales_of(result, entry.name) if _is_of(result, entry, scale)]
        left_out += not scales
        newest |= {(scale, result["seed"]): result for scale in scales}
    runs = {
        scale: [result for (at, _), result in sorted(newest.items(), key=lambda item: item[0]) if at == scale]
        for scale in SCALES
    }
    return {scale: found for scale, found in runs.items() if found}, left_out


def scales_of(result: Result, entry: str) -> list[str]:
    """The scales at which a result was asked for as this entry, with nothing else changed but the seed."""
    scales = []
    for words in asked_forms(result):
        given = dict(word.split("=", 1) for word in words if "=" in word)
        if set(given) <= {"entry", "scale", "seed"} and given.get("entry") == entry:
            scales.append(given.get("scale", "paper"))
    return list(dict.fromkeys(scales))


def _is_of(result: Result, entry: Entry, scale: str) -> bool:
    """Whether a result's config holds what the row says today."""
    chosen = all(result["choices"].get(group, name) == name for group, name in entry.choose.items())
    wanted = entry.values | entry.budget.get(scale, {})
    return chosen and all(_holds(result, key, _filled_in(value, result)) for key, value in wanted.items())


def _filled_in(value: Any, result: Result) -> Any:
    """A value with the run's own in place of each ${key}, as in a stage's words; unknown keys stay."""

    def found(match: re.Match[str]) -> str:
        there = value_at(result, match[1])
        return match[0] if there is NOTHING else str(there)

    return re.sub(r"\$\{([\w.]+)\}", found, value) if isinstance(value, str) else value


def _holds(result: Result, dotted: str, value: Any) -> bool:
    group, _, rest = dotted.partition(".")
    if rest in NEUTRAL_IN.get(group, ()):
        return True
    if dotted in OPTIONAL:
        # a result does not name what a run is without
        return bool(result["config"].get(dotted) == value)
    if dotted == "teacher":
        # it stands in the nodes that use it
        nodes = [result["config"].get(group, {}) for group in STAGED]
        found = [one["teacher"] for one in nodes if "teacher" in one]
        return not found or value in found
    return bool(value_at(result, dotted) == value)


def _measure(
    runs: list[Result], scale: str, keys: dict[str, str], stand_in: str
) -> dict[str, Measured | None]:
    return {metric: summary(runs, scale, key, stand_in) for metric, key in keys.items()}


def summary(runs: list[Result], scale: str, key: str, stand_in: str = "") -> Measured | None:
    """A metric over runs; None where no run knows it.

    Args:
        stand_in: what the runs have in place of the table's data, where they do not say so themselves.
    """
    known = [run for run in runs if key in run["metrics"]]
    values = [
        _without_rounding(run["metrics"], key, float(value))
        for run in known
        if (value := run["metrics"][key]) is not None and _is_number(value)
    ]
    if not known:
        return None
    mean, low, high = interval(values)
    repeats = max(int(run["config"].get("paper", {}).get("repeats") or 1) for run in known)
    examples = 0
    if len(values) == len(known) == 1:
        low, high = _within_run(known[0]["metrics"], key, repeats)
        examples = 0 if low is None else _examples(known[0]["metrics"], key)
    return Measured(
        mean,
        low,
        high,
        n=len(values),
        scale=scale,
        device=", ".join(sorted({str(run["device"]) for run in known})),
        without=len(known) - len(values),
        repeats=repeats,
        stale=sum(stale(run) for run in known),
        data=_data(known) or stand_in,
        examples=examples,
    )


def _without_rounding(metrics: dict[str, Any], key: str, value: float) -> float:
    """A value; 0 for the standard error of equal ones, which rounding alone keeps from it."""
    mean = metrics.get(key.removesuffix(ERROR)) if key.endswith(ERROR) else None
    return 0.0 if isinstance(mean, int | float) and abs(value) < ROUNDING * abs(mean) else value


def _examples(metrics: dict[str, Any], key: str) -> int:
    """Over how many examples a run's own interval of a share is; 0 of replicates, or where it is silent."""
    return 0 if f"{key}{ERROR}" in metrics else int(metrics.get("examples") or 0)


def _within_run(metrics: dict[str, Any], key: str, repeats: int) -> tuple[float | None, float | None]:
    """The 95 % interval that a single run knows itself; (None, None) where it knows none.

    Of replicates it is the t interval by the standard error of their mean, `<metric>_sem` (the normal one
    where their number is not known), and of a share of few examples the run's own, `<share>_low` to
    `<share>_high`.
    """
    error = metrics.get(f"{key}{ERROR}")
    if error is not None:
        from scipy.stats import t

        half = float(t.ppf(0.975, repeats - 1 if repeats > 1 else math.inf)) * error
        return metrics[key] - half, metrics[key] + half
    share = key.removesuffix("_error")
    return metrics.get(f"{share}_low"), metrics.get(f"{share}_high")


def _data(runs: list[Result]) -> str:
    """What runs had in place of the data that their data set is named after."""
    names = {"stand_in": "stand-in data", "synthetic": "synthetic data"}
    sources = {(run["config"].get("dataset") or {}).get("source") for run in runs}
    return ", ".join(name for source, name in names.items() if source in sources)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def interval(values: list[float]) -> tuple[float | None, float | None, float | None]:
    """Mean and 95 % t interval; no interval for one value or two that differ, nothing for none.

    Of two the t interval is 13 standard errors to each side, which says nothing of where others would be.
    """
    if not values:
        return None, None, None
    found = mean_interval(values)
    known = math.isfinite(found.low) and (len(values) != 2 or found.flat)
    return found.mean, *((found.low, found.high) if known else (None, None))


# rows that are a slope over other rows


def _with_fits(table: Table, rows: list[Entry], tables: list[Table]) -> Table:
    """Put beside each row that is a fit the slopes over the measured rows of other tables."""
    fits = {entry.name: entry.fit for entry in rows if entry.fit}
    if not fits:
        return table
    measured = {name: _fit(fit, table, tables) for name, fit in fits.items()}
    return replace(table, rows=[replace(row, measured=measured.get(row.entry, {})) for row in table.rows])


def _fit(fit: dict[str, Any], table: Table, tables: list[Table]) -> dict[str, dict[str, Measured | None]]:
    """The slopes of one row by scale: the metric that begins with the fit's key gets its slope."""
    found: dict[str, dict[str, Measured | None]] = {}
    for scale in SCALES:
        slopes = {metric: _slope(fit, metric, scale, tables) for metric in table.metrics}
        if any(slopes.values()):
            found[scale] = slopes
    return found


def _slope(fit: dict[str, Any], metric: str, scale: str, tables: list[Table]) -> Measured | None:
    """The slope of a method's runs at one scale: calls against eps, or against n at the smallest eps."""
    for key, (table, x, y) in FITS.items():
        if key not in fit or not metric.startswith(key):
            continue
        runs = [
            run
            for candidate in tables
            if candidate.id == table
            for row in candidate.rows
            for run in row.runs.get(scale, [])
            if run["choices"]["method"].split("/")[-1] == fit[key] and x(run) is not None
        ]
        smallest = min((run["config"]["paper"]["eps"] for run in runs), default=None)
        if key == "finite_sum":
            runs = [run for run in runs if run["config"]["paper"]["eps"] == smallest]
        pairs = [(x(run), y(run)) for run in runs]
        points = [(a, b) for a, b in pairs if a is not None and b is not None]
        value = slope(points)
        if value is None:
            return None
        what = "eps" if key == "online" else f"n at eps {smallest:g}"
        device = ", ".join(sorted({str(run["device"]) for run in runs}))
        return Measured(value, None, None, len(points), scale, device, note=f"exponent of {what}")
    return None


def _eps(run: Result) -> float | None:
    return run["config"]["paper"]["eps"]


def _size(run: Result) -> float | None:
    """n of the synthetic sets, which differ in nothing else."""
    return run["metrics"].get("n") if run["choices"]["dataset"].startswith("synthetic_logistic") else None


def _calls(run: Result) -> float | None:
    passes = run["metrics"].get("ifo_over_n")
    return None if passes is None else passes * run["metrics"]["n"]


# a row's `fit` names a method by these keys: the table whose rows are fitted, x and y
FITS: dict[str, tuple[str, Callable[[Result], float | None], Callable[[Result], float | None]]] = {
    "online": ("ifo_online", _eps, lambda run: run["metrics"].get("sfo_calls")),
    "finite_sum": ("ifo", _size, _calls),
}
