"""The small plots of claims: a dot for every run, and what it is held against."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.claims.claims import Bound, Claim, Identity
from common.claims.judge import Verdict
from common.report import claim_plots
from common.report.claim_plots import ClaimPlot, claim_plot
from common.report.model import Report


def of_claim(report: Report, name: str) -> tuple[Claim, Verdict]:
    return next((c, v) for c, v in report.paper("yogi").claims if c.name == f"yogi.{name}")


def plot_of(report: Report, rule: Bound | Identity, values: list[float]) -> ClaimPlot:
    claim, verdict = of_claim(report, "loss_is_small")
    points = [("yogi", float(seed), value) for seed, value in enumerate(values)]
    kind = "bound" if isinstance(rule, Bound) else "identity"
    plot = claim_plot(replace(claim, kind=kind, rule=rule), replace(verdict, points=points))
    assert plot is not None
    return plot


def test_the_plot_of_a_pair_has_a_dot_for_each_run(report: Report) -> None:
    plot = claim_plot(*of_claim(report, "yogi_is_better"))
    assert plot is not None
    assert len(plot.dots) == 6 and plot.labels == ["yogi", "adam"]
    yogi, adam = ([dot.x for dot in plot.dots if dot.series == i] for i in (0, 1))
    assert max(yogi) < min(adam)
    assert plot.caption == "loss, one dot a run"
    assert claim_plot(*of_claim(report, "nobody_ran_this")) is None


def test_the_plot_of_a_bound_shows_the_bound_and_says_so(report: Report) -> None:
    plot = claim_plot(*of_claim(report, "loss_is_small"))
    assert plot is not None
    assert len(plot.rules) == 1 and all(dot.x < plot.rules[0] for dot in plot.dots)
    assert plot.caption.endswith("; dashed: the bound, at most 2")


def test_the_plot_of_an_equality_marks_what_it_is_to(report: Report) -> None:
    plot = plot_of(report, Identity(metric="loss", equals=35.0, tolerance=3.0), [34.0, 36.0])
    assert len(plot.rules) == 1 and plot.dots[0].x < plot.rules[0] < plot.dots[1].x
    assert plot.caption.endswith("; dashed: the claimed value, 35 to within 3")


def test_a_limit_that_each_run_has_for_itself_is_said_and_not_drawn(report: Report) -> None:
    plot = plot_of(report, Bound(metric="loss", at_least="floor"), [1.0, 2.0])
    assert plot.rules == [] and plot.caption.endswith(
        "; not drawn: the bound, at least floor of the same run"
    )


def test_title_and_unit_of_a_metric_are_those_of_the_papers_tables(report: Report) -> None:
    plot = plot_of(report, Bound(metric="train_squared_error", at_most=9.0), [1.0])
    assert plot.caption.startswith("training loss (squared error), one dot a run")


def test_runs_of_one_value_stand_above_each_other(report: Report) -> None:
    plot = plot_of(report, Bound(metric="loss", at_most=9.0), [2.0, 2.0, 2.0, 5.0])
    assert len({(dot.x, dot.y) for dot in plot.dots}) == 4
    assert len({dot.y for dot in plot.dots if dot.x == plot.dots[0].x}) == 3


def test_dots_of_a_trend_that_coincide_stand_beside_each_other_within_the_picture(report: Report) -> None:
    claim, verdict = of_claim(report, "nobody_ran_this")
    points = [("series", x, y) for x in (1.0, 10.0) for y in (2.0, 2.0, 2.0, 5.0)]
    plot = claim_plot(claim, replace(verdict, points=points))
    assert plot is not None and len({(dot.x, dot.y) for dot in plot.dots}) == 8
    assert len({dot.y for dot in plot.dots}) == 2
    assert all(62 <= dot.x <= claim_plots.RIGHT for dot in plot.dots)
    assert [text for _, text, _ in plot.ticks] == ["1", "10"]


@given(st.lists(st.floats(0, 300), max_size=8))
def test_no_dot_of_a_row_lies_on_another_or_leaves_its_row(xs: list[float]) -> None:
    found = claim_plots._spread(xs)
    assert sorted(x for x, _ in found) == sorted(xs)
    assert all(abs(aside) <= claim_plots.WITHIN / 2 + 1e-9 for _, aside in found)
    for (x, aside), (other, beside) in combinations(found, 2):
        assert math.hypot(x - other, aside - beside) > 0.4


@pytest.mark.parametrize("log", [True, False])
def test_a_slope_of_logarithms_is_drawn_as_a_straight_line(log: bool) -> None:
    place = claim_plots.scale_of([1.0, 10.0, 100.0], 0.0, 200.0, log)
    assert math.isclose(place(10.0), 100.0) is log
