"""Uniform random search without repeats, exactly: what it is expected to find needs no draws.

Of n values, sorted from the best, the best of k that are drawn without replacement is number r = 1, ..., n
with probability C(n - r, k - 1) / C(n, k): p_1 = k / n, p_{r+1} = p_r (n - r - k + 1) / (n - r).
"""

import numpy as np

Array = np.ndarray


def best_of(n: int, k: int) -> Array:
    """The probabilities [n] that the best of k draws out of n is number 1, ..., n from the best.

    k at least n: it is number 1.
    """
    if k >= n:
        return np.eye(1, n)[0]
    r = np.arange(1, n)
    return np.concatenate([[k / n], k / n * np.cumprod(np.clip((n - r - k + 1) / (n - r), 0.0, None))])


def expected_best(values: Array, k: int) -> float:
    """The mean of the largest of k of the values [n], drawn without replacement; k at least 1."""
    return float(best_of(len(values), k) @ np.sort(values)[::-1])


def expected_ranks(outcomes: list[tuple[Array, Array]]) -> Array:
    """Mean ranks of M methods on one data set, 1 the best, ties shared; methods are independent.

    E[rank_m] = 1 + sum over the others of P(other better) + P(other equal) / 2: they sum to M (M + 1) / 2.

    Args:
        outcomes: of each method the values that it may end with, and their probabilities. Equal to 10
            decimals is equal.
    """
    rounded = [(np.round(values, 10), p) for values, p in outcomes]
    levels = np.unique(np.concatenate([values for values, _ in rounded]))
    masses = np.zeros((len(outcomes), len(levels)))
    for m, (values, p) in enumerate(rounded):
        np.add.at(masses[m], np.searchsorted(levels, values), p)
    # P(method <= level) less half of P(method = level)
    below = np.cumsum(masses, 1) - masses / 2
    above = 1 - below
    beats = above @ masses.T
    return np.asarray(1 + beats.sum(0) - np.diag(beats))
