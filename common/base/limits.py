"""Numbers of a config that must lie within limits."""

import math
from collections.abc import Callable

from common.base.errors import UserError

Valid = Callable[[float], bool]
LIMITS: dict[str, Valid] = {
    "positive": lambda value: value > 0,
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "above 0 and below 1": lambda value: 0 < value < 1,
    "from 0 to 1": lambda value: 0 <= value <= 1,
}


def require(limit: str, group: str, **values: float | None) -> None:
    """Refuse the first value that is not finite or not within a limit; None passes.

    Args:
        limit: a key of `LIMITS`, as the message has it.
        group: of the config, to which the values' keys belong.

    Raises:
        UserError: `method.temperature=nan: must be positive and finite`.
    """
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and LIMITS[limit](value)):
            raise UserError(f"{group}.{name}={value}: must be {limit} and finite")
