"""How many digits of a number are worth showing beside its spread."""

import math

# more are hard to read, and are shown as powers of ten
MOST_DECIMALS = 6


def decimals(spread: float | None, digits: int = 2) -> int | None:
    """The decimals that show a spread to so many digits: 2 for 0.12, 0 for 12 or more.

    None where there is no spread, or where it is so small that more than six decimals would be needed.
    """
    if not spread:
        return None
    places = digits - 1 - math.floor(math.log10(spread))
    return max(0, places) if places <= MOST_DECIMALS else None


def fixed(value: float, places: int) -> str:
    """A number with so many decimals; what rounds to 0 has no sign."""
    return f"{round(value, places) + 0.0:,.{places}f}"
