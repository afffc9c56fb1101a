"""The hand-written posterior: BoTorch's, pending points, repeats, failures, gradients, fits."""

import math

import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP
from gpytorch.kernels import MaternKernel, ScaleKernel
from maxacq_toys import normal, posterior, prior, uniform
from scipy.stats import halfcauchy, lognorm
from torch import Tensor

from common.base.errors import UserError
from papers.maxacq.fit import fit
from papers.maxacq.posterior import Prior, condition, root, squared_distances


def botorch_model(p: Prior, r: int, x: Tensor, y: Tensor) -> SingleTaskGP:
    kernel = ScaleKernel(MaternKernel(2.5, ard_num_dims=x.shape[-1])).double()
    kernel.outputscale, kernel.base_kernel.lengthscale = p.variance[r], p.lengthscale[r]
    noise = p.noise_variance[r].expand(len(y), 1)
    model = SingleTaskGP(x, y[:, None], train_Yvar=noise, covar_module=kernel, outcome_transform=None)
    model.mean_module.constant.data.fill_(float(p.mean[r]))
    return model.eval()  # type: ignore[no-any-return]


def test_means_and_covariances_of_sets_are_those_of_botorch() -> None:
    p, x, y, X = prior(), uniform(2, 6, 2, seed=4), normal(2, 6, seed=5), uniform(2, 5, 3, 2, seed=7)
    belief = condition(p, x, y).belief(X)
    for r in range(2):
        theirs = botorch_model(p, r, x[r], y[r]).posterior(X[r]).distribution
        torch.testing.assert_close(belief.mean[r], theirs.mean, rtol=1e-9, atol=1e-9)
        S = belief.root[r] @ belief.root[r].mT
        torch.testing.assert_close(S, theirs.covariance_matrix, rtol=1e-9, atol=1e-9)


def test_covariances_with_other_points_are_blocks_of_the_joint_one() -> None:
    given, X = posterior(), uniform(2, 3, 5, 2, seed=8)
    S = given.moments(X)[1]
    for s in range(3):
        block = given.cross(X[:, s : s + 1, :2], X[:, s, 2:])[:, 0]
        torch.testing.assert_close(block, S[:, s, :2, 2:], rtol=0, atol=1e-12)


def test_pending_points_are_the_first_rows_of_the_joint_factor() -> None:
    given, X = posterior(), uniform(2, 1, 4, 2, seed=9)
    together = given.belief(X)
    pending = given.with_pending(X[:, 0, 0]).with_pending(X[:, 0, 1])
    torch.testing.assert_close(pending.pending_root, together.root[:, 0, :2, :2], rtol=0, atol=1e-10)
    torch.testing.assert_close(pending.pending_mean, together.mean[:, 0, :2], rtol=0, atol=1e-10)
    torch.testing.assert_close(pending.belief(X[:, :, 2:]).root, together.root[:, :, 2:], rtol=0, atol=1e-10)


def test_single_points_know_the_pending_outcomes() -> None:
    given, X = posterior(), uniform(2, 1, 3, 2, seed=10)
    pending = given.with_pending(X[:, 0, 0]).with_pending(X[:, 0, 1])
    mean, variance = pending.marginal(X[:, 0, 2:])
    torch.testing.assert_close(mean, given.belief(X).mean[:, 0, 2:])
    torch.testing.assert_close(variance, given.belief(X).root[:, 0, 2:, 2].square())


def test_a_failed_observation_is_as_if_it_had_not_been_made() -> None:
    x, y, X = uniform(2, 6, 2, seed=4), normal(2, 6, seed=5), uniform(2, 4, 2, 2, seed=11)
    y[0, 2] = y[1, 4] = torch.nan
    belief = condition(prior(), x, y).belief(X)
    for r, keep in enumerate(([0, 1, 3, 4, 5], [0, 1, 2, 3, 5])):
        alone = condition(prior(), x[:, keep], y[:, keep]).belief(X)
        torch.testing.assert_close(belief.mean[r], alone.mean[r])
        torch.testing.assert_close(belief.root[r], alone.root[r])


def test_without_observations_the_belief_is_the_prior() -> None:
    p = prior()
    belief = condition(p, uniform(2, 0, 2), uniform(2, 0)).belief(uniform(2, 3, 1, 2))
    torch.testing.assert_close(belief.mean, p.mean[:, None, None].expand(2, 3, 1))
    torch.testing.assert_close(belief.root[..., 0, 0].square(), p.variance[:, None].expand(2, 3))


def test_repeated_points_without_noise_are_mended_by_jitter() -> None:
    x = uniform(2, 1, 2).expand(2, 3, 2)
    belief = condition(prior(noise_variance=0.0), x, normal(2, 1).expand(2, 3)).belief(x[:, :1, None])
    torch.testing.assert_close(belief.mean[..., 0], normal(2, 1), rtol=0, atol=1e-6)
    assert belief.root.isfinite().all() and float(belief.root.abs().max()) < 1e-3


def test_a_repeated_point_of_a_set_and_of_the_pending_ones_adds_nothing() -> None:
    given, x = posterior(), uniform(2, 1, 2)[:, 0]
    twice = given.belief(torch.stack([x, x], 1)[:, None])
    assert float(twice.root[:, 0, 1, 1].max()) < 2e-4
    pending = given.with_pending(x).with_pending(x).belief(x[:, None, None])
    torch.testing.assert_close(pending.root[:, 0, 0, 0], pending.root[:, 0, 0, 0].abs())
    assert float(pending.root[:, 0, 0, 1:].abs().max()) < 1e-4


def test_what_is_not_finite_gets_one_line() -> None:
    p = prior(noise_variance=float("nan"))
    with pytest.raises(UserError, match="the covariance of the observations has entries that are not finite"):
        condition(p, uniform(2, 3, 2), normal(2, 3))


def test_gradients_of_the_factor_are_those_of_finite_differences() -> None:
    A = normal(3, 4, 4)
    S = (A @ A.mT + torch.eye(4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda S: root((S + S.mT) / 2, torch.zeros(3)), S)


def test_gradients_are_finite_where_a_point_repeats_an_observation() -> None:
    given = posterior()
    X = uniform(2, 6, 2, seed=4)[:, :1, None].clone().requires_grad_()
    belief = given.belief(X)
    (slope,) = torch.autograd.grad(belief.mean.sum() + belief.root.sum(), X)
    assert slope.isfinite().all()


def test_squared_distances_are_those_of_differences() -> None:
    a, b = uniform(2, 5, 3), uniform(2, 4, 3, seed=1)
    expected = (a[:, :, None] - b[:, None]).square().sum(-1)
    torch.testing.assert_close(squared_distances(a, b), expected, rtol=0, atol=1e-14)


def log_posterior(p: Prior, x: np.ndarray, y: np.ndarray) -> float:
    """Log marginal likelihood and log priors of the spec, written in numpy."""
    scale, amplitude = p.lengthscale.numpy(), float(p.variance) ** 0.5
    noise = float(p.noise_variance)
    r = np.sqrt((((x[:, None] - x[None]) / scale) ** 2).sum(-1))
    t = np.sqrt(5) * r
    K = amplitude**2 * (1 + t + t**2 / 3) * np.exp(-t) + noise * np.eye(len(y))
    _, logdet = np.linalg.slogdet(K)
    likelihood = -0.5 * y @ np.linalg.solve(K, y) - 0.5 * logdet - 0.5 * len(y) * math.log(2 * math.pi)
    horseshoe = math.log(math.log(1 + 3 * (0.1 / noise) ** 2))
    return float(likelihood + lognorm(1.0).logpdf(amplitude) + horseshoe)


def observed(n: int = 24) -> tuple[Tensor, Tensor]:
    x = uniform(1, n, 2, seed=20)
    y = torch.sin(6 * x[..., 0]) + 0.2 * x[..., 1] + 0.05 * normal(1, n, seed=21)
    return x, y


def start() -> Prior:
    one = torch.ones(1, dtype=torch.float64)
    return Prior("matern52", torch.ones(1, 2, dtype=torch.float64), one, 0 * one, 0.01 * one)


def test_a_map_fit_is_a_maximum_of_likelihood_times_priors() -> None:
    x, y = observed()
    found = fit(start(), x, y, with_priors=True)
    one = Prior("matern52", found.lengthscale[0], found.variance[0], found.mean[0], found.noise_variance[0])
    best = log_posterior(one, x[0].numpy(), y[0].numpy())
    for name in ("lengthscale", "variance", "noise_variance"):
        for factor in (0.9, 1.1):
            near = Prior(**(one.__dict__ | {name: getattr(one, name) * factor}))
            if float(near.lengthscale.max()) <= 2:
                assert log_posterior(near, x[0].numpy(), y[0].numpy()) < best + 1e-4, name
    assert float(found.lengthscale.min()) >= 0.01 and float(found.lengthscale.max()) <= 2
    assert float(found.lengthscale[0, 0]) < float(found.lengthscale[0, 1])


def test_fits_are_the_same_alone_and_leave_failures_out() -> None:
    x, y = observed(12)
    both = Prior(*("matern52", *(torch.cat([v, v]) for v in list(start().__dict__.values())[1:])))
    other = torch.cat([y, y.flip(1)])
    together, alone = fit(both, torch.cat([x, x]), other, True), fit(start(), x, y, True)
    assert torch.equal(together.lengthscale[:1], alone.lengthscale)
    spoilt_x, spoilt_y = torch.cat([x, x[:, :1]], 1), torch.cat([y, torch.full((1, 1), torch.nan)], 1)
    assert torch.equal(fit(start(), spoilt_x, spoilt_y, True).variance, alone.variance)
    nothing = fit(start(), x, torch.full_like(y, torch.nan), True)
    assert torch.equal(nothing.lengthscale, start().lengthscale)


def test_the_prior_on_noise_is_a_horseshoe() -> None:
    """Its density is bounded by log(1 + 4 / u^2) and log(1 + 2 / u^2), u = x / 0.1; the spec uses 3."""
    u = np.array([0.1, 1.0, 10.0])
    grid = np.linspace(1e-4, 60, 400_000)
    exact = [np.trapezoid(halfcauchy.pdf(grid) * np.exp(-0.5 * (v / grid) ** 2) / grid, grid) for v in u]
    bounds = np.log(1 + 3 / u**2)
    ratio = np.array(exact) / bounds
    assert ratio.max() / ratio.min() < 1.4
