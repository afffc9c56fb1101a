"""The growing posterior against scikit-learn's, and what is proposed by it."""

import numpy as np
import pytest
import torch
from pmf_automl_toys import model
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from papers.pmf_automl.gp_lvm import Kernel
from papers.pmf_automl.posterior import GrowingPosterior, most_promising


def fixed() -> tuple[torch.Tensor, Kernel]:
    found = model(30)
    kernel = found.kernel()
    return found.X.detach(), Kernel(**{name: value.detach() for name, value in vars(kernel).items()})


def grown(white: bool = True) -> tuple[GrowingPosterior, list[int], torch.Tensor]:
    X, kernel = fixed()
    y = torch.rand(20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    posterior = GrowingPosterior(X, kernel, torch.full((30,), 0.4, dtype=torch.float64), white, capacity=2)
    seen = list(range(0, 30, 3)) + list(range(1, 30, 3))
    for pipeline, value in zip(seen, y, strict=True):
        posterior.observe(pipeline, float(value))
    return posterior, seen, y


def test_growing_row_by_row_gives_scikit_learns_posterior() -> None:
    posterior, seen, y = grown()
    X, k = fixed()
    kernel = ConstantKernel(float(k.variance)) * RBF(k.lengthscale.numpy()) + WhiteKernel(float(k.white))
    peer = GaussianProcessRegressor(kernel, alpha=float(k.noise), optimizer=None).fit(
        X[seen].numpy(), y.numpy() - 0.4
    )
    mean, deviation = peer.predict(X.numpy(), return_std=True)
    np.testing.assert_allclose(posterior.mean.numpy(), mean + 0.4, atol=1e-8)
    np.testing.assert_allclose(posterior.variance.numpy(), deviation**2, atol=1e-8)


def test_many_observations_at_once_are_those_one_by_one() -> None:
    posterior, seen, y = grown()
    X, kernel = fixed()
    other = GrowingPosterior(X, kernel, torch.full((30,), 0.4, dtype=torch.float64), True)
    other.observe_all(torch.tensor(seen[:7]), y[:7])
    other.observe_all(torch.tensor(seen[7:]), y[7:])
    torch.testing.assert_close(other.mean, posterior.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.variance, posterior.variance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block", [1, 40, 1 << 16])
def test_blocks_of_pipelines_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    whole, seen, y = grown()
    X, kernel = fixed()
    monkeypatch.setattr("papers.pmf_automl.posterior.BLOCK", block)
    other = GrowingPosterior(X, kernel, torch.full((30,), 0.4, dtype=torch.float64), True)
    for part in (slice(0, 1), slice(1, 8), slice(8, None)):
        other.observe_all(torch.tensor(seen[part]), y[part])
    torch.testing.assert_close(other.mean, whole.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other.variance, whole.variance, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other.V[:20], whole.V[:20], rtol=1e-10, atol=1e-10)


def test_the_latent_variance_is_the_official_one_without_white_noise() -> None:
    difference = grown(True)[0].variance - grown(False)[0].variance
    assert torch.allclose(difference, fixed()[1].white, atol=1e-10)


def test_far_away_nothing_is_known() -> None:
    X, kernel = fixed()
    X = torch.cat([X, torch.full((1, 3), 1e3, dtype=torch.float64)])
    posterior = GrowingPosterior(X, kernel, torch.zeros(31, dtype=torch.float64), True)
    posterior.observe(0, 0.9)
    assert float(posterior.variance[-1]) == pytest.approx(float(kernel.variance + kernel.white))
    assert float(posterior.mean[-1]) == pytest.approx(0.0)


def test_without_noise_the_posterior_goes_through_what_was_seen_also_for_equal_pipelines() -> None:
    X, kernel = fixed()
    X = torch.cat([X, X[:1]])
    tiny = Kernel(
        kernel.variance, torch.tensor(0.0).double(), torch.tensor(1e-14).double(), kernel.lengthscale
    )
    posterior = GrowingPosterior(X, tiny, torch.zeros(31, dtype=torch.float64), False)
    posterior.observe(0, 0.7)
    posterior.observe(30, 0.7)
    assert float(posterior.mean[0]) == pytest.approx(0.7, abs=1e-6)
    assert bool(posterior.mean.isfinite().all()) and bool((posterior.variance > -1e-9).all())


def test_where_nothing_can_improve_the_least_hopeless_is_taken() -> None:
    mean, variance = torch.tensor([0.1, 0.3, 0.2]).double(), torch.full((3,), 1e-12, dtype=torch.float64)
    free = torch.tensor([True, False, True])
    assert most_promising(mean, variance, free, 0.9, 0.01) == 2


def test_the_proposal_is_the_largest_improvement_on_the_best_and_xi_among_the_free() -> None:
    mean, variance = torch.tensor([0.5, 0.3, 0.55]).double(), torch.tensor([0.01, 0.2, 0.0]).double()
    every = torch.ones(3, dtype=torch.bool)
    assert most_promising(mean, variance, every, 0.5, 0.01) == 1
    assert most_promising(mean, variance, torch.tensor([True, False, True]), 0.5, 0.01) == 2
    assert most_promising(mean, variance, torch.tensor([True, False, True]), 0.5, 0.04) == 0
