"""The surrogate of which nothing is known: BoTorch's default, in any units, whatever an outlier is."""

import warnings

import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from botorch.optim.fit import fit_gpytorch_mll_scipy
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from papers.maxacq import standardised
from papers.maxacq.posterior import Kernel, condition
from papers.maxacq.standardised import fit_each, fit_standardised


def data(n: int, d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + d)
    x = torch.rand(n, d, dtype=torch.float64, generator=generator)
    noise = torch.randn(n, dtype=torch.float64, generator=generator)
    return x, 3.0 * (5.0 * x).sin().sum(1) - 50.0 + 0.1 * noise


def peer(kernel: Kernel, x: Tensor, y: Tensor) -> SingleTaskGP:
    """BoTorch's default model of standardised values, fitted."""
    z = ((y - y.mean()) / y.std())[:, None]
    covariance = get_covar_module_with_dim_scaled_prior(x.shape[1], use_rbf_kernel=kernel == "se")
    model = SingleTaskGP(x, z, covar_module=covariance, outcome_transform=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_gpytorch_mll_scipy(ExactMarginalLogLikelihood(model.likelihood, model))
    return model.eval()


@pytest.mark.parametrize("kernel", ["se", "matern52"])
@pytest.mark.parametrize(("n", "d"), [(5, 1), (30, 3)])
def test_the_posterior_is_that_of_botorchs_default_model(kernel: Kernel, n: int, d: int) -> None:
    x, y = data(n, d)
    model = peer(kernel, x, y)
    at = torch.rand(7, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = model.posterior(at)
    mean, variance = condition(fit_standardised(kernel, x, y), x[None], y[None]).marginal(at[None])
    scale = y.std()
    torch.testing.assert_close(mean[0], y.mean() + scale * theirs.mean[:, 0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(variance[0].sqrt(), scale * theirs.variance[:, 0].sqrt(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", ["se", "matern52"])
def test_the_gradient_is_that_of_the_objective(kernel: Kernel) -> None:
    x, y = data(12, 2)
    objective = standardised._Objective(kernel, x.numpy(), y.numpy() + 50)
    theta = objective.start() + np.array([0.3, -0.2, 0.4, 0.1])
    steps = 1e-6 * np.eye(4)
    slopes = [(objective(theta + step)[0] - objective(theta - step)[0]) / 2e-6 for step in steps]
    np.testing.assert_allclose(objective(theta)[1], slopes, rtol=1e-6)


@pytest.mark.parametrize(("factor", "shift"), [(1e-8, 0.0), (1e8, 0.0), (1.0, -100.0), (0.1, -2.3)])
def test_units_and_level_of_the_values_do_not_matter(factor: float, shift: float) -> None:
    x, y = data(20, 2)
    one, other = fit_standardised("se", x, y), fit_standardised("se", x, factor * y + shift)
    torch.testing.assert_close(other.lengthscale, one.lengthscale, rtol=1e-4, atol=0)
    torch.testing.assert_close(other.variance.sqrt(), factor * one.variance.sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(other.mean, factor * one.mean + shift, rtol=1e-4, atol=0)


@pytest.mark.parametrize("y", [[2.5], [0.0, 0.0, 0.0], [1e8, 1e8]])
def test_one_value_or_equal_values_give_a_finite_prior(y: list[float]) -> None:
    x = torch.linspace(0, 1, len(y), dtype=torch.float64)[:, None]
    prior = fit_standardised("se", x, torch.tensor(y, dtype=torch.float64))
    parts = (prior.lengthscale, prior.variance, prior.mean, prior.noise_variance)
    assert all(bool(part.isfinite().all()) for part in parts)
    assert float(prior.mean) == pytest.approx(y[0], abs=1e-3)


def test_replicates_are_fitted_apart_and_failed_values_are_left_out() -> None:
    x, y = data(10, 2)
    given = fit_standardised("se", x, y)
    both_x, both_y = torch.stack([x, x]), torch.stack([y, torch.full_like(y, torch.nan)])
    both_y[0, 3] = torch.nan
    start = condition(given, x[None], y[None]).prior
    two = type(start)(
        "se",
        *(torch.cat([p, p]) for p in (start.lengthscale, start.variance, start.mean, start.noise_variance)),
    )
    found, values = fit_each(two, both_x, both_y)
    kept = torch.arange(10) != 3
    alone = fit_standardised("se", x[kept], y[kept])
    assert torch.equal(found.lengthscale[0], alone.lengthscale[0])
    assert torch.equal(found.lengthscale[1], given.lengthscale[0])
    assert values.isnan().sum() == 11
