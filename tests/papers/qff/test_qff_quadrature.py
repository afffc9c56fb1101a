"""Quadrature rules: exactness, symmetry, half grids, pruning, the error bound."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qff_toys import uniform
from scipy.special import roots_hermite
from torch import Tensor

from common.base.errors import UserError
from papers.qff.basis import profile
from papers.qff.features import FourierFeatures, qff
from papers.qff.quadrature import cotangent, half_grid, hermite, hermite_error_bound, rule_of

KERNELS = ["laplace", "modified_matern_2", "modified_matern_3", "modified_matern_4"]


def one_dim(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    return (v * torch.cos(u * r[..., None])).sum(-1)


@pytest.mark.parametrize("nodes", [1, 2, 5, 8, 64, 350, 351, 500])
def test_hermite_nodes_are_those_of_scipy_symmetric_and_sum_to_one(nodes: int) -> None:
    u, v = hermite(nodes)
    x, w = roots_hermite(nodes)
    np.testing.assert_allclose(u, math.sqrt(2) * x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(v, w / math.sqrt(math.pi), rtol=1e-6, atol=1e-15)
    assert torch.equal(u, -u.flip(0)) and torch.equal(v, v.flip(0))
    assert float(v.sum()) == pytest.approx(1.0, abs=1e-15) and bool(v.isfinite().all())


@pytest.mark.parametrize("nodes", [2, 5, 12])
def test_hermite_is_exact_for_the_normal_moments_up_to_degree_2q_minus_1(nodes: int) -> None:
    gamma = 0.3
    u, v = hermite(nodes)
    for p in range(nodes):
        double_factorial = math.prod(range(1, 2 * p, 2))
        moment = float((v * (u / gamma) ** (2 * p)).sum())
        assert moment == pytest.approx(double_factorial / gamma ** (2 * p), rel=1e-10)


def test_a_weight_is_the_formula_with_the_hermite_polynomial() -> None:
    q = 6
    u, v = hermite(q)
    polynomial = np.polynomial.hermite.Hermite.basis(q - 1)((u / math.sqrt(2)).numpy())
    np.testing.assert_allclose(v, 2 ** (q - 1) * math.factorial(q) / (q**2 * polynomial**2), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 3.0), st.integers(1, 40), st.lists(st.floats(-1, 1), min_size=1, max_size=3))
def test_the_kernel_error_is_under_the_derived_bound(gamma: float, q: int, r: list[float]) -> None:
    u, v = hermite(q)
    at = torch.tensor(r, dtype=torch.float64)
    product = one_dim(u / gamma, v, at).prod()
    exact = torch.exp(-0.5 * (at / gamma).square().sum())
    bound = hermite_error_bound(at, torch.tensor(gamma), q)
    assert float((product - exact).abs()) <= float(bound) * (1 + 1e-9) + 1e-13


def test_the_bound_is_its_closed_form_to_stirling_and_below_the_threshold_the_error_is_of_order_one() -> None:
    """(e r^2 / (4 gamma^2 q))^q / sqrt 2, which is under it by a factor exp(1 / (24 q)) at most."""
    r, gamma = torch.tensor([1.0]).double(), torch.tensor(0.1).double()
    for q in (8, 60, 100):
        bound = float(hermite_error_bound(r, gamma, q))
        closed = (math.e / (4 * 0.1**2 * q)) ** q / math.sqrt(2)
        assert closed < bound <= closed * math.exp(1 / (24 * q))
    u, v = hermite(8)
    assert float((one_dim(u / 0.1, v, torch.linspace(0, 1, 200).double())[50:]).abs().max()) > 0.3


def test_errors_of_one_dimension_decay_as_measured() -> None:
    r = torch.linspace(-1, 1, 2001).double()
    errors = []
    for q in (4, 8, 12):
        u, v = hermite(q)
        errors.append(float((one_dim(u / 0.5, v, r) - torch.exp(-2 * r**2)).abs().max()))
    assert errors == pytest.approx([6.05e-2, 4.87e-5, 4.5e-9], rel=0.2)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("nodes", [4, 5])
def test_the_half_grid_has_the_kernel_of_the_full_grid_with_nodes_to_the_p_features(
    dim: int, nodes: int
) -> None:
    u, v = hermite(nodes)
    gamma = torch.tensor([0.3, 0.5, 0.7][:dim]).double()
    features = qff("se", gamma, nodes=nodes, prune=0.0, rule="legendre", stretch=1.0)
    assert features.size == nodes**dim
    x, y = uniform(20, dim), uniform(15, dim, seed=1)
    full = torch.cartesian_prod(*[u] * dim).reshape(-1, dim) / gamma
    weights = torch.cartesian_prod(*[v] * dim).reshape(-1, dim).prod(1).sqrt()
    whole = torch.cat([torch.cos(x @ full.T) * weights, torch.sin(x @ full.T) * weights], 1)
    other = torch.cat([torch.cos(y @ full.T) * weights, torch.sin(y @ full.T) * weights], 1)
    torch.testing.assert_close(features.kernel(x, y), whole @ other.T, rtol=0, atol=1e-14)
    products = torch.stack([one_dim(u / gamma[i], v, x[:, None, i] - y[:, i]) for i in range(dim)]).prod(0)
    torch.testing.assert_close(features.kernel(x, y), products, rtol=0, atol=1e-14)
    diagonal = features(x).square().sum(-1)
    torch.testing.assert_close(diagonal, torch.ones(20).double(), rtol=0, atol=1e-14)


def test_the_released_basis_of_2019_is_wrong_in_two_dimensions_and_ours_is_not() -> None:
    """It keeps nodes that are positive in every coordinate, whatever their number."""
    gamma, x = 0.5, uniform(40, 2)
    u, v = hermite(32)
    positive, weights = u[u > 0] / gamma, 2 * v[u > 0]
    grid = torch.cartesian_prod(positive, positive)
    scale = torch.cartesian_prod(weights, weights).prod(1).sqrt()
    phi = torch.cat([torch.cos(x @ grid.T) * scale, torch.sin(x @ grid.T) * scale], 1)
    exact = torch.exp(-0.5 * torch.cdist(x, x).square() / gamma**2)
    ours = qff("se", torch.full((2,), gamma).double(), nodes=16, prune=0.0, rule="legendre", stretch=1.0)
    assert float((phi @ phi.T - exact).abs().max()) > 0.2
    assert float((ours.kernel(x, x) - exact).abs().max()) < 1e-10


def test_the_kernel_does_not_depend_on_the_order_of_nodes() -> None:
    features = qff("se", torch.tensor([0.4, 0.6]).double(), nodes=6, prune=0.0, rule="legendre", stretch=1.0)
    half = features.size // 2
    order = torch.randperm(half)
    rows = torch.cat([order, half + order])
    mixed = FourierFeatures(features.frequencies[rows], features.scale[rows], features.sines)
    x = uniform(10, 2)
    torch.testing.assert_close(mixed.kernel(x, x), features.kernel(x, x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("prune", [1e-12, 1e-6, 1e-3])
def test_pruning_changes_the_kernel_by_no_more_than_it_says(prune: float) -> None:
    gamma = torch.tensor([0.3, 0.3]).double()
    x = uniform(40, 2)
    whole = qff("se", gamma, nodes=24, prune=0.0, rule="legendre", stretch=1.0)
    pruned = qff("se", gamma, nodes=24, prune=prune, rule="legendre", stretch=1.0)
    grid = half_grid(*hermite(24), 2, prune)
    change = float((whole.kernel(x, x) - pruned.kernel(x, x)).abs().max())
    assert pruned.size < whole.size and grid.dropped > 0
    assert change <= grid.pruning_error + 1e-14
    torch.testing.assert_close(pruned(x).square().sum(-1), torch.ones(40).double(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kernel", KERNELS)
def test_cotangent_quadrature_converges_to_the_closed_form_faster_the_smoother_the_kernel(
    kernel: str,
) -> None:
    r = torch.linspace(0, 1, 301).double()
    exact = profile(kernel, r / 0.5)  # type: ignore[arg-type]
    errors = []
    for nodes in (16, 64, 256):
        u, v = rule_of(kernel, nodes, "legendre", 1.0)  # type: ignore[arg-type]
        errors.append(float((one_dim(u / 0.5, v, r) - exact).abs().max()))
    assert errors[0] > errors[1] > errors[2]
    rate = math.log(errors[1] / errors[2]) / math.log(4)
    assert rate > 1.2 * KERNELS.index(kernel) + 0.9


@pytest.mark.parametrize(("nu", "constant"), [(1, 0.5), (2, 1.0), (3, 4 / 3), (4, 8 / 5)])
@pytest.mark.parametrize("stretch", [1.0, 0.5])
def test_cotangent_weights_are_those_of_the_authors_code(nu: int, constant: float, stretch: float) -> None:
    """GL weight * s / sin^2 * p(omega), gamma = stretch / s; there p(0) is gamma times these constants."""
    nodes, gamma = 40, 0.5
    s = stretch / gamma
    t, w = np.polynomial.legendre.leggauss(nodes)
    theta = (t + 1) / 2 * np.pi
    omega = s / np.tan(theta)
    weights = s / np.sin(theta) ** 2 * w * constant * gamma * (1 + gamma**2 * omega**2) ** -nu
    u, v = cotangent(nu, nodes, "legendre", stretch)
    np.testing.assert_allclose(u / gamma, omega[::-1], rtol=1e-9, atol=1e-9)
    # with stretch 1 theirs sum to 1 as they are
    np.testing.assert_allclose(v, weights[::-1] / weights.sum(), rtol=1e-9, atol=1e-16)
    if stretch == 1.0:
        assert weights.sum() == pytest.approx(1.0, abs=1e-13)


def test_the_trapezoid_rule_has_equal_angles() -> None:
    u, v = cotangent(2, 5, "trapezoid", 1.0)
    theta = np.pi * np.arange(5, 0, -1) / 6
    np.testing.assert_allclose(u, 1 / np.tan(theta), atol=1e-12)
    np.testing.assert_allclose(v, np.sin(theta) ** 2 / (np.sin(theta) ** 2).sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("dim", "nodes", "prune", "line"),
    [
        (5, 2, 0.0, "a group of 5 coordinates"),
        (4, 64, 0.0, "a grid of 16777216 points"),
        (1, 4, 1.0, "prune=1.0; valid"),
        (1, 4, 0.9, "leaves no node"),
    ],
)
def test_what_cannot_be_a_grid_gets_one_line(dim: int, nodes: int, prune: float, line: str) -> None:
    with pytest.raises(UserError, match=line) as raised:
        half_grid(*hermite(nodes), dim, prune)
    assert "\n" not in str(raised.value)


def test_no_nodes_and_no_density_get_one_line() -> None:
    with pytest.raises(UserError, match="nodes=0; valid: at least 1"):
        hermite(0)
    with pytest.raises(UserError, match="nu=0"):
        cotangent(0, 4, "legendre", 1.0)
