"""Verdicts on claims: plain functions over result files.

A claim is *supported* when the 95% interval of its effect lies wholly on the claimed side, *refuted* when it
lies wholly on the other, *inconclusive* when it straddles, and *not run* while any of its runs is missing.
"""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from common.base.digits import decimals, fixed
from common.claims.claims import Bound, Claim, Identity, Paired, Run, Trend, named
from common.runs.code import stale
from common.runs.evidence import Evidence
from common.runs.result import number

State = Literal["supported", "refuted", "inconclusive", "not run"]
LEVEL = 0.95
OPPOSITE = {"lower": "higher", "higher": "lower", "falling": "rises", "rising": "falls"}
ONWARD = {"falling": "falls", "rising": "rises"}


@dataclass(frozen=True)
class Verdict:
    """What the runs of a claim say about it.

    Attributes:
        state: supported, refuted, inconclusive (the interval straddles), or not run.
        n: seeds (paired, trend) or runs (bound, identity) behind it; runs that are there, of one not run.
        effect, low, high: the effect and its 95% interval, None where there is none.
            paired: by how much A is better than B; trend: the slope (or its difference from the other
            series'), or the step that falls (rises) least surely; bound: the worst margin to the limit,
            negative where it is broken, and the smallest and largest; identity: the same of |difference|.
        text: all of it in one line for a person.
        points: (series, x or seed, metric) of every run that has the metric, for a plot.
        stale: how many of the runs were made by other code than the present.
        scale: the scales at which they were made.
    """

    state: State
    n: int
    effect: float | None
    low: float | None
    high: float | None
    text: str
    points: list[tuple[str, float, float]]
    stale: int
    scale: set[str]


@dataclass(frozen=True)
class Measured:
    """One run of a claim with its metrics."""

    run: Run
    metrics: dict[str, Any]

    def value(self, name: str) -> float | None:
        """A metric as a number; None where the run came to none."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    @property
    def place(self) -> str:
        """Where the run stands in its claim."""
        parts = [self.run.side] if self.run.side not in ("series", "") else []
        parts += [] if self.run.x is None else [f"x={number(self.run.x)}"]
        return ", ".join([*parts, f"seed {self.run.seed}"])


@dataclass(frozen=True)
class Finding:
    """A verdict before it is put together with where its runs come from."""

    state: State
    n: int
    text: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval; infinite where nothing bounds it."""

    mean: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low)

    def __neg__(self) -> "Interval":
        return Interval(-self.mean, -self.high, -self.low)

    @property
    def flat(self) -> bool:
        """Whether it is no wider than rounding makes it: equal values have no spread."""
        return self.bounded and math.isclose(self.low, self.high, rel_tol=1e-9)

    @property
    def texts(self) -> tuple[str, str, str]:
        """Mean, low and high: the ends to two digits of the shorter side, the mean to three of it.

        What is compared seed by seed may differ by less than its interval is wide. An end that is not 0 is
        not written as 0, since a verdict rests on its side of it.
        """
        sides = [side for side in (self.mean - self.low, self.high - self.mean) if 0 < side < math.inf]
        if not self.bounded or self.flat or not sides:
            return number(self.mean), number(self.low), number(self.high)
        of_mean, of_ends = decimals(min(sides), digits=3), decimals(min(sides))
        if of_mean is None or of_ends is None:
            mean, low, high = (f"{value:.3g}" for value in (self.mean, self.low, self.high))
            return mean, low, high
        nearest = min(abs(self.low), abs(self.high))
        if nearest and float(fixed(nearest, of_ends).replace(",", "")) == 0:
            of_ends = decimals(nearest, digits=1) or of_ends
        return fixed(self.mean, max(of_mean, of_ends)), fixed(self.low, of_ends), fixed(self.high, of_ends)

    def __str__(self) -> str:
        mean, low, high = self.texts
        if not self.bounded:
            return f"{mean} (no interval)"
        return f"{mean} (no spread)" if self.flat else f"{mean} [{low}, {high}]"

    def percent(self) -> str:
        """The same in percent."""
        mean, low, high = (f"{100 * value:.3g}" for value in (self.mean, self.low, self.high))
        if self.low == self.high:
            return f"{mean} % (no spread)"
        return f"{mean} % [{low}, {high}]" if math.isfinite(self.low) else f"{mean} % (no interval)"


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """The verdict on a claim by the results that are there."""
    runs = claim.all_runs()
    results = [evidence.find(run.words) for run in runs]
    found = [result for result in results if result is not None]
    measured = [
        Measured(run, result["metrics"])
        for run, result in zip(runs, results, strict=True)
        if result is not None
    ]
    missing = [run for run, result in zip(runs, results, strict=True) if result is None]
    finding = _not_run(missing, len(runs)) if missing else _find(claim, measured)
    return Verdict(
        state=finding.state,
        n=finding.n,
        effect=finding.effect,
        low=_finite(finding.low),
        high=_finite(finding.high),
        text=finding.text,
        points=_points(claim, measured),
        stale=sum(stale(result) for result in found),
        scale={result["scale"] for result in found},
    )


def _not_run(missing: list[Run], total: int) -> Finding:
    text = f"not run: {len(missing)} of {total} runs missing ({' '.join(missing[0].words)}"
    return Finding("not run", total - len(missing), text + (", ...)" if len(missing) > 1 else ")"))


def _find(claim: Claim, measured: list[Measured]) -> Finding:
    rule = claim.rule
    unknown = _unknown_metric(_metrics(claim), measured)
    if unknown:
        return Finding("inconclusive", len(measured), unknown)
    if isinstance(rule, Bound):
        return _bound(rule, measured)
    if isinstance(rule, Identity):
        return _identity(rule, measured)
    empty = [one.place for one in measured if one.value(rule.metric) is None]
    if empty:
        shown = "; ".join(empty[:3]) + ("; ..." if len(empty) > 3 else "")
        text = f"{rule.metric} has no value in {len(empty)} of {len(measured)} runs, "
        return Finding("inconclusive", len(claim.seeds), f"{text}as where it was never reached ({shown})")
    if isinstance(rule, Paired):
        return _paired(claim, rule, measured)
    if rule.monotone is not None:
        return _monotone(claim, rule, measured, rule.monotone)
    return _slope(claim, rule, measured)


def _metrics(claim: Claim) -> list[str]:
    rule = claim.rule
    others: list[Any] = []
    if isinstance(rule, Bound):
        others = [rule.at_most, rule.at_least]
    elif isinstance(rule, Identity):
        others = [rule.equals]
    elif isinstance(rule, Paired):
        others = [rule.than]
    return [rule.metric, *(other for other in others if isinstance(other, str))]


def _unknown_metric(names: list[str], measured: list[Measured]) -> str:
    """What is wrong with a metric that a run does not have, or has as a list."""
    for one in measured:
        for name in names:
            plain = [key for key, value in one.metrics.items() if not isinstance(value, list | dict | str)]
            if name not in plain:
                near = difflib.get_close_matches(name, plain, n=3, cutoff=0.5)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                return f"no number named {name} in the run {one.place}{hint} (valid: {', '.join(plain)})"
    return ""


def mean_interval(values: Sequence[float], deterministic: bool = False) -> Interval:
    """The mean and its t interval.

    Values that are all equal have no spread and are their own interval. A single one has none, unless
    it is `deterministic`.
    """
    mean, n = float(np.mean(values)), len(values)
    if min(values) == max(values) and (n > 1 or deterministic):
        return Interval(values[0], values[0], values[0])
    if n == 1:
        return Interval(mean, -math.inf, math.inf)
    # its import takes longer than a mistyped word should
    from scipy import stats

    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def _series(
    measured: Iterable[Measured], metric: str, side: str, seed: int
) -> tuple[list[float], list[float]]:
    """x and metric of one side at one seed, in the order of x."""
    of_side = [one for one in measured if one.run.side == side and one.run.seed == seed]
    pairs = sorted((one.run.x or 0.0, one.value(metric) or 0.0) for one in of_side)
    return [x for x, _ in pairs], [y for _, y in pairs]


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def _paired(claim: Claim, rule: Paired, measured: list[Measured]) -> Finding:
    n, other = len(claim.seeds), claim.label("b") if rule.than is None else named(rule.than)
    pairs = _pairs(claim, rule, measured)
    if len(pairs) < n:
        return Finding("inconclusive", n, f"{other} has no value in every run; {_seeds(n)}")
    a, b = np.array(pairs).T
    differences = b - a if rule.better == "lower" else a - b
    means = f"{rule.metric} {number(float(a.mean()))}"
    means += f" ({claim.label('a')}) against " if rule.than is None else " against "
    means += other if isinstance(rule.than, float) else f"{number(float(b.mean()))} ({other})"
    if rule.relative:
        if not b.all():
            return Finding("inconclusive", n, f"{means}: no fraction of a value that is 0; {_seeds(n)}")
        differences = differences / abs(b)
    effect = mean_interval(differences.tolist(), claim.deterministic)
    state: State = "inconclusive"
    if effect.low > rule.least:
        state = "supported"
    elif effect.high < rule.least:
        state = "refuted"
    word, shown = (rule.better, effect) if effect.mean >= 0 else (OPPOSITE[rule.better], -effect)
    amount = shown.percent() if rule.relative else str(shown)
    text = f"{means}: {word} by {amount}, {_seeds(n)}; claimed: {rule.claimed()}"
    return Finding(state, n, text, effect.mean, effect.low, effect.high)


def _pairs(claim: Claim, rule: Paired, measured: list[Measured]) -> list[tuple[float, float]]:
    """The metric of A and what it is compared with, seed by seed, of the seeds that have both."""
    if rule.than is not None:
        return [(value, other) for _, value, other in _both_values(measured, rule.metric, rule.than)]
    a, b = ([_series(measured, rule.metric, side, seed)[1][0] for seed in claim.seeds] for side in ("a", "b"))
    return list(zip(a, b, strict=True))


def _slope(claim: Claim, rule: Trend, measured: list[Measured]) -> Finding:
    n = len(claim.seeds)
    if any((one.value(rule.metric) or 0) <= 0 for one in measured):
        text = f"{rule.metric} is not always > 0, so its logarithm has no slope; {_seeds(n)}"
        return Finding("inconclusive", n, text)
    sides = ["series", "against"] if rule.against else ["series"]
    slopes = {
        side: [_regression(*_series(measured, rule.metric, side, seed)) for seed in claim.seeds]
        for side in sides
    }
    effect = _slope_interval(claim, slopes, len(rule.series))
    x = rule.axis
    if rule.against:
        means = {side: number(float(np.mean([slope for slope, _ in slopes[side]]))) for side in sides}
        both = " and ".join(f"{means[side]} ({claim.label(side)})" for side in sides)
        text = f"slopes of {rule.metric} against {x}: {both}; difference {effect}"
    else:
        text = f"slope of log {rule.metric} against log {x}: {effect}"
    first, last = rule.slope or (None, None)
    low, high = -math.inf if first is None else first, math.inf if last is None else last
    return Finding(
        _placed(effect, low, high),
        n,
        f"{text}, {_seeds(n)}; claimed: {_range(low, high)}",
        effect.mean,
        effect.low,
        effect.high,
    )


def _regression(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """The least-squares slope of log y against log x, and its standard error (infinite with two points)."""
    from scipy import stats

    fit = stats.linregress(np.log(xs), np.log(ys))
    return float(fit.slope), float(fit.stderr) if len(xs) > 2 else math.inf


def _slope_interval(claim: Claim, slopes: dict[str, list[tuple[float, float]]], points: int) -> Interval:
    """The interval of the slopes over seeds; with one seed, that of its regression.

    With a series to compare with, of the difference of the slopes seed by seed.
    """
    sign = {"series": 1.0, "against": -1.0}
    by_seed = zip(*slopes.values(), strict=True)
    effects = [
        sum(sign[side] * slope for side, (slope, _) in zip(slopes, fits, strict=True)) for fits in by_seed
    ]
    if len(effects) > 1 or claim.deterministic:
        return mean_interval(effects, claim.deterministic)
    error = math.hypot(*(fits[0][1] for fits in slopes.values()))
    freedom = len(slopes) * (points - 2)
    from scipy import stats

    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error if freedom else math.inf
    return Interval(effects[0], effects[0] - half, effects[0] + half)


def _placed(effect: Interval, low: float, high: float) -> State:
    """Where an interval lies with regard to a range."""
    if effect.low >= low and effect.high <= high:
        return "supported"
    return "refuted" if effect.high < low or effect.low > high else "inconclusive"


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {number(high)}"
    return f"at least {number(low)}" if math.isinf(high) else f"{number(low)} to {number(high)}"


def _monotone(
    claim: Claim, rule: Trend, measured: list[Measured], way: Literal["falling", "rising"]
) -> Finding:
    n, sign = len(claim.seeds), 1.0 if way == "rising" else -1.0
    ys = np.array([_series(measured, rule.metric, "series", seed)[1] for seed in claim.seeds])
    steps = [mean_interval((sign * step).tolist(), claim.deterministic) for step in np.diff(ys).T]
    worst = min(range(len(steps)), key=lambda i: _surety(steps[i]))
    state: State = "inconclusive"
    if any(step.high < 0 for step in steps):
        state = "refuted"
    elif all(step.low > 0 for step in steps):
        state = "supported"
    xs = [number(point.x) for point in rule.series]
    step = steps[worst]
    word, shown = (ONWARD[way], step) if step.mean >= 0 else (OPPOSITE[way], -step)
    onward = sum(step.mean > 0 for step in steps)
    text = f"{rule.metric}: {ONWARD[way]} in {onward} of {len(steps)} steps of {rule.axis}; "
    text += f"least surely from {xs[worst]} to {xs[worst + 1]}: {word} by {shown}, {_seeds(n)}"
    return Finding(state, n, text, step.mean, step.low, step.high)


def _surety(step: Interval) -> float:
    """How far a step is from going the other way: its mean in half-widths of its interval."""
    half = step.high - step.mean
    return math.copysign(math.inf, step.mean) if half == 0 and step.mean else step.mean / (half or 1.0)


def _bound(rule: Bound, measured: list[Measured]) -> Finding:
    most = rule.at_most is not None
    limit = rule.at_most if most else rule.at_least
    excesses = [
        (value - bound if most else bound - value, one)
        for one, value, bound in _both_values(measured, rule.metric, limit)
    ]
    what = f"{rule.metric} {'<=' if most else '>='} {named(limit)}"
    state, text = _everywhere(what, excesses, len(measured), 0.0)
    if not excesses:
        return Finding(state, len(measured), text)
    (worst, where), (best, _) = max(excesses, key=_score), min(excesses, key=_score)
    text += f", {'worst by' if worst > 0 else 'least margin'} {number(abs(worst))} ({where.place})"
    return Finding(state, len(measured), text, -worst, -worst, -best)


def _identity(rule: Identity, measured: list[Measured]) -> Finding:
    gaps = [
        (abs(value - other), one) for one, value, other in _both_values(measured, rule.metric, rule.equals)
    ]
    what = f"{rule.metric} = {named(rule.equals)}"
    state, text = _everywhere(what, gaps, len(measured), rule.tolerance)
    if not gaps:
        return Finding(state, len(measured), text)
    (worst, where), (best, _) = max(gaps, key=_score), min(gaps, key=_score)
    text += f", worst difference {number(worst)} (tolerance {number(rule.tolerance)}; {where.place})"
    return Finding(state, len(measured), text, worst, best, worst)


def _both_values(
    measured: list[Measured], metric: str, other: float | str | None
) -> list[tuple[Measured, float, float]]:
    """Each run with its metric and what that is held against, a number or another metric, if it has both."""
    rows = [(m, m.value(metric), m.value(other) if isinstance(other, str) else other) for m in measured]
    return [(one, value, target) for one, value, target in rows if value is not None and target is not None]


def _everywhere(what: str, scores: list[tuple[float, Measured]], n: int, limit: float) -> tuple[State, str]:
    """Whether no score is above the limit, and none of the n runs lacks one."""
    broken = sum(score > limit for score, _ in scores)
    if broken:
        return "refuted", f"{what} is broken in {_runs(broken, n)}"
    if len(scores) < n:
        return "inconclusive", f"{what} has no value in {_runs(n - len(scores), n)}"
    return "supported", f"{what} holds in " + ("the only run" if n == 1 else f"all {n} runs")


def _runs(count: int, n: int) -> str:
    """So many of n runs, in words."""
    return "the only run" if n == 1 else f"{count} of {n} runs"


def _score(item: tuple[float, Measured]) -> float:
    return item[0]


def _points(claim: Claim, measured: list[Measured]) -> list[tuple[str, float, float]]:
    points = []
    for one in measured:
        value = one.value(claim.rule.metric)
        if value is not None:
            x = float(one.run.seed) if one.run.x is None else one.run.x
            points.append((claim.label(one.run.side), x, value))
    return points


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
