"""Every rule against scipy or numpy, and by made runs whose verdict is known."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.claims.claims import Claim, Run, parse_claim
from common.claims.judge import Interval, Verdict, judge, mean_interval
from common.runs.evidence import Evidence, asked

COMMON = {"says": "so", "source": {"kind": "ours", "where": "here"}, "runs": ["paper=yogi"]}
PAIRED = {"metric": "loss", "a": ["method=a"], "b": ["method=b"], "better": "lower"}
TREND = {"metric": "loss", "over": "paper.n", "values": [1, 4, 16, 64]}


def claim(seeds: int = 3, deterministic: bool = False, **rule: Any) -> Claim:
    text = {**COMMON, "seeds": list(range(seeds)), "deterministic": deterministic, **rule}
    return parse_claim("yogi", "name", text, "file")


def result(run: Run, metrics: dict[str, Any], scale: str = "smoke") -> dict[str, Any]:
    made = {"overrides": list(run.words), "asked": [list(asked(run.words))], "entries": [], "seed": run.seed}
    made |= {"paper": "yogi", "choices": {}, "scale": scale, "code": "older"}
    made |= {"config": {}, "finished": ""}
    return {**made, "metrics": metrics}


def verdict(what: Claim, metrics: Callable[[Run], dict[str, Any] | None]) -> Verdict:
    """The verdict when each run of a claim measures so much; None: it is not there."""
    found = {str(i): (run, metrics(run)) for i, run in enumerate(what.all_runs())}
    there = {key: result(run, made) for key, (run, made) in found.items() if made is not None}
    return judge(what, Evidence.of(there))


def paired(a: list[float], b: list[float], deterministic: bool = False, **changes: Any) -> Verdict:
    what = claim(len(a), deterministic, paired={**PAIRED, **changes})
    return verdict(what, lambda run: {"loss": (a if run.side == "a" else b)[run.seed]})


def trend(
    metric: Callable[[float, int], float | None],
    seeds: int = 3,
    other: Callable[[float, int], float] | None = None,
    deterministic: bool = False,
    **changes: Any,
) -> Verdict:
    def of_run(run: Run) -> dict[str, Any]:
        assert run.x is not None
        function = other if run.side == "against" and other is not None else metric
        return {"loss": function(run.x, run.seed)}

    return verdict(claim(seeds, deterministic, trend={**TREND, **changes}), of_run)


# ---- paired


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_pair_has_the_t_interval_of_scipy(better: str) -> None:
    a, b = [1.0, 1.3, 0.9, 1.2], [2.0, 2.1, 1.7, 2.6]
    found = paired(a, b, better=better)
    reference = stats.ttest_rel(b, a) if better == "lower" else stats.ttest_rel(a, b)
    interval = reference.confidence_interval(0.95)
    sign = 1 if better == "lower" else -1
    assert found.effect == pytest.approx(sign * np.mean(np.subtract(b, a)))
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.state == ("supported" if better == "lower" else "refuted")
    assert found.n == 4


@pytest.mark.parametrize(
    ("a", "b", "changes", "state"),
    [
        ([1, 1.1, 0.9], [2, 2.1, 2.0], {}, "supported"),
        ([2, 2.1, 2.0], [1, 1.1, 0.9], {}, "refuted"),
        ([1, 2, 3], [1.5, 1.5, 3.5], {}, "inconclusive"),
        ([1, 1.1, 0.9], [2, 2.1, 2.0], {"least": 2.0}, "refuted"),
        ([1, 1.1, 0.9], [2, 2.1, 2.0], {"least": 0.4, "relative": True}, "supported"),
        ([1, 1.1, 0.9], [2, 2.1, 2.0], {"least": 0.5, "relative": True}, "inconclusive"),
        ([1, 1.1, 0.9], [2, 2.1, 2.0], {"better": "higher"}, "refuted"),
        ([1, 1, 1], [2, 2, 2], {}, "supported"),
        ([1, 1, 1], [1, 1, 1], {}, "inconclusive"),
    ],
)
def test_a_pair_of_known_verdict(a: list[float], b: list[float], changes: dict[str, Any], state: str) -> None:
    assert paired(a, b, **changes).state == state


def test_differences_that_are_all_equal_are_their_own_interval() -> None:
    found = paired([1.0, 2.0, 4.0], [2.0, 3.0, 5.0])
    assert (found.low, found.effect, found.high) == (1.0, 1.0, 1.0)


def test_one_seed_of_a_pair_decides_nothing_unless_the_result_is_deterministic() -> None:
    found = paired([1.0], [2.0])
    assert (found.state, found.effect, found.low, found.high) == ("inconclusive", 1.0, None, None)
    assert "1 seed" in found.text
    assert paired([1.0], [2.0], deterministic=True).state == "supported"
    assert paired([2.0], [1.0], deterministic=True).state == "refuted"


def test_a_relative_effect_is_a_fraction_of_b_seed_by_seed() -> None:
    found = paired([1.0, 2.0], [2.0, 4.0], relative=True)
    assert found.effect == pytest.approx(0.5)
    assert "lower by 50 %" in found.text
    assert paired([1.0, 2.0], [0.0, 0.0], relative=True).state == "inconclusive"


def test_a_relative_effect_of_equal_ratios_is_as_sure_as_they_are() -> None:
    found = paired([1.0, 10.0, 100.0], [10.0, 100.0, 1000.0], relative=True, least=0.5)
    assert (found.low, found.effect, found.high) == pytest.approx((0.9, 0.9, 0.9))
    assert found.state == "supported"


@pytest.mark.parametrize("than", ["other", 1.0])
def test_a_metric_may_be_paired_with_another_of_its_run_or_with_a_number(than: str | float) -> None:
    losses = [0.5, 0.75, 1.0625]
    what = claim(3, False, paired={"metric": "loss", "than": than, "better": "lower"})
    found = verdict(what, lambda run: {"loss": losses[run.seed], "other": 1.0})
    interval = stats.ttest_1samp(np.subtract(1.0, losses), 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.state, found.n, len(what.all_runs())) == ("inconclusive", 3, 3)
    against = "1 (other)" if than == "other" else "1"
    assert found.text.startswith(f"loss 0.77083 against {against}: lower by 0.229")


def test_a_metric_paired_with_one_that_has_no_value_decides_nothing() -> None:
    what = claim(2, False, paired={"metric": "loss", "than": "other", "better": "lower"})
    found = verdict(what, lambda run: {"loss": 0.5, "other": None if run.seed else 1.0})
    assert found.state == "inconclusive"
    assert "other has no value in every run" in found.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "claimed: lower"),
        ({"least": 0.02, "relative": True}, "claimed: lower by more than 2 %"),
        ({"least": -0.5}, "claimed: not higher by 0.5 or more"),
        ({"least": -0.5, "better": "higher"}, "claimed: not lower by 0.5 or more"),
    ],
)
def test_a_verdict_says_what_was_claimed(changes: dict[str, Any], said: str) -> None:
    assert paired([1.0, 2.0], [2.0, 4.0], **changes).text.endswith(f"; {said}")


def test_an_end_that_is_not_0_is_not_written_as_0() -> None:
    # the verdict rests on which side of 0 it lies
    assert str(Interval(0.821, 0.0023, 1.64)) == "0.821 [0.002, 1.640]"
    assert str(Interval(-0.821, -1.64, -0.0023)) == "-0.821 [-1.640, -0.002]"
    assert str(Interval(0.82, 0.0, 1.64)) == "0.820 [0.00, 1.64]"


FINITE = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=6))
def test_swapping_a_and_b_turns_supported_into_refuted(pairs: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    swapped = {"supported": "refuted", "refuted": "supported", "inconclusive": "inconclusive"}
    assert paired(b, a).state == swapped[paired(a, b).state]


@given(st.lists(FINITE, min_size=2, max_size=8))
def test_the_interval_of_a_mean_is_scipys(values: list[float]) -> None:
    found = mean_interval(values)
    if min(values) == max(values):
        assert (found.low, found.high) == (values[0], values[0])
    else:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


# ---- trends


def noisy(slope: float, spread: float) -> Callable[[float, int], float]:
    return lambda x, seed: 3.0 * x ** (slope + spread * (seed - 1))


@pytest.mark.parametrize(
    ("slope", "spread", "claimed", "state"),
    [
        (-0.8, 0.01, [-1.2, -0.4], "supported"),
        (-0.8, 0.01, [None, -0.4], "supported"),
        (-0.8, 0.01, [-0.5, None], "refuted"),
        (-1.5, 0.01, [-1.2, -0.4], "refuted"),
        (0.8, 0.01, [-1.2, -0.4], "refuted"),
        (-0.8, 0.5, [-1.2, -0.4], "inconclusive"),
        (-0.4, 0.01, [-1.2, -0.4], "inconclusive"),
    ],
)
def test_a_slope_of_known_verdict(slope: float, spread: float, claimed: list[float], state: str) -> None:
    found = trend(noisy(slope, spread), slope=claimed)
    assert found.state == state
    assert found.effect == pytest.approx(slope)


def test_slopes_are_those_of_polyfit_and_their_interval_that_over_seeds() -> None:
    rng = np.random.default_rng(0)
    values = {(x, seed): float(rng.uniform(1, 9)) for x in (1, 4, 16, 64) for seed in range(4)}
    found = trend(lambda x, seed: values[int(x), seed], seeds=4, slope=[-9, 9])
    logs = np.log([1, 4, 16, 64])
    slopes = [
        np.polyfit(logs, [math.log(values[x, seed]) for x in (1, 4, 16, 64)], 1)[0] for seed in range(4)
    ]
    low, high = stats.t.interval(0.95, 3, np.mean(slopes), stats.sem(slopes))
    assert (found.effect, found.low, found.high) == pytest.approx((np.mean(slopes), low, high))


def test_with_one_seed_a_slope_has_the_interval_of_its_regression() -> None:
    ys = {1: 9.0, 4: 4.0, 16: 3.0, 64: 1.0}
    found = trend(lambda x, seed: ys[int(x)], seeds=1, slope=[-9, 9])
    fit = stats.linregress(np.log(list(ys)), np.log(list(ys.values())))
    half = stats.t.ppf(0.975, 2) * fit.stderr
    interval = (fit.slope - half, fit.slope + half)
    assert (found.effect, found.low, found.high) == pytest.approx((fit.slope, *interval))


def test_two_points_of_one_seed_bound_no_slope_unless_the_result_is_deterministic() -> None:
    def falling(x: float, seed: int) -> float:
        return 1 / x

    found = trend(falling, seeds=1, values=[1, 4], slope=[-1.2, -0.4])
    assert (found.state, found.low) == ("inconclusive", None)
    certain = trend(falling, seeds=1, values=[1, 4], slope=[-1.2, -0.4], deterministic=True)
    assert certain.state == "supported"


def test_a_slope_against_another_series_is_the_difference_seed_by_seed() -> None:
    options: dict[str, Any] = {"slope": [None, -0.1], "against": ["method=b"]}
    found = trend(noisy(0.5, 0.1), other=noisy(1.0, 0.1), **options)
    assert (found.state, found.effect) == ("supported", pytest.approx(-0.5))
    assert found.low == pytest.approx(-0.5)
    assert trend(noisy(1.0, 0.01), other=noisy(0.5, 0.02), **options).state == "refuted"
    assert {series for series, _, _ in found.points} == {"loss", "b"}


def test_a_slope_of_values_that_are_not_positive_is_inconclusive_and_says_so() -> None:
    found = trend(lambda x, seed: x - 4, slope=[0, 1])
    assert found.state == "inconclusive"
    assert "not always > 0" in found.text


@pytest.mark.parametrize(
    ("steps", "spread", "state"),
    [
        ([8, 4, 2, 1], 0.01, "supported"),
        ([8, 4, 5, 1], 0.01, "refuted"),
        ([8, 4, 4.01, 1], 0.5, "inconclusive"),
        ([8, 4, 4, 1], 0.0, "inconclusive"),
        ([8, 4, 2, 1], 3.0, "inconclusive"),
    ],
)
def test_a_monotone_series_of_known_verdict(steps: list[float], spread: float, state: str) -> None:
    at = dict(zip([1, 4, 16, 64], steps, strict=True))

    def metric(x: float, seed: int) -> float:
        return at[int(x)] + spread * (seed - 1) * (1 if x in (1, 16) else -1)

    assert trend(metric, monotone="falling").state == state
    assert trend(lambda x, seed: -metric(x, seed), monotone="rising").state == state


def test_a_monotone_verdict_names_its_least_sure_step() -> None:
    at = {1: 8.0, 4: 4.0, 16: 5.0, 64: 1.0}
    found = trend(lambda x, seed: at[int(x)] + 0.01 * seed * x, monotone="falling")
    assert "least surely from 4 to 16: rises by 1.120 [0.82, 1.42], 3 seeds" in found.text
    assert found.effect == pytest.approx(-1.12)


def test_one_seed_shows_no_monotone_series_unless_the_result_is_deterministic() -> None:
    assert trend(lambda x, seed: 1 / x, seeds=1, monotone="falling").state == "inconclusive"
    assert trend(lambda x, seed: 1 / x, seeds=1, monotone="falling", deterministic=True).state == "supported"
    assert trend(lambda x, seed: x, seeds=1, monotone="falling", deterministic=True).state == "refuted"


# ---- bounds and identities


@pytest.mark.parametrize(
    ("rule", "state", "effect"),
    [
        ({"at_most": 3}, "supported", 1.0),
        ({"at_most": 2}, "supported", 0.0),
        ({"at_most": 1.5}, "refuted", -0.5),
        ({"at_least": 0}, "supported", 0.0),
        ({"at_least": 1}, "refuted", -1.0),
        ({"at_most": "cap"}, "supported", 0.5),
        ({"at_least": "cap"}, "refuted", -0.5),
    ],
)
def test_a_bound_has_the_worst_margin_of_all_runs(rule: dict[str, Any], state: str, effect: float) -> None:
    what = claim(3, bound={"metric": "x", **rule})
    found = verdict(what, lambda run: {"x": run.seed, "cap": run.seed + 0.5})
    assert (found.state, found.n) == (state, 3)
    assert found.effect == found.low == pytest.approx(effect)


@pytest.mark.parametrize(
    ("equals", "tolerance", "state", "effect"),
    [
        ("y", 1e-6, "supported", 0),
        ("z", 1e-6, "refuted", 2e-6),
        ("z", 1e-5, "supported", 2e-6),
        (1, 1, "supported", 1),
    ],
)
def test_an_identity_has_the_worst_difference_of_all_runs(
    equals: float | str, tolerance: float, state: str, effect: float
) -> None:
    what = claim(3, identity={"metric": "x", "equals": equals, "tolerance": tolerance})
    found = verdict(what, lambda run: {"x": run.seed, "y": run.seed, "z": run.seed + 1e-6 * run.seed})
    assert found.state == state
    assert found.effect == pytest.approx(effect)


def test_true_and_false_count_as_one_and_zero() -> None:
    what = claim(2, identity={"metric": "holds", "equals": 1, "tolerance": 0})
    assert verdict(what, lambda run: {"holds": True}).state == "supported"
    assert verdict(what, lambda run: {"holds": run.seed == 0}).state == "refuted"


# ---- what is missing

RULES = [
    {"paired": PAIRED},
    {"trend": {**TREND, "slope": [-1, 1]}},
    {"trend": {**TREND, "monotone": "falling"}},
    {"bound": {"metric": "loss", "at_most": 1}},
    {"identity": {"metric": "loss", "equals": 1, "tolerance": 1}},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: next(iter(rule)))
def test_no_verdict_comes_from_fewer_runs_than_the_claim_names(rule: dict[str, Any]) -> None:
    what = claim(2, **rule)
    total = len(what.all_runs())
    for lost in what.all_runs():
        found = verdict(what, lambda run, lost=lost: None if run == lost else {"loss": 0.5})
        assert (found.state, found.n, found.effect) == ("not run", total - 1, None)
        assert found.text.startswith(f"not run: 1 of {total} runs missing ({' '.join(lost.words)})")
        assert len(found.points) == total - 1


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: next(iter(rule)))
@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
def test_a_run_that_came_to_no_number_is_inconclusive_and_said(rule: dict[str, Any], nothing: object) -> None:
    what = claim(2, **rule)
    last = what.all_runs()[-1]
    found = verdict(what, lambda run: {"loss": nothing if run == last else 0.5})
    assert found.state == "inconclusive"
    assert "no value in 1 of" in found.text
    assert len(found.points) == len(what.all_runs()) - 1


def test_a_trend_says_at_which_point_a_value_is_missing() -> None:
    found = trend(lambda x, seed: None if (x, seed) == (16, 1) else 1 / x, slope=[-2, 0])
    assert "(x=16, seed 1)" in found.text


def test_a_broken_bound_is_refuted_even_where_another_run_has_no_value() -> None:
    what = claim(2, bound={"metric": "x", "at_most": 1})
    assert verdict(what, lambda run: {"x": 2.0 if run.seed else None}).state == "refuted"


def test_a_misspelt_metric_is_named_with_the_nearest() -> None:
    what = claim(2, bound={"metric": "los", "at_most": "cap"})
    found = verdict(what, lambda run: {"loss": 1.0, "cap": 2.0, "hits": [1, 2]})
    assert found.state == "inconclusive"
    assert "no number named los in the run seed 0; did you mean loss? (valid: loss, cap)" in found.text


def test_points_stale_runs_and_scales_come_with_the_verdict() -> None:
    what = claim(2, paired=PAIRED)
    runs = what.all_runs()
    results = {
        str(i): result(run, {"loss": float(i)}, scale="laptop" if run.side == "a" else "paper")
        for i, run in enumerate(runs)
    }
    found = judge(what, Evidence.of(results))
    assert found.points == [("a", 0.0, 0.0), ("b", 0.0, 1.0), ("a", 1.0, 2.0), ("b", 1.0, 3.0)]
    assert found.stale == 4
    assert found.scale == {"laptop", "paper"}
