"""Which pipelines to try first: those that did best on the training data sets that are most alike."""

from typing import Literal

import numpy as np
from scipy.stats import rankdata

Units = Literal["raw", "standardised", "ranks"]
Array = np.ndarray


def in_units(train: Array, new: Array, units: Units) -> tuple[Array, Array]:
    """Meta-features of training data sets [D, p] and of new ones [R, p] in the units of the distance.

    `raw`: as they are. `standardised`: by mean and standard deviation of the training data sets (a constant
    one counts for nothing). `ranks`: the share of training data sets that are below, half of those that are
    equal. NaN stays NaN.
    """
    if units == "raw":
        return train, new
    if units == "standardised":
        known = np.where(np.isfinite(train), train, np.nan)
        mean, spread = np.nanmean(known, 0), np.nanstd(known, 0)
        scale = np.where(spread > 0, spread, np.inf)
        return (train - mean) / scale, (new - mean) / scale
    found = []
    for values in (train, new):
        share = np.full(values.shape, np.nan)
        for j, column in enumerate(train.T):
            known = np.sort(column[~np.isnan(column)])
            own = ~np.isnan(values[:, j])
            below = np.searchsorted(known, values[own, j], "left")
            above = np.searchsorted(known, values[own, j], "right")
            share[own, j] = (below + above) / (2 * max(len(known), 1))
        found.append(share)
    return found[0], found[1]


def nearest(train: Array, new: Array, count: int) -> Array:
    """The training data sets with the least L1 distance to one [p], nearest first; NaN distances last."""
    # numpy sorts NaN last
    return np.argsort(np.abs(train - new).sum(1), kind="stable")[:count]


def mean_ranks(scores: Array) -> Array:
    """Of each pipeline its mean rank over data sets, higher for higher scores; ties share theirs.

    Args:
        scores: [N, D], all finite.
    """
    return np.asarray(rankdata(scores, axis=0).mean(1))


def warm_start(scores: Array, train: Array, new: Array, neighbours: int, count: int) -> Array:
    """The pipelines to evaluate first on a data set, best first.

    Of the pipelines that are observed on all of the nearest training data sets those with the highest mean
    rank there; fewer than `count` where fewer are.

    Args:
        scores: [N, D], NaN where nothing is known; train [D, p] and new [p]: meta-features, in one unit.
    """
    own = scores[:, nearest(train, new, neighbours)]
    everywhere = np.flatnonzero(~np.isnan(own).any(1))
    order = np.argsort(-mean_ranks(own[everywhere]), kind="stable")
    return np.asarray(everywhere[order][:count])
