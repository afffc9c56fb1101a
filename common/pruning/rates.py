"""How many channels a rate removes."""

import math

from common.base.errors import UserError

# decimals of a product that are told from rounding
DECIMALS = 9


def removed_count(channels: int, rate: float) -> int:
    """floor(rate * channels), the product taken as the decimal number that it is meant to be.

    In binary 0.29 * 100 is a little below 29: a product within 1e-9 of a whole number is that number, so 0.29
    of 100 are 29, and 0.3333333333 of 3 is 1. One channel stays.

    Args:
        channels: c, at least 1.
        rate: eta, the share that is removed, in [0, 1).
    """
    return min(math.floor(round(rate * channels, DECIMALS)), channels - 1)


def require_rate(rate: float, name: str = "method.rate") -> None:
    """Refuse a rate at which a layer would lose all its channels.

    Args:
        rate: the share of the channels that is removed.
        name: as the user knows it.

    Raises:
        UserError: outside [0, 1), or NaN.
    """
    if not 0 <= rate < 1:
        key = name.rpartition(".")[2]
        raise UserError(f"{name}={rate}; valid: 0 <= {key} < 1, the share of the channels that is removed")
