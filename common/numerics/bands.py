"""Means of replicates with their intervals, as histories hold them."""

import math

import numpy as np
from numpy.typing import ArrayLike

# of a normal distribution, 95% in the middle
QUANTILE = 1.96


def band(name: str, values: ArrayLike) -> dict[str, float]:
    """The mean of R replicates, and from two on `<name>_low` and `<name>_high`: 1.96 standard errors off it.

    Args:
        name: of the series.
        values: [R], finite.
    """
    series = np.asarray(values, np.float64)
    mean = float(series.mean())
    if len(series) < 2:
        return {name: mean}
    half = QUANTILE * float(series.std(ddof=1)) / math.sqrt(len(series))
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
