"""Bounds against the exact optimum: the sandwich, closed forms, weak duality, the SDP as printed."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sdp_cert_toys import Problem, points, printed_sdp, problem, random_network

from common.base.errors import UserError
from papers.sdp_cert.attack import attack
from papers.sdp_cert.bounds import (
    Interval,
    Objective,
    crown_bounds,
    crown_objective,
    input_box,
    interval_bounds,
    interval_objective,
    linear_bounds,
    optimised_linear_bounds,
)
from papers.sdp_cert.dual import certified_bound, solve
from papers.sdp_cert.exact import exact_bounds, linear_programme_bounds
from papers.sdp_cert.grad_cert import grad_matrix, gradient_bounds
from papers.sdp_cert.network import relu_network
from papers.sdp_cert.random_signs import RandomSigns, exact_value, linear_value, sign_box
from papers.sdp_cert.reference import reference_bound
from papers.sdp_cert.relaxation import Multipliers, certify, interval_multipliers, project, relax

TIGHT = {"tolerance": 1e-7}
TINY = [([4, 6, 3], 0.3, 0), ([6, 8, 8, 4], 0.2, 1), ([5, 6, 5, 4, 3], 0.4, 2), ([10, 12, 6, 3], 0.5, 3)]


@pytest.mark.parametrize(("sizes", "eps", "seed"), TINY)
@pytest.mark.parametrize("clip", [True, False])
def test_attack_exact_sdp_with_cuts_lp_crown_are_a_sandwich(
    sizes: list[int], eps: float, seed: int, clip: bool
) -> None:
    p = problem(sizes, eps, seed, examples=2, clip=clip)
    below, at = attack(
        p.network, p.box, p.goal, steps=30, step_size=0.1, restarts=3, generator=torch.Generator()
    )
    assert (at <= p.box.upper[:, None]).all() and (at >= p.box.lower[:, None]).all()
    exact, found = exact_bounds(*p.parts, p.all, seconds=600.0)
    sdp, _, failed = certified_bound(*p.parts, **TIGHT)
    cuts, _, _ = certified_bound(*p.parts, linear_cut=True, **TIGHT)
    layers, _, _ = certified_bound(*p.parts, linear_cut=True, layerwise=True, **TIGHT)
    lp, _ = linear_programme_bounds(*p.parts, p.all)
    crown = crown_objective(*p.parts, "adaptive")
    ibp = interval_objective(*p.parts)
    assert not failed.any()
    assert (below <= exact).all() and (points(p, 2000) <= exact).all()
    assert torch.allclose(found, exact, atol=1e-5)
    assert (exact <= cuts + 2e-6).all() and (exact <= sdp + 2e-6).all()
    assert (cuts <= sdp + 1e-5).all() and (cuts <= lp + 1e-5).all()
    assert (cuts <= layers + 1e-5).all()
    assert (lp <= crown + 1e-9).all() and (sdp <= ibp + 1e-9).all()


@pytest.mark.parametrize(("sizes", "eps", "seed"), [TINY[0], TINY[1]])
@pytest.mark.parametrize("cut", [False, True])
def test_the_bound_is_the_optimum_of_the_programme_that_the_paper_prints(
    sizes: list[int], eps: float, seed: int, cut: bool
) -> None:
    p = problem(sizes, eps, seed)
    bound, gap, _ = certified_bound(*p.parts, linear_cut=cut, **TIGHT)
    for row in range(bound.shape[1]):
        assert float(bound[0, row]) == pytest.approx(printed_sdp(p, 0, row, cut), abs=2e-5)
    assert (gap < 1e-6).all()


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("layerwise", [False, True])
def test_cvxpy_and_the_interior_point_method_agree(cut: bool, layerwise: bool) -> None:
    p = problem([4, 5, 4, 3], 0.4, 5)
    r = relax(*p.parts, linear_cut=cut, layerwise=layerwise)
    ours = solve(r, tolerance=1e-7, max_steps=100, decide=False)
    theirs, failed = reference_bound(r, "clarabel")
    assert not failed.any() and not ours.failed.any()
    assert torch.allclose(ours.bound, theirs, atol=2e-5)


def test_layers_that_share_only_their_means_are_looser_and_two_layers_are_the_sdp_itself() -> None:
    deep = problem([6, 8, 8, 4], 0.2, 0, examples=2)
    whole, _, _ = certified_bound(*deep.parts, linear_cut=True, **TIGHT)
    parts, _, _ = certified_bound(*deep.parts, linear_cut=True, layerwise=True, **TIGHT)
    assert (parts > whole + 1e-3).any()
    shallow = problem([6, 8, 4], 0.2, 0)
    one, _, _ = certified_bound(*shallow.parts, linear_cut=True, **TIGHT)
    two, _, _ = certified_bound(*shallow.parts, linear_cut=True, layerwise=True, **TIGHT)
    assert torch.equal(one, two)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spread=st.floats(0.01, 100.0),
    cut=st.booleans(),
    layerwise=st.booleans(),
    deep=st.booleans(),
)
def test_any_multipliers_certify_a_bound_that_no_point_of_the_box_exceeds(
    seed: int, spread: float, cut: bool, layerwise: bool, deep: bool
) -> None:
    p = problem([4, 5, 4, 3] if deep else [4, 6, 3], 0.3, seed % 7)
    r = relax(*p.parts, linear_cut=cut, layerwise=layerwise)
    generator = torch.Generator().manual_seed(seed)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return spread * torch.randn(like.shape, generator=generator).double()

    start, corner = interval_multipliers(r)
    m = Multipliers(*(draw(getattr(start, name)) for name in start.__dataclass_fields__))
    bound = certify(r, m, draw(corner))
    assert (points(p, 500).flatten() <= bound).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_any_lower_slopes_give_a_valid_linear_bound_not_below_the_lp(seed: int) -> None:
    p = problem([4, 6, 5, 3], 0.3, seed % 5, examples=2)
    generator = torch.Generator().manual_seed(seed)
    alpha = [torch.rand(2, 2, layer.lower.shape[1], generator=generator).double() for layer in p.layers]
    bound = linear_bounds(p.network, p.layers, p.box, p.goal, alpha)
    lp, _ = linear_programme_bounds(*p.parts, p.all)
    assert (points(p, 500) <= bound).all() and (lp <= bound + 1e-7).all()


def test_optimised_slopes_reach_the_linear_programmes_value() -> None:
    p = problem([8, 10, 8, 3], 0.2, 0, examples=3)
    dual = optimised_linear_bounds(*p.parts, steps=300, lr=0.1, stop_below=None)
    lp, failed = linear_programme_bounds(*p.parts, p.all)
    assert not failed.any()
    assert (dual >= lp - 1e-7).all() and torch.allclose(dual, lp, atol=2e-3)


def test_zero_duals_with_the_interval_box_give_the_value_of_interval_arithmetic() -> None:
    p = problem([5, 7, 6, 4], 0.3, 1, examples=3)
    for layerwise in (False, True):
        r = relax(*p.parts, linear_cut=True, layerwise=layerwise)
        bound = certify(r, *interval_multipliers(r))
        assert torch.allclose(bound.view(3, -1), interval_objective(*p.parts), atol=1e-9)


@pytest.mark.parametrize("method", ["sdp", "cuts", "lp", "dual", "crown", "ibp", "exact"])
def test_with_eps_0_every_bound_is_the_clean_margin(method: str) -> None:
    p = problem([5, 7, 6, 4], 0.0, 1, examples=2)
    assert torch.allclose(bound_by(method, p), p.clean(), atol=2e-6)


@pytest.mark.parametrize("method", ["sdp", "cuts", "lp", "dual", "crown", "exact"])
def test_where_all_units_are_on_every_bound_is_the_linear_networks_exact_maximum(method: str) -> None:
    network = random_network([4, 5, 3], 0)
    network = relu_network(list(network.weights), [network.biases[0] + 10, network.biases[1]])
    p = problem([], 0.2, 0, network=network)
    W = p.goal.rows[0] @ network.weights[0]
    at = W * p.box.center[0] + W.abs() * p.box.radius[0]
    value = at.sum(1) + p.goal.rows[0] @ network.biases[0] + p.goal.constants[0]
    assert torch.allclose(bound_by(method, p)[0], value, atol=5e-6)


@pytest.mark.parametrize("method", ["sdp", "cuts", "dual", "crown", "ibp"])
def test_bounds_grow_with_eps(method: str) -> None:
    values = [bound_by(method, problem([5, 7, 4], eps, 3)) for eps in (0.02, 0.05, 0.1, 0.2)]
    for smaller, larger in pairwise(values):
        assert (smaller <= larger + 1e-6).all()


def bound_by(method: str, p: Problem) -> torch.Tensor:
    if method in ("sdp", "cuts"):
        return certified_bound(*p.parts, linear_cut=method == "cuts", **TIGHT)[0]
    if method == "lp":
        return linear_programme_bounds(*p.parts, p.all)[0]
    if method == "dual":
        return optimised_linear_bounds(*p.parts, steps=50, lr=0.1, stop_below=None)
    if method == "crown":
        return crown_objective(*p.parts, "adaptive")
    if method == "exact":
        return exact_bounds(*p.parts, p.all, seconds=600.0)[0]
    return interval_objective(*p.parts)


@pytest.mark.parametrize(("weight", "value"), [(0.0, 1.0), (-0.5, 0.5), (-1.0, 1.0)])
def test_one_unit_on_one_input_shows_no_gap(weight: float, value: float) -> None:
    # max relu(x) + weight x over [-1, 1], the input passed on as relu(x + 1) - 1
    network = relu_network(
        [torch.tensor([[1.0], [1.0]]).double(), torch.eye(2).double()],
        [torch.tensor([0.0, 1.0]).double(), torch.zeros(2).double()],
    )
    box = Interval(-torch.ones(1, 1).double(), torch.ones(1, 1).double())
    goal = Objective(
        torch.tensor([[[1.0, weight]]]).double(), torch.tensor([[-weight]]).double(), torch.zeros(1, 1).long()
    )
    layers = interval_bounds(network, box)
    bound, _, _ = certified_bound(network, layers, box, goal, linear_cut=True, **TIGHT)
    assert float(bound) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_signs_have_the_lp_in_closed_form_and_an_sdp_far_closer_to_the_exact_value(seed: int) -> None:
    network = RandomSigns(shape=(1,), classes=None, hidden=8, inputs=8).draw(seed)
    box, goal = sign_box(network, 0.5)
    layers = interval_bounds(network, box)
    one = torch.ones(1, 1, dtype=torch.bool)
    exact = exact_value(network, 0.5)
    milp, _ = exact_bounds(network, layers, box, goal, one, seconds=600.0)
    lp, _ = linear_programme_bounds(network, layers, box, goal, one)
    sdp, _, _ = certified_bound(network, layers, box, goal, **TIGHT)
    assert float(milp) == pytest.approx(exact, rel=1e-5)
    assert float(lp) == pytest.approx(linear_value(network, 0.5), rel=1e-9)
    assert exact <= float(sdp) + 1e-6 and float(sdp) < 1.25 * exact < float(lp)


def test_fixed_inputs_and_units_that_are_off_take_part_in_no_matrix() -> None:
    p = problem([6, 8, 3], 0.1, 0)
    lower, upper = p.box.lower.clone(), p.box.upper.clone()
    lower[:, :3] = upper[:, :3] = 0.5
    box = Interval(lower, upper)
    network = relu_network(list(p.network.weights), [p.network.biases[0].clone(), p.network.biases[1]])
    network.biases[0][:2] = -100.0
    layers = interval_bounds(network, box)
    r = relax(network, layers, box, p.goal, linear_cut=False, layerwise=False)
    alive = int((layers[0].upper > 0).sum())
    assert r.variables == 3 + alive and alive <= 6
    exact, _ = exact_bounds(network, layers, box, p.goal, p.all, seconds=600.0)
    bound, _, _ = certified_bound(network, layers, box, p.goal, **TIGHT)
    assert (exact <= bound + 2e-6).all() and torch.allclose(exact, bound, atol=0.05)


def test_a_batch_of_examples_of_different_sizes_gives_what_each_gives_alone() -> None:
    p = problem([6, 9, 7, 4], 0.15, 4, examples=5)
    counts = [(layer.upper > 0).sum(1) for layer in p.layers]
    assert any(len(set(count.tolist())) > 1 for count in counts)
    together, _, _ = certified_bound(*p.parts, **TIGHT)
    for e in range(5):
        one = slice(e, e + 1)
        parts = [layer.take(one) for layer in p.layers]
        alone, _, _ = certified_bound(p.network, parts, p.box.take(one), p.goal.take(one), **TIGHT)
        assert torch.allclose(alone, together[one], atol=1e-6)
    asked = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    some, _, _ = certified_bound(*p.parts, asked=asked, numbers=30_000, **TIGHT)
    assert torch.allclose(some[asked], together[asked], atol=1e-6)
    assert torch.equal(some[~asked], interval_objective(*p.parts)[~asked])


def test_deciding_stops_early_with_the_same_signs() -> None:
    p = problem([8, 12, 4], 0.12, 6, examples=4)
    full, _, _ = certified_bound(*p.parts, **TIGHT)
    assert (full < 0).any() and (full > 0).any()
    r = relax(*p.parts, linear_cut=False, layerwise=False)
    whole = solve(r, tolerance=1e-7, max_steps=100, decide=False)
    early = solve(r, tolerance=1e-7, max_steps=100, decide=True)
    assert torch.equal(early.bound < 0, whole.bound < 0)
    assert (early.steps < whole.steps).all() and (early.bound >= whole.bound - 1e-6).all()


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_solver_that_is_stopped_gives_the_certificate_of_its_last_iterate(steps: int) -> None:
    p = problem([6, 8, 8, 4], 0.2, 0, examples=2)
    bound, gap, _ = certified_bound(*p.parts, max_steps=steps, **TIGHT)
    best, _, _ = certified_bound(*p.parts, **TIGHT)
    assert (bound >= best - 1e-6).all() and (bound <= interval_objective(*p.parts) + 1e-12).all()
    assert (gap > 1e-6).all()


def test_a_solver_that_breaks_down_says_so_and_its_bound_stays_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem([6, 8, 8, 4], 0.2, 0)

    def broken(M: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.full_like(M, torch.nan), torch.ones_like(M[:, 0]), torch.zeros(len(M)).bool()

    monkeypatch.setattr("papers.sdp_cert.dual._factor", broken)
    bound, _, failed = certified_bound(*p.parts, **TIGHT)
    assert failed.all()
    assert torch.equal(bound, interval_objective(*p.parts))


def test_crown_layers_are_valid_and_never_looser_than_intervals() -> None:
    p = problem([6, 10, 10, 10, 3], 0.1, 2, examples=4)
    tight = crown_bounds(p.network, p.box)
    u = torch.rand(500, *p.x.shape, generator=torch.Generator().manual_seed(0)).double()
    x = p.box.lower + u * (p.box.upper - p.box.lower)
    for i, (a, b) in enumerate(zip(tight, p.layers, strict=True)):
        pre = x @ p.network.weights[i].T + p.network.biases[i]
        assert (pre >= a.lower - 1e-12).all() and (pre <= a.upper + 1e-12).all()
        assert (a.lower >= b.lower - 1e-12).all() and (a.upper <= b.upper + 1e-12).all()
        x = pre.clamp_min(0)
    assert (tight[-1].radius < 0.9 * p.layers[-1].radius).all()


def test_grad_cert_is_never_below_the_exact_optimum_and_its_two_values_meet() -> None:
    p = problem([6, 9, 4], 0.1, 0, examples=3, clip=False)
    upper, value = gradient_bounds(p.network, sweeps=300, rank=None, seed=0)
    assert torch.allclose(upper, upper.T) and (value <= upper + 1e-9).all()
    assert (upper <= value * 1.001).all()
    bound = p.clean() + 0.1 / 4 * upper[p.goal.targets, p.labels[:, None]]
    exact, _ = exact_bounds(*p.parts, p.all, seconds=600.0)
    assert (exact <= bound + 1e-6).all()


def test_the_mixing_method_reaches_the_maxcut_sdps_optimum() -> None:
    import cvxpy as cp

    network = random_network([4, 5, 2], 3)
    v = network.weights[1][0] - network.weights[1][1]
    M = grad_matrix(network.weights[0], v).numpy()
    P = cp.Variable(M.shape, PSD=True)
    best = cp.Problem(cp.Maximize(cp.trace(M @ P)), [cp.diag(P) <= 1]).solve(solver="CLARABEL")
    upper, value = gradient_bounds(network, sweeps=500, rank=None, seed=0)
    assert float(value[0, 1]) == pytest.approx(best, rel=1e-5)
    assert float(upper[0, 1]) == pytest.approx(best, rel=1e-4)


def test_grad_cert_refuses_deeper_networks() -> None:
    with pytest.raises(UserError, match="one hidden layer, not 2"):
        gradient_bounds(random_network([3, 4, 4, 2], 0), sweeps=1, rank=None, seed=0)


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_an_eps_out_of_range_gets_one_line(eps: float) -> None:
    with pytest.raises(UserError, match="a finite number >= 0"):
        input_box(torch.zeros(1, 2), eps, True)


def test_inputs_outside_of_the_unit_box_or_not_finite_get_one_line() -> None:
    with pytest.raises(UserError, match="inputs in"):
        input_box(torch.full((1, 2), 1.5), 0.1, True)
    with pytest.raises(UserError, match="not finite"):
        input_box(torch.full((1, 2), torch.nan), 0.1, False)


def test_a_milp_without_time_still_gives_a_valid_bound() -> None:
    p = problem([10, 14, 14, 3], 0.6, 0)
    upper, _ = exact_bounds(*p.parts, p.all, seconds=0.01)
    assert (points(p, 5000) <= upper).all()


def test_multipliers_of_padding_and_of_the_wrong_sign_count_as_0() -> None:
    p = problem([6, 9, 7, 4], 0.15, 4, examples=5)
    r = relax(*p.parts, linear_cut=True, layerwise=False)
    start, _ = interval_multipliers(r)
    wild = Multipliers(*(torch.full_like(getattr(start, n), -1.0) for n in start.__dataclass_fields__))
    m = project(r, wild)
    assert (m.positive == 0).all() and (m.cut == 0).all()
    assert ((m.above == 0) | r.free_above).all() and ((m.product != 0) == r.has_unit).all()
    assert (m.box[~r.has_variable] == 1).all() and (m.box[r.has_variable] == 0).all()
