"""Means of replicates with their intervals."""

import numpy as np
import pytest
from scipy import stats

from common.numerics.bands import band


def test_a_band_is_the_normal_interval_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 40)
    low, high = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    found = band("best", values)
    assert found == pytest.approx({"best": values.mean(), "best_low": low, "best_high": high}, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_a_band_is_in_the_units_of_its_values(scale: float) -> None:
    plain, other = band("x", [1.0, 2.0, 4.0]), band("x", [scale, 2 * scale, 4 * scale])
    assert other == pytest.approx({name: scale * value for name, value in plain.items()})


def test_one_replicate_has_no_band() -> None:
    assert band("best", [2.5]) == {"best": 2.5}
