"""The error of an estimate and the least curvature, against float64 numpy from the definitions."""

import itertools

import numpy as np
import pytest
import torch
from spider_toys import (
    Quadratics,
    Sequences,
    any_method,
    baseline,
    logistic,
    normal,
    oracle,
    quadratics,
    spider,
)

from common.base.errors import UserError
from papers.spider.measure import check_age, estimator_error, least_curvature
from papers.spider.method import Method
from papers.spider.models import Quartic
from papers.spider.problems.linear import LogisticProblem
from papers.spider.problems.protocol import Oracle
from papers.spider.problems.quartic import QuarticProblem

N, AGE = 6, 2


def gradient(problem: Quadratics, i: int, x: np.ndarray) -> np.ndarray:
    return problem.A[i].numpy() @ x + problem.b[i].numpy()


def mean_gradient(problem: Quadratics, x: np.ndarray) -> np.ndarray:
    return np.mean([gradient(problem, i, x) for i in range(N)], axis=0)


def errors_by_hand(problem: Quadratics, eta: float, recursive: bool) -> np.ndarray:
    """v_2 - grad f(x_2) of SpiderBoost or SVRG with one sample a step, for all index sequences."""
    found = []
    snapshot = problem.x0.numpy()
    # SVRG draws a sample at its snapshot too, where the difference is 0
    for sequence in itertools.product(range(N), repeat=AGE if recursive else AGE + 1):
        previous, v = snapshot, mean_gradient(problem, snapshot)
        for i in sequence[-AGE:]:
            x = previous - eta * v
            reference = previous if recursive else snapshot
            base = v if recursive else mean_gradient(problem, snapshot)
            v = gradient(problem, i, x) - gradient(problem, i, reference) + base
            previous = x
        found.append(v - mean_gradient(problem, previous))
    return np.array(found)


@pytest.mark.parametrize("recursive", [True, False], ids=["spiderboost", "svrg"])
def test_error_and_bias_are_those_of_all_index_sequences(recursive: bool) -> None:
    problem, eta = quadratics(N), 0.1
    draws = AGE if recursive else AGE + 1
    method: Method
    if recursive:
        method = baseline("spiderboost", S2=1, q=8, step_size=eta)
    else:
        method = baseline("svrg", batch_size=1, epoch_length=8, step_size=eta)
    method.start(Oracle(problem, Sequences(N, draws)), problem.start(N**draws), own_stop=False)
    for _ in range(AGE + 1):
        method.step()
    by_hand = errors_by_hand(problem, eta, recursive)
    measured = estimator_error(problem, method)
    assert measured["estimator_error"] == pytest.approx((by_hand**2).sum(1).mean(), rel=1e-10)
    assert measured["estimator_error"] > 1e-6
    assert measured["estimator_bias"] < 1e-7


def test_a_biased_estimate_shows() -> None:
    problem = logistic()
    method = spider(1, 0.02)
    method.start(oracle(problem, 50), problem.start(50), own_stop=False)
    for _ in range(5):
        method.step()
    before = estimator_error(problem, method)
    assert before["estimator_bias"] < 0.5
    method.v = method.v + torch.full_like(method.v, 1.0)
    after = estimator_error(problem, method)
    assert after["estimator_bias"] == pytest.approx(1.0, abs=1e-3)
    assert after["estimator_error"] == pytest.approx(4.0, rel=0.05)


def test_an_exact_estimate_has_no_error_and_no_bias() -> None:
    problem = logistic()
    method = spider(1, 0.02)
    method.start(oracle(problem, 3), problem.start(3), own_stop=False)
    method.step()
    measured = estimator_error(problem, method)
    assert measured["estimator_error"] < 1e-30
    assert measured["estimator_bound"] == 0.0


@pytest.mark.parametrize("age", [1, 3, 7])
def test_the_bound_is_the_lemmas(age: int) -> None:
    """k L^2 step^2 / S2 after a checkpoint of all n; one of S1 samples adds sigma^2 / S1."""
    problem, eps, n0 = logistic(64), 0.02, 2.0
    step = eps / (problem.smoothness * n0)
    for S1, first in ((None, 0.0), (10, problem.sigma**2 / 10)):
        method = spider(1, eps, n0=n0, S1=S1)
        method.start(oracle(problem), problem.start(1), own_stop=False)
        for _ in range(age + 1):
            method.step()
        bound = estimator_error(problem, method)["estimator_bound"]
        assert bound == pytest.approx(first + age * (problem.smoothness * step) ** 2 / 4)


@pytest.mark.parametrize("name", ["spiderboost", "svrg", "spider_szo"])
def test_methods_without_a_bound_report_none(name: str) -> None:
    problem = logistic()
    method = any_method(name)
    method.start(oracle(problem, 2), problem.start(2), own_stop=False)
    for _ in range(2):
        method.step()
    assert set(estimator_error(problem, method)) == {"estimator_error", "estimator_bias"}


def test_an_age_that_no_estimate_reaches_is_refused() -> None:
    problem = logistic(60)
    method = spider(1, 0.02)
    method.start(oracle(problem), problem.start(1), own_stop=False)
    check_age(method, 7)
    with pytest.raises(UserError, match=r"estimator_age=8: .* every 8 steps \(valid: 0 to 7\)"):
        check_age(method, 8)
    sgd = baseline("sgd")
    sgd.start(oracle(problem), problem.start(1), own_stop=False)
    with pytest.raises(UserError, match="SGD has no estimate that ages"):
        check_age(sgd, 1)


def test_least_curvature_is_the_least_eigenvalue_over_the_points() -> None:
    model = Quartic(shape=(10,), classes=None, curvature=1.0, noise=0.5, design_seed=0)
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)
    problem = QuarticProblem(model.A.double(), model.B.double(), signs)
    x = 0.3 * normal(4, 10)
    hessians = model.A.double().numpy() + 12 * np.stack([np.diag(point**2) for point in x.numpy()])
    expected = np.linalg.eigvalsh(hessians).min()
    assert least_curvature(problem, x) == pytest.approx(expected, abs=1e-10)
    assert least_curvature(problem, torch.zeros(1, 10).double()) == pytest.approx(-1.0, abs=1e-6)


def test_least_curvature_of_a_logistic_problem_is_that_of_differences_of_its_gradient() -> None:
    problem: LogisticProblem = logistic()
    x, h = normal(1, 4), 1e-6
    shifts = h * torch.eye(4, dtype=torch.float64)
    columns = [(problem.true_gradient(x + s) - problem.true_gradient(x - s))[0] / (2 * h) for s in shifts]
    hessian = torch.stack(columns).numpy()
    expected = np.linalg.eigvalsh((hessian + hessian.T) / 2).min()
    assert least_curvature(problem, x) == pytest.approx(expected, abs=1e-7)
