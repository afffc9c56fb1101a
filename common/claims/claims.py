"""A paper's `claims.yaml`: what the paper says in words, as runs and a rule that judges them.

    noise_floor_falls_with_batch:       # the claim yogi.noise_floor_falls_with_batch
      says: what the paper says, in a sentence or two
      source: {kind: paper_text | recalled | ours, where: Theorem 2}
      pilot: what a small trial has shown, also where it shows no effect
      seeds: [0, 1, 2]
      runs: [paper=yogi, ...]           # the words that all runs share
      deterministic: false              # true: the result has no spread, and one seed decides
      # and one of these:
      paired: {metric, a: [words], b: [words], better: lower | higher, least: 0.0, relative: false}
      paired: {metric, than: number or metric, better: ...}   # on average over the seeds of the same runs
      trend: {metric, over: key, values: [1, 4, 16], slope: [low, high]}
      bound: {metric, at_most: number or metric}
      identity: {metric, equals: number or metric, tolerance: 1.0e-6}

`paired`: A is better than B by more than `least` (`relative`: as a fraction of B, seed by seed). `trend`: the
metric along a series; `points: [{x: 1000, words: [...]}]` in place of `over` and `values` where a step
changes several words, and `along` says what x is where no key among these words has its values; `slope`
bounds the slope of log metric against log x (null: no bound on that side), of which `against` (words)
subtracts that of another series; or `monotone: falling | rising`. `bound` (`at_most` or `at_least`) and
`identity` hold in every run, of which `each: [[words], ...]` names several.
Later words win over earlier ones with the same key.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.base.errors import UserError
from common.base.files import read_yaml
from common.runs.evidence import key_of, last_of_each_key
from common.runs.result import number
from common.tables.tables import ROOT, unknown

Kind = Literal["paired", "trend", "bound", "identity"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def _word(word: str) -> str:
    if "=" not in word:
        raise ValueError(f"{word!r} is no override word (key=value)")
    if key_of(word) == "seed":
        raise ValueError(f"{word!r}: seeds stand in `seeds`")
    return word


Words = tuple[Annotated[str, AfterValidator(_word)], ...]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Where a claim stands: read in the paper, recalled from it, or ours."""

    kind: Literal["paper_text", "recalled", "ours"]
    where: str


class Paired(_Strict):
    """A against B on the same seeds; or a metric against another of its runs, or a number (`than`)."""

    metric: str
    a: Words = ()
    b: Words = ()
    than: Number | str | None = None
    better: Literal["lower", "higher"]
    least: Number = 0.0
    relative: bool = False

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.than is not None and (self.a or self.b):
            raise ValueError("give `a` and `b`, or `than`")
        if self.than is None and set(self.a) == set(self.b):
            raise ValueError("a and b are the same runs")
        return self

    def claimed(self, than: str = "") -> str:
        """What A is said to be: `lower by more than 2 %`; of a `least` below 0 `not higher by 2 % or more`.

        Args:
            than: what stands behind `lower`, as ` than that of B`.
        """
        least = f"{100 * abs(self.least):g} %" if self.relative else number(abs(self.least))
        if self.least < 0:
            worse = "higher" if self.better == "lower" else "lower"
            return f"not {worse}{than} by {least} or more"
        return f"{self.better}{than}" + (f" by more than {least}" if self.least else "")


class Point(_Strict):
    """One step of a series: where it stands on the x axis, and its words."""

    x: Number
    words: Words


class Trend(_Strict):
    """A metric along a series."""

    metric: str
    over: str | None = None
    values: tuple[int | Number, ...] = ()
    points: tuple[Point, ...] = ()
    along: str | None = None
    slope: tuple[Number | None, Number | None] | None = None
    monotone: Literal["falling", "rising"] | None = None
    against: Words = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.over is None) != (not self.values) or bool(self.values) == bool(self.points):
            raise ValueError("give `over` and `values`, or `points`")
        xs = [point.x for point in self.series]
        if len(set(xs)) < 2 or len(set(xs)) != len(xs):
            raise ValueError("a series needs two or more different x")
        if (self.slope is None) == (self.monotone is None):
            raise ValueError("give `slope` or `monotone`")
        if self.monotone is not None and self.against:
            raise ValueError("`against` needs `slope`: it is the difference of two slopes")
        if self.slope is not None:
            _check_slope(*self.slope, xs=xs)
        return self

    @property
    def axis(self) -> str:
        """What x is: `along`, `over`, or the keys whose values are x in every step; "x" where none is."""
        named = self.along or self.over
        if named is not None:
            return named
        same = [
            {key_of(word) for word in point.words if _is_number(word.split("=", 1)[1], point.x)}
            for point in self.points
        ]
        return " = ".join(sorted(set.intersection(*same))) or "x"

    @property
    def series(self) -> tuple[Point, ...]:
        """The steps in the order of x."""
        points = self.points or tuple(Point(x=v, words=(f"{self.over}={v}",)) for v in self.values)
        return tuple(sorted(points, key=lambda point: point.x))


def _is_number(text: str, x: float) -> bool:
    try:
        return float(text) == x
    except ValueError:
        return False


def _check_slope(low: float | None, high: float | None, *, xs: list[float]) -> None:
    if low is None and high is None:
        raise ValueError("slope: [null, null] claims nothing")
    if low is not None and high is not None and low > high:
        raise ValueError(f"slope: [{low}, {high}] is empty")
    if min(xs) <= 0:
        raise ValueError("a slope is that of logarithms: every x must be > 0")


class Bound(_Strict):
    """A limit that holds in every run: a number, or another metric of the same run."""

    metric: str
    at_most: Number | str | None = None
    at_least: Number | str | None = None
    each: tuple[Words, ...] = ((),)

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give `at_most` or `at_least`")
        return self


class Identity(_Strict):
    """An equation that holds in every run, to within an absolute tolerance."""

    metric: str
    equals: Number | str
    tolerance: Annotated[Number, Field(ge=0)]
    each: tuple[Words, ...] = ((),)


Rule = Paired | Trend | Bound | Identity


class _Text(_Strict):
    """A claim as it stands in the file."""

    says: str
    source: Source
    pilot: str = ""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    runs: Words
    deterministic: bool = False
    paired: Paired | None = None
    trend: Trend | None = None
    bound: Bound | None = None
    identity: Identity | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(KINDS)} (given: {', '.join(given) or 'none'})")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed stands twice in `seeds`")
        if self.deterministic and len(self.seeds) > 1:
            raise ValueError("`deterministic: true` goes with one seed")
        return self


RULES: dict[str, type[_Strict]] = {"paired": Paired, "trend": Trend, "bound": Bound, "identity": Identity}


@dataclass(frozen=True)
class Run:
    """One run that a claim needs.

    Attributes:
        words: its overrides, the seed among them.
        side: "a" or "b" of a pair, "series" or "against" of a trend, the words of `each` otherwise.
        x: its place in a series.
    """

    words: tuple[str, ...]
    side: str
    x: float | None
    seed: int


@dataclass(frozen=True)
class Claim:
    """What a paper says, the runs that decide it, and the rule that judges them."""

    name: str
    paper: str
    says: str
    source: Source
    pilot: str
    seeds: tuple[int, ...]
    words: tuple[str, ...]
    deterministic: bool
    kind: Kind
    rule: Rule

    @property
    def judged_by(self) -> str:
        """What the verdict is about, in words: `loss of yogi lower than that of adam, over 3 seeds`."""
        rule, runs = self.rule, len(self.all_runs())
        over = "over 1 seed" if len(self.seeds) == 1 else f"over {len(self.seeds)} seeds"
        every = "in the only run" if runs == 1 else f"in each of {runs} runs"
        if isinstance(rule, Paired):
            return f"{self._paired_words(rule)}, {over}"
        if isinstance(rule, Trend):
            return f"{self._trend_words(rule)}, {over}"
        if isinstance(rule, Bound):
            side, limit = ("<=", rule.at_most) if rule.at_most is not None else (">=", rule.at_least)
            return f"{rule.metric} {side} {named(limit)} {every}"
        return f"{rule.metric} = {named(rule.equals)} to within {number(rule.tolerance)} {every}"

    def _paired_words(self, rule: Paired) -> str:
        if rule.than is not None:
            of_runs = " of the same run" if isinstance(rule.than, str) else ""
            return f"{rule.metric} {rule.claimed(f' than {named(rule.than)}{of_runs}')}"
        than = f" than that of {self.label('b')}"
        return f"{rule.metric} of {self.label('a')} {rule.claimed(than)}"

    def _trend_words(self, rule: Trend) -> str:
        if rule.monotone is not None:
            return f"{rule.metric} {rule.monotone} at every step of {rule.axis}"
        low, high = rule.slope or (None, None)
        limits = ([] if low is None else [f"at least {number(low)}"]) + (
            [] if high is None else [f"at most {number(high)}"]
        )
        less = f" less that of {self.label('against')}" if rule.against else ""
        return f"slope of log {rule.metric} against log {rule.axis}{less} {' and '.join(limits)}"

    def all_runs(self) -> list[Run]:
        """Every run that the verdict needs, seed by seed."""
        return [
            Run(last_of_each_key([*self.words, *words, f"seed={seed}"]), side, x, seed)
            for seed in self.seeds
            for side, x, words in self._settings()
        ]

    def _settings(self) -> list[tuple[str, float | None, Words]]:
        """(side, x, words) of each run of a seed."""
        rule = self.rule
        if isinstance(rule, Paired):
            others = [("b", None, rule.b)] if rule.than is None else []
            return [("a", None, rule.a), *others]
        if isinstance(rule, Trend):
            settings = [("series", point.x, point.words) for point in rule.series]
            other = [("against", point.x, (*rule.against, *point.words)) for point in rule.series]
            return [*settings, *(other if rule.against else [])]
        return [(" ".join(words), None, words) for words in rule.each]

    def label(self, side: str) -> str:
        """What a person calls a side: the words by which it differs from the other."""
        rule = self.rule
        if isinstance(rule, Paired):
            return _short(rule.a if side == "a" else rule.b) or rule.metric
        if isinstance(rule, Trend):
            if side == "against":
                return _short(rule.against)
            changed = {key_of(word) for word in rule.against}
            return _short(tuple(word for word in self.words if key_of(word) in changed)) or rule.metric
        return _short(tuple(side.split())) or rule.metric


def named(limit: float | str | None) -> str:
    """A limit: a number, or the metric that it is."""
    return limit if isinstance(limit, str) else number(limit)


def _short(words: tuple[str, ...]) -> str:
    """`optimizer/yogi` for method=optimizer/yogi, `lr=0.1` for method.lr=0.1."""
    parts = [word.split("=", 1) for word in words]
    return " ".join(f"{key.split('.')[-1]}={value}" if "." in key else value for key, value in parts)


def papers_folder() -> Path:
    """Where the papers lie."""
    return ROOT / "papers"


def claim_papers() -> list[str]:
    """The papers that have claims."""
    folders = [papers_folder(), Path("papers")]
    return sorted({path.parent.name for folder in folders for path in folder.glob("*/claims.yaml")})


def all_claims() -> dict[str, Claim]:
    """Every claim of every paper by its name."""
    return {claim.name: claim for paper in claim_papers() for claim in load_claims(paper)}


def load_claims(paper: str) -> list[Claim]:
    """The claims of one paper in the order of its file; none where it has no file.

    Raises:
        UserError: a key or a value that cannot be, with file and claim.
    """
    path = papers_folder() / paper / "claims.yaml"
    # of a paper of the user's own, in the current folder
    return list(_parsed(path if path.exists() else Path("papers", paper, "claims.yaml").resolve()))


@cache
def _parsed(path: Path) -> tuple[Claim, ...]:
    if not path.exists():
        return ()
    where = f"papers/{path.parent.name}/{path.name}"
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise UserError(f"{where}: must map names to claims")
    _refuse_twins(path, where)
    return tuple(parse_claim(path.parent.name, name, text, where) for name, text in content.items())


def _refuse_twins(path: Path, where: str) -> None:
    """YAML itself would silently keep the last of two claims with one name."""
    root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    names = [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    twins = {name for name in names if names.count(name) > 1}
    if twins:
        raise UserError(f"{where}: the name {min(twins)} stands there twice")


def parse_claim(paper: str, name: str, text: Any, where: str) -> Claim:
    """One claim, as it stands in a file.

    Args:
        paper, name: of the claim, which is called `paper.name`.
        text: what the file maps the name to.
        where: the file, for errors.

    Raises:
        UserError: a key or a value that cannot be.
    """
    where = f"{where}: {name}"
    _check_keys(text, list(_Text.model_fields), where)
    for kind in KINDS:
        if kind in text:
            _check_keys(text[kind], list(RULES[kind].model_fields), f"{where}.{kind}")
    try:
        parsed = _Text.model_validate(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *map(str, first["loc"])])
        raise UserError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error
    kind = next(kind for kind in KINDS if getattr(parsed, kind) is not None)
    claim = Claim(
        name=f"{paper}.{name}",
        paper=paper,
        says=" ".join(parsed.says.split()),
        source=parsed.source,
        pilot=" ".join(parsed.pilot.split()),
        seeds=parsed.seeds,
        words=parsed.runs,
        deterministic=parsed.deterministic,
        kind=kind,
        rule=getattr(parsed, kind),
    )
    if any(not {"paper", "entry"} & {key_of(word) for word in run.words} for run in claim.all_runs()):
        raise UserError(f"{where}: its runs name neither a paper (paper={paper}) nor an entry")
    return claim


def _check_keys(node: Any, valid: list[str], where: str) -> None:
    if not isinstance(node, dict):
        raise UserError(f"{where}: must be a mapping of {', '.join(valid)}")
    for key in node:
        if key not in valid:
            raise UserError(f"{where}: {unknown('key', str(key), valid).replace('key=', 'key ', 1)}")
