"""Generated regression instances: what they are made of, and what is refused."""

from typing import Any

import pytest
import torch

from common.base.errors import UserError
from papers.accelegrad.regression import SyntheticRegression

DEFAULTS: dict[str, Any] = {
    "kind": "convex_problem",
    "m": 60,
    "d": 20,
    "limit": None,
    "noise": 0.5,
    "condition": None,
    "seed_data": 0,
    "batch_size": None,
}


def make(**options: Any) -> SyntheticRegression:
    data = SyntheticRegression(**{**DEFAULTS, **options})
    data.setup()
    return data


def test_an_instance_follows_from_its_seed_alone() -> None:
    first, second, other = make(), make(batch_size=5), make(seed_data=1)
    a, b = first.batch("train", slice(None), augment=False)
    assert a.shape == (60, 20) and b is not None and b.shape == (60,) and a.dtype == torch.float64
    assert torch.equal(a, second.batch("train", slice(None), augment=False)[0])
    assert not torch.equal(a, other.batch("train", slice(None), augment=False)[0])
    assert first.exact and first.batch_size == 60 and not second.exact and second.batch_size == 5


def test_without_noise_the_system_has_a_solution_and_with_it_the_residual_is_its_size() -> None:
    for noise in (0.0, 0.5):
        a, b = make(noise=noise, m=2000).batch("train", slice(None), augment=False)
        assert b is not None
        residual = b - a @ torch.linalg.lstsq(a, b[:, None]).solution[:, 0]
        assert float(residual.square().mean().sqrt()) == pytest.approx(noise, rel=0.1, abs=1e-9)


def test_the_condition_sets_the_singular_values() -> None:
    a, _ = make(condition=1000.0).batch("train", slice(None), augment=False)
    expected = torch.logspace(0, -3, 20, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.svdvals(a), expected)


def test_a_limit_keeps_the_shape() -> None:
    data = make(limit=30)
    assert (data.m, data.d, data.shape) == (30, 10, (10,))
    assert make(limit=600).m == 60
    assert data.size("train") == 30 and data.size("test") == 0


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "stream"},
        {"m": 10},
        {"d": 0},
        {"limit": 0},
        {"noise": -1.0},
        {"noise": float("nan")},
        {"condition": 0.5},
        {"batch_size": 0},
    ],
)
def test_a_value_out_of_range_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"dataset\.{next(iter(options))}="):
        make(**options)
