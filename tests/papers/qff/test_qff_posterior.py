"""The posterior on features: against function space, against all at once, samples, likelihood, failures."""

import numpy as np
import pytest
import torch
from qff_toys import CPU, normal, quadrature, uniform
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from torch import Tensor

from common.base.errors import UserError
from papers.qff.approximation import exact_posterior
from papers.qff.features import RFF, fixed_features
from papers.qff.posterior import WeightPosterior

R, N, RHO = 3, 25, 0.1
FEATURES = fixed_features(RFF(nodes=16, form="paired"), "se", [0.3], seed=1)


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    x = uniform(R, N, 1, seed=seed)
    return x, torch.sin(6 * x[..., 0]) + RHO * normal(R, N, seed=seed)


def one_by_one(phi: Tensor, y: Tensor) -> WeightPosterior:
    posterior = WeightPosterior(len(phi), phi.shape[2], RHO, CPU)
    for t in range(phi.shape[1]):
        posterior.update(phi[:, t], y[:, t])
    return posterior


def test_it_is_the_function_space_process_with_the_same_kernel() -> None:
    x, y = data()
    at = FEATURES(uniform(R, 40, 1, seed=2))
    phi = FEATURES(x)
    for posterior in (WeightPosterior.fit(phi, y, RHO), one_by_one(phi, y)):
        for r in range(R):
            K = (phi[r] @ phi[r].T + RHO**2 * torch.eye(N).double()).numpy()
            k = (at[r] @ phi[r].T).numpy()
            mean = k @ np.linalg.solve(K, y[r].numpy())
            variance = np.einsum("nm,nm->n", at[r], at[r]) - np.einsum("nm,mn->n", k, np.linalg.solve(K, k.T))
            np.testing.assert_allclose(posterior.mean_at(at)[r], mean, rtol=0, atol=1e-9)
            np.testing.assert_allclose(posterior.variance_at(at)[r], variance, rtol=0, atol=1e-9)
            likelihood = multivariate_normal(np.zeros(N), K).logpdf(y[r].numpy())
            assert float(posterior.log_likelihood[r]) == pytest.approx(likelihood, abs=1e-7)
            determinant = np.linalg.slogdet(K / RHO**2)[1]
            assert float(posterior.log_determinant[r]) == pytest.approx(determinant, abs=1e-9)


def test_with_enough_nodes_it_is_sklearns_exact_process() -> None:
    x, y = data()
    features = fixed_features(quadrature(48), "se", [0.3], 0)
    posterior = WeightPosterior.fit(features(x), y, RHO)
    at = torch.linspace(-0.5, 0.5, 50).double()[:, None]
    peer = GaussianProcessRegressor(RBF(0.3), alpha=RHO**2, optimizer=None).fit(x[0].numpy(), y[0].numpy())
    mean, deviation = peer.predict(at.numpy(), return_std=True)
    phi = features(at).expand(R, -1, -1)
    np.testing.assert_allclose(posterior.mean_at(phi)[0], mean, atol=1e-8)
    np.testing.assert_allclose(posterior.variance_at(phi)[0], deviation**2, atol=1e-8)
    gamma = torch.tensor([0.3]).double()
    ours = exact_posterior("se", gamma, 1.0, RHO, x, y, at)
    np.testing.assert_allclose(ours[0][0], mean, atol=1e-9)
    np.testing.assert_allclose(ours[1][0], deviation**2, atol=1e-9)


def test_a_thousand_rank_one_updates_do_not_drift() -> None:
    x = uniform(1, 1000, 1)
    phi, y = FEATURES(x), normal(1, 1000)
    slowly, whole = one_by_one(phi, y), WeightPosterior.fit(phi, y, RHO)
    torch.testing.assert_close(slowly.mean, whole.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        slowly.root @ slowly.root.mT, whole.root @ whole.root.mT, rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(slowly.log_likelihood, whole.log_likelihood, rtol=1e-10, atol=0)


def test_an_update_lowers_the_covariance_by_the_square_that_it_returns() -> None:
    x, y = data()
    phi = FEATURES(x)
    posterior = one_by_one(phi[:, :-1], y[:, :-1])
    before = posterior.root @ posterior.root.mT
    g = posterior.update(phi[:, -1], y[:, -1])
    after = posterior.root @ posterior.root.mT
    torch.testing.assert_close(before - g[:, :, None] * g[:, None], after, rtol=0, atol=1e-12)


def test_samples_have_the_posteriors_mean_and_covariance() -> None:
    """1e5 draws; the covariance is rho^2 V^-1 with V = Phi'Phi + rho^2 I."""
    x, y = data()
    phi = FEATURES(x)
    posterior = one_by_one(phi, y)
    draws = posterior.sample(normal(R, 100_000, 16))
    for r in range(R):
        V = phi[r].T @ phi[r] + RHO**2 * torch.eye(16).double()
        covariance = RHO**2 * torch.linalg.inv(V)
        deviation = covariance.diagonal().sqrt()
        error = (torch.cov(draws[r].T) - covariance) / (deviation[:, None] * deviation)
        assert float(error.abs().max()) < 6 * (2 / 100_000) ** 0.5
        mean = torch.linalg.solve(V, phi[r].T @ y[r])
        assert float(((draws[r].mean(0) - mean) / deviation).abs().max()) < 5 / 100_000**0.5


def test_a_failed_observation_changes_its_replicate_not_at_all() -> None:
    x, y = data()
    phi = FEATURES(x)
    broken = y.clone()
    broken[1, 7] = torch.nan
    posterior = one_by_one(phi, broken)
    kept = [t for t in range(N) if t != 7]
    without = one_by_one(phi[:, kept], y[:, kept])
    with_it = one_by_one(phi, y)
    torch.testing.assert_close(posterior.mean[1], without.mean[1], rtol=0, atol=1e-11)
    torch.testing.assert_close(posterior.root[1], without.root[1], rtol=0, atol=1e-11)
    torch.testing.assert_close(posterior.log_likelihood[1], without.log_likelihood[1])
    assert torch.equal(posterior.mean[0], with_it.mean[0])


def test_repeated_points_and_little_noise_are_survived() -> None:
    phi = FEATURES(torch.zeros(1, 50, 1).double())
    posterior = WeightPosterior(1, 16, 1e-4, CPU)
    for t in range(50):
        posterior.update(phi[:, t], torch.ones(1).double())
    assert float(posterior.mean_at(phi[:, :1])) == pytest.approx(1.0, abs=1e-6)
    assert float(posterior.variance_at(phi[:, :1])) == pytest.approx(1e-8 / 50, rel=1e-3)


def test_features_that_are_not_finite_get_one_line() -> None:
    with pytest.raises(UserError, match="the posterior precision has entries that are not finite"):
        WeightPosterior.fit(torch.full((1, 2, 2), torch.nan).double(), torch.zeros(1, 2).double(), RHO)
