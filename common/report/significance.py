"""Whether two methods differ, judged by their values over seeds.

Paired over the seeds that both have where there are enough of them, else Welch's test; of several
comparisons the p values are Holm's. Values without any spread have no t: their p is that of the exact test
which exchanges signs (or sides), the smallest that so few values can have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Test = Literal["paired", "Welch", "none"]
# as many common seeds are compared pair by pair, or all that one of the two has
ENOUGH = 3
# a spread below this share of the values is rounding
ROUNDING = 1e-12


@dataclass(frozen=True)
class Sample:
    """A metric of one method.

    Attributes:
        by_seed: values of its runs.
        mean, std, n: over them; of the replicates of its only run where that knows them.
    """

    by_seed: dict[int, float]
    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Difference:
    """What a test says of two samples.

    Attributes:
        mean: the first one's minus the second one's, over the pairs of a paired test.
        p: two-sided; None where nothing can be tested.
        n: pairs; of Welch's test the values of the smaller sample.
        spread: whether the differences have any; p is that of the exact test where they have none.
    """

    mean: float
    p: float | None
    test: Test
    n: int
    spread: bool = True


def sample(by_seed: dict[int, float]) -> Sample:
    """The sample of some values, at least one; its standard deviation (n - 1) is NaN for one.

    Equal values have no spread, whatever their mean is rounded to.
    """
    values = list(by_seed.values())
    if min(values) == max(values):
        return Sample(by_seed, values[0], 0.0 if len(values) > 1 else math.nan, len(values))
    # of values near the largest of floats, scaled: their squares are beyond it
    unit = max(map(abs, values))
    scaled = np.array(values) / unit
    return Sample(by_seed, float(scaled.mean() * unit), float(scaled.std(ddof=1) * unit), len(values))


def difference(a: Sample, b: Sample) -> Difference:
    """Compare two samples: over common seeds where there are at least three, or all of one; else Welch."""
    common = sorted(a.by_seed.keys() & b.by_seed.keys())
    if len(common) > 1 and len(common) >= min(ENOUGH, len(a.by_seed), len(b.by_seed)):
        return _paired([a.by_seed[seed] for seed in common], [b.by_seed[seed] for seed in common])
    n = min(a.n, b.n)
    if n < 2:
        return Difference(a.mean - b.mean, None, "none", n)
    return _welch(a, b, n)


def _paired(a: Sequence[float], b: Sequence[float]) -> Difference:
    unit = max(*map(abs, a), *map(abs, b)) or 1.0
    gaps = np.array(a) / unit - np.array(b) / unit
    mean, n = float(gaps.mean() * unit), len(gaps)
    if gaps.std(ddof=1) <= ROUNDING:
        p = 1.0 if abs(gaps.mean()) <= ROUNDING else 2.0 ** (1 - n)
        return Difference(mean, p, "paired", n, False)
    return Difference(mean, float(stats.ttest_1samp(gaps, 0.0).pvalue), "paired", n)


def _welch(a: Sample, b: Sample, n: int) -> Difference:
    gap = a.mean - b.mean
    unit = max(abs(a.mean), abs(b.mean), a.std, b.std) or 1.0
    if max(a.std, b.std) <= ROUNDING * unit:
        p = 1.0 if abs(gap) <= ROUNDING * unit else min(1.0, 2.0 / math.comb(a.n + b.n, a.n))
        return Difference(gap, p, "Welch", n, False)
    found = stats.ttest_ind_from_stats(
        a.mean / unit, a.std / unit, a.n, b.mean / unit, b.std / unit, b.n, equal_var=False
    )
    return Difference(gap, float(found.pvalue), "Welch", n)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's p values of several comparisons: the i-th smallest times (m - i), never falling, at most 1."""
    adjusted = [0.0] * len(ps)
    least = 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = min(1.0, max(least, (len(ps) - place) * ps[index]))
        adjusted[index] = least
    return adjusted
