"""The path-integrated estimator, by enumeration of all that can be drawn."""

import pytest
import torch
from spider_toys import Quadratics, Sequences, logistic, normal, oracle, quadratics, spider

from papers.spider.problems.protocol import Oracle, Problem

N, STEPS = 6, 3


def enumerate_runs(problem: Problem, eps: float) -> tuple[Oracle, list[torch.Tensor], list[torch.Tensor]]:
    """All N^STEPS runs with S2 = 1 after a full checkpoint: x_k and v_k - grad f(x_k), k = 0..STEPS."""
    o = Oracle(problem, Sequences(N, STEPS))
    method = spider(1, eps, S2=1, q=STEPS + 1, gap=1.0)
    method.start(o, problem.start(N**STEPS), own_stop=False)
    points, errors = [], []
    for _ in range(STEPS + 1):
        x = method.x
        method.step()
        points.append(x)
        errors.append(method.v - problem.true_gradient(x))
    return o, points, errors


@pytest.mark.parametrize("problem", [quadratics(N), logistic(N, 3)], ids=["quadratics", "logistic"])
def test_estimator_is_unbiased_over_all_index_sequences(problem: Problem) -> None:
    _, _, errors = enumerate_runs(problem, 0.1)
    assert float(errors[0].abs().max()) < 1e-14
    for error in errors[1:]:
        assert float(error.abs().max()) > 1e-4
        assert float(error.mean(0).abs().max()) < 1e-14


@pytest.mark.parametrize("problem", [quadratics(N), logistic(N, 3)], ids=["quadratics", "logistic"])
def test_second_moment_obeys_the_lemma(problem: Problem) -> None:
    eps = 0.1
    _, points, errors = enumerate_runs(problem, eps)
    assert problem.smoothness is not None
    step = eps / problem.smoothness
    for k in range(1, STEPS + 1):
        moved = torch.linalg.vector_norm(points[k] - points[k - 1], dim=1)
        torch.testing.assert_close(moved, torch.full_like(moved, step))
        second_moment = float(errors[k].square().sum(1).mean())
        assert 0 < second_moment <= k * problem.smoothness**2 * step**2


def test_estimator_is_exact_where_all_components_share_their_quadratic_part() -> None:
    _, _, errors = enumerate_runs(quadratics(N, common=True), 0.1)
    assert max(float(error.abs().max()) for error in errors) < 1e-14


def test_q_1_is_normalised_gradient_descent() -> None:
    problem = quadratics(N)
    method = spider(2, 0.1, q=1)
    method.start(oracle(problem), problem.start(1), own_stop=False)
    x = problem.start(1)
    for _ in range(5):
        method.step()
        gradient = problem.true_gradient(x)
        eta = min(0.1 / (problem.smoothness * float(gradient.norm())), 0.5 / problem.smoothness)
        x = x - eta * gradient
        torch.testing.assert_close(method.x, x, rtol=1e-13, atol=1e-13)


def test_one_component_is_gradient_descent() -> None:
    problem = quadratics(1)
    method = spider(2, 0.1, q=10)
    method.start(oracle(problem), problem.start(1), own_stop=False)
    for _ in range(8):
        x = method.x
        method.step()
        torch.testing.assert_close(method.v, problem.true_gradient(x), rtol=1e-12, atol=1e-12)


def test_option_1_steps_have_one_length_and_option_2_steps_at_most_that() -> None:
    problem = logistic()
    for option in (1, 2):
        method = spider(option, 0.02)
        method.start(oracle(problem, 3), problem.start(3), own_stop=False)
        length = 0.02 / problem.smoothness
        for _ in range(40):
            x = method.x
            method.step()
            moved = torch.linalg.vector_norm(method.x - x, dim=1)
            if option == 1:
                torch.testing.assert_close(moved, torch.full_like(moved, length), rtol=1e-9, atol=0)
            else:
                large = torch.linalg.vector_norm(method.v, dim=1) >= 2 * 0.02
                expected = torch.where(large, length, moved)
                torch.testing.assert_close(moved, expected, rtol=1e-9, atol=0)
                assert float(moved.max()) <= length * (1 + 1e-9)


@pytest.mark.parametrize("option", [1, 2])
def test_a_zero_estimate_moves_nothing(option: int) -> None:
    problem = Quadratics(torch.eye(2)[None].double(), torch.zeros(1, 2).double(), torch.zeros(2).double())
    method = spider(option, 0.1)
    method.start(oracle(problem), problem.start(1), own_stop=False)
    method.step()
    assert torch.equal(method.x, torch.zeros(1, 2, dtype=torch.float64))


def test_error_grows_linearly_in_k_where_svrgs_grows_quadratically() -> None:
    """Claim 5: moving by equal steps in one direction, at equal batch."""
    n, d, R, K = 40, 4, 400, 32
    problem = quadratics(n, d)
    o = oracle(problem, R)
    direction = normal(d, seed=9) / normal(d, seed=9).norm() * 0.05
    x0 = problem.start(R)
    v = problem.true_gradient(x0)
    x, spider_errors, svrg_errors = x0, [], []
    for _ in range(K):
        new = x + direction
        v = v + o.gradient_difference(new, x, o.draw(2))
        svrg = problem.true_gradient(x0) + o.gradient_difference(new, x0, o.draw(2))
        truth = problem.true_gradient(new)
        spider_errors.append(float((v - truth).square().sum(1).mean()))
        svrg_errors.append(float((svrg - truth).square().sum(1).mean()))
        x = new
    spider_growth, svrg_growth = spider_errors[-1] / spider_errors[7], svrg_errors[-1] / svrg_errors[7]
    assert 3 < spider_growth < 5.5
    assert 12 < svrg_growth < 20
