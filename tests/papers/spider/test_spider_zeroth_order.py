"""SPIDER-SZO: exact where it must be, unbiased, counted."""

import math

import pytest
import torch
from spider_toys import logistic, oracle, quadratics, szo

from papers.spider.spider_szo import smoothing


def test_the_difference_estimate_is_zero_on_linear_components() -> None:
    problem = quadratics(linear=True)
    method = szo(0.1, smoothness=1.0, S2=20, q=5, gap=1.0)
    method.start(oracle(problem, 3), problem.start(3), own_stop=False)
    method.step()
    first = method.v
    torch.testing.assert_close(first, problem.true_gradient(problem.start(3)), rtol=1e-7, atol=1e-9)
    for _ in range(3):
        method.step()
    torch.testing.assert_close(method.v, first, rtol=0, atol=1e-9)


@pytest.mark.parametrize("mu", [1e-3, 1.0])
def test_the_difference_estimate_is_unbiased_on_quadratics_for_any_mu(mu: float) -> None:
    problem, samples = quadratics(), 40_000
    method = szo(0.1, S2=samples, q=5, gap=1.0, mu=mu)
    method.start(oracle(problem, 2), problem.start(2), own_stop=False)
    method.previous, method.x = problem.start(2), problem.start(2) + 0.5
    expected = problem.true_gradient(method.x) - problem.true_gradient(method.previous)
    estimate = method._difference()
    # one sample's deviation is a few times the difference itself
    tolerance = 6 * 4 * float(expected.norm(dim=1).max()) / math.sqrt(samples)
    assert float((estimate - expected).abs().max()) < tolerance
    assert tolerance < 0.2 * float(expected.norm(dim=1).max())


def test_a_checkpoint_is_a_forward_difference_along_each_axis() -> None:
    problem = logistic()
    method = szo(0.1, mu=1e-3)
    method.start(oracle(problem, 1), problem.start(1), own_stop=False)
    method.step()
    base = problem.true_value(problem.start(1))
    for j in range(4):
        shifted = problem.start(1)
        shifted[0, j] += 1e-3
        slope = (problem.true_value(shifted) - base) / 1e-3
        torch.testing.assert_close(method.v[:, j], slope, rtol=1e-9, atol=1e-9)


def test_calls_are_counted_as_made() -> None:
    problem = logistic(60, 4)
    o, method = oracle(problem, 2), szo(0.1, S2=7, q=3)
    method.start(o, problem.start(2), own_stop=False)
    for _ in range(7):
        method.step()
    assert o.counter.izo == [3 * 60 * 5 + 4 * 4 * 7] * 2
    assert o.counter.ifo == [0, 0]


def test_settings_are_the_formulas() -> None:
    problem = logistic(3600, 4)
    method = szo(0.1, n0=2.0)
    method.start(oracle(problem), problem.start(1), own_stop=False)
    assert method.schedule.S1 is None
    assert method.schedule.S2 == 30 * 17 * 60 // 2
    assert method.schedule.q == 20
    L, d = problem.smoothness, 4
    expected = min(0.1 / (2 * 6**0.5 * L * d**0.5), 0.1 / (6**0.5 * 2 * L * (d + 6) ** 1.5))
    assert method.radius == pytest.approx(expected)
    assert smoothing(L, 0.1, 2.0, d) == pytest.approx(expected)
