"""Settings and costs of the theorems."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spider_toys import logistic, oracle, spider

from common.base.errors import UserError
from papers.spider.spider import (
    Schedule,
    cost_finite_sum,
    cost_online,
    iterations,
    schedule_finite_sum,
    schedule_online,
    steps,
    stopping_level,
)


def test_finite_sum_settings_are_theorem_2() -> None:
    assert schedule_finite_sum(10_000, 1.0) == Schedule(None, 100, 100)
    assert schedule_finite_sum(10_000, 4.0) == Schedule(None, 25, 400)
    assert schedule_finite_sum(10_000, 100.0) == Schedule(None, 1, 10_000)
    assert schedule_finite_sum(1_000, 1.0) == Schedule(None, 32, 32)


def test_online_settings_are_theorem_1() -> None:
    assert schedule_online(1.0, 0.1, 1.0) == Schedule(200, 20, 10)
    assert schedule_online(1.0, 0.1, 20.0) == Schedule(200, 1, 200)
    assert schedule_online(2.0, 0.03, 1.0) == Schedule(8889, 134, 67)


def test_iterations_steps_and_the_stopping_level_are_the_theorems() -> None:
    assert iterations(0.5, 0.7, 0.5, 2.0) == math.floor(11.2) + 1
    assert steps(0.5, 0.1, 2.0).length == pytest.approx(0.1)
    assert steps(0.5, 0.1, 2.0).cap == pytest.approx(0.5)
    assert stopping_level(281, 0.1, 0.05) == pytest.approx(math.log((4 * 280 + 12) / 0.05))


@given(
    n=st.integers(1, 10**6), L=st.floats(0.1, 10), Delta=st.floats(0.1, 10), eps=st.floats(1e-3, 1),
    share=st.floats(0, 1),
)  # fmt: skip
def test_finite_sum_calls_stay_within_theorem_2(
    n: int, L: float, Delta: float, eps: float, share: float
) -> None:
    n0 = 1 + share * (math.sqrt(n) - 1)
    schedule, K = schedule_finite_sum(n, n0), iterations(L, Delta, eps, n0)
    # the theorem's own steps: n and S2 a step, with S2 and q not rounded, checkpoints amortised
    amortised = n + K * (n / (n0 * math.sqrt(n)) + math.sqrt(n) / n0)
    assert amortised <= cost_finite_sum(n, L, Delta, eps, n0) * (1 + 1e-9)
    # rounding S2 up costs at most one sample at two points a step
    bound = n + K * (math.sqrt(n) / n0 + 2 * (math.sqrt(n) / n0 + 1))
    assert schedule.calls(K, n) <= bound * (1 + 1e-9)


def test_online_cost_is_theorem_1() -> None:
    sigma, L, Delta, eps, n0 = 1.0, 0.5, 0.7, 0.01, 2.0
    K = 4 * L * Delta * n0 / eps**2 + 1
    amortised = 2 * sigma**2 / eps**2 + K * (4 * sigma / (eps * n0))
    assert cost_online(sigma, L, Delta, eps, n0) == pytest.approx(amortised)


@given(K=st.integers(0, 60), n=st.integers(1, 30), S2=st.integers(1, 5), q=st.integers(1, 9))
def test_calls_of_k_steps_count_each_step(K: int, n: int, S2: int, q: int) -> None:
    counted = sum(n if k % q == 0 else 2 * S2 for k in range(K))
    printed = sum((n if k % q == 0 else 0) + S2 for k in range(K))
    assert Schedule(None, S2, q).calls(K, n) == counted
    assert Schedule(None, S2, q).printed_calls(K, n) == printed


@pytest.mark.parametrize("K", [1, 7, 8, 9, 30])
def test_the_counter_after_k_steps_is_the_formula(K: int) -> None:
    problem = logistic(60)
    method, o = spider(2, 0.01), oracle(problem, 2)
    method.start(o, problem.start(2), own_stop=False)
    for _ in range(K):
        method.step()
    checkpoints = math.ceil(K / 8)
    assert o.counter.ifo == [checkpoints * 60 + 2 * 8 * (K - checkpoints)] * 2
    assert o.counter.ifo[0] == method.schedule.calls(K, 60)


def test_given_numbers_replace_the_theorems() -> None:
    problem = logistic(60)
    method = spider(2, 0.01, S1=20, S2=3, q=5)
    method.start(oracle(problem), problem.start(1), own_stop=False)
    assert method.schedule == Schedule(20, 3, 5)


def test_theory_counts_are_reported() -> None:
    problem = logistic(60)
    method = spider(2, 0.1)
    method.start(oracle(problem), problem.start(1), own_stop=False)
    K = iterations(problem.smoothness, math.log(2), 0.1, 1.0)
    theory = method.theory()
    assert theory["theory_steps"] == K
    assert theory["theory_calls"] == pytest.approx(
        60 + 8 * problem.smoothness * math.log(2) * math.sqrt(60) / 0.01 + 2 * math.sqrt(60)
    )


@pytest.mark.parametrize(
    ("key", "value"), [("eps", 0.0), ("n0", -1.0), ("smoothness", 0.0), ("S2", 0), ("q", -3), ("p", 1.5)]
)
def test_bad_hyperparameters_are_named(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"method\.{key}={value}"):
        spider(2, **({"eps": 0.1} | {key: value}))


def test_n0_beyond_its_range_is_refused_with_the_range() -> None:
    problem = logistic(64)
    with pytest.raises(UserError, match=r"method\.n0=9\.0; valid: 1 to sqrt\(n\) = 8"):
        spider(2, 0.1, n0=9.0).start(oracle(problem), problem.start(1), own_stop=False)


def test_an_unknown_constant_is_asked_for() -> None:
    problem = logistic()
    problem.smoothness = None
    with pytest.raises(UserError, match=r"method\.smoothness=null"):
        spider(2, 0.1).start(oracle(problem), problem.start(1), own_stop=False)
