"""How many digits a spread lets a number have."""

import pytest

from common.base.digits import decimals, fixed


@pytest.mark.parametrize(
    ("spread", "digits", "places"),
    [(0.12, 2, 2), (0.0099, 2, 4), (1.0, 2, 1), (12.0, 2, 0), (1409.0, 2, 0), (12.0, 3, 1), (1.2e-5, 2, 6)],
)
def test_a_spread_is_shown_to_its_first_digits(spread: float, digits: int, places: int) -> None:
    assert decimals(spread, digits) == places


@pytest.mark.parametrize("spread", [None, 0.0, 1e-9])
def test_no_spread_and_a_tiny_one_have_no_plain_decimals(spread: float | None) -> None:
    assert decimals(spread) is None


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert fixed(-0.0004, 2) == fixed(0.0, 2) == "0.00"
    assert fixed(-1234.56, 1) == "-1,234.6"
