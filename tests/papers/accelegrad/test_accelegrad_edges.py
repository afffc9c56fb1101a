"""AcceleGrad and its baselines at the edges: late and non-finite gradients, units, memory, states."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from accelegrad_toys import Array, algorithm2
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from common.base.errors import UserError
from papers.accelegrad.accelegrad import AcceleGrad
from papers.accelegrad.baselines import AdaNGD, ScalarAdaGrad
from papers.yogi.yogi import Yogi

Build = Callable[[list[Any]], Any]
# one ball that nothing leaves: the explicit form of the same points
FORMS: list[dict[str, Any]] = [{}, {"radius": 1e6}]
MAKERS: dict[str, Build] = {
    "momentum": lambda p: AcceleGrad(p, D=2.0),
    "explicit": lambda p: AcceleGrad(p, D=2.0, radius=1e6),
    "ball": lambda p: AcceleGrad(p, D=2.0, radius=0.7),
    "doubling": lambda p: AcceleGrad(p, D=0.1, doubling=True),
    "adangd": lambda p: AdaNGD(p, D=2.0, radius=3.0),
    "adagrad_scalar": lambda p: ScalarAdaGrad(p, D=2.0),
}
ALL = {**MAKERS, "yogi": Yogi}
RANDOM = np.random.default_rng(0)
ROWS, TARGETS, START = RANDOM.standard_normal((20, 6)), RANDOM.standard_normal(20), RANDOM.standard_normal(6)
every_maker = pytest.mark.parametrize("name", MAKERS)
every_optimizer = pytest.mark.parametrize("name", ALL)


def gradient(x: Array, t: int) -> Array:
    return np.asarray(ROWS.T @ (ROWS @ x - TARGETS) + np.cos(t + np.arange(6)))


def steps(optimizer: Any, p: Tensor, times: range, scale: float = 1.0) -> None:
    """Steps of one parameter [6] along `scale` times the gradient."""
    for t in times:
        p.grad = torch.tensor(scale * gradient(p.detach().double().numpy(), t)).to(p.dtype)
        optimizer.step()


def average(optimizer: Any, p: Tensor) -> Array:
    with optimizer.averaged():
        return p.detach().double().numpy().copy()


# --- gradients that come late ---


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("late", [1, 3, 7])
def test_a_parameter_that_gets_gradients_late_stood_still_before(
    form: dict[str, Any], added: bool, late: int
) -> None:
    """Algorithm 2 with gradients 0 until then; by an unfrozen parameter and by one of a new group."""
    early, later = (nn.Parameter(torch.tensor(half)) for half in (START[:3], START[3:]))
    optimizer = AcceleGrad([early] if added else [early, later], D=2.0, **form)

    def masked(x: Array, t: int) -> Array:
        return gradient(x, t) * (np.arange(6) < 3 if t < late else 1)

    for t in range(12):
        if added and t == late:
            optimizer.add_param_group({"params": [later]})
        g = torch.tensor(masked(np.concatenate([p.detach().numpy() for p in (early, later)]), t))
        early.grad, later.grad = g[:3], None if t < late else g[3:]
        optimizer.step()
    expected = algorithm2(START, masked, 12, D=2.0)
    np.testing.assert_allclose(
        np.concatenate([p.detach() for p in (early, later)]), expected["next"], rtol=1e-11
    )
    found = np.concatenate([average(optimizer, p) for p in (early, later)])
    np.testing.assert_allclose(found, expected["average"], rtol=1e-11)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_average_of_what_stood_at_10_is_10(form: dict[str, Any]) -> None:
    moving, standing = nn.Parameter(torch.ones(1)), nn.Parameter(torch.tensor([10.0]))
    optimizer = AcceleGrad([moving, standing], **form)
    for t in range(8):
        moving.grad = torch.ones(1)
        standing.grad = torch.zeros(1) if t == 7 else None
        optimizer.step()
    assert average(optimizer, standing) == pytest.approx(10.0, rel=1e-6)


# --- numbers that are not finite ---


@every_optimizer
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [0, 1, 8])
def test_one_gradient_that_is_not_finite_makes_its_parameter_so_for_good(
    name: str, bad: float, at: int
) -> None:
    hit, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = ALL[name]([hit, other])
    for t in range(12):
        hit.grad, other.grad = torch.full((3,), 0.1 + t), torch.ones(2)
        if t == at:
            hit.grad[1] = bad
        optimizer.step()
        assert bool(hit[1].isfinite()) == (t < at)
    if name != "yogi":
        assert not np.isfinite(average(optimizer, hit)[1])


# --- units ---


@every_maker
@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-24, 1e-8, 1e8, 1e20, 1e30, 1e36])
def test_the_unit_of_the_loss_does_not_matter_in_float32(name: str, scale: float) -> None:
    one, other = (nn.Parameter(torch.tensor(START, dtype=torch.float32)) for _ in range(2))
    first, second = MAKERS[name]([one]), MAKERS[name]([other])
    steps(first, one, range(12))
    steps(second, other, range(12), scale)
    np.testing.assert_allclose(other.detach(), one.detach(), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(average(second, other), average(first, one), rtol=2e-4, atol=2e-5)
    assert not np.allclose(one.detach(), START, atol=0.1)


@every_maker
@pytest.mark.parametrize("scale", [1e-200, 1e-150, 1e150, 1e200])
def test_the_unit_of_the_loss_does_not_matter_in_float64(name: str, scale: float) -> None:
    if name == "adangd":
        scale **= 0.5
    one, other = nn.Parameter(torch.tensor(START)), nn.Parameter(torch.tensor(START))
    first, second = MAKERS[name]([one]), MAKERS[name]([other])
    steps(first, one, range(12))
    steps(second, other, range(12), scale)
    np.testing.assert_allclose(other.detach(), one.detach(), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(average(second, other), average(first, one), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_units_that_change_from_step_to_step_follow_the_float64_reference(form: dict[str, Any]) -> None:
    """The step size falls by 37 orders of magnitude in mid-run, and the points are those of Algorithm 2."""

    def of(x: Array, t: int) -> Array:
        return gradient(x, t) * (1e-30 if t < 5 else 1e-12 if t < 8 else 1e7)

    p = nn.Parameter(torch.tensor(START, dtype=torch.float32))
    optimizer = AcceleGrad([p], D=2.0, **form)
    for t in range(14):
        p.grad = torch.tensor(of(p.detach().double().numpy(), t), dtype=torch.float32)
        optimizer.step()
    expected = algorithm2(START, of, 14, D=2.0)
    np.testing.assert_allclose(p.detach(), expected["next"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(average(optimizer, p), expected["average"], rtol=1e-4, atol=1e-5)


def test_what_is_far_outside_the_ball_comes_onto_it_in_float32() -> None:
    """From 1e8 away a difference of float32 numbers is off by more than the radius."""
    p = nn.Parameter(torch.tensor([0.5, 0.25]))
    optimizer = AcceleGrad([p], D=1e8, radius=1.0)
    p.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["z"], torch.tensor([0.5 - 0.6, 0.25 - 0.8]))
    q = nn.Parameter(torch.tensor([0.5, 0.25]))
    q.grad = torch.tensor([3.0, 4.0])
    AdaNGD([q], D=1e8, radius=1.0).step()
    torch.testing.assert_close(q.detach(), torch.tensor([0.5 - 0.6, 0.25 - 0.8]))


# --- lr 0 ---


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("zero", [[0], [2, 3], [6, 7, 8], [4, 9], [11]])
def test_at_lr_0_the_points_go_on_by_their_momentum(form: dict[str, Any], zero: list[int]) -> None:
    def lr(t: int) -> float:
        return 0.0 if t in zero else 0.5

    p = nn.Parameter(torch.tensor(START))
    optimizer = AcceleGrad([p], D=2.0, **form)
    for t in range(12):
        optimizer.param_groups[0]["lr"] = lr(t)
        steps(optimizer, p, range(t, t + 1))
    expected = algorithm2(START, gradient, 12, D=2.0, lr=lr)
    np.testing.assert_allclose(p.detach(), expected["next"], rtol=1e-11)
    np.testing.assert_allclose(average(optimizer, p), expected["average"], rtol=1e-11)


# --- memory ---


def laid_out(kind: str, values: Tensor) -> Tensor:
    """The same values [2, 4, 3, 3] in memory of another form."""
    if kind == "columns":
        held = torch.full((*values.shape[:-1], 2 * values.shape[-1]), 7.0, dtype=values.dtype)
        held[..., ::2] = values
        return held[..., ::2]
    if kind == "transposed":
        return values.transpose(0, 1).contiguous().transpose(0, 1)
    return values.contiguous(
        memory_format=torch.channels_last if kind == "channels_last" else torch.contiguous_format
    )


LAYOUTS = ["contiguous", "channels_last", "transposed", "columns"]


@every_optimizer
@pytest.mark.parametrize("of_parameter", LAYOUTS)
@pytest.mark.parametrize("of_gradient", LAYOUTS)
def test_no_layout_in_memory_changes_a_step(name: str, of_parameter: str, of_gradient: str) -> None:
    random = torch.Generator().manual_seed(0)
    start = torch.randn(2, 4, 3, 3, generator=random)
    gradients = [torch.randn(2, 4, 3, 3, generator=random) for _ in range(8)]
    held = laid_out(of_parameter, start.clone())
    plain, other = nn.Parameter(start.clone()), nn.Parameter(held)
    first, second = ALL[name]([plain]), ALL[name]([other])
    for g in gradients:
        plain.grad, other.grad = g.clone(), laid_out(of_gradient, g)
        first.step()
        second.step()
    torch.testing.assert_close(other.detach(), plain.detach(), rtol=1e-5, atol=1e-6)
    if name != "yogi":
        np.testing.assert_allclose(average(second, other), average(first, plain), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(other.detach(), plain.detach(), rtol=1e-5, atol=1e-6)
    if of_parameter == "columns":
        assert held._base is not None
        assert (held._base[..., 1::2] == 7).all()


@every_optimizer
def test_an_expanded_parameter_is_refused_before_anything_has_changed(name: str) -> None:
    base = torch.ones(1)
    expanded, other = nn.Parameter(base.expand(4)), nn.Parameter(torch.ones(2))
    optimizer = ALL[name]([other, expanded])
    other.grad, expanded.grad = torch.ones(2), torch.ones(4)
    with pytest.raises(UserError, match=r"shape \(4,\) is expanded.*valid: its clone") as caught:
        optimizer.step()
    assert "\n" not in str(caught.value)
    assert torch.equal(other, torch.ones(2))
    assert torch.equal(base, torch.ones(1))
    assert not optimizer.state
    other.grad, expanded.grad = torch.ones(1).expand(2), None
    optimizer.step()
    assert torch.isfinite(other).all()


@every_optimizer
def test_sizes_0_and_dimensions_0_and_types_of_several_widths_stand_in_one_group(name: str) -> None:
    def final(types: tuple[torch.dtype, ...]) -> list[Tensor]:
        parameters = [
            nn.Parameter(torch.full(shape, 2.0, dtype=dtype))
            for shape, dtype in zip(((), (0, 3), (3,), (2, 2)), types, strict=True)
        ]
        optimizer = ALL[name](parameters)
        for t in range(8):
            for p in parameters:
                p.grad = torch.full_like(p, 0.5 + t)
            optimizer.step()
        if name != "yogi":
            with optimizer.averaged():
                assert all(p.isfinite().all() for p in parameters)
        return [p.detach() for p in parameters]

    mixed = final((torch.float64, torch.float32, torch.float64, torch.float32))
    expected = final((torch.float64,) * 4)
    for x, y in zip(mixed, expected, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-6, atol=1e-6)
    if name not in ("ball", "adangd"):
        # which project by the distance of all together, the float32 ones among them
        torch.testing.assert_close(mixed[2], expected[2], rtol=1e-12, atol=1e-12)
    narrow = final((torch.bfloat16, torch.float16, torch.bfloat16, torch.float32))
    assert narrow[2].dtype == torch.bfloat16
    torch.testing.assert_close(narrow[2].double(), expected[2], rtol=0.05, atol=0.05)


def test_only_empty_parameters_move_nowhere() -> None:
    for build in ALL.values():
        p = nn.Parameter(torch.zeros(0))
        p.grad = torch.zeros(0)
        build([p]).step()
    p = nn.Parameter(torch.zeros(0))
    p.grad = torch.zeros(0)
    Yogi([p], v_init="mean_grad_sq").step()


@every_optimizer
def test_parameters_without_memory_can_be_stepped(name: str) -> None:
    """As torch's own optimizers let them be, to plan a run's memory."""
    p = nn.Parameter(torch.ones(3, device="meta"))
    p.grad = torch.ones(3, device="meta")
    optimizer = ALL[name]([p])
    for _ in range(6):
        optimizer.step()
    assert p.is_meta


# --- states ---


def run_of(name: str, count: int = 7) -> tuple[Any, nn.Parameter]:
    p = nn.Parameter(torch.tensor(START))
    optimizer = ALL[name]([p])
    steps(optimizer, p, range(count))
    return optimizer, p


PAIRS = [
    ("momentum", "explicit"),
    ("explicit", "momentum"),
    ("ball", "momentum"),
    ("momentum", "adangd"),
    ("adangd", "momentum"),
    ("adangd", "adagrad_scalar"),
    ("momentum", "yogi"),
    ("yogi", "explicit"),
]


@pytest.mark.parametrize(("into", "of"), PAIRS)
def test_the_state_of_another_optimizer_or_form_is_refused_before_anything_is_replaced(
    into: str, of: str
) -> None:
    saved = run_of(of)[0].state_dict()
    optimizer, p = run_of(into)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(UserError, match="valid: ") as caught:
        optimizer.load_state_dict(saved)
    assert "\n" not in str(caught.value)
    assert str(optimizer.state_dict()) == str(before)
    steps(optimizer, p, range(7, 9))
    unbroken = run_of(into, 9)[1]
    assert torch.equal(p, unbroken)


def test_adangd_with_another_k_and_states_of_torch_and_of_other_shapes_are_refused() -> None:
    p = nn.Parameter(torch.tensor(START))
    other = AdaNGD([p], k=1.0)
    steps(other, p, range(2))
    with pytest.raises(UserError, match=r"k=1.0; valid: 0"):
        ScalarAdaGrad([nn.Parameter(torch.tensor(START))]).load_state_dict(other.state_dict())
    adam = torch.optim.Adam([p])
    steps(adam, p, range(2))
    for build in ALL.values():
        with pytest.raises(UserError, match="of another optimizer"):
            build([p]).load_state_dict(adam.state_dict())
        saved = build([q := nn.Parameter(torch.tensor(START))])
        steps(saved, q, range(2))
        with pytest.raises(UserError, match=r"shape \(6,\); valid: \(5,\)"):
            build([nn.Parameter(torch.ones(5))]).load_state_dict(saved.state_dict())
        with pytest.raises(UserError, match=r"groups of \[1\] parameters; valid: \[2\]"):
            build([p, nn.Parameter(torch.ones(5))]).load_state_dict(saved.state_dict())


@every_optimizer
@pytest.mark.parametrize("flat", [False, True])
def test_the_state_goes_through_distributed_checkpoints_functions(name: str, flat: bool) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def groups(net: nn.Module) -> list[dict[str, Any]]:
        first, _, second = net.children()
        return [{"params": list(first.parameters())}, {"params": list(second.parameters()), "lr": 0.5}]

    def go(net: nn.Module, optimizer: Any, times: range) -> None:
        for t in times:
            optimizer.zero_grad()
            net(torch.full((2, 3), 0.1 + t, dtype=torch.float64)).square().sum().backward()
            optimizer.step()

    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    whole, resumed = model(), model()
    first = ALL[name](groups(whole))
    go(whole, first, range(7))
    saved = copy.deepcopy(get_optimizer_state_dict(whole, first, options=options))
    resumed.load_state_dict(whole.state_dict())
    second = ALL[name](groups(resumed))
    set_optimizer_state_dict(resumed, second, saved, options=options)
    go(whole, first, range(7, 12))
    go(resumed, second, range(7, 12))
    for x, y in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(x, y)


@every_optimizer
@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_of_an_optimizer_go_on_alike_and_apart(name: str, way: Callable[[Any], Any]) -> None:
    optimizer, p = run_of(name)
    other, q = way((optimizer, p))
    steps(other, q, range(7, 12))
    assert torch.equal(p, run_of(name)[1])
    steps(optimizer, p, range(7, 12))
    assert torch.equal(p, q)
    if name != "yogi":
        np.testing.assert_array_equal(average(other, q), average(optimizer, p))
