"""Both forms of the heads against scipy's and scikit-learn's, their gradients and limits."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, WhiteKernel
from sklearn.linear_model import BayesianRidge
from torch import Tensor

from papers.ablr.features import Network, RandomKitchenSinks
from papers.ablr.model import Points, SharedRegression, copula, standardised
from papers.ablr.regression import Form, heads

D = 6
FORMS: tuple[Form, Form] = ("primal", "dual")


def drawn(n: int, tasks: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Phi, y, valid, alpha, beta."""
    g = torch.Generator().manual_seed(seed)
    Phi = torch.randn(tasks, n, D, generator=g, dtype=torch.float64)
    y = torch.randn(tasks, n, generator=g, dtype=torch.float64)
    alpha, beta = (0.5 + torch.rand(tasks, generator=g, dtype=torch.float64) for _ in range(2))
    return Phi, y, torch.ones(tasks, n, dtype=torch.bool), alpha, 20 * beta


@pytest.mark.parametrize("n", [1, 3, D, 15, 40])
def test_primal_dual_and_scipy_agree_to_ten_digits(n: int) -> None:
    Phi, y, valid, alpha, beta = drawn(n)
    C = torch.eye(n) / beta + Phi[0] @ Phi[0].T / alpha
    density = multivariate_normal.logpdf(y[0].numpy(), np.zeros(n), C.numpy())
    expected = -density - n / 2 * math.log(2 * math.pi)
    at = torch.randn(7, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    found = [heads(Phi, y, valid, alpha, beta, form) for form in FORMS]
    for one in found:
        assert float(one.criterion) == pytest.approx(expected, rel=1e-10, abs=1e-10)
    for a, b in zip(found[0].predict(at), found[1].predict(at), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_head_is_scikit_learns_process_with_a_linear_kernel() -> None:
    Phi, y, valid, alpha, beta = drawn(12)
    kernel = ConstantKernel(1 / float(alpha)) * DotProduct(0.0) + WhiteKernel(1 / float(beta))
    peer = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0).fit(Phi[0].numpy(), y[0].numpy())
    at = Phi[0, :5] + 0.3
    mean, deviation = peer.predict(at.numpy(), return_std=True)
    for form in FORMS:
        found = heads(Phi, y, valid, alpha, beta, form)
        evidence = -float(found.criterion) - 6 * math.log(2 * math.pi)
        assert evidence == pytest.approx(peer.log_marginal_likelihood_value_, rel=1e-8)
        ours, variance = found.predict(at)
        np.testing.assert_allclose(ours[0], mean, atol=1e-9)
        np.testing.assert_allclose(variance[0] + 1 / beta, deviation**2, atol=1e-9)


def test_without_observations_the_prior_is_left() -> None:
    Phi, y, valid, alpha, beta = drawn(0)
    found = heads(Phi, y, valid, alpha, beta, "dual")
    at = torch.ones(2, D, dtype=torch.float64)
    mean, variance = found.predict(at)
    assert float(found.criterion) == 0 and not mean.any()
    torch.testing.assert_close(variance[0], at.square().sum(1) / alpha)


def test_padded_tasks_give_what_each_gives_alone() -> None:
    Phi, y, valid, alpha, beta = drawn(10, tasks=3)
    valid[1, 4:] = False
    Phi[1, 4:], y[1, 4:] = 7.0, torch.nan
    for form in FORMS:
        together = heads(Phi.nan_to_num(), y, valid, alpha, beta, form)
        for t, n in enumerate((10, 4, 10)):
            alone = heads(
                Phi[t : t + 1, :n],
                y[t : t + 1, :n],
                valid[t : t + 1, :n],
                alpha[t : t + 1],
                beta[t : t + 1],
                form,
            )
            torch.testing.assert_close(together.criterion[t], alone.criterion[0], rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    Phi, y, valid, alpha, beta = drawn(5, tasks=2)
    inputs = [one.requires_grad_() for one in (Phi, y, alpha, beta)]
    for form in FORMS:
        assert torch.autograd.gradcheck(
            lambda p, v, a, b, form=form: heads(p, v, valid, a, b, form).criterion, inputs
        )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, D, 40])
def test_criteria_and_gradients_of_padded_tasks_are_those_of_a_normal_density_by_autograd(
    form: Form, n: int
) -> None:
    Phi, y, valid, alpha, beta = drawn(n, tasks=3)
    valid[1, n // 2 :] = False
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    inputs = [one.requires_grad_() for one in (Phi, y, alpha, beta)]
    found = heads(*inputs[:2], valid, *inputs[2:], form).criterion
    expected = []
    for t in range(3):
        own = Phi[t, valid[t]]
        if not len(own):
            expected.append(Phi.new_zeros(()))
            continue
        C = torch.eye(len(own), dtype=torch.float64) / beta[t] + own @ own.T / alpha[t]
        density = torch.distributions.MultivariateNormal(C.new_zeros(len(own)), C).log_prob(y[t, valid[t]])
        expected.append(-density - len(own) / 2 * math.log(2 * math.pi))
    for a, b in zip(
        [found, *torch.autograd.grad(found @ weight, inputs)],
        [torch.stack(expected), *torch.autograd.grad(torch.stack(expected) @ weight, inputs)],
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_larger_features_with_a_larger_precision_are_the_same_model() -> None:
    Phi, y, valid, alpha, beta = drawn(9)
    for form in FORMS:
        one, other = (
            heads(Phi, y, valid, alpha, beta, form),
            heads(1e4 * Phi, y, valid, 1e8 * alpha, beta, form),
        )
        torch.testing.assert_close(one.criterion, other.criterion, rtol=1e-9, atol=1e-9)


def test_almost_without_noise_the_mean_goes_through_the_points_and_the_sum_of_squares_does_not_cancel() -> (
    None
):
    Phi, y, valid, alpha, _ = drawn(4)
    beta = torch.full((1,), 1e6, dtype=torch.float64)
    for form in FORMS:
        found = heads(Phi, y, valid, alpha, beta, form)
        torch.testing.assert_close(found.predict(Phi[0])[0], y, rtol=1e-3, atol=1e-3)
        assert bool((found.predict(Phi[0])[1] >= 0).all())
    a, b = (heads(Phi, y, valid, alpha, beta, form).criterion for form in FORMS)
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_fitted_precisions_are_those_of_scikit_learns_bayesian_ridge() -> None:
    g = torch.Generator().manual_seed(3)
    features = RandomKitchenSinks(dim=5, per_input=False, bandwidth=0.5)
    x = torch.rand(80, 2, generator=g, dtype=torch.float64)
    model = SharedRegression(features, [Points(x, torch.zeros(80, dtype=torch.float64))], g)
    phi = model.features.map(model.z, x)
    y = phi @ torch.randn(5, generator=g, dtype=torch.float64) + 0.2 * torch.randn(
        80, generator=g, dtype=torch.float64
    )
    model.tasks = [Points(x, y)]
    model._divide()
    model.fit_heads(500)
    peer = BayesianRidge(
        alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, fit_intercept=False, tol=1e-10, max_iter=2000
    )
    peer.fit(phi.numpy(), y.numpy())
    assert float(model.log_beta.exp()) == pytest.approx(peer.alpha_, rel=1e-3)
    assert float((-model.log_scale).exp()) == pytest.approx(peer.lambda_, rel=1e-3)


def test_random_kitchen_sinks_have_the_kernel_in_the_mean() -> None:
    features = RandomKitchenSinks(dim=40_000, per_input=True, bandwidth=0.7)
    z = features.start(3, torch.Generator().manual_seed(0))
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    phi = features.map(z, x)
    expected = torch.exp(-torch.cdist(x, x).square() / (2 * 0.7**2))
    torch.testing.assert_close(phi @ phi.T, expected, rtol=0, atol=0.03)


def tasks(*sizes: int) -> list[Points]:
    g = torch.Generator().manual_seed(5)
    found = []
    for n in sizes:
        x = torch.rand(n, 3, generator=g, dtype=torch.float64)
        found.append(Points(x, standardised((x**2).sum(1) + x[:, 0])[0]))
    return found


def test_a_task_does_not_depend_on_the_others_where_the_features_stay() -> None:
    model = SharedRegression(
        Network(width=8, layers=2, precision="float64"), tasks(4, 20, 0), torch.Generator().manual_seed(0)
    )
    scale = model.log_scale.clone().requires_grad_()
    (both,) = torch.autograd.grad(model.criterion(model.z, scale, model.log_beta), scale)
    alone = SharedRegression(
        Network(width=8, layers=2, precision="float64"), tasks(4), torch.Generator().manual_seed(0)
    )
    scale = alone.log_scale.clone().requires_grad_()
    (own,) = torch.autograd.grad(alone.criterion(alone.z, scale, alone.log_beta), scale)
    torch.testing.assert_close(both[0], own[0], rtol=1e-9, atol=1e-9)
    assert both[2] == 0


@pytest.mark.parametrize("sizes", [(), (0,), (3, 3), (30, 2, 0, 12, 9)])
def test_the_criterion_of_tasks_of_any_sizes_is_the_sum_of_each_alone(sizes: tuple[int, ...]) -> None:
    network = Network(width=8, layers=2, precision="float64")
    found = SharedRegression(network, tasks(7, *sizes), torch.Generator().manual_seed(0))
    flat = [one.clone().requires_grad_() for one in (found.z, found.log_scale, found.log_beta)]
    total = found.criterion(*flat)
    slopes = torch.autograd.grad(total, flat)
    value, by_z = 0.0, torch.zeros_like(found.z)
    for t, task in enumerate(found.tasks):
        alone = SharedRegression(network, [task], torch.Generator().manual_seed(0))
        own = [one.clone().requires_grad_() for one in (found.z, alone.log_scale, alone.log_beta)]
        value += (one := alone.criterion(*own)).item()
        by_own = torch.autograd.grad(one, own)
        by_z += by_own[0]
        torch.testing.assert_close(slopes[1][t], by_own[1][0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(slopes[2][t], by_own[2][0], rtol=1e-10, atol=1e-10)
    assert total.item() == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(slopes[0], by_z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("at_once", [1, 10, 40])
def test_a_fit_in_parts_is_that_of_all_tasks_at_once(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    found = []
    for limit in (10_000, at_once):
        monkeypatch.setattr("papers.ablr.model.AT_ONCE", limit)
        network = Network(width=8, layers=2, precision="float64")
        one = SharedRegression(network, tasks(7, 0, 30, 12, 0, 9), torch.Generator().manual_seed(0))
        value = one.fit(4)
        assert value == pytest.approx(float(one.criterion(one.z, one.log_scale, one.log_beta)), rel=1e-10)
        found.append((value, one.fit_heads(4), *one.state_dict().values()))
        assert len(one.parts) == {10_000: 1, 1: 6, 10: 4, 40: 2}[limit]
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_a_fit_lowers_the_criterion_and_single_precision_is_near() -> None:
    values = {}
    for precision in ("float64", "float32"):
        model = SharedRegression(
            Network(width=8, layers=2, precision=precision),
            tasks(5, 20),
            torch.Generator().manual_seed(0),
        )
        before = float(model.criterion(model.z, model.log_scale, model.log_beta))
        values[precision] = (before, model.fit(20))
        assert values[precision][1] < before
    assert values["float32"][0] == pytest.approx(values["float64"][0], rel=1e-3)


def test_the_order_of_points_does_not_matter() -> None:
    (one,) = tasks(20)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    found = []
    for task in (one, Points(one.x[order], one.y[order])):
        model = SharedRegression(
            Network(width=8, layers=1, precision="float64"), [task], torch.Generator().manual_seed(0)
        )
        found.append(float(model.criterion(model.z, model.log_scale, model.log_beta)))
    assert found[0] == pytest.approx(found[1], rel=1e-11)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_units_of_values_leave_what_models_are_given(unit: float) -> None:
    y = torch.tensor([1.0, 3.0, 2.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(standardised(unit * y)[0], standardised(y)[0])
    torch.testing.assert_close(copula(unit * y), copula(y))
    assert standardised(torch.full((3,), unit, dtype=torch.float64))[0].abs().max() == 0
    assert copula(y).sum().abs() < 1e-12 and copula(y)[2] == copula(y)[3]
