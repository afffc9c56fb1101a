"""The two-stage algorithm and its arms: guarantees, certificates, limits, baselines."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saddle_toys import b1, b2, ball, ellipsoids, framework, inside, pairs, programme, run, stochastic
from scipy.optimize import NonlinearConstraint, minimize

from common.base.errors import UserError
from papers.saddle.baselines import (
    FrankWolfe,
    PerturbedProjectedGradient,
    ProjectedGradient,
    SecondOrderFrankWolfe,
)
from papers.saddle.framework import FiniteSum, Framework, line_search_first, line_search_second
from papers.saddle.method import first_guarantee, second_guarantee
from papers.saddle.oracles import Tangent
from papers.saddle.problems import IndefiniteQuadratic

PAIRS = pairs()
B1 = programme(b1(), ball(2, 2.0))


def least_ratio(steps: list[Any]) -> float:
    return min((s.fall / s.guaranteed for s in steps if s.guaranteed is not None), default=np.inf)


def test_the_guarantees_are_the_closed_forms_where_steps_are_not_cut() -> None:
    eps, gamma, rho, L, M, D = 0.125, 0.25, 0.7, 11.0, 12.0, 4.0
    assert first_guarantee(eps, L, D) == pytest.approx(eps**2 / (2 * L * D**2))
    assert second_guarantee(rho * gamma, M, D) == pytest.approx((rho * gamma) ** 3 / (3 * M**2 * D**6))


def test_where_the_hessian_is_constant_the_step_goes_all_the_way() -> None:
    assert second_guarantee(0.3, 0.0, 2.0) == pytest.approx(0.15)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gamma=st.sampled_from([0.25, 0.5, 1.0]),
    eps=st.sampled_from([0.1, 0.3]),
    rho=st.sampled_from([0.5, 1.0]),
    which=st.sampled_from(["b1", "b2", "b3", "b7"]),
    first_stage=st.sampled_from(["frank_wolfe", "projected_gradient"]),
    tangent=st.sampled_from(["leq", "eq"]),
    step=st.sampled_from(["theory", "line_search"]),
)
def test_every_step_falls_by_what_is_promised_and_stays_in_the_set(
    seed: int, gamma: float, eps: float, rho: float, which: str, first_stage: str, tangent: str, step: str
) -> None:
    problem, region = PAIRS[which]
    method = framework(eps=eps, gamma=gamma, rho=rho, first_stage=first_stage, tangent=tangent, step=step)
    p = programme(problem, region)
    x = inside(region, np.random.default_rng(seed))
    method.start(p, x, seed)
    for _ in range(400):
        made = method.step()
        assert region.contains(method.x)
        if method.stopped:
            break
        assert made.guaranteed is not None and made.fall >= made.guaranteed * (1 - 1e-9) > 0
    least = problem.minimum(region)
    assert least is not None and method.k <= method.iteration_bound(problem.value(x) - least)


def test_from_b1s_saddle_the_counts_are_those_of_the_specification() -> None:
    """gamma .5, .25, .125 with eps = gamma / 2: 348, 841, 1819 and 109, 102, 99 steps."""
    for gamma, first, second, value in ((0.5, 348, 109, -0.2339), (0.25, 841, 102, -0.2461)):
        method = framework(eps=gamma / 2, gamma=gamma)
        steps = run(method, B1, np.zeros(2))
        assert [sum(s.kind == kind for s in steps) for kind in ("first", "second")] == [first, second]
        assert b1().value(method.x) == pytest.approx(value, abs=1e-4)
        assert method.iteration_bound(0.25) == pytest.approx(0.25 * 3 * 144 * 4**6 / gamma**3)
        assert method.k < 1e-3 * method.iteration_bound(0.25)


@pytest.mark.parametrize("method", [FrankWolfe(eps=0.1, step="short"), ProjectedGradient(eps=0.1)])
def test_first_order_methods_stay_at_the_saddle_and_on_its_stable_manifold(method: Any) -> None:
    run(method, B1, np.zeros(2))
    assert method.x.tolist() == [0, 0] and method.k == 0
    run(method, B1, np.array([1.3, 0.0]))
    assert method.x[1] == 0 and b1().value(method.x) > -1e-9
    left = framework(step="line_search")
    run(left, B1, np.array([1.3, 0.0]))
    assert b1().value(left.x) < -0.24


def test_eq_stops_near_the_saddle_where_leq_leaves_it() -> None:
    near = np.array([0.0, 1e-3])
    eq = framework(tangent="eq")
    steps = run(eq, B1, near)
    assert steps[-1].kind == "stop" and steps[-1].answer is not None
    assert steps[-1].answer.lower > -1e-3 and b1().value(eq.x) > -1e-5
    leq = framework(tangent="leq")
    run(leq, B1, near)
    assert b1().value(leq.x) < -0.24


def test_at_the_balls_boundary_the_definition_sees_nothing() -> None:
    """x = v2 of a quadratic with lambda_1 < lambda_2 < 0: a certified stop at what is no local minimum."""
    problem, region = b2(5, 2), ball(5)
    x = problem.starts(region)["blind_spot"]
    method = framework(gamma=1e-3, eps=1e-6)
    steps = run(method, programme(problem, region), x)
    assert len(steps) == 1 and steps[0].answer is not None and steps[0].answer.lower >= -1e-3
    values, vectors = np.linalg.eigh(problem.H)
    nearby = region.project(x + 1e-3 * vectors[:, 0])
    assert problem.value(nearby) < problem.value(x) - 1e-8
    assert problem.value(x) == pytest.approx(values[1] / 2)


def test_gamma_infinite_is_frank_wolfe() -> None:
    x = np.array([0.9, 0.8])
    limit, plain = framework(gamma=1e9, step="line_search"), FrankWolfe(eps=0.125, step="short")
    run(limit, B1, x)
    run(plain, B1, x)
    assert np.array_equal(limit.x, plain.x) and limit.k == plain.k > 5


def test_a_convex_function_stops_at_its_first_first_order_point() -> None:
    A = np.diag([1.0, 2.0, 0.5]).tolist()
    problem = IndefiniteQuadratic(kind="saddle_problem", radius=1.0, dim=3, negative=1, design_seed=0, A=A)
    method = framework(eps=0.01)
    steps = run(method, programme(problem, ball(3)), np.array([0.9, 0.0, 0.3]))
    assert [s.kind for s in steps[:-1]] == ["first"] * (len(steps) - 1) and steps[-1].kind == "stop"
    answer = steps[-1].answer
    assert answer is not None and answer.value == 0 and answer.lower >= -1e-9
    assert steps[-1].gap <= 0.01 < steps[-2].gap


def test_the_stop_is_a_second_order_point_by_an_independent_test() -> None:
    """No u of many in C with grad'(u - x) <= 0 has q(u) < -gamma."""
    random = np.random.default_rng(0)
    for name in ("b1", "b3", "b7", "b4"):
        problem, region = PAIRS[name]
        method = framework(eps=0.1, gamma=1.0, step="line_search")
        run(method, programme(problem, region), problem.start())
        assert method.stopped
        g, H = problem.gradient(method.x), problem.hessian(method.x)
        assert g @ (method.x - region.lmo(g)) <= 0.1
        moves = np.array([region.lmo(random.standard_normal(problem.dim)) for _ in range(500)]) - method.x
        moves = moves[moves @ g <= 0]
        assert len(moves) == 0 or np.einsum("ki,ij,kj->k", moves, H, moves).min() >= -1.0


def test_scipys_trust_constr_ends_no_lower_on_b2() -> None:
    problem, region = b2(5, 2), ball(5)
    method = framework(eps=1e-3, gamma=1e-3)
    run(method, programme(problem, region), np.zeros(5))
    inside_ball = NonlinearConstraint(lambda x: x @ x, -np.inf, 1.0, jac=lambda x: 2 * x[None])
    ends = [
        minimize(
            problem.value,
            0.1 * np.random.default_rng(seed).standard_normal(5),
            jac=problem.gradient,
            hess=problem.hessian,
            method="trust-constr",
            constraints=[inside_ball],
        ).fun
        for seed in range(3)
    ]
    assert problem.value(method.x) <= min(ends) + 1e-5
    assert min(ends) == pytest.approx(problem.minimum(region), abs=1e-3)


def test_the_line_searches_minimise_their_models() -> None:
    random = np.random.default_rng(1)
    t = np.linspace(0, 1, 20_001)
    for _ in range(20):
        p, L, M = random.standard_normal(3), *random.uniform(0.1, 5, 2)
        slope, q, gap = -random.exponential(), -random.exponential(), random.exponential()
        model = t * slope + t**2 * q / 2 + t**3 * M * np.linalg.norm(p) ** 3 / 6
        assert line_search_second(slope, q, M, p) == pytest.approx(t[model.argmin()], abs=1e-4)
        model = -t * gap + t**2 * L * (p @ p) / 2
        assert line_search_first(gap, L, p) == pytest.approx(t[model.argmin()], abs=1e-4)


def test_an_answer_worth_less_than_rho_goes_on_with_what_it_is_worth() -> None:
    """Where q(u) >= -rho gamma but the lower bound is below -gamma, the step's threshold is |q(u)|."""

    class Weak:
        def __init__(self, exact: Any) -> None:
            self.exact = exact

        def __call__(self, H: Any, x: Any, tangent: Tangent) -> Any:
            answer = self.exact(H, x, tangent)
            part = x + 0.1 * (answer.points - x)
            return type(answer)(part, answer.value / 100, answer.lower)

    method = framework(gamma=0.25)
    method.start(B1, np.zeros(2), 0)
    method.oracle = Weak(method.oracle)  # type: ignore[assignment]
    made = method.step()
    assert made.kind == "second" and made.answer is not None
    assert made.answer.value == pytest.approx(-0.04) and made.answer.rho == pytest.approx(0.01)
    assert made.guaranteed == pytest.approx(second_guarantee(0.04, 12.0, 4.0))
    assert made.fall >= made.guaranteed


def test_the_sign_of_a_free_direction_follows_f_or_the_seed() -> None:
    ends = set()
    for seed in range(6):
        method = framework(sign="seed")
        method.start(B1, np.zeros(2), seed)
        method.step()
        ends.add(float(np.sign(method.x[1])))
    assert ends == {-1.0, 1.0}


# ---- Algorithm 2


def test_components_average_to_nothing_and_have_the_noise_asked_for() -> None:
    parts = FiniteSum(4, 200, 0.3, 0.2, seed=0)
    np.testing.assert_allclose(parts.a.sum(0), 0, atol=1e-12)
    np.testing.assert_allclose(parts.B.sum(0), 0, atol=1e-12)
    assert np.square(parts.a).sum(1).mean() ** 0.5 == pytest.approx(0.3)
    assert np.square(np.linalg.norm(parts.B, 2, axis=(1, 2))).mean() ** 0.5 == pytest.approx(0.2)
    random = np.random.default_rng(0)
    x = np.ones(4)
    assert not parts.gradient(x, 200, random).any() and not parts.hessian(200, random).any()
    errors = [
        np.linalg.norm([parts.gradient(x, b, random) for _ in range(300)], axis=1).mean() for b in (4, 64)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


def test_the_theorys_batches_grow_as_stated() -> None:
    def sizes(eps: float, gamma: float) -> tuple[int, int]:
        method = stochastic(
            eps=eps,
            gamma=gamma,
            gradient_noise=1.0,
            hessian_noise=0.1,
            gradient_batch=None,
            hessian_batch=None,
        )
        method.start(B1, np.zeros(2), 0)
        return method.b_g, method.b_H

    (g1, h1), (g2, h2) = sizes(0.1, 0.5), sizes(0.1, 0.25)
    assert g2 / g1 == pytest.approx(16, rel=1e-3) and h2 / h1 == pytest.approx(4, rel=1e-2)


def test_the_stochastic_arm_leaves_the_saddle_and_stops_at_a_second_order_point() -> None:
    for seed in range(3):
        method = stochastic()
        run(method, B1, np.zeros(2), seed=seed)
        assert method.stopped and b1().value(method.x) < -0.24


def test_the_same_seed_draws_the_same_path() -> None:
    ends = []
    for seed in (0, 0, 1):
        method = stochastic(gradient_batch=10, hessian_batch=10)
        run(method, B1, np.zeros(2), most=50, seed=seed)
        ends.append(method.x.tolist())
    assert ends[0] == ends[1] != ends[2]


# ---- baselines


def test_perturbed_projected_gradient_and_second_order_frank_wolfe_leave_the_saddle() -> None:
    jumps = PerturbedProjectedGradient(eps=0.05, radius=0.05, patience=100, decrease=1e-3)
    run(jumps, B1, np.zeros(2))
    assert jumps.stopped and b1().value(jumps.x) < -0.249
    curved = SecondOrderFrankWolfe(eps=0.05, gamma=0.1, oracle="auto")
    run(curved, B1, np.zeros(2))
    assert curved.stopped and b1().value(curved.x) < -0.24


def test_the_decaying_step_of_frank_wolfe_comes_close_too() -> None:
    method = FrankWolfe(eps=0.02, step="decay")
    run(method, B1, np.array([1.0, 0.7]))
    assert method.stopped and b1().value(method.x) < -0.24


def test_over_ellipsoids_the_certificate_comes_from_the_semidefinite_bound() -> None:
    pytest.importorskip("cvxpy")
    problem, region = b2(5, 2), ellipsoids(5)
    method = framework(eps=0.05, gamma=0.1)
    steps = run(method, programme(problem, region), np.zeros(5))
    assert method.stopped and steps[-1].answer is not None and steps[-1].answer.lower >= -0.1
    assert least_ratio(steps) >= 1
    assert problem.value(method.x) < -0.1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"eps": 0.0}, "method.eps=0.0"),
        ({"gamma": -1.0}, "method.gamma=-1.0"),
        ({"rho": 1.5}, "method.rho=1.5"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        framework(**given)
    assert isinstance(framework(), Framework)
