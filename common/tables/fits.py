"""Exponents: the slope of a curve on doubly logarithmic axes."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import median

import numpy as np


def slope(points: Iterable[tuple[float, float]]) -> float | None:
    """The least-squares slope of log y against log x; None for fewer than two x.

    Several y at one x (seeds) enter as their median.
    """
    at: dict[float, list[float]] = defaultdict(list)
    for x, y in points:
        at[x].append(y)
    if len(at) < 2:
        return None
    x_logs = np.log(list(at))
    y_logs = np.log([median(ys) for ys in at.values()])
    return float(np.polyfit(x_logs, y_logs, 1)[0])
