"""The AcceleGrad optimizer: Algorithm 2 in numpy, closed forms, invariants, state; and its two baselines."""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelegrad_toys import Array, algorithm2
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.base.errors import UserError
from papers.accelegrad.accelegrad import AcceleGrad, weight
from papers.accelegrad.baselines import AdaNGD, ScalarAdaGrad

RANDOM = np.random.default_rng(0)
ROWS, TARGETS, START = RANDOM.standard_normal((20, 6)), RANDOM.standard_normal(20), RANDOM.standard_normal(6)
OPTIONS: list[dict[str, Any]] = [
    {"D": 2.0},
    {"D": 0.5, "G": 3.0},
    {"D": 2.0, "stepsize": "authors_code"},
    {"D": 2.0, "radius": 0.7},
    {"D": 0.05, "doubling": True},
    {"D": 0.05, "doubling": True, "radius": 1.5, "G": 0.1},
]


def gradient(x: Array, t: int) -> Array:
    """Of a least-squares problem, with a disturbance that changes from step to step."""
    return np.asarray(ROWS.T @ (ROWS @ x - TARGETS) + np.cos(t + np.arange(6)))


def make(start: Array = START, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """The point as two parameters of different shapes."""
    point = torch.tensor(start, dtype=dtype)
    return [nn.Parameter(point[:4].reshape(2, 2).clone()), nn.Parameter(point[4:].clone())]


def joined(parameters: list[nn.Parameter]) -> Array:
    return np.concatenate([p.detach().double().numpy().ravel() for p in parameters])


def run(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    steps: range,
    of: Callable[[Array, int], Array] = gradient,
) -> Array:
    """Steps with the gradients of `of`; the final parameters."""
    for t in steps:
        g = torch.tensor(of(joined(parameters), t), dtype=parameters[0].dtype)
        parameters[0].grad, parameters[1].grad = g[:4].reshape(2, 2), g[4:].clone()
        optimizer.step()
    return joined(parameters)


def average(optimizer: Any, parameters: list[nn.Parameter]) -> Array:
    with optimizer.averaged():
        return joined(parameters)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_points_and_average_are_those_of_algorithm_2(options: dict[str, Any]) -> None:
    for steps in (1, 2, 3, 4, 5, 6, 60):
        parameters = make()
        optimizer = AcceleGrad(parameters, **options)
        found = run(optimizer, parameters, range(steps))
        expected = algorithm2(START, gradient, steps, **options)
        np.testing.assert_allclose(found, expected["next"], rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(
            average(optimizer, parameters), expected["average"], rtol=1e-11, atol=1e-13
        )
        assert float(optimizer.shared["D"]) == expected["D"]


def test_the_momentum_form_has_the_points_of_the_explicit_one() -> None:
    """A ball that nothing leaves changes nothing but the form of the computation."""
    plain, ball = make(), make()
    first, second = AcceleGrad(plain, D=2.0, lr=0.7), AcceleGrad(ball, D=2.0, lr=0.7, radius=1e6)
    a, b = run(first, plain, range(500)), run(second, ball, range(500))
    np.testing.assert_allclose(a, b, rtol=1e-10)
    np.testing.assert_allclose(average(first, plain), average(second, ball), rtol=1e-10)


def test_weights_begin_with_1_and_rise_by_a_quarter() -> None:
    assert [weight(t) for t in range(8)] == [1, 1, 1, 1, 1.25, 1.5, 1.75, 2]
    assert all(0 < 1 / weight(t) <= 1 for t in range(1000))


def test_the_key_inequality_of_the_proof_holds_for_all_weights() -> None:
    total = 0.0
    for t in range(100_000):
        assert weight(t) ** 2 - weight(t) <= total + 1e-6
        total += weight(t)


def test_the_first_step_on_a_parabola_has_its_closed_form() -> None:
    """f = x^2/2 from x0 = 3, D = 2, G = 4: eta = 2 D / sqrt(G^2 + x0^2) = 0.8, y = z = 3 (1 - 0.8)."""
    x = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer = AcceleGrad([x], D=2.0, G=4.0)
    x.grad = x.detach().clone()
    optimizer.step()
    assert x.item() == pytest.approx(0.6)
    with optimizer.averaged():
        assert x.item() == pytest.approx(0.6)


def test_the_first_four_points_are_plain_adaptive_gradient_steps() -> None:
    path = algorithm2(START, gradient, 5, D=2.0)
    for steps in (1, 2, 3):
        parameters = make()
        run(AcceleGrad(parameters, D=2.0), parameters, range(steps))
        np.testing.assert_allclose(joined(parameters), path["z"][steps - 1], rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(exponent=st.integers(-20, 20), options=st.sampled_from([OPTIONS[0], OPTIONS[2], OPTIONS[3]]))
def test_with_g_0_the_points_do_not_change_with_the_scale_of_f(
    exponent: int, options: dict[str, Any]
) -> None:
    scale = 3.0**exponent
    first, second = make(), make()
    a = run(AcceleGrad(first, **options), first, range(40))
    b = run(AcceleGrad(second, **options), second, range(40), lambda x, t: scale * gradient(x, t))
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-10, 10), doubling=st.booleans())
def test_a_change_of_scale_and_place_of_the_space_moves_the_points_along(
    scale: float, shift: float, doubling: bool
) -> None:
    def moved(x: Array, t: int) -> Array:
        return gradient((x - shift) / scale, t) / scale

    first, second = make(), make(START * scale + shift)
    a = run(AcceleGrad(first, D=0.5, doubling=doubling), first, range(30))
    b = run(AcceleGrad(second, D=0.5 * scale, doubling=doubling), second, range(30), moved)
    np.testing.assert_allclose(b, a * scale + shift, rtol=1e-7, atol=1e-7 * scale)


@settings(max_examples=20, deadline=None)
@given(radius=st.floats(0.01, 3))
def test_z_stays_in_the_ball_and_y_may_leave_it(radius: float) -> None:
    parameters = make()
    optimizer = AcceleGrad(parameters, D=5.0, radius=radius)
    for t in range(20):
        run(optimizer, parameters, range(t, t + 1))
        z = np.concatenate([optimizer.state[p]["z"].numpy().ravel() for p in parameters])
        assert np.linalg.norm(z - START) <= radius * (1 + 1e-12)
    assert np.linalg.norm(algorithm2(START, gradient, 1, D=5.0, radius=radius)["y"][0] - START) > radius


def test_there_is_one_norm_for_all_groups_and_lr_is_a_groups_own() -> None:
    first, second = make(), make()
    a = run(AcceleGrad(first, D=2.0), first, range(30))
    b = run(AcceleGrad([{"params": [p]} for p in second], D=2.0), second, range(30))
    np.testing.assert_allclose(a, b, rtol=1e-12)
    third = make()
    optimizer = AcceleGrad([{"params": [third[0]], "lr": 0.0}, {"params": [third[1]]}], D=2.0)
    c = run(optimizer, third, range(30))
    np.testing.assert_array_equal(c[:4], START[:4])
    assert not np.allclose(c[4:], START[4:])


def test_a_start_at_the_optimum_stays_there() -> None:
    for radius in (None, 1.0):
        parameters = make()
        optimizer = AcceleGrad(parameters, radius=radius)
        found = run(optimizer, parameters, range(6), lambda x, t: np.zeros(6))
        np.testing.assert_array_equal(found, START)
        np.testing.assert_allclose(average(optimizer, parameters), START, rtol=1e-15)


def test_a_parameter_without_a_gradient_counts_as_one_with_gradient_0() -> None:
    def masked(x: Array, t: int) -> Array:
        return gradient(x, t) * np.array([1, 1, 1, 1, 0, 0]) if t % 2 else gradient(x, t)

    whole, partial = make(), make()
    a = run(AcceleGrad(whole, D=2.0), whole, range(20), masked)
    optimizer = AcceleGrad(partial, D=2.0)
    for t in range(20):
        g = torch.tensor(masked(joined(partial), t))
        partial[0].grad, partial[1].grad = g[:4].reshape(2, 2), None if t % 2 else g[4:]
        optimizer.step()
    np.testing.assert_allclose(joined(partial), a, rtol=1e-11)
    never = nn.Parameter(torch.ones(3))
    AcceleGrad([*partial, never]).step()
    assert torch.equal(never, torch.ones(3))


MAKERS: list[Callable[[list[nn.Parameter]], Any]] = [
    lambda p: AcceleGrad(p, D=2.0),
    lambda p: AcceleGrad(p, D=2.0, radius=0.7),
    lambda p: AcceleGrad(p, D=0.1, doubling=True),
    lambda p: AdaNGD(p, k=1.5, D=2.0, radius=3.0),
    lambda p: ScalarAdaGrad(p, D=2.0),
]


@pytest.mark.parametrize("build", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_saved_state_goes_on_bit_for_bit(build: Callable[[Any], Any], dtype: torch.dtype) -> None:
    unbroken, parameters = make(dtype=dtype), make(dtype=dtype)
    whole = build(unbroken)
    run(whole, unbroken, range(12))
    first = build(parameters)
    run(first, parameters, range(7))
    buffer = io.BytesIO()
    torch.save({"optimizer": first.state_dict(), "point": [p.data for p in parameters]}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    resumed = [nn.Parameter(p) for p in saved["point"]]
    second = build(resumed)
    second.load_state_dict(saved["optimizer"])
    run(first, parameters, range(7, 9))
    run(second, resumed, range(7, 12))
    np.testing.assert_array_equal(joined(resumed), joined(unbroken))
    np.testing.assert_array_equal(average(second, resumed), average(whole, unbroken))


@pytest.mark.parametrize("build", MAKERS)
def test_to_the_average_and_back_leaves_no_trace(build: Callable[[Any], Any]) -> None:
    parameters, others = make(dtype=torch.float32), make(dtype=torch.float32)
    optimizer, other = build(parameters), build(others)
    for t in range(8):
        run(optimizer, parameters, range(t, t + 1))
        run(other, others, range(t, t + 1))
        before = joined(parameters)
        optimizer.swap_to_average()
        inside = joined(parameters)
        with optimizer.averaged():
            np.testing.assert_array_equal(joined(parameters), inside)
        optimizer.swap_back()
        np.testing.assert_array_equal(joined(parameters), before)
    assert not np.array_equal(inside, before)
    np.testing.assert_array_equal(joined(parameters), joined(others))


def test_swaps_out_of_turn_and_steps_at_the_average_are_refused() -> None:
    parameters = make()
    optimizer = AcceleGrad(parameters)
    run(optimizer, parameters, range(1))
    with pytest.raises(UserError, match="swap_to_average"):
        optimizer.swap_back()
    optimizer.swap_to_average()
    for call in (optimizer.swap_to_average, optimizer.step):
        with pytest.raises(UserError, match="swap_back"):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"D": 0.0}, "D=0.0; valid: a finite number > 0"),
        ({"D": -1.0}, "D=-1.0"),
        ({"D": math.nan}, "D=nan"),
        ({"D": math.inf}, "D=inf"),
        ({"G": -1.0}, "G=-1.0; valid: a finite number >= 0"),
        ({"G": math.nan}, "G=nan"),
        ({"radius": 0.0}, "radius=0.0"),
        ({"radius": math.nan}, "radius=nan"),
        ({"stepsize": "other"}, "stepsize=other; valid: paper or authors_code"),
        ({"lr": -0.1}, "lr=-0.1"),
    ],
)
def test_an_option_out_of_range_gets_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        AcceleGrad(make(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_groups_that_differ_in_more_than_lr_and_sparse_gradients_are_refused() -> None:
    with pytest.raises(UserError, match=r"D=3.0 of one group; valid: 1.0"):
        AcceleGrad([{"params": make(), "D": 3.0}])
    weights = nn.Parameter(torch.ones(3, 2))
    weights.grad = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1, 2), (3, 2))
    with pytest.raises(UserError, match="sparse or complex"):
        AcceleGrad([weights]).step()


def adangd(steps: int, k: float, D: float, radius: float | None) -> tuple[Array, Array]:
    """Levy 2017 as written: the last point and the weighted average."""
    x, weighted = START.copy(), np.zeros(6)
    total = weights = 0.0
    for t in range(steps):
        g = gradient(x, t)
        norm = float(np.linalg.norm(g))
        total += norm ** (2 - 2 * k)
        weighted, weights = weighted + x / norm**k, weights + 1 / norm**k
        x = x - D / math.sqrt(2 * total) * g / norm**k
        if radius is not None:
            x = START + (x - START) * min(1, radius / float(np.linalg.norm(x - START)))
    return x, weighted / weights


@pytest.mark.parametrize("k", [0.0, 1.0, 2.0, 0.5])
@pytest.mark.parametrize("radius", [None, 0.5])
def test_adangd_follows_the_float64_reference(k: float, radius: float | None) -> None:
    """12 steps: with k = 2 a difference of rounding grows tenfold every three."""
    parameters = make()
    optimizer = AdaNGD(parameters, k=k, D=1.5, radius=radius)
    found = run(optimizer, parameters, range(12))
    x, mean = adangd(12, k, 1.5, radius)
    np.testing.assert_allclose(found, x, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(average(optimizer, parameters), mean, rtol=1e-10, atol=1e-12)


def test_scalar_adagrad_is_adangd_with_k_0_and_refuses_what_it_refuses() -> None:
    first, second = make(), make()
    a, b = run(ScalarAdaGrad(first), first, range(9)), run(AdaNGD(second, k=0.0), second, range(9))
    np.testing.assert_array_equal(a, b)
    for bad in ({"k": -1.0}, {"D": 0.0}, {"radius": -1.0}):
        with pytest.raises(UserError, match="adangd"):
            AdaNGD(make(), **bad)


def test_at_a_point_with_gradient_0_adangd_stays_and_the_average_is_that_point() -> None:
    parameters = make()
    optimizer = AdaNGD(parameters)
    x = run(optimizer, parameters, range(5))
    after = run(optimizer, parameters, range(5, 6), lambda x, t: np.zeros(6))
    np.testing.assert_array_equal(after, x)
    np.testing.assert_allclose(average(optimizer, parameters), x, rtol=1e-15)


def test_a_closure_is_evaluated_at_the_parameters_and_its_loss_returned() -> None:
    x = nn.Parameter(torch.tensor([2.0]))
    optimizer = AcceleGrad([x])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = x.square().sum()
        loss.backward()
        return loss.detach()

    assert float(optimizer.step(closure)) == 4.0
    assert x.item() == pytest.approx(0.0)
