"""PEM-BO's estimators against numpy, scipy, simulation and the invariants that the paper proves."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from papers.meta_bo.basis import fit_weights
from papers.meta_bo.estimators import (
    ArmsPosterior,
    ArmsPrior,
    BasisPrior,
    correction_factor,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everyone(replicates: int, N: int) -> Tensor:
    return torch.ones(replicates, N, dtype=torch.bool)


def observed(prior: ArmsPrior, arms: list[int], values: list[float]) -> ArmsPosterior:
    """The same observations for all replicates, one after the other."""
    posterior = ArmsPosterior(prior)
    replicates = len(prior.N)
    for arm, value in zip(arms, values, strict=True):
        posterior.observe(
            torch.full((replicates,), arm), torch.full((replicates,), value, dtype=torch.float64)
        )
    return posterior


def batch(Y: np.ndarray, arms: list[int], y: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The formulas, by numpy's covariance and pseudo-inverse, uncorrected."""
    mu, K = Y.mean(0), np.cov(Y.T)
    gain = K[:, arms] @ np.linalg.pinv(K[np.ix_(arms, arms)], rcond=1e-10)
    return mu + gain @ (np.array(y) - mu[arms]), np.diag(K - gain @ K[arms])


def test_without_observations_the_estimates_are_the_sample_moments() -> None:
    Y = normal(30, 6)
    posterior = ArmsPosterior(ArmsPrior(Y, everyone(2, 30)))
    np.testing.assert_allclose(posterior.mean[1], Y.numpy().mean(0), atol=1e-14)
    np.testing.assert_allclose(posterior.variance[1], np.diag(np.cov(Y.numpy().T)), rtol=1e-13)


def test_one_at_a_time_is_the_same_as_all_at_once() -> None:
    Y = normal(40, 12) @ normal(12, 12, seed=1) + 100.0
    arms, y = [3, 0, 7, 11, 5], [101.0, 98.0, 100.5, 97.0, 104.0]
    posterior = observed(ArmsPrior(Y, everyone(1, 40)), arms, y)
    mean, variance = batch(Y.numpy(), arms, y)
    np.testing.assert_allclose(posterior.mean[0], mean, rtol=1e-11)
    np.testing.assert_allclose(posterior.variance[0], variance, atol=1e-10)
    assert not posterior.singular.any() and posterior.count.tolist() == [5.0]
    assert (posterior.variance[0, arms] == 0).all()


def test_columns_are_those_of_the_sample_covariance_of_each_replicates_own_functions() -> None:
    Y, kept = normal(20, 5), torch.rand(3, 20, generator=torch.Generator().manual_seed(2)) < 0.7
    prior = ArmsPrior(Y, kept)
    columns = prior.columns(torch.tensor([4, 0, 2]))
    separate = ArmsPrior(torch.stack([Y, Y, Y]), kept).columns(torch.tensor([4, 0, 2]))
    for r, arm in enumerate([4, 0, 2]):
        K = np.cov(Y[kept[r]].numpy().T)
        np.testing.assert_allclose(columns[r], K[arm], atol=1e-13)
        np.testing.assert_allclose(prior.variance[r], np.diag(K), rtol=1e-12)
        np.testing.assert_allclose(prior.mean[r], Y[kept[r]].mean(0), atol=1e-14)
    torch.testing.assert_close(separate, columns, rtol=1e-12, atol=1e-14)


def simulate(draws: int, M: int, N: int, t: int) -> dict[str, np.ndarray]:
    """Many priors estimated from N functions each, conditioned on the same t values of one function."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((M, M))
    S = A @ A.T / M + 0.3 * np.eye(M)
    mu, L = rng.standard_normal(M), np.linalg.cholesky(S)
    arms, x = list(range(t)), M - 1
    y = mu[arms] + 1.5 * L[:t, :t] @ rng.standard_normal(t)
    gain = S[x, arms] @ np.linalg.inv(S[np.ix_(arms, arms)])
    exact = mu[x] + gain @ (y - mu[arms]), S[x, x] - gain @ S[arms, x]
    Q = (y - mu[arms]) @ np.linalg.solve(S[np.ix_(arms, arms)], y - mu[arms])
    Y = torch.from_numpy(mu + rng.standard_normal((draws, N, M)) @ L.T)
    posterior = observed(ArmsPrior(Y, everyone(draws, N)), arms, y.tolist())
    factor = correction_factor(float(t), float(N), "once")
    return {
        "mean": posterior.mean[:, x].numpy(),
        "raw": posterior.variance[:, x].numpy(),
        "variance": (factor * posterior.variance[:, x]).numpy(),
        "exact_mean": np.array(exact[0]),
        "exact_variance": np.array(exact[1]),
        "Q": np.array(Q),
    }


@pytest.fixture(scope="module")
def simulated() -> dict[str, np.ndarray]:
    return simulate(draws=40_000, M=12, N=12, t=3)


def test_the_estimated_mean_is_unbiased(simulated: dict[str, np.ndarray]) -> None:
    error = simulated["mean"] - simulated["exact_mean"]
    assert abs(error.mean()) < 4 * error.std() / 200


def test_the_corrected_variance_is_unbiased_and_the_uncorrected_one_low_by_27_percent(
    simulated: dict[str, np.ndarray],
) -> None:
    assert (simulated["variance"] / simulated["exact_variance"]).mean() == pytest.approx(1.0, abs=0.01)
    assert (simulated["raw"] / simulated["exact_variance"]).mean() == pytest.approx(1 - 3 / 11, abs=0.01)


def test_the_variance_is_chi_square_with_n_minus_t_minus_1_degrees(simulated: dict[str, np.ndarray]) -> None:
    degrees = 12 - 3 - 1
    scaled = degrees * simulated["variance"] / simulated["exact_variance"]
    assert stats.kstest(scaled, stats.chi2(degrees).cdf).pvalue > 1e-3
    assert stats.kstest(scaled, stats.chi2(degrees + 1).cdf).pvalue < 1e-6


def test_the_variance_of_the_mean_is_the_corrected_formula_not_the_papers(
    simulated: dict[str, np.ndarray],
) -> None:
    N, t, Q, V = 12, 3, float(simulated["Q"]), float(simulated["exact_variance"])
    corrected = (N - 2 + N * Q) * V / (N * (N - t - 2))
    printed = (N - 2 + Q) * V / (N * (N - t - 2))
    assert simulated["mean"].var() == pytest.approx(corrected, rel=0.03)
    assert simulated["mean"].var() > 1.5 * printed


def test_with_very_many_functions_the_estimate_is_the_exact_noisy_posterior() -> None:
    x = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None]
    S = torch.exp(-torch.cdist(x, x).square() / 0.08) + 0.04 * torch.eye(8, dtype=torch.float64)
    Y = normal(400_000, 8) @ torch.linalg.cholesky(S).T
    arms, y = [1, 6], torch.tensor([0.7, -0.4], dtype=torch.float64)
    posterior = observed(ArmsPrior(Y, everyone(1, len(Y))), arms, y.tolist())
    gain = S[:, arms] @ torch.linalg.inv(S[arms][:, arms])
    torch.testing.assert_close(posterior.mean[0], gain @ y, rtol=0, atol=0.01)
    exact = (S - gain @ S[arms]).diagonal().clamp_min(0)
    torch.testing.assert_close(posterior.variance[0], exact, rtol=0, atol=0.01)


def test_over_an_identity_basis_the_estimates_are_those_over_arms() -> None:
    Y, arms, y = normal(25, 9) + 2, [2, 5, 8], [1.0, 3.0, 2.5]
    eye = torch.eye(9, dtype=torch.float64)
    torch.testing.assert_close(fit_weights(eye, Y, 0.0), Y)
    basis = BasisPrior(fit_weights(eye, Y, 0.0))
    posterior = basis.posterior(eye[arms], torch.tensor(y, dtype=torch.float64), jitter=0.0)
    mean, variance = posterior.predict(eye)
    over_arms = observed(ArmsPrior(Y, everyone(1, 25)), arms, y)
    torch.testing.assert_close(mean, over_arms.mean[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(variance, over_arms.variance[0], rtol=1e-9, atol=1e-11)


def test_over_a_basis_the_estimates_are_the_papers_equations() -> None:
    W, Phi, y = normal(40, 7), normal(3, 7, seed=1), normal(3, seed=2)
    u, Sigma = W.mean(0).numpy(), np.cov(W.numpy().T)
    P = Phi.numpy().T
    gain = Sigma @ P @ np.linalg.inv(P.T @ Sigma @ P + 1e-3 * np.eye(3))
    points = normal(5, 7, seed=3)
    mean, variance = BasisPrior(W).posterior(Phi, y, jitter=1e-3).predict(points)
    np.testing.assert_allclose(mean, points.numpy() @ (u + gain @ (y.numpy() - P.T @ u)), rtol=1e-10)
    left = Sigma - gain @ P.T @ Sigma
    np.testing.assert_allclose(variance, np.einsum("ij,jk,ik->i", points, left, points), rtol=1e-9)


def test_weights_are_the_ridge_solution_of_every_function() -> None:
    features, y = normal(30, 6), normal(4, 30, seed=1)
    W = fit_weights(features, y, 0.5)
    F = features.numpy()
    for i in range(4):
        expected = np.linalg.solve(F.T @ F + 0.5 * np.eye(6), F.T @ y[i].numpy())
        np.testing.assert_allclose(W[i], expected, rtol=1e-11)


def test_a_failed_observation_changes_nothing_and_is_not_counted() -> None:
    Y = normal(30, 6)
    posterior = ArmsPosterior(ArmsPrior(Y, everyone(2, 30)))
    posterior.observe(torch.tensor([1, 1]), torch.tensor([0.5, torch.nan], dtype=torch.float64))
    posterior.observe(torch.tensor([4, 4]), torch.tensor([0.1, 0.1], dtype=torch.float64))
    assert posterior.count.tolist() == [2.0, 1.0]
    for r, (arms, y) in enumerate([([1, 4], [0.5, 0.1]), ([4], [0.1])]):
        mean, variance = batch(Y.numpy(), arms, y)
        np.testing.assert_allclose(posterior.mean[r], mean, rtol=1e-11)
        np.testing.assert_allclose(posterior.variance[r], variance, atol=1e-12)


def test_an_arm_seen_twice_counts_as_the_average_of_both() -> None:
    Y = normal(30, 6)
    twice = observed(ArmsPrior(Y, everyone(1, 30)), [2, 4, 2], [1.0, 0.3, 2.0])
    once = observed(ArmsPrior(Y, everyone(1, 30)), [2, 4], [1.5, 0.3])
    assert twice.singular.all() and not once.singular.any()
    torch.testing.assert_close(twice.mean, once.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(twice.variance, once.variance, rtol=1e-7, atol=1e-9)


def test_beyond_the_rank_conditioning_goes_on_by_the_pseudo_inverse() -> None:
    Y = normal(30, 3) @ normal(3, 8, seed=1)
    arms, y = [0, 1, 2, 3, 4, 5], [1.0, -1.0, 0.5, 2.0, 0.0, 1.0]
    posterior = observed(ArmsPrior(Y, everyone(1, 30)), arms, y)
    mean, variance = batch(Y.numpy(), arms, y)
    assert posterior.singular.all()
    np.testing.assert_allclose(posterior.mean[0], mean, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(posterior.variance[0], variance, atol=1e-9)
    assert posterior.residuals.shape == (1, 6)


def test_an_arm_without_variance_is_exactly_constant_and_says_nothing_of_others() -> None:
    Y = normal(30, 6)
    # a sum of 29 such numbers over 29 is not that number in floating point
    Y[:, 3] = -3.35213507494
    Y[0, 3] = 7.0
    kept = everyone(2, 30)
    kept[0, 0] = False
    prior = ArmsPrior(Y, kept)
    assert prior.constant.tolist() == [[False] * 3 + [True] + [False] * 2, [False] * 6]
    assert float(prior.variance[0, 3]) == 0.0 and float(prior.mean[0, 3]) == -3.35213507494
    assert (prior.columns(torch.tensor([1, 1]))[0, 3] == 0) and (
        prior.columns(torch.tensor([3, 3]))[0] == 0
    ).all()
    posterior = ArmsPosterior(prior)
    posterior.observe(torch.tensor([3, 3]), torch.tensor([5.0, 5.0], dtype=torch.float64))
    torch.testing.assert_close(posterior.mean[0], prior.mean[0], rtol=0, atol=0)
    assert not posterior.singular.any() and posterior.count.tolist() == [1.0, 1.0]
    assert not torch.equal(posterior.mean[1], prior.mean[1])


@pytest.mark.parametrize("tau", [0, 1, 2, 7])
def test_corrections_once_and_at_every_step(tau: int) -> None:
    N = 20
    assert float(correction_factor(tau, N, "once")) == pytest.approx((N - 1) / (N - tau - 1))
    product = np.prod([(N - 1) / (N - s - 1) for s in range(1, tau + 1)])
    both = correction_factor(torch.tensor([tau, 0.0]), torch.tensor([N, N]), "recursive")
    assert both.tolist() == pytest.approx([product, 1.0])


# arms, values, and the arms whose values are finite
FAILURES = [
    ([1, 0, 0], [float("nan"), 2.5, 2.5], [0, 0]),
    ([0, 0, 1], [2.5, 2.5, float("nan")], [0, 0]),
    ([0, 1, 0, 2], [2.5, float("inf"), 2.5, float("nan")], [0, 0]),
    ([2, 0, 2, 0, 1], [float("nan"), 2.5, 0.3, 1.5, float("-inf")], [0, 2, 0]),
    ([0, 0, 0, 0], [float("nan"), 1.0, 2.0, 3.0], [0, 0, 0]),
]


@pytest.mark.parametrize(("arms", "values", "left"), FAILURES)
def test_failures_beside_an_arm_seen_twice_leave_no_trace(
    arms: list[int], values: list[float], left: list[int]
) -> None:
    Y = normal(20, 3) @ normal(3, 3, seed=5) + 1.0
    posterior = observed(ArmsPrior(Y, everyone(1, 20)), arms, values)
    mean, variance = batch(Y.numpy(), left, [value for value in values if np.isfinite(value)])
    assert posterior.singular.all() and posterior.count.tolist() == [len(left)]
    np.testing.assert_allclose(posterior.mean[0], mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(posterior.variance[0], variance, rtol=1e-9, atol=1e-9)


def test_observations_that_all_failed_leave_the_prior() -> None:
    prior = ArmsPrior(normal(20, 4), everyone(2, 20))
    posterior = observed(prior, [1, 1, 3], [float("nan")] * 3)
    assert torch.equal(posterior.mean, prior.mean) and torch.equal(posterior.variance, prior.variance)
    assert not posterior.singular.any() and posterior.count.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_values_in_other_units_have_the_posterior_in_other_units(factor: float) -> None:
    Y = normal(20, 5) @ normal(5, 5, seed=2) + 3.0
    for arms, values in (([1, 0, 3], [0.5, 2.5, 1.0]), ([1, 0, 0, 2], [float("nan"), 2.5, 2.0, 1.0])):
        plain = observed(ArmsPrior(Y, everyone(1, 20)), arms, values)
        scaled = observed(ArmsPrior(factor * Y, everyone(1, 20)), arms, [factor * v for v in values])
        torch.testing.assert_close(scaled.mean / factor, plain.mean, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(scaled.variance / factor**2, plain.variance, rtol=1e-6, atol=1e-7)
