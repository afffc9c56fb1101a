"""The small plots of an arena: a row for each contestant, its mean on its interval."""

import pytest

from common.claims.judge import Interval, mean_interval
from common.report.whiskers import NAME, Whiskers, shortened, whiskers

SEEDS = {"a": [1.0, 2.0, 3.0], "b": [4.0, 4.0], "c": [5.0]}


def plot(unit: float = 1.0) -> Whiskers:
    return whiskers(
        "rank", {name: mean_interval([unit * value for value in values]) for name, values in SEEDS.items()}
    )


def test_rows_stand_in_order_and_intervals_around_their_means() -> None:
    a, b, c = plot().rows
    assert a.y < b.y < c.y and a.low < a.x < a.high and a.x < b.x < c.x
    # no spread, and no interval: the mean alone
    assert b.low == b.high == b.x and c.low == c.high == c.x
    assert "b: 4 (no spread)" in plot().alt and "c: 5 (no interval)" in plot().alt


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_the_places_are_the_same_in_any_unit(unit: float) -> None:
    for one, other in zip(plot().rows, plot(unit).rows, strict=True):
        assert (one.x, one.low, one.high) == pytest.approx((other.x, other.low, other.high))


def test_positive_values_far_apart_stand_on_a_logarithmic_axis() -> None:
    far = whiskers(
        "seconds", {name: Interval(x, x, x) for name, x in zip("abc", (0.01, 0.1, 1), strict=True)}
    )
    first, middle, last = (row.x for row in far.rows)
    assert far.title == "seconds, logarithmic" and middle - first == pytest.approx(last - middle)
    assert (
        whiskers("rank", {name: Interval(x, x, x) for name, x in (("a", 0.1), ("b", 9.0))}, bend=False).title
        == "rank"
    )
    below = whiskers("margins", {"a": Interval(-1.0, -1.0, -1.0), "b": Interval(40.0, 40.0, 40.0)})
    assert below.title == "margins"


def test_an_interval_that_reaches_0_goes_to_the_edge_of_a_logarithmic_axis() -> None:
    far = {"a": Interval(0.01, -0.02, 0.04), "b": Interval(5.0, 4.0, 6.0)}
    found = whiskers("seconds", far)
    assert "logarithmic" in found.title and "goes to the left edge" in found.title
    a, b = found.rows
    assert a.low == a.x == found.left + 8 and a.x < a.high < b.low < b.x
    assert [text for _, text, _ in found.ticks] == ["0.01", "6"]


def test_a_long_name_moves_the_axis_and_not_over_it() -> None:
    name = "attention_transfer_and_kd"
    long = whiskers("rank", {name: Interval(1.0, 1.0, 1.0), "b": Interval(2.0, 2.0, 2.0)})
    assert long.rows[0].name == name and long.left > plot().left
    assert min(row.x for row in long.rows) > long.left


def test_one_value_alone_stands_in_the_middle_with_one_tick() -> None:
    alone = whiskers("rank", {"a": Interval(2.0, 2.0, 2.0)})
    assert [(text, anchor) for _, text, anchor in alone.ticks] == [("2", "middle")]
    assert alone.ticks[0][0] == alone.rows[0].x


def test_a_name_that_is_too_long_is_cut() -> None:
    assert shortened("a" * NAME) == "a" * NAME and len(shortened("a" * 90)) == NAME
