"""How many channels a rate removes."""

import math
from fractions import Fraction

import pytest

from common.base.errors import UserError
from common.pruning.rates import removed_count, require_rate


def test_as_many_are_removed_as_decimal_arithmetic_says() -> None:
    for thousandths in range(1000):
        for channels in (1, 3, 7, 10, 16, 64, 100, 300, 512, 1000, 4096):
            exact = math.floor(Fraction(thousandths, 1000) * channels)
            assert removed_count(channels, thousandths / 1000) == exact
    assert (removed_count(100, 0.29), removed_count(3, 0.3333333333), removed_count(3, 0.33)) == (29, 1, 0)


def test_one_channel_stays_at_any_rate() -> None:
    assert [removed_count(channels, math.nextafter(1, 0)) for channels in (1, 2, 100)] == [0, 1, 99]


@pytest.mark.parametrize("rate", [1.0, -0.1, math.nan, math.inf])
def test_a_rate_out_of_range_is_one_line(rate: float) -> None:
    with pytest.raises(UserError, match=r"method.fraction=.*; valid: 0 <= fraction < 1"):
        require_rate(rate, "method.fraction")
