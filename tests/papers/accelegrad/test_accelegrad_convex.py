"""The batched solvers against Algorithm 2, each other and line searches; optima by other solvers."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import cvxpy as cp
import numpy as np
import pytest
import torch
from accelegrad_toys import algorithm2
from torch import Tensor

from common.base.errors import UserError
from common.numerics.sampling import ReplicateSampler
from papers.accelegrad.accelegrad import AcceleGrad
from papers.accelegrad.baselines import AdaNGD, ScalarAdaGrad
from papers.accelegrad.convex import (
    AcceleGradSolver,
    AdaNGDSolver,
    AGDSolver,
    SGDSolver,
    Solver,
    Together,
    TorchSolver,
    UniversalDual,
    UniversalFast,
    UniversalPrimal,
)
from papers.accelegrad.problems import LpRegression

accelegrad = partial(
    AcceleGradSolver,
    D=None,
    d_scale=1.0,
    G=0.0,
    stepsize="paper",
    radius=None,
    doubling=False,
    output="average",
)
adagrad = partial(AdaNGDSolver, D=None, d_scale=1.0, radius=None, k=0.0)
sgd = partial(SGDSolver, D=None, d_scale=1.0, radius=None, c=None, G=None, output="average")
ALL: list[Callable[[], Solver]] = [
    accelegrad,
    partial(accelegrad, doubling=True, radius=2.0, output="last"),
    adagrad,
    partial(adagrad, k=1.0),
    sgd,
    partial(AGDSolver, beta=None, beta_scale=1.0),
    partial(UniversalPrimal, eps=0.01, L=1.0, output="best"),
    partial(UniversalDual, eps=0.01, L=1.0, output="average"),
    partial(UniversalFast, eps=0.01, L=1.0, line_search=True),
]


def problem(p: int, m: int = 30, d: int = 8, seed: int = 0) -> LpRegression:
    random = torch.Generator().manual_seed(seed)
    A = torch.randn(m, d, generator=random, dtype=torch.float64)
    b = A @ torch.randn(d, generator=random, dtype=torch.float64)
    return LpRegression(A, b + 0.1 * torch.randn(m, generator=random, dtype=torch.float64), p)


S = TypeVar("S", bound=Solver)


def begin(solver: S, on: LpRegression, replicates: int = 1, distance: Any = 2.0) -> S:
    start = torch.zeros(replicates, on.A.shape[1], dtype=torch.float64)
    solver.start(start, distance, on.smoothness)
    return solver


def go(solver: S, on: LpRegression, calls: int) -> S:
    for _ in range(calls):
        solver.receive(*on.oracle(solver.query))
    return solver


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"G": 5.0}, {"stepsize": "authors_code"}, {"radius": 0.8}, {"doubling": True}]
)
def test_accelegrad_is_algorithm_2_for_each_replicate_with_its_own_d(p: int, options: dict[str, Any]) -> None:
    on = problem(p)
    distances = torch.tensor([0.3, 1.0, 7.0], dtype=torch.float64)
    solver = go(begin(accelegrad(**options), on, 3, distances), on, 50)
    for row, D in enumerate(distances.tolist()):
        expected = algorithm2(
            np.zeros(8), lambda x, t: on.oracle(torch.tensor(x)[None])[1][0].numpy(), 50, D=D, **options
        )
        np.testing.assert_allclose(solver.query[row], expected["next"], rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(solver.output[row], expected["average"], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("solver", "optimizer"),
    [
        (accelegrad, partial(AcceleGrad, D=2.0)),
        (partial(accelegrad, radius=0.5), partial(AcceleGrad, D=2.0, radius=0.5)),
        (adagrad, partial(ScalarAdaGrad, D=2.0)),
        (partial(adagrad, k=1.0), partial(AdaNGD, k=1.0, D=2.0)),
    ],
)
def test_the_torch_optimizers_are_the_batched_solvers(solver: Any, optimizer: Any) -> None:
    on = problem(2)
    batched, wrapped = begin(solver(), on), begin(TorchSolver(optimizer), on)
    for _ in range(100):
        np.testing.assert_allclose(wrapped.query, batched.query, rtol=1e-8, atol=1e-10)
        go(batched, on, 1)
        go(wrapped, on, 1)
    np.testing.assert_allclose(wrapped.output, batched.output, rtol=1e-8, atol=1e-10)


def test_the_universal_fast_method_without_search_is_accelerated_gradient_descent() -> None:
    on = problem(2)
    assert on.smoothness is not None
    fast = begin(UniversalFast(eps=1e-300, L=on.smoothness, line_search=False), on)
    agd = begin(AGDSolver(beta=None, beta_scale=1.0), on)
    for _ in range(60):
        np.testing.assert_allclose(fast.query, agd.query, rtol=1e-9, atol=1e-11)
        go(fast, on, 1)
        go(agd, on, 1)
        np.testing.assert_allclose(fast.output, agd.output, rtol=1e-9, atol=1e-11)


def test_agd_keeps_its_bound_and_diverges_with_a_quarter_of_the_smoothness() -> None:
    on = problem(2)
    assert on.smoothness is not None
    start = float(on.gap(torch.zeros(1, 8, dtype=torch.float64)))
    solver = begin(AGDSolver(beta=None, beta_scale=1.0), on)
    for k in range(1, 80):
        go(solver, on, 1)
        bound = 2 * on.smoothness * float(on.minimiser.square().sum()) / (k + 1) ** 2
        assert float(on.gap(solver.output)) <= bound
    assert float(on.gap(go(begin(AGDSolver(beta=None, beta_scale=0.25), on), on, 100).output)) > 1e6 * start


def test_primal_and_dual_universal_methods_ask_for_the_same_points() -> None:
    on = problem(1)
    primal = begin(UniversalPrimal(eps=0.1, L=1.0, output="average"), on)
    dual = begin(UniversalDual(eps=0.1, L=1.0, output="average"), on)
    for _ in range(60):
        np.testing.assert_allclose(primal.query, dual.query, rtol=1e-7, atol=1e-9)
        go(primal, on, 1)
        go(dual, on, 1)
    np.testing.assert_allclose(primal.output, dual.output, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("p", [1, 2])
def test_the_primal_methods_line_search_takes_the_smallest_power_that_passes(p: int) -> None:
    """Written out for one replicate: 1 call at the start and 1 a trial."""
    on, eps = problem(p), 0.05
    solver = begin(UniversalPrimal(eps=eps, L=1.0, output="best"), on)
    x = torch.zeros(8, dtype=torch.float64)

    def oracle(x: Tensor) -> tuple[float, Tensor]:
        value, slope = on.oracle(x[None])
        return float(value), slope[0]

    L, (value, slope) = 1.0, oracle(x)
    go(solver, on, 1)
    for _ in range(15):
        trials = 0
        while True:
            M = 2**trials * L
            new = x - slope / M
            np.testing.assert_allclose(solver.query[0], new, rtol=1e-8, atol=1e-10)
            f, g = oracle(new)
            go(solver, on, 1)
            trials += 1
            if f <= value - float(slope @ slope) / (2 * M) + eps / 2:
                break
        x, value, slope, L = new, f, g, M / 2


@pytest.mark.parametrize("p", [1, 2])
def test_the_fast_method_follows_the_reference_two_calls_a_trial(p: int) -> None:
    on, eps = problem(p), 0.05
    solver = begin(UniversalFast(eps=eps, L=1.0, line_search=True), on)
    v = y = np.zeros(8)
    A, L = 0.0, 1.0

    def oracle(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = on.oracle(torch.tensor(x)[None])
        return float(value), slope[0].numpy()

    for _ in range(12):
        M = L
        while True:
            a = (1 + np.sqrt(1 + 4 * M * A)) / (2 * M)
            tau = a / (A + a)
            x = tau * v + (1 - tau) * y
            value, slope = oracle(x)
            hat = v - a * slope
            new = tau * hat + (1 - tau) * y
            np.testing.assert_allclose(solver.query[0], x, rtol=1e-7, atol=1e-9)
            go(solver, on, 1)
            np.testing.assert_allclose(solver.query[0], new, rtol=1e-7, atol=1e-9)
            go(solver, on, 1)
            step = new - x
            if oracle(new)[0] <= value + slope @ step + M / 2 * step @ step + eps * tau / 2:
                break
            M *= 2
        v, y, A, L = hat, new, A + a, M / 2
    np.testing.assert_allclose(solver.output[0], y, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("eps", [1.0, 0.01])
def test_the_fast_method_reaches_its_accuracy(eps: float) -> None:
    for p in (1, 2):
        on = problem(p)
        solver = go(begin(UniversalFast(eps=eps, L=1.0, line_search=True), on), on, 4000)
        assert float(on.gap(solver.output)) <= eps


@pytest.mark.parametrize("build", ALL)
def test_a_replicate_does_not_feel_the_others(build: Callable[[], Solver]) -> None:
    on = problem(2)
    starts = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = build()
    together.start(starts, 2.0, on.smoothness)
    go(together, on, 40)
    for row in range(3):
        alone = build()
        alone.start(starts[row : row + 1], 2.0, on.smoothness)
        np.testing.assert_allclose(go(alone, on, 40).output[0], together.output[row], rtol=1e-6, atol=1e-8)


def test_methods_in_lockstep_do_what_each_does_alone() -> None:
    on = problem(1)
    makers = [build for build in ALL if build is not ALL[5]]
    joined = Together([begin(build(), on, 2) for build in makers])
    go(joined, on, 30)
    apart = torch.cat([go(begin(build(), on, 2), on, 30).output for build in makers])
    np.testing.assert_allclose(joined.output, apart, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("build", [*ALL, lambda: TorchSolver(partial(AcceleGrad, D=2.0))])
def test_a_saved_solver_goes_on_bit_for_bit(build: Callable[[], Solver]) -> None:
    on = problem(2)
    for stop in (0, 1, 20, 21):
        first = go(begin(build(), on, 2), on, stop)
        buffer = io.BytesIO()
        torch.save(first.state_dict(), buffer)
        go(first, on, 25)
        buffer.seek(0)
        second = begin(build(), on, 2)
        second.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(go(second, on, 25).output, first.output)


def test_sgd_and_its_averages_are_as_written() -> None:
    on = problem(1)
    last = go(begin(sgd(c=0.1, output="last"), on), on, 20)
    mean = go(begin(sgd(c=0.1), on), on, 20)
    x, points = np.zeros(8), []
    for t in range(1, 21):
        points.append(x)
        x = x - 0.1 / np.sqrt(t) * on.oracle(torch.tensor(x)[None])[1][0].numpy()
    np.testing.assert_allclose(last.output[0], x, rtol=1e-10)
    np.testing.assert_allclose(mean.output[0], np.mean(points, axis=0), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("of_A", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("of_b", [0.0, 1e-8, 1.0, 1e8])
def test_the_optimum_does_not_depend_on_the_units(p: int, of_A: float, of_b: float) -> None:
    """HiGHS's own tolerances would: a least sum 38 % too large for b times 1e-8."""
    plain = problem(p)
    scaled = LpRegression(plain.A * of_A, plain.b * of_b, p)
    torch.testing.assert_close(scaled.minimiser * of_A, plain.minimiser * of_b, rtol=1e-9, atol=1e-9 * of_b)
    assert scaled.minimum == pytest.approx(plain.minimum * of_b**p, rel=1e-9)


@pytest.mark.parametrize("p", [1, 2])
def test_the_optimum_is_the_one_of_another_solver(p: int) -> None:
    on = problem(p, m=60, d=10, seed=3)
    x = cp.Variable(10)
    residual = on.A.numpy() @ x - on.b.numpy()
    programme = cp.Problem(cp.Minimize(cp.norm1(residual) if p == 1 else cp.sum_squares(residual)))
    programme.solve(solver=cp.CLARABEL)
    assert on.minimum == pytest.approx(programme.value, rel=1e-6)
    assert x.value is not None
    np.testing.assert_allclose(on.minimiser, x.value, rtol=1e-4, atol=1e-6)
    assert float(on.gap(on.minimiser[None])) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("p", [1, 2])
def test_values_and_gradients_are_those_of_autograd_on_all_rows(p: int) -> None:
    on = problem(p)
    x = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    values = (x @ on.A.T - on.b).abs().pow(p).sum(1)
    (expected,) = torch.autograd.grad(values.sum(), x)
    value, gradient = on.oracle(x.detach())
    torch.testing.assert_close(value, values.detach())
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(on.gap(x.detach()), values.detach() - on.minimum)


def test_the_smoothness_is_the_largest_curvature() -> None:
    on = problem(2)
    assert on.smoothness == pytest.approx(2 * float(torch.linalg.eigvalsh(on.A.T @ on.A).max()))
    assert problem(1).smoothness is None


@pytest.mark.parametrize("p", [1, 2])
def test_minibatch_gradients_have_the_exact_one_as_their_mean(p: int) -> None:
    """Over all rows, each a minibatch of its own: without error."""
    on = problem(p)
    x = torch.ones(1, 8, dtype=torch.float64)
    singles = on.minibatch(x.expand(30, -1), torch.arange(30)[:, None])
    value, gradient = on.oracle(x)
    torch.testing.assert_close(singles[0].mean(0, keepdim=True), value)
    torch.testing.assert_close(singles[1].mean(0, keepdim=True), gradient)
    sampler = ReplicateSampler(0, 2, 30, torch.device("cpu"), torch.float64)
    index = sampler.indices(7)
    _, both = on.minibatch(x.expand(2, -1), index)
    for row in range(2):
        chosen = LpRegression(on.A[index[row]], on.b[index[row]], p)
        torch.testing.assert_close(both[row], chosen.oracle(x)[1][0] * 30 / 7)


def test_accelegrad_falls_like_a_square_where_smooth_and_its_squared_gradients_add_up_to_a_finite_sum() -> (
    None
):
    on = problem(2)
    solver = begin(accelegrad(), on, distance=float(on.minimiser.norm()))
    scaled, sums = [], []
    for calls in (100, 900, 9000):
        go(solver, on, calls)
        scaled.append(float(on.gap(solver.output)) * solver.t**2)
        sums.append(float(solver.root) ** 2)
    assert scaled[2] <= scaled[1] <= scaled[0]
    assert sums[2] <= 1.05 * sums[1]


def test_accelegrad_falls_like_a_root_where_nonsmooth() -> None:
    on = problem(1)
    solver = begin(accelegrad(), on, distance=float(on.minimiser.norm()))
    scaled = []
    for calls in (100, 900, 9000):
        go(solver, on, calls)
        scaled.append(float(on.gap(solver.output)) * (solver.t / np.log(solver.t)) ** 0.5)
    assert scaled[2] <= scaled[1] <= scaled[0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(accelegrad, D=0.0), "method: D=0.0"),
        (partial(accelegrad, d_scale=-1.0), "d_scale=-1.0"),
        (partial(accelegrad, G=float("nan")), "G=nan"),
        (partial(adagrad, radius=0.0), "radius=0.0"),
        (partial(adagrad, k=-1.0), "k=-1.0"),
        (partial(sgd, c=0.0), "c=0.0"),
        (partial(UniversalPrimal, eps=0.0, L=1.0, output="best"), "eps=0.0"),
        (partial(UniversalFast, eps=1.0, L=0.0, line_search=True), "L=0.0"),
        (partial(AGDSolver, beta=-1.0, beta_scale=1.0), "beta=-1.0"),
    ],
)
def test_a_value_out_of_range_gets_one_line(build: Callable[[], Solver], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


def test_agd_says_that_a_nonsmooth_problem_has_no_smoothness() -> None:
    with pytest.raises(UserError, match="not smooth"):
        begin(AGDSolver(beta=None, beta_scale=1.0), problem(1))
