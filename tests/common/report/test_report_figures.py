"""Figures as SVG, and the small plots of claims."""

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.report import figures
from common.report.figures import (
    Line,
    claim_plot,
    draw,
    linear_ticks,
    log_ticks,
    own_pictures,
    table_figures,
)
from common.report.model import Report, Source, Table

LINES = [
    Line("a < b & c", [[(1.0, 1.0), (10.0, 100.0)]], [(1.0, 0.5, 1.5)], [(1.0, 2.0)], unverified=True),
    Line("other", [[(1.0, 3.0), (10.0, 5.0)]], [], [], unverified=False),
]


def table(report: Report, name: str) -> Table:
    return next(one for one in report.paper("yogi").tables if one.id == name)


def test_a_panel_is_wellformed_and_any_program_knows_its_colours() -> None:
    svg = draw(LINES, "title", ("x", "y"), log_x=True)
    root = ElementTree.fromstring(svg)
    assert "var(" not in svg
    assert float(root.attrib["width"]) > 0 and float(root.attrib["height"]) > 0
    drawn = set(re.findall(r"(?:fill|stroke): (#\w{6})", svg))
    assert {figures.INK, figures.GRID, figures.FRAME, *figures.LIGHT[:2]} <= drawn <= set(figures.MODES)
    for light in drawn:
        assert f'[style*="stroke: {light}"]{{stroke:{figures.MODES[light]}!important}}' in svg


def test_series_differ_by_more_than_colour() -> None:
    svg = draw(LINES, "title", ("x", "y"), log_x=False)
    looks = [part for part in re.findall(r'<path[^>]*style="([^"]*)"', svg) if "fill: none" in part]
    first, second = (
        next(part for part in looks if f"stroke: {figures.LIGHT[i]}" in part and "stroke-width" in part)
        for i in (0, 1)
    )
    assert "stroke-dasharray" not in first and "stroke-dasharray" in second
    widths = [float(re.findall(r"stroke-width: ([\d.]+)", part)[0]) for part in (first, second)]
    assert widths[0] > widths[1]


@given(st.integers(13, 500), st.integers(1, 8))
def test_curves_on_each_other_have_their_markers_at_different_places(points: int, count: int) -> None:
    places = [figures.marks_of(points, index, count) for index in range(count)]
    assert all(place and place[0] >= 0 and place[-1] < points for place in places)
    if points >= 5 * count:
        assert len({mark for place in places for mark in place}) == sum(map(len, places))


def test_reported_values_are_drawn_and_marked_unverified() -> None:
    assert "reported (recalled, unverified)" in draw(LINES, "title", ("x", "y"), log_x=False)
    assert "reported" not in draw(LINES[1:], "title", ("x", "y"), log_x=False)


def test_the_axes_reach_as_far_as_the_intervals() -> None:
    line = Line("a", [[(1.0, 5.0), (2.0, 6.0)]], [(1.0, -190.0, 200.0)], [], unverified=False)
    labels = re.findall(r">(-?[\d.]+)</text>", draw([line], "title", ("x", "y"), log_x=False))
    assert {"-100", "200"} <= set(labels)


def test_a_paper_whose_code_is_not_imported_has_no_pictures_of_its_own(report: Report) -> None:
    assert list(own_pictures(replace(table(report, "fig_batch"), paper="of_the_current_folder"))) == []


def test_a_table_without_an_axis_shows_its_metric_row_by_row_beside_what_is_reported(report: Report) -> None:
    original = table(report, "table_ae")
    metric = next(iter(original.metrics))
    rows = [replace(row, reported=row.reported | {metric: 4.5}) for row in original.rows]
    (drawn,) = (
        figure
        for figure in table_figures(replace(original, rows=rows))
        if figure.kind == "rows" and figure.scale == "laptop"
    )
    ElementTree.fromstring(drawn.svg)
    assert (
        "reported" in drawn.svg
        and figures.with_unit(metric, original.metrics[metric].get("unit")) in drawn.svg
    )
    assert drawn.alt.count("reported 4.5") == sum("laptop" in row.measured for row in original.rows)


def test_a_loss_is_drawn_where_all_minimise_the_same_and_an_error_wherever_it_is(report: Report) -> None:
    runs = [
        {"choices": {"dataset": "digits", "method": method}}
        for method in ("optimizer/adam", "optimizer/yogi", "distillation/kd")
    ]
    assert figures.comparable("running_loss", runs[:2]) and not figures.comparable("running_loss", runs)
    assert figures.comparable("validation_error", runs)
    other = {"choices": {"dataset": "mnist", "method": "optimizer/adam"}}
    assert not figures.comparable("loss", [runs[0], other])


def test_a_metric_that_is_final_shows_the_curve_that_ends_with_it(report: Report) -> None:
    first = next(row for row in table(report, "table_ae").rows if row.runs)
    history = {"step": [1.0, 2.0], "f": [0.0, -0.25], "loss": [1.0, 2.0]}
    runs = {scale: [run | {"history": history} for run in found] for scale, found in first.runs.items()}
    row = replace(first, runs=runs)
    one = replace(
        table(report, "table_ae"),
        rows=[row],
        results={"f_final": "f_final"},
        metrics={"f_final": {"unit": "J"}},
    )
    drawn = [figure for figure in table_figures(one) if figure.kind == "curves"]
    assert drawn and all(
        figure.title.startswith("f while running") and "f (J)" in figure.svg for figure in drawn
    )


def test_a_table_with_a_numeric_axis_gives_its_metrics_against_it(report: Report) -> None:
    drawn = list(table_figures(table(report, "fig_batch")))
    kinds = [(figure.kind, figure.scale) for figure in drawn]
    assert kinds == [("axis", "laptop"), ("axis", "laptop"), ("curves", "laptop")]
    assert "dataset.batch_size" in drawn[0].svg and "(laptop scale)" in drawn[0].svg
    assert "at 2048" in drawn[0].alt


def test_two_metrics_of_a_plane_stand_against_each_other_in_a_curve_for_each_series(report: Report) -> None:
    crossed = replace(table(report, "fig_batch"), plane=("grad_norm_sq", "train_loss"))
    (drawn,) = (figure for figure in table_figures(crossed) if figure.kind == "plane")
    assert drawn.title == "train_loss against grad_norm_sq" and ">grad_norm_sq<" in drawn.svg
    assert "adam_default" in drawn.alt and "yogi" in drawn.alt
    assert "Reported" not in drawn.alt
    told = {"grad_norm_sq": 0.5, "train_loss": 4.0}
    rows = [replace(row, reported=row.reported | told) for row in crossed.rows]
    (drawn,) = (one for one in table_figures(replace(crossed, rows=rows)) if one.kind == "plane")
    assert "reported" in drawn.svg and "Reported: 4." in drawn.alt


def test_reported_values_of_a_table_stand_in_its_figure(report: Report) -> None:
    original = table(report, "fig_batch")
    rows = [
        replace(row, reported=row.reported | {"train_loss": 4.0}, source=Source("paper_text", "Figure 2"))
        for row in original.rows
    ]
    first = next(iter(table_figures(replace(original, rows=rows))))
    assert "reported" in first.svg and "Reported: 4." in first.alt


def test_a_metric_at_a_step_shows_its_curve_with_the_reported_points(report: Report) -> None:
    original = table(report, "table_ae")
    history = {"step": [1.0, 2.0, 3.0], "gain": [5.0, 6.0, 7.0], "loss": [3.0, 2.0, 1.0]}
    first = next(row for row in original.rows if row.runs)
    runs = {scale: [run | {"history": history} for run in found] for scale, found in first.runs.items()}
    row = replace(
        first, runs=runs, reported={"at_2": 6.5, "at_9": 9.0}, source=Source("paper_text", "Figure 3")
    )
    results = {"at_2": "gain_at_2", "at_9": "gain_at_9"}
    one = replace(original, rows=[row], results=results, metrics={key: {} for key in results})
    drawn = [figure for figure in table_figures(one) if figure.kind == "curves"]
    assert drawn and all("gain while running" in figure.title for figure in drawn)
    # a point beyond the curve's end would stretch the picture
    assert all("7 at 3" in figure.alt and "Reported: 6.5." in figure.alt for figure in drawn)


def test_the_scales_of_a_table_are_drawn_apart(report: Report) -> None:
    drawn = list(table_figures(table(report, "table_ae")))
    kinds = {(figure.scale, figure.kind) for figure in drawn}
    assert kinds == {("paper", "curves"), ("laptop", "curves"), ("laptop", "rows")}
    assert len({figure.name for figure in drawn}) == len(drawn)


def test_no_panel_holds_more_series_than_there_are_colours(report: Report) -> None:
    known = table(report, "table_ae").rows
    rows = [replace(row, name=f"{row.name}{i}", point={}) for row in known for i in range(3)]
    for axes in ([], ["data"]):
        for _, panel in figures._panels(rows, axes):
            assert 0 < len(panel) <= figures.PANEL_SERIES
    drawn = [row.name for _, panel in figures._panels(rows, []) for row in panel]
    assert sorted(drawn) == sorted(row.name for row in rows)


def test_panels_are_split_by_the_axes_that_make_fewest_of_them(report: Report) -> None:
    rows = next(one for one in report.paper("spider").tables if one.id == "ifo").rows
    panels = list(figures._panels(rows, ["data", "method", "eps"]))
    assert [len(panel) for _, panel in panels] == [8] * 15
    assert all(set(place) == {"data", "eps"} for place, _ in panels)


def test_a_curve_is_the_mean_of_seeds_measured_at_the_same_places() -> None:
    assert figures._mean_curve([[(1, 2.0), (2, 4.0)], [(1, 4.0), (2, 8.0)]]) == [[(1, 3.0), (2, 6.0)]]
    apart = [[(1, 2.0)], [(3, 4.0)]]
    assert figures._mean_curve(apart) == apart


def test_a_search_of_several_seeds_has_the_interval_of_their_mean(report: Report) -> None:
    row = table(report, "table_ae").rows[0]
    histories = [{"step": [1.0, 2.0], "best": [value, 2 * value]} for value in (1.0, 2.0, 3.0)]
    metrics = {"evaluations": 2}
    searches: Any = [{"history": history, "metrics": metrics} for history in histories]
    half = 4.302653 / 3**0.5
    wanted = [(1.0, 2 - half, 2 + half), (2.0, 4 - 2 * half, 4 + 2 * half)]
    assert list(figures._band_of(replace(row, runs={"laptop": searches}), "laptop", "best")) == [
        pytest.approx(point, rel=1e-6) for point in wanted
    ]
    # of two seeds it says nothing; trainings have curves enough without
    for runs in (searches[:2], [{"history": history, "metrics": {}} for history in histories]):
        assert list(figures._band_of(replace(row, runs={"laptop": runs}), "laptop", "best")) == []


def test_the_interval_of_a_batch_of_replicates_is_a_band_of_the_series_colour() -> None:
    history = {
        "step": [1.0, 2.0],
        "regret": [3.0, 2.0],
        "regret_low": [2.5, 1.5],
        "regret_high": [3.5, 2.5],
    }
    band = tuple(figures._band(history, "regret"))
    assert band == ((1.0, 2.5, 3.5), (2.0, 1.5, 2.5))
    assert list(figures._band({"step": [1.0], "regret": [3.0]}, "regret")) == []
    line = Line("a", [[(1.0, 3.0), (2.0, 2.0)]], [], [], unverified=False, band=band)
    svg = draw([line], "title", ("evaluations", "regret"), log_x=False)
    assert re.search(r'style="fill: #0b63c4; fill-opacity: 0.15', svg) and not re.search(r"#0000\d\d", svg)


@given(st.floats(1e-6, 1e6), st.floats(1.5, 1e9))
def test_ticks_are_few_and_lie_within_the_axis(low: float, ratio: float) -> None:
    high = low * ratio
    for ticks in (linear_ticks(low, high), log_ticks(low, high)):
        assert 1 <= len(ticks) <= 8
        assert all(low * (1 - 1e-9) <= tick <= high * (1 + 1e-9) for tick in ticks)
        assert ticks == sorted(ticks)


def test_the_plot_of_a_pair_has_a_dot_for_each_run(report: Report) -> None:
    claims = {claim.name: (claim, verdict) for claim, verdict in report.paper("yogi").claims}
    plot = claim_plot(*claims["yogi.yogi_is_better"])
    assert plot is not None
    assert len(plot.dots) == 6 and plot.labels == ["yogi", "adam"]
    yogi, adam = ([dot.x for dot in plot.dots if dot.series == i] for i in (0, 1))
    assert max(yogi) < min(adam)
    assert claim_plot(*claims["yogi.nobody_ran_this"]) is None


def test_the_plot_of_a_bound_shows_the_bound(report: Report) -> None:
    claims = {claim.name: (claim, verdict) for claim, verdict in report.paper("yogi").claims}
    plot = claim_plot(*claims["yogi.loss_is_small"])
    assert plot is not None
    assert len(plot.rules) == 1 and all(dot.x < plot.rules[0] for dot in plot.dots)


@pytest.mark.parametrize("log", [True, False])
def test_a_slope_of_logarithms_is_drawn_as_a_straight_line(log: bool) -> None:
    place = figures.scale_of([1.0, 10.0, 100.0], 0.0, 200.0, log)
    assert math.isclose(place(10.0), 100.0) is log
