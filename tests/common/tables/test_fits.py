import pytest

from common.tables.fits import slope


def test_the_slope_of_a_power_law_is_its_exponent() -> None:
    assert slope([(x, 3 * x**-2.5) for x in (0.1, 0.2, 0.4)]) == pytest.approx(-2.5)


def test_seeds_enter_as_their_median_and_one_x_gives_no_slope() -> None:
    points = [(1.0, 1.0), (1.0, 5.0), (1.0, 2.0), (10.0, 20.0)]
    assert slope(points) == pytest.approx(1.0)
    assert slope([(1.0, 2.0), (1.0, 3.0)]) is None
