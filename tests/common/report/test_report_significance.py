import math

import numpy as np
import pytest
from scipy import stats

from common.report.significance import difference, holm, sample

A = [0.91, 0.93, 0.92, 0.95, 0.90]
B = [0.89, 0.92, 0.90, 0.93, 0.90]


def by_seed(values: list[float], first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, first))


def test_the_same_seeds_are_compared_pair_by_pair() -> None:
    found = difference(sample(by_seed(A)), sample(by_seed(B)))
    assert found.test == "paired" and found.n == 5
    assert found.p == pytest.approx(stats.ttest_rel(A, B).pvalue, rel=1e-12)
    assert found.mean == pytest.approx(np.mean(A) - np.mean(B))


def test_seeds_of_their_own_are_compared_by_welch() -> None:
    found = difference(sample(by_seed(A)), sample(by_seed(B, first=10)))
    assert found.test == "Welch"
    assert found.p == pytest.approx(stats.ttest_ind(A, B, equal_var=False).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("seeds", "test"),
    [([0, 1, 2, 7, 8], "paired"), ([0, 1, 6, 7, 8], "Welch"), ([0, 1], "paired"), ([0, 6], "Welch")],
    ids=["three in common", "two of five", "all of the smaller one", "one of two"],
)
def test_few_common_seeds_among_many_are_no_pairs(seeds: list[int], test: str) -> None:
    other = sample({seed: 0.5 + 0.01 * seed for seed in seeds})
    assert difference(sample(by_seed(A)), other).test == test


def test_a_single_run_is_not_tested() -> None:
    for other in (by_seed([0.5]), {9: 0.5}):
        found = difference(sample(by_seed(A)), sample(other))
        assert (found.p, found.test) == (None, "none")


@pytest.mark.parametrize("unit", [1e-300, 1e-8, 1.0, 1e8, 1e300])
def test_the_unit_of_a_metric_changes_no_p(unit: float) -> None:
    for first in (0, 10):
        plain = difference(sample(by_seed(A)), sample(by_seed(B, first)))
        scaled = difference(
            sample(by_seed([a * unit for a in A])), sample(by_seed([b * unit for b in B], first))
        )
        assert scaled.p == pytest.approx(plain.p, rel=1e-6)


def test_differences_without_spread_have_the_p_of_the_exact_test() -> None:
    """n equal signs have probability 2 / 2^n; of all ways to part 3 + 3 values 2 of 20 part them so."""
    assert difference(sample(by_seed([0.3] * 5)), sample(by_seed([0.1] * 5))).p == 2.0**-4
    assert difference(sample(by_seed([0.3] * 3)), sample(by_seed([0.1] * 3, 10))).p == pytest.approx(2 / 20)
    same = difference(sample(by_seed([0.3] * 5)), sample(by_seed([0.3] * 5)))
    assert (same.mean, same.p) == (0.0, 1.0)
    rounded = difference(sample(by_seed([0.1 + 0.2, 0.7])), sample(by_seed([0.3, 0.7])))
    assert rounded.p == 1.0


def test_holm_is_the_published_example_and_never_below_a_smaller_p() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_sample_of_equal_values_has_no_spread_and_of_one_none_that_is_known() -> None:
    assert sample(by_seed([0.1] * 7)).std == 0.0
    assert math.isnan(sample({0: 1.0}).std)
    assert sample(by_seed([1e308, 1.2e308])).std == pytest.approx(np.std([1.0, 1.2], ddof=1) * 1e308)


def test_of_alike_methods_hardly_ever_one_is_called_best() -> None:
    """Of 400 tables of four methods without any difference at most 5 % have a best one."""
    noise = np.random.default_rng(0)
    values = noise.normal(size=(400, 4, 5))
    marked = 0
    for table in values:
        best = int(table.mean(axis=1).argmax())
        ps = [
            difference(sample(by_seed(list(table[best]))), sample(by_seed(list(table[i])))).p or 0.0
            for i in range(4)
            if i != best
        ]
        marked += all(p < 0.05 for p in holm(ps))
    assert marked / len(values) < 0.05
