"""Both additive models and their maximisation: equal, with right derivatives, as good as brute force."""

from typing import Any

import gpytorch
import numpy as np
import pytest
import torch
from gpytorch.kernels import AdditiveKernel, MaternKernel, RBFKernel, ScaleKernel
from qff_toys import GRIDS, enough, models, normal, prior, quadrature, streams, uniform, unit_box
from torch import Tensor

from common.base.errors import UserError
from papers.qff.additive import ExactModel, FourierModel
from papers.qff.basis import POLYNOMIALS, profile, profile_derivatives
from papers.qff.features import RFF
from papers.qff.maximise import Box, GroupFunction, maximise, newton, structure_of, sum_of

R = 3
SETS = [[[0], [1], [2]], [[0, 1], [1, 2]], [[1], [0, 2]], [[0, 1, 2]], [[0, 1], [0, 2]]]
NAMES = ["one_dim", "chain", "mixed", "full", "star"]


def observed(groups: list[list[int]], kernel: Any = "se", count: int = 12, fail: bool = True) -> list[Any]:
    dim = max(max(group) for group in groups) + 1
    both = models(prior(groups, kernel), R)
    x, y = uniform(R, count, dim), normal(R, count)
    if fail:
        y[1, 5] = torch.nan
    for t in range(count):
        for model in both:
            model.observe(x[:, t], y[:, t])
    return both


def at_grid(function: GroupFunction) -> tuple[Tensor, Tensor]:
    values = function.on_grid()
    return values, function.points.expand(*values.shape, function.points.shape[-1])


@pytest.mark.parametrize("groups", SETS[:4], ids=NAMES[:4])
def test_features_and_exact_covariances_give_the_same_bounds(groups: list[list[int]]) -> None:
    """One dimension to rounding; in more, features of random frequencies would not."""
    features, exact = observed(groups)
    beta = torch.full((R,), 2.0).double()
    for ours, theirs in zip(features.optimistic(beta), exact.optimistic(beta), strict=True):
        torch.testing.assert_close(ours.on_grid(), theirs.on_grid(), rtol=0, atol=1e-6)
    torch.testing.assert_close(features.information, exact.information, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kernel", ["se", "modified_matern_3", "modified_matern_4"])
@pytest.mark.parametrize("groups", SETS, ids=NAMES)
def test_grids_hold_the_functions_and_derivatives_are_right(groups: list[list[int]], kernel: str) -> None:
    beta = torch.full((R,), 2.0).double()
    for model in observed(groups, kernel):
        functions = model.optimistic(beta)
        if isinstance(model, FourierModel) or kernel == "se":
            functions = functions + model.thompson(streams(R))
        for function in functions:
            values, points = at_grid(function)
            torch.testing.assert_close(function(points[:, :, ::7])[0], values[:, :, ::7], rtol=0, atol=1e-10)
            # no points of the data: there autograd misses the second derivative of |r|
            z = uniform(R, len(function.index), 2, function.index.shape[1], seed=9).requires_grad_()
            value, slope, bend = function(z)
            (by_hand,) = torch.autograd.grad(value.sum(), z, create_graph=True)
            twice = [
                torch.autograd.grad(by_hand[..., i].sum(), z, retain_graph=True)[0]
                for i in range(z.shape[-1])
            ]
            torch.testing.assert_close(slope, by_hand, rtol=0, atol=1e-9)
            torch.testing.assert_close(bend, torch.stack(twice, -1), rtol=0, atol=1e-8)


@pytest.mark.parametrize("kernel", ["se", *POLYNOMIALS])
def test_kernels_of_one_coordinate_are_closed_forms_with_right_derivatives(kernel: Any) -> None:
    r = torch.linspace(-2, 2, 40).double().requires_grad_()
    a = r.detach().abs()
    closed = {
        "se": torch.exp(-0.5 * a**2),
        "laplace": torch.exp(-a),
        "modified_matern_2": (1 + a) * torch.exp(-a),
        "modified_matern_3": (1 + a + a**2 / 3) * torch.exp(-a),
        "modified_matern_4": (1 + a + 0.4 * a**2 + a**3 / 15) * torch.exp(-a),
    }
    torch.testing.assert_close(profile(kernel, r).detach(), closed[kernel])
    value, first, second = profile_derivatives(kernel, r)
    (slope,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), r)
    torch.testing.assert_close(first, slope)
    torch.testing.assert_close(second, bend)


class Peer(gpytorch.models.ExactGP):
    def __init__(self, x: Tensor, y: Tensor, kernel: Any, likelihood: Any) -> None:
        super().__init__(x, y, likelihood)
        self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), kernel

    def forward(self, x: Tensor) -> Any:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


@pytest.mark.parametrize("kernel", ["se", "modified_matern_3"])
def test_the_exact_model_is_gpytorchs(kernel: str) -> None:
    """mu = sum_j mu_j at points whose groups' grid points are these; sigma_j of a single group."""
    _, model = observed([[0]], kernel, fail=False)
    function = model.optimistic(torch.ones(R).double())[0]
    at = function.points[0, 0]
    for r in range(R):
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        likelihood.noise = 0.01
        base = RBFKernel() if kernel == "se" else MaternKernel(nu=2.5)
        base = base.double()
        base.lengthscale = 0.3 * (1.0 if kernel == "se" else 5**0.5)
        peer = Peer(model.x[r], model.y[r], base, likelihood).double().eval()
        with torch.no_grad():
            found = peer(at)
        expected = found.mean + found.variance.clamp_min(0).sqrt()
        torch.testing.assert_close(function.on_grid()[r, 0], expected, rtol=0, atol=1e-6)


def test_the_additive_mean_is_gpytorchs_with_an_additive_kernel() -> None:
    _, model = observed([[0, 1], [1, 2]], fail=False)
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 0.01
    parts = []
    for group in ([0, 1], [1, 2]):
        part = ScaleKernel(RBFKernel(active_dims=group, ard_num_dims=2)).double()
        part.outputscale = 0.5
        part.base_kernel.lengthscale = torch.tensor([[0.3, 0.4], [0.4, 0.5]][group[0]]).double()
        parts.append(part)
    peer = Peer(model.x[0], model.y[0], AdditiveKernel(*parts), likelihood).double().eval()
    x = uniform(R, 6, 3, seed=4)
    mean = sum_of(model.optimistic(torch.zeros(R).double()))(x)[0]
    with torch.no_grad():
        torch.testing.assert_close(mean[0], peer(x[0]).mean, rtol=0, atol=1e-8)


@pytest.mark.parametrize("which", [0, 1], ids=["features", "exact"])
def test_thompson_samples_have_the_posteriors_moments(which: int) -> None:
    """At three points, over many replicates of the same data."""
    replicates = 2000
    box, given = unit_box(2), prior([[0], [1]], noise=0.3)
    options: dict[str, Any] = {"spread": False, **GRIDS}
    random = streams(replicates)
    model = (
        FourierModel(given, box, replicates, family=quadrature(24), random=random, **options)
        if which == 0
        else ExactModel(given, box, replicates, **options)
    )
    x, y = uniform(5, 2), normal(5)
    for t in range(5):
        model.observe(x[t].expand(replicates, 2), y[t].expand(replicates))
    at = torch.tensor([[0.1, 0.2], [-0.3, 0.4], [0.45, -0.1]]).double()
    draws = sum_of(model.thompson(random))(at.expand(replicates, 3, 2))[0]

    def k(a: Tensor, b: Tensor) -> Tensor:
        return 0.5 * torch.exp(-0.5 * ((a[:, None] - b) / given.lengthscale).square()).sum(-1)

    K = k(x, x) + 0.09 * torch.eye(5).double()
    mean = k(at, x) @ torch.linalg.solve(K, y)
    covariance = k(at, at) - k(at, x) @ torch.linalg.solve(K, k(x, at))
    spread = covariance.diagonal().sqrt()
    assert float(((draws.mean(0) - mean) / spread).abs().max()) < 5 / replicates**0.5
    error = (torch.cov(draws.T) - covariance) / (spread[:, None] * spread)
    assert float(error.abs().max()) < 6 * (2 / replicates) ** 0.5


def brute_force(functions: list[GroupFunction], dim: int, count: int) -> Tensor:
    axis = torch.linspace(-0.5, 0.5, count).double()
    grid = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    return sum_of(functions)(grid.expand(R, -1, -1))[0].max(1).values


@pytest.mark.parametrize("rule", ["thompson", "ucb"])
@pytest.mark.parametrize("groups", SETS, ids=NAMES)
def test_the_maximiser_is_no_worse_than_brute_force(groups: list[list[int]], rule: str) -> None:
    structure = structure_of(groups)
    for model in observed(groups):
        beta = torch.full((R,), 2.0).double()
        functions = model.thompson(streams(R)) if rule == "thompson" else model.optimistic(beta)
        x = maximise(functions, structure, unit_box(3), torch.zeros(R, 3).double())
        assert bool((x.abs() <= 0.5).all())
        value = sum_of(functions)(x[:, None])[0][:, 0]
        assert bool((value >= brute_force(functions, 3, 7) - 1e-9).all())


def test_groups_by_themselves_are_the_joint_maximum_on_the_grid() -> None:
    model = observed([[0], [1], [2]])[0]
    function = model.thompson(streams(R))[0]
    values = function.on_grid()
    grid = values[:, 0, ::10, None, None] + values[:, 1, None, ::10, None] + values[:, 2, None, None, ::10]
    apart = values[:, :, ::10].max(-1).values.sum(1)
    torch.testing.assert_close(grid.flatten(1).max(1).values, apart)


def test_a_chain_finds_the_best_point_of_the_product_grid() -> None:
    model = observed([[0, 1], [1, 2]])[0]
    function = model.thompson(streams(R))[0]
    tables = function.on_grid().unflatten(-1, (31, 31))
    best = (tables[:, 0, :, :, None] + tables[:, 1, None]).flatten(1).max(1).values
    x = maximise([function], "chain", unit_box(3), torch.zeros(R, 3).double())
    assert bool((sum_of([function])(x[:, None])[0][:, 0] >= best).all())


def test_a_replicates_maximiser_does_not_depend_on_the_others() -> None:
    for groups in (SETS[1], SETS[2], SETS[4]):
        model = observed(groups)[0]
        functions = model.thompson(streams(R))
        whole = maximise(functions, structure_of(groups), unit_box(3), torch.zeros(R, 3).double())
        alone = FourierModel(
            prior(groups), unit_box(3), 1, family=enough(groups), random=streams(1), spread=False, **GRIDS
        )
        x, y = uniform(R, 12, 3), normal(R, 12)
        for t in range(12):
            alone.observe(x[2:, t], y[2:, t])
        own = maximise(
            alone.thompson(streams(1, seed=2)), structure_of(groups), unit_box(3), torch.zeros(1, 3).double()
        )
        torch.testing.assert_close(whole[2:], own, rtol=0, atol=1e-7)


def test_groups_of_random_features_have_frequencies_of_their_own() -> None:
    family = RFF(nodes=8, form="bias")
    options: dict[str, Any] = {"spread": True, **GRIDS}
    model = FourierModel(prior([[0, 1], [1, 2]]), unit_box(3), R, family=family, random=streams(R), **options)
    model.observe(uniform(R, 3), normal(R))
    function = model.optimistic(torch.ones(R).double())[0]
    values, points = at_grid(function)
    torch.testing.assert_close(function(points[:, :, ::11])[0], values[:, :, ::11], rtol=0, atol=1e-10)
    assert model.bases[0].features.frequencies.shape == (R, 2, 64, 2)


def test_newton_climbs_a_quadratic_in_steps_and_stops_at_the_box() -> None:
    H = -torch.tensor([[4.0, 1.0], [1.0, 3.0]]).double()
    top = torch.tensor([0.2, 0.9]).double()

    def quadratic(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r = x - top
        return 0.5 * (r @ H * r).sum(-1), r @ H, H.expand(*x.shape[:-1], 2, 2)

    lower, upper = torch.zeros(2).double(), torch.tensor([1.0, 0.5]).double()
    x, _ = newton(quadratic, uniform(1, 5, 2) + 0.5, lower, upper, 40)
    # on the face x_2 = 1/2: x_1 = 0.2 - (x_2 - 0.9) / 4
    torch.testing.assert_close(x, torch.tensor([0.3, 0.5]).double().expand(1, 5, 2), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("groups", "structure"),
    [
        ([[0], [1, 2]], "separate"),
        ([[0, 1], [1, 2], [2, 3]], "chain"),
        ([[0, 1], [0, 2]], "joint"),
        ([[0, 1], [1, 0]], "joint"),
    ],
)
def test_structures_of_groups(groups: list[list[int]], structure: str) -> None:
    assert structure_of(groups) == structure


def test_a_box_with_other_sides_has_grids_of_its_own() -> None:
    given = prior([[0], [1]])
    box = Box(torch.tensor([0.0, -2.0]).double(), torch.tensor([1.0, 3.0]).double())
    model = ExactModel(given, box, 1, spread=True, **GRIDS)
    points = model.axes[0].points
    np.testing.assert_allclose(points[0, :, [0, -1], 0], [[0.0, 1.0], [-2.0, 3.0]])


def test_too_many_features_and_kernels_without_exact_draws_get_one_line() -> None:
    given = prior([[0, 1, 2]])
    options: dict[str, Any] = {"spread": False, **GRIDS}
    with pytest.raises(UserError, match="32768 features in all; valid: at most 8192"):
        FourierModel(given, unit_box(3), 1, family=quadrature(32), random=streams(1), **options)
    model = ExactModel(prior([[0]], "laplace"), unit_box(1), 1, **options)
    model.observe(uniform(1, 1), normal(1))
    with pytest.raises(UserError, match=r"model\.kernel=laplace: exact Thompson sampling"):
        model.thompson(streams(1))
