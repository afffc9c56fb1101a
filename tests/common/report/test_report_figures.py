"""Figures as SVG."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.report import figures
from common.report.figures import (
    Figure,
    Line,
    Shown,
    draw,
    linear_ticks,
    log_ticks,
    table_figures,
)
from common.report.model import Measured, Report, Row, Source, Table
from common.tables.tables import load_tables, papers

LINES = [
    Line("a < b & c", [[(1.0, 1.0), (10.0, 100.0)]], [(1.0, 0.5, 1.5)], [(1.0, 2.0)], unverified=True),
    Line("other", [[(1.0, 3.0), (10.0, 5.0)]], [], [], unverified=False),
]


def table(report: Report, name: str) -> Table:
    return next(one for one in report.paper("yogi").tables if one.id == name)


def measured_rows(report: Report) -> list[Row]:
    return [row for row in table(report, "table_ae").rows if row.runs]


def with_runs(row: Row, histories: list[dict[str, Any]], **metrics: float) -> Row:
    """A row with a made-up run at laptop scale for each history."""
    (first, *_), *_ = row.runs.values()
    runs = [
        first | {"history": history, "metrics": metrics, "seed": i} for i, history in enumerate(histories)
    ]
    return replace(row, runs={"laptop": runs}, measured={"laptop": {}}, reported={})


def curves_of(
    report: Report, rows: list[Row], metrics: dict[str, dict[str, Any]], **changes: Any
) -> list[Figure]:
    """The learning curves of a table with these rows and metrics."""
    results = {name: spec.get("result", name) for name, spec in metrics.items()}
    original = table(report, "table_ae")
    one = replace(original, rows=rows, metrics=metrics, results=results, axes=[], axis=None, **changes)
    return [figure for figure in table_figures(one) if figure.kind == "curves"]


def test_a_panel_is_wellformed_and_any_program_knows_its_colours() -> None:
    svg = draw(LINES, "title", ("x", "y"), log_x=True)
    root = ElementTree.fromstring(svg)
    assert "var(" not in svg
    assert float(root.attrib["width"]) > 0 and float(root.attrib["height"]) > 0
    drawn = set(re.findall(r"(?:fill|stroke): (#\w{6})", svg))
    assert {figures.INK, figures.GRID, figures.FRAME, *figures.LIGHT[:2]} <= drawn <= set(figures.MODES)
    for light in drawn:
        assert f'[style*="stroke: {light}"]{{stroke:{figures.MODES[light]}!important}}' in svg


def test_a_method_has_one_look_in_all_panels_of_a_table() -> None:
    lines = [replace(line, label=label) for line, label in zip(LINES, ("b", "c"), strict=True)]
    assert [line.look for line in figures._with_looks(lines, ["a", "b", "a", "c"])] == [1, 2]
    # with more labels than looks, or another label, each has that of its place
    for labels in (["b"], [*"abcdefghi"]):
        assert [line.look for line in figures._with_looks(lines, labels)] == [None, None]
    svg = draw([replace(line, look=4 + i) for i, line in enumerate(LINES)], "title", ("x", "y"), log_x=True)
    drawn = set(re.findall(r"stroke: (#\w{6})", svg.partition("</style>")[2]))
    assert set(figures.LIGHT[4:6]) <= drawn and not set(figures.LIGHT[:2]) & drawn


def test_rounding_is_not_drawn_as_a_difference() -> None:
    line = Line("a", [[(1.0, -3.35213), (2.0, -3.35214)]], [], [], unverified=False)
    ticks = re.findall(r">(-3[.\d]*)<", draw([line], "title", ("x", "y"), log_x=False))
    assert ticks and all(len(tick) <= len("-3.3545") for tick in ticks)


def test_an_axis_is_logarithmic_as_is_said() -> None:
    far = Line("a", [[(1.0, 1.0), (2.0, 500.0)]], [], [], unverified=False)
    marks = {
        said: set(re.findall(r">(\d+)<", draw([far], "t", ("x", "y"), False, said))) for said in (None, False)
    }
    assert "10" in marks[None] and "10" not in marks[False] and "400" in marks[False]


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
    assert "reported" in drawn.svg and ">training loss (squared error)<" in drawn.svg
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
    history = {"step": [1.0, 2.0, 3.0], "f": [0.0, -0.125, -0.25], "loss": [1.0, 2.0, 3.0]}
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
        figure.title.startswith("f against steps") and "f (J)" in figure.svg for figure in drawn
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
    assert drawn.title == "training loss against squared norm of the gradient, mean of 3 seeds, 95% interval"
    assert ">squared norm of the gradient<" in drawn.svg
    assert "adam_default" in drawn.alt and "yogi" in drawn.alt
    assert "Reported" not in drawn.alt
    told = {"grad_norm_sq": 0.5, "train_loss": 4.0}
    rows = [replace(row, reported=row.reported | told) for row in crossed.rows]
    (drawn,) = (one for one in table_figures(replace(crossed, rows=rows)) if one.kind == "plane")
    assert "reported" in drawn.svg and "Reported: 4." in drawn.alt
    # what is reported far from what is measured makes the axis logarithmic, too
    told = {"grad_norm_sq": 5e5, "train_loss": 4.0}
    rows = [replace(row, reported=row.reported | told) for row in crossed.rows]
    (drawn,) = (one for one in table_figures(replace(crossed, rows=rows)) if one.kind == "plane")
    labels = {float(label) for label in re.findall(r">([\d.e+]+)</text>", drawn.svg)}
    assert {1e4, 1e5} <= labels


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
    assert drawn and all("gain against steps" in figure.title for figure in drawn)
    # a point beyond the curve's end would stretch the picture
    assert all("7 at 3" in figure.alt and "Reported: 6.5." in figure.alt for figure in drawn)


def test_what_is_reported_for_points_that_rows_read_of_one_run_stands_at_these_points(report: Report) -> None:
    original, first = table(report, "table_ae"), measured_rows(report)[0]
    history = {"step": [1.0, 5.0, 9.0], "gain": [5.0, 6.0, 7.0]}
    runs = {scale: [run | {"history": history} for run in found] for scale, found in first.runs.items()}
    told = {1: 4.5, 9: 6.5, 20: 9.0}
    rows = [
        replace(first, name=f"all_at{at}", runs=runs, reported={"gain": value}, own={f"gain_at_{at}": value})
        for at, value in told.items()
    ]
    one = replace(original, rows=rows, results={"gain": "gain"}, metrics={"gain": {}}, axes=[], axis=None)
    lines: list[Line] = []
    shown = Shown("gain", "gain", metric="gain")
    for row in figures._once(rows, "laptop"):
        lines.append(figures._curve_line(row, row.name, "laptop", shown))
    # that of the first point is no value of the whole curve, and what is beyond its end is not drawn
    assert [line.reported for line in lines] == [[(1.0, 4.5), (9.0, 6.5)]]
    assert [figure.kind for figure in table_figures(one)].count("curves") == len(one.scales())


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
    row = measured_rows(report)[0]
    histories = [{"step": [1.0, 2.0], "best": [value, 2 * value]} for value in (1.0, 2.0, 3.0)]
    metrics = {"evaluations": 2}
    searches: Any = [{"history": history, "metrics": metrics} for history in histories]
    half = 4.302653 / 3**0.5
    wanted = [(1.0, 2 - half, 2 + half), (2.0, 4 - 2 * half, 4 + 2 * half)]
    assert list(
        figures._band_of(replace(row, runs={"laptop": searches}), "laptop", Shown("best", "best"))
    ) == [pytest.approx(point, rel=1e-6) for point in wanted]
    # of two seeds it says nothing; trainings have curves enough without
    for runs in (searches[:2], [{"history": history, "metrics": {}} for history in histories]):
        assert (
            list(figures._band_of(replace(row, runs={"laptop": runs}), "laptop", Shown("best", "best"))) == []
        )


def test_the_interval_of_a_batch_of_replicates_is_a_band_of_the_series_colour() -> None:
    history = {
        "step": [1.0, 2.0],
        "regret": [3.0, 2.0],
        "regret_low": [2.5, 1.5],
        "regret_high": [3.5, 2.5],
    }
    band = tuple(figures._band(history, Shown("regret", "regret")))
    assert band == ((1.0, 2.5, 3.5), (2.0, 1.5, 2.5))
    assert list(figures._band({"step": [1.0], "regret": [3.0]}, Shown("regret", "regret"))) == []
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


LOSS = {"validation_mse": {"unit": "mse", "better": "lower", "result": "best_validation"}}


def test_a_search_for_the_least_error_shows_the_error_that_its_table_has_and_no_negative_of_it(
    report: Report,
) -> None:
    history = {"step": [1.0, 2.0, 3.0], "best": [-4.0, -2.5, -2.0]}
    row = with_runs(measured_rows(report)[0], [history], best_validation=2.0)
    (drawn,) = curves_of(report, [row], LOSS)
    assert drawn.title == "validation mse against steps" and ">validation mse (mse)<" in drawn.svg
    assert "4 at 1, 2 at 3." in drawn.alt and "-" not in drawn.alt.split("vertical")[1]


def test_a_search_that_leads_to_no_metric_of_its_table_shows_its_best_so_far(report: Report) -> None:
    history = {"step": [1.0, 2.0, 3.0], "best": [0.4, 0.5, 0.6]}
    row = with_runs(measured_rows(report)[0], [history], found_test=0.7)
    (drawn,) = curves_of(report, [row], {"found_test": {"unit": "1"}})
    assert drawn.title == "best so far (larger is better)" and f">{drawn.title}<" in drawn.svg


def test_points_of_a_search_for_the_least_error_give_its_curve_their_sign_and_their_unit(
    report: Report,
) -> None:
    history = {
        "step": [1.0, 2.0, 3.0],
        "best": [-4.0, -3.0, -2.0],
        "best_low": [-5.0, -3.5, -2.5],
        "best_high": [-3.0, -2.5, -1.5],
    }
    row = with_runs(measured_rows(report)[0], [history], best_at_2=3.0)
    (drawn,) = curves_of(report, [row], {"best_at_2": {"unit": "J"}})
    assert ">best so far (J)<" in drawn.svg and "4 at 1, 2 at 3." in drawn.alt
    shown = figures._shown_curve(
        replace(table(report, "table_ae"), metrics={"best_at_2": {}}, results={"best_at_2": "best_at_2"}),
        [row],
        "laptop",
    )
    assert shown is not None and shown.sign == -1.0
    assert list(figures._band(history, shown)) == [(1.0, 3.0, 5.0), (2.0, 2.5, 3.5), (3.0, 1.5, 2.5)]


def test_a_mean_over_other_numbers_of_seeds_says_from_how_many_to_how_many(report: Report) -> None:
    history = {"epoch": [1.0, 2.0, 3.0], "validation_accuracy": [0.4, 0.5, 0.6]}
    rows = [
        with_runs(replace(row, name=f"n{n}", point={}), [history] * n)
        for n, row in zip((1, 2, 3), measured_rows(report), strict=False)
    ]
    titles = [
        curves_of(report, part, {"loss": {}})[0].title
        for part in (rows, rows[:1], [replace(rows[1], name="x")])
    ]
    what = "validation accuracy against epoch"
    assert titles == [f"{what}, mean of 1 to 3 seeds", what, f"{what}, mean of 2 seeds"]


def weighted(row: Row, name: str, **settings: float | str) -> Row:
    """A row of a method with settings of its own and a loss."""
    history = {"step": [1.0, 2.0, 3.0], "loss": [3.0, 2.0, 1.0]}
    made = with_runs(replace(row, name=name, point={}), [history])
    (run,) = made.runs["laptop"]
    choices = run["choices"] | {"method": "selection/own"}
    return replace(made, runs={"laptop": [run | {"choices": choices, "config": {"method": settings}}]})


def test_losses_with_other_weights_share_no_panel(report: Report) -> None:
    row = measured_rows(report)[0]
    apart = [weighted(row, f"l{value}", weight=value) for value in (0.0, 0.5, 1.0)]
    assert curves_of(report, apart, {"test_error": {}}) == []
    alike = [weighted(row, f"m{seed}", weight=1.0, teacher=f"entry=a seed={seed}") for seed in (0, 1)]
    (drawn,) = curves_of(report, [apart[0], *alike], {"test_error": {}})
    assert "weight=1.0" in drawn.title and "m0" in drawn.alt and "l0.0" not in drawn.alt


def test_a_panel_is_named_by_what_tells_its_loss_from_the_others_of_its_table() -> None:
    def told(*objectives: tuple[str, str, str]) -> list[str]:
        whole = [(names, ()) for names in objectives]
        return [figures._objective_name(one, whole) for one in whole]

    names = told(("digits", "distillation/kd", "sum"), ("digits", "distillation/none", "sum"))
    assert names == ["kd", "no distillation"]
    assert told(("digits", "", "sum"), ("digits", "", "mean"), ("mnist", "", "sum"))[1] == "digits mean"


def test_an_axis_is_called_by_its_name_and_by_its_key_where_that_says_more() -> None:
    assert figures._named("eps", "paper.eps") == "eps"
    assert figures._named("q", "paper.batch") == "q (paper.batch)"


def test_decimals_in_names_are_drawn_as_decimals(report: Report) -> None:
    names = ("eps0p003", "eps1em05", "k_0p5_epochs_1", "p2_adagrad", "ft_p2", "4p")
    assert [figures.decimal(name) for name in names] == [
        *("eps0.003", "eps1e-05", "k_0.5_epochs_1", "p2_adagrad", "ft_p2", "4p")
    ]
    line = Line("eps0p1", [[(1.0, 2.0), (2.0, 3.0)]], [], [], False)
    drawn = figures.panel_figure("t", "a · n0p2", [line], "paper", "axis", ("x", "y"), log_x=False)
    assert ">eps0.1<" in drawn.svg and drawn.title == "a · n0.2" and "eps0.1: 2 at 1" in drawn.alt
    first = replace(measured_rows(report)[0], name="k_0p5")
    assert figures._row_line(first, 0, "laptop", "train_loss").label == "k_0.5"


def test_panels_beside_each_other_are_logarithmic_where_one_needs_it_and_all_can_be() -> None:
    def line(*ys: float) -> Line:
        return Line("a", [list(enumerate(ys))], [], [], False)

    near, far = [line(1.0, 3.0)], [line(1.0, 400.0)]
    assert figures._far_apart_in_one([near, far]) and not figures._far_apart_in_one([near, near])
    assert not figures._far_apart_in_one([far, [line(0.0, 3.0)]])


@pytest.mark.parametrize("last", [4.8e5, 9.5e5])
def test_the_label_of_the_last_tick_ends_within_the_picture(last: float) -> None:
    line = Line("a", [[(1e5, 1.0), (last, 2.0)]], [], [], False)
    svg = draw([line], "t", ("x", "y"), log_x=True)
    width = float(re.findall(r'width="([\d.]+)"', svg)[0])
    ticks = re.findall(r'middle[^>]* x="([\d.]+)"[^>]*>([\de+]+)</text>', svg)
    ends = [float(x) + 72 * figures._width_of(label) / 2 for x, label in ticks]
    assert len(ends) > 2 and max(ends) <= width


def test_a_table_says_that_its_steps_are_no_curve_or_what_they_are(report: Report) -> None:
    history = {"step": [10.0, 20.0, 30.0], "seconds": [1.0, 2.0, 3.0]}
    row = with_runs(measured_rows(report)[0], [history], seconds=3.0)
    seconds = {"seconds": {"unit": "s"}}
    assert curves_of(report, [row], seconds, curves="none") == []
    (drawn,) = curves_of(report, [row], seconds, curves="observations")
    assert drawn.title == "seconds against observations" and ">observations<" in drawn.svg


def test_the_tables_that_say_so_have_it_in_the_report() -> None:
    said = {
        (paper, raw["id"]): raw["curves"]
        for paper in papers()
        for raw in load_tables(paper)["tables"]
        if "curves" in raw
    }
    assert said["sdp_cert", "scaling_random"] == "none" and said["ablr", "fig1_time"] == "observations"


def test_a_run_that_several_rows_read_is_drawn_once_by_what_their_names_share(report: Report) -> None:
    history = {"step": [1.0, 2.0, 3.0], "regret": [3.0, 2.0, 1.0]}
    first = with_runs(measured_rows(report)[0], [history])
    other = with_runs(replace(first, name="random_2x_it10", point={}), [history])
    rows = [replace(first, name=f"pmf_it{at}", point={}) for at in (10, 50, 100)]
    (drawn,) = curves_of(report, [*rows, other], {"regret": {}})
    assert re.findall(r"(\w+): 3 at 1", drawn.alt) == ["pmf", "random_2x_it10"]


@pytest.mark.parametrize(
    ("names", "shared"),
    [(["a_b_it1", "a_b_it10"], "a_b"), (["same"], "same"), (["x", "y", "x"], "x/y"), (["l_0", "l_0p1"], "l")],
)
def test_names_share_their_first_whole_words_or_stand_side_by_side(names: list[str], shared: str) -> None:
    assert figures.shared_name(names) == shared


def test_methods_on_one_function_share_a_panel(report: Report) -> None:
    raw = next(one for one in load_tables("qff")["tables"] if one["id"] == "fig_benchmarks")
    axes = raw["grid"]["axes"]
    row = measured_rows(report)[0]
    rows = [
        replace(
            row,
            name=f"{function}_{method}",
            point={"function": function, "method": method},
            choose=axes["function"][function]["choose"] | axes["method"][method]["choose"],
        )
        for function in axes["function"]
        for method in axes["method"]
    ]
    panels = list(figures._panels(rows, list(axes)))
    assert [place for place, _ in panels] == [{"function": function} for function in axes["function"]]
    assert {len(panel) for _, panel in panels} == {len(axes["method"])}


def test_a_line_on_a_logarithmic_axis_begins_at_its_first_positive_step() -> None:
    moved = Line("a", [[(0.0, 3.0), (500.0, 2.0), (900.0, 1.0)]], [], [], False, band=((0.0, 1.0, 2.0),))
    ended = Line("b", [[(0.0, 3.0)]], [], [(0.0, 2.5), (900.0, 2.5)], False)
    first, second = figures._from_positive([moved, ended])
    assert first.curves == [[(500.0, 2.0), (900.0, 1.0)]] and first.band == ()
    # what never moved is a point beside the others
    assert second.curves == [[(500.0, 3.0)]] and second.reported == [(500.0, 2.5), (900.0, 2.5)]


def test_two_points_are_no_curve(report: Report) -> None:
    row = measured_rows(report)[0]
    for points, panels in ((2, 0), (3, 1)):
        history = {"epoch": [1.0, 2.0, 3.0][:points], "validation_accuracy": [0.4, 0.5, 0.6][:points]}
        assert len(curves_of(report, [with_runs(row, [history])], {"loss": {}})) == panels


def test_values_without_spread_have_no_interval(report: Report) -> None:
    measured = Measured(2.0, 2.0, 2.0, n=3, scale="laptop", device="cpu")
    assert figures._ends(measured) == [] and figures._ends(replace(measured, high=2.5)) == [(2.0, 2.5)]
    flat = Line("a", [[(1.0, 2.0)]], [], [], False, band=((1.0, 2.0, 2.0),))
    assert figures.spread_of([flat]) == ", no spread"
    assert figures.spread_of([flat, replace(flat, band=((1.0, 1.0, 2.0),))]) == ", 95% interval"
    assert figures.spread_of([replace(flat, band=())]) == ""


def test_a_standard_error_has_no_figure_of_its_own(report: Report) -> None:
    original = table(report, "fig_batch")
    named = {"train_loss": "best_at_2", "grad_norm_sq": "best_at_2_sem"}
    drawn = list(table_figures(replace(original, results=named)))
    assert [figure.title for figure in drawn if figure.kind == "axis"] == [
        "training loss against batch, mean of 3 seeds, 95% interval"
    ]


def test_a_plane_whose_rows_are_all_at_one_place_is_not_drawn(report: Report) -> None:
    crossed = replace(table(report, "fig_batch"), plane=("grad_norm_sq", "train_loss"))
    rows = [replace(row, measured=crossed.rows[0].measured) for row in crossed.rows]
    assert [one.kind for one in table_figures(replace(crossed, rows=rows))].count("plane") == 0


def at_place(x: tuple[float, float, float], y: tuple[float, float, float]) -> dict[str, Any]:
    """The metrics of a row: mean, low and high of two."""
    named = zip(("grad_norm_sq", "train_loss"), (x, y), strict=True)
    return {"laptop": {name: Measured(*one, n=3, scale="laptop", device="cpu") for name, one in named}}


def test_a_place_on_a_plane_has_its_intervals_of_both_metrics_at_the_place_itself(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    crossed = replace(table(report, "fig_batch"), plane=("grad_norm_sq", "train_loss"))
    drawn: list[Line] = []
    monkeypatch.setattr(figures, "draw", lambda lines, *_: drawn.extend(lines) or "<svg></svg>")
    rows = [
        replace(row, point={}, measured=at_place((n, n - 0.5, n + 0.5), (2.0, 1.0, 3.0)))
        for n, row in enumerate(crossed.rows[:2], 1)
    ]
    axes = replace(crossed, rows=rows, axis=None, curves="none")
    (plane,) = [one for one in table_figures(axes) if one.kind == "plane"]
    assert [line.bars for line in drawn] == [[(1, 1.0, 3.0)], [(2, 1.0, 3.0)]]
    assert [line.across for line in drawn] == [((2.0, 0.5, 1.5),), ((2.0, 1.5, 2.5),)]
    assert not any(line.aside for line in drawn) and plane.title.endswith(", 95% interval")


def test_what_only_shows_that_it_runs_is_drawn_where_nothing_else_was_measured(report: Report) -> None:
    original = table(report, "fig_batch")
    rows = [
        replace(row, runs=row.runs | {"smoke": runs}, measured=row.measured | {"smoke": found})
        for row in original.rows
        for runs, found in [(row.runs["laptop"], row.measured["laptop"])]
    ]
    assert {one.scale for one in table_figures(replace(original, rows=rows))} == {"laptop"}
    rows = [
        replace(row, runs={"smoke": row.runs["smoke"]}, measured={"smoke": row.measured["smoke"]})
        for row in rows
    ]
    assert {one.scale for one in table_figures(replace(original, rows=rows))} == {"smoke"}


def test_names_beside_an_axis_have_the_room_that_their_letters_take() -> None:
    def start(name: str) -> float:
        """Where the axis begins, of a figure of rows with such names."""
        lines = [Line(name, [[(1.0, 0.0)]], [], [], False), Line("a", [[(2.0, 1.0)]], [], [], False)]
        frame = re.search(r'id="axes_1".*?d="M ([\d.]+) ', figures.draw_rows(lines, "title", "x"), re.S)
        assert frame is not None
        return float(frame[1])

    assert start("wmwm_wmwm") > start("ilil_ilil") + 20
    # in points: of letters 8 points high the widest are nearly as wide
    assert start("m" * 10) > 10 * 7.5


def test_a_long_title_of_the_vertical_axis_is_broken_into_lines_that_its_height_holds() -> None:
    title = "gradients of all components of the sum until the norm is eps (calls)"
    svg = figures.draw([Line("a", [[(1.0, 2.0), (2.0, 3.0)]], [], [], False)], "t", ("x", title), log_x=False)
    texts = re.findall(r">([^<>\n]+)</text>", svg)
    first, second = (text for text in texts if len(text) > len("x") and text in title and " " in text)
    assert f"{first} {second}" == title and max(len(first), len(second)) <= figures.LABEL_HEIGHT
