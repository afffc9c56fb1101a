"""A bound times a factor is the bound of logits times it; degenerate networks get valid verdicts."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from sdp_cert_toys import Problem, points, problem, random_network

from common.base.errors import UserError
from papers.sdp_cert.bounds import Interval, input_box, interval_bounds, interval_objective, margins, rounding
from papers.sdp_cert.bounds import optimised_linear_bounds as linear
from papers.sdp_cert.certifiers import CROWN, IBP, LP, PGD, SDP, Certifier, Exact, Examples, GradCert
from papers.sdp_cert.dual import certified_bound, solve
from papers.sdp_cert.exact import linear_programme_bounds
from papers.sdp_cert.grad_cert import gradient_bounds
from papers.sdp_cert.network import ReluNetwork, relu_network
from papers.sdp_cert.reference import reference_bound
from papers.sdp_cert.relaxation import certify, relax
from papers.sdp_cert.verdicts import judge

FACTORS = [1e-8, 1e-4, 1e8]
ATTACK = PGD(steps=10, step_size=0.2, restarts=1)


def sdp(**changes: Any) -> SDP:
    options = {
        "linear_cut": False, "layerwise": False, "solver": "interior", "tolerance": 1e-4, "max_steps": 60,
        "intermediate": "interval", "attack": None, "linear": None,
    }  # fmt: skip
    return SDP(**(options | changes))


def lp(solver: str) -> LP:
    return LP(solver=solver, steps=40, lr=0.1, intermediate="interval", attack=None, linear=None)


METHODS: dict[str, Certifier] = {
    "sdp": sdp(),
    "sdp that decides": sdp(attack=ATTACK, linear=CROWN(slopes="adaptive", intermediate="interval")),
    "linear cut": sdp(linear_cut=True, intermediate="crown"),
    "layers": sdp(linear_cut=True, layerwise=True),
    "lp": lp("dual"),
    "lp by HiGHS": lp("highs"),
    "ibp": IBP(),
    "exact": Exact(seconds=20.0, intermediate="crown"),
    "pgd": ATTACK,
}


def in_units(p: Problem, inputs: float = 1.0, hidden: float = 1.0, logits: float = 1.0) -> Problem:
    """The same problem with inputs, the first layer's units and logits in other units."""
    weights, biases = list(p.network.weights), list(p.network.biases)
    weights[0], weights[-1] = weights[0] / inputs * hidden, weights[-1] * logits
    middle = range(1, len(biases) - 1)
    weights[1] = weights[1] / hidden
    assert not middle or hidden == 1.0
    biases[0], biases[-1] = biases[0] * hidden, biases[-1] * logits
    network = relu_network(weights, biases)
    box = Interval(p.box.lower * inputs, p.box.upper * inputs)
    return Problem(
        network, p.x * inputs, p.labels, box, interval_bounds(network, box), margins(network, p.labels)
    )


def judged(method: Certifier, p: Problem) -> tuple[list[str], torch.Tensor]:
    """Verdicts, and all bounds."""
    examples = Examples(p.network, p.x, p.labels, p.box, 0.1, 0)
    found = judge(method, examples, list(range(len(p.x))))
    values = [list((one.upper | one.lower).get(method.NAME, [math.nan])) for one in found]
    return [one.verdict for one in found], torch.tensor(values).double()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", FACTORS)
def test_logits_times_a_factor_have_the_same_verdicts_and_bounds_times_it(method: str, factor: float) -> None:
    p = problem([6, 8, 4], 0.12, 2, examples=4)
    verdicts, bounds = judged(METHODS[method], p)
    scaled_verdicts, scaled = judged(METHODS[method], in_units(p, logits=factor))
    assert scaled_verdicts == verdicts
    assert torch.allclose(scaled / factor, bounds, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("units", [{"inputs": 1e6}, {"inputs": 1e-6}, {"hidden": 1e6}, {"hidden": 1e-6}])
def test_the_units_of_inputs_and_hidden_layers_change_no_bound(method: str, units: dict[str, float]) -> None:
    p = problem([6, 8, 4], 0.12, 2, examples=4)
    verdicts, bounds = judged(METHODS[method], p)
    other_verdicts, others = judged(METHODS[method], in_units(p, **units))
    assert other_verdicts == verdicts
    assert torch.allclose(others, bounds, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
def test_cvxpys_bounds_have_no_units_either(solver: str) -> None:
    p = problem([3, 4, 3], 0.2, 1)
    relaxed = [
        relax(*one.parts, linear_cut=True, layerwise=False)
        for one in (p, in_units(p, logits=1e-8, hidden=1e5))
    ]
    plain, scaled = (reference_bound(one, solver)[0] for one in relaxed)
    assert torch.allclose(scaled * 1e8, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [*FACTORS, 1.0])
def test_a_certificate_that_ends_early_near_0_is_as_near_as_the_logits_are_wide(factor: float) -> None:
    # the last bias puts the SDP's optimum at a margin of -0.02, far inside of 1e-4 in the small logits
    p = problem([8, 12, 2], 0.12, 6)
    best = float(certified_bound(*p.parts, tolerance=1e-7)[0])
    target = int(p.goal.targets[0, 0])
    biases = [b.clone() for b in p.network.biases]
    biases[-1][target] -= best + 0.02
    network = relu_network(list(p.network.weights), biases)
    moved = Problem(network, p.x, p.labels, p.box, p.layers, margins(network, p.labels))
    scaled = in_units(moved, logits=factor)
    bound, gap, failed = certified_bound(*scaled.parts, decide=True)
    assert float(bound) < 0 and not failed.any()
    whole, gap, _ = certified_bound(*scaled.parts)
    assert float(whole) / factor == pytest.approx(-0.02, abs=2e-3) and float(gap) / factor < 2e-3


def test_the_multipliers_of_a_solution_certify_its_bound_in_the_relaxations_own_units() -> None:
    p = in_units(problem([6, 8, 4], 0.2, 0, examples=2), logits=1e-3, hidden=1e3)
    r = relax(*p.parts, linear_cut=True, layerwise=False)
    found = solve(r, tolerance=1e-6, max_steps=60, decide=False)
    assert torch.allclose(certify(r, found.multipliers, found.corner), found.bound, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("eps", [0.0, 1e-300, 1e-17, 1e-16, 1e-15, 1e-12, 1e-8, 1.0, 1e6])
@pytest.mark.parametrize("decide", [False, True])
def test_no_radius_ends_in_an_error_and_every_bound_is_valid(eps: float, decide: bool) -> None:
    p = problem([6, 8, 5, 4], eps, 0, examples=3)
    before = p.x.clone()
    before[:, :3] = 0.0
    p = dataclasses.replace(p, x=before, box=input_box(before, eps, True))
    p = dataclasses.replace(p, layers=interval_bounds(p.network, p.box))
    for cut in (False, True):
        bound, _, failed = certified_bound(*p.parts, linear_cut=cut, decide=decide)
        assert bound.isfinite().all() and (bound <= interval_objective(*p.parts)).all()
        assert (points(p, 300) <= bound + 1e-12).all()
        assert not failed.any() or eps < 1e-12
    if eps <= 1e-12:
        assert torch.allclose(bound, p.clean(), atol=1e-9)


def one_hidden(
    rows: list[list[float]], biases: list[float], last: list[list[float]], out: list[float]
) -> ReluNetwork:
    first, second = torch.tensor(rows).double(), torch.tensor(last).double()
    return relu_network([first, second], [torch.tensor(biases).double(), torch.tensor(out).double()])


DEGENERATE = {
    "all zero": (one_hidden([[0.0, 0.0]], [0.0], [[0.0], [0.0]], [0.0, 0.0]), 0.0),
    "constant logits": (one_hidden([[1.0, -1.0]], [0.1], [[0.0], [0.0]], [0.5, 0.2]), -0.3),
    "dead units": (
        one_hidden([[1.0, 1.0], [1.0, 0.0]], [-9.0, -9.0], [[1.0, 2.0], [3.0, 4.0]], [0.0, -1.0]),
        -1.0,
    ),
    "a tie": (one_hidden([[1.0, 1.0]], [0.0], [[2.0], [2.0]], [0.3, 0.3]), 0.0),
    "one unit": (one_hidden([[1.0, 1.0]], [-1.0], [[0.0], [1.0]], [0.5, 0.0]), -0.3),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("method", [*METHODS, "grad_cert"])
def test_degenerate_networks_have_the_bounds_of_their_closed_forms(name: str, method: str) -> None:
    network, value = DEGENERATE[name]
    x = torch.full((1, 2), 0.5).double()
    box, labels = input_box(x, 0.1, True), torch.tensor([0])
    p = Problem(network, x, labels, box, interval_bounds(network, box), margins(network, labels))
    one = GradCert(sweeps=50, rank=None) if method == "grad_cert" else METHODS[method]
    (verdict,), bounds = judged(one, p)
    if method not in ("sdp that decides", "grad_cert"):
        assert bounds.item() == pytest.approx(value, abs=2e-5)
    if value < 0:
        assert verdict == ("open" if method == "pgd" else "certified")
    else:
        assert verdict in ("open", "refuted")


def test_a_start_that_cannot_be_factored_falls_back_to_interval_arithmetic_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = problem([6, 8, 8, 4], 0.2, 0)
    factor = torch.linalg.cholesky_ex

    def broken(A: torch.Tensor) -> Any:
        found = factor(A)
        return found[0] * 0, torch.ones_like(found[1])

    monkeypatch.setattr(torch.linalg, "cholesky_ex", broken)
    bound, gap, failed = certified_bound(*p.parts)
    assert failed.all() and gap.isinf().all()
    assert torch.equal(bound, interval_objective(*p.parts))


def test_a_factor_that_is_lost_on_the_way_leaves_the_last_valid_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = problem([6, 8, 8, 4], 0.2, 0)
    before, _, _ = certified_bound(*p.parts, max_steps=5)
    from papers.sdp_cert import dual

    whole, calls = dual._inverse, 0

    def broken(S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal calls
        calls += 1
        inverse, fine = whole(S)
        return inverse, fine & (calls <= 6)

    monkeypatch.setattr(dual, "_inverse", broken)
    bound, _, failed = certified_bound(*p.parts)
    assert failed.all() and torch.equal(bound, before)
    assert (bound < interval_objective(*p.parts)).any()


def test_numbers_that_are_not_finite_certify_nothing() -> None:
    p = problem([4, 5, 3], 0.1, 0)
    r = relax(*p.parts, linear_cut=False, layerwise=False)
    broken = dataclasses.replace(r, objective=r.objective * torch.nan)
    found = solve(broken, tolerance=1e-4, max_steps=20, decide=False)
    assert found.bound.isinf().all()
    assert reference_bound(broken, "clarabel")[0].isinf().all()


@pytest.mark.parametrize("eps", [1e200, 1e308])
def test_a_radius_beyond_float64_gets_one_line_or_is_left_open(eps: float) -> None:
    network = random_network([4, 6, 6, 3], 0, scale=1e60)
    x = torch.full((1, 4), 0.5).double()
    box = Interval(x - eps, x + eps)
    labels = network(x).argmax(1)
    examples = Examples(network, x, labels, box, eps, 0)
    for method in (IBP(), sdp(), ATTACK):
        try:
            (one,) = judge(method, examples, [0])
        except UserError as error:
            assert "beyond float64" in str(error)
        else:
            assert one.verdict != "certified"
    with pytest.raises(UserError, match="larger than any"):
        input_box(1e308 * x, 1.7e308, False)


def test_one_logit_has_no_other_class() -> None:
    with pytest.raises(UserError, match="one logit"):
        margins(random_network([3, 4, 1], 0), torch.tensor([0]))


def test_slopes_gradients_and_solvers_of_small_logits_are_not_lost_in_a_constant() -> None:
    p = problem([8, 10, 8, 3], 0.2, 0, examples=3)
    small = in_units(p, logits=1e-9)
    found, other = (linear(*one.parts, steps=60, lr=0.1, stop_below=None) for one in (p, small))
    assert torch.allclose(other * 1e9, found, rtol=1e-6, atol=1e-8)
    programme, failed = linear_programme_bounds(*small.parts, small.all)
    assert not failed.any()
    assert torch.allclose(programme * 1e9, linear_programme_bounds(*p.parts, p.all)[0], rtol=1e-6, atol=1e-7)


def test_grad_cert_has_no_units() -> None:
    p = problem([6, 9, 4], 0.1, 0, clip=False)
    upper, _ = gradient_bounds(p.network, sweeps=50, rank=None, seed=0)
    scaled, _ = gradient_bounds(in_units(p, logits=1e-8, inputs=1e4).network, sweeps=50, rank=None, seed=0)
    assert torch.allclose(scaled * 1e12, upper, rtol=1e-9)


@pytest.mark.parametrize("factor", [1e-8, 1.0, 1e8])
def test_a_margin_of_rounding_certifies_nothing(factor: float) -> None:
    # class 1 reaches class 0 in a corner of the box: the true bound is 0, and rounding has it on either side
    bounds = []
    for seed in range(40):
        p = problem([3, 4, 2], eps=0.05, seed=seed, clip=False)
        corners = torch.cartesian_prod(*torch.stack([p.box.lower[0], p.box.upper[0]], 1))
        logits = p.network(corners)
        label, other = int(p.labels), 1 - int(p.labels)
        bias = p.network.biases[1].clone()
        bias[other] -= (logits[:, other] - logits[:, label]).max()
        tied = relu_network(
            [p.network.weights[0], factor * p.network.weights[1]], [p.network.biases[0], factor * bias]
        )
        found = tied(corners)
        examples = Examples(network=tied, x=p.x, labels=p.labels, box=p.box, eps=0.05, seed=0)
        for method in (IBP(), CROWN(slopes="adaptive", intermediate="crown"), lp("highs")):
            one = judge(method, examples, [0])[0]
            bounds.append(one.upper[method.NAME][0] if one.upper else math.inf)
            assert one.verdict != "certified" or float((found[:, other] - found[:, label]).max()) < -1e-13
    # without the margin for rounding some of these would have been certificates
    assert min(bounds) < 0


def test_rounding_covers_what_two_orders_of_summation_differ_by() -> None:
    p = problem([50, 60, 5], eps=0.1, seed=0, examples=3)
    allowed = rounding(p.network, p.layers, p.box, p.goal)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    moved = relu_network(
        [p.network.weights[0][order], p.network.weights[1][:, order]],
        [p.network.biases[0][order], p.network.biases[1]],
    )
    difference = (p.network(p.x) - moved(p.x)).abs().amax(1, keepdim=True)
    assert (difference > 0).any() and (difference <= allowed).all()
    assert (allowed < 1e-11).all()
