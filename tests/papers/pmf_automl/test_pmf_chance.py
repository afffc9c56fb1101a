"""Random search in closed form against all subsets, and ranks against all pairs of outcomes."""

from itertools import combinations, product

import numpy as np
import pytest

from papers.pmf_automl.chance import best_of, expected_best, expected_ranks


@pytest.mark.parametrize("k", [1, 2, 4, 6, 9])
def test_the_best_of_k_draws_is_that_of_all_subsets(k: int) -> None:
    values = np.array([0.3, 0.9, 0.9, 0.1, 0.5, 0.7])
    subsets = list(combinations(values, min(k, 6)))
    assert expected_best(values, k) == pytest.approx(np.mean([max(subset) for subset in subsets]), rel=1e-12)


def test_probabilities_sum_to_one_for_42000_pipelines() -> None:
    p = best_of(42_000, 800)
    assert p.sum() == pytest.approx(1.0, abs=1e-9) and (p >= 0).all()


def test_expected_ranks_are_those_of_all_pairs_of_outcomes() -> None:
    outcomes = [
        (np.array([0.5]), np.ones(1)),
        (np.array([0.9, 0.5, 0.1]), np.array([0.2, 0.3, 0.5])),
        (np.array([0.5, 0.4]), np.array([0.6, 0.4])),
    ]
    expected = np.zeros(3)
    for drawn in product(*(range(len(values)) for values, _ in outcomes)):
        values = [outcomes[m][0][i] for m, i in enumerate(drawn)]
        p = np.prod([outcomes[m][1][i] for m, i in enumerate(drawn)])
        expected += p * np.array(
            [1 + sum(o > v for o in values) + (sum(o == v for o in values) - 1) / 2 for v in values]
        )
    found = expected_ranks(outcomes)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.sum() == pytest.approx(6)
