"""The Gaussian processes of the baselines against scikit-learn, and what TLSM pools."""

import numpy as np
import pytest
import torch
from meta_bo_toys import COMMON, arms, module, plane
from search_toys import fit
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from torch import Tensor

from common.base.errors import UserError
from papers.meta_bo import gp
from papers.meta_bo.baselines import TLSM, Plain, Pooled, SparsePosterior, TLSMUpstream, standardised_rows
from papers.meta_bo.gp import GPPosterior, Hyperparameters


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hyper(lengthscale: float = 0.8, variance: float = 2.0, noise: float = 0.1, p: int = 2) -> Hyperparameters:
    one = [torch.tensor([[v]], dtype=torch.float64) for v in (lengthscale, variance, noise, 0.5)]
    return Hyperparameters(one[0], one[1], one[2][0], one[3][0], [list(range(p))])


def sklearn_gp(
    lengthscale: float, variance: float, noise: float, **given: object
) -> GaussianProcessRegressor:
    kernel = ConstantKernel(variance, (1e-6, 1e8)) * RBF(lengthscale, (1e-4, 1e4)) + WhiteKernel(
        noise, (2e-6, 1e4)
    )
    return GaussianProcessRegressor(kernel, alpha=0, **given)


def test_a_posterior_is_that_of_scikit_learn_and_passes_over_failures() -> None:
    X, y, x = normal(6, 2), normal(6, seed=1), normal(4, 2, seed=2)
    y[3] = torch.nan
    mean, variance = GPPosterior(X[None], y[None], hyper()).predict(x[None])
    known = [0, 1, 2, 4, 5]
    peer = sklearn_gp(0.8, 2.0, 0.1, optimizer=None).fit(X[known], y[known] - 0.5)
    expected, deviation = peer.predict(x, return_std=True)
    np.testing.assert_allclose(mean[0], expected + 0.5, rtol=1e-9)
    np.testing.assert_allclose(variance[0], deviation**2, rtol=1e-9)


def test_gradients_of_a_sum_of_kernels_are_derivatives() -> None:
    X, y, x = normal(5, 3), normal(5, seed=1), normal(3, seed=2)
    two = Hyperparameters(
        torch.tensor([[0.8, 1.3]], dtype=torch.float64),
        torch.tensor([[2.0, 0.5]], dtype=torch.float64),
        torch.tensor([0.1], dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        [[0, 2], [1]],
    )
    posterior = GPPosterior(X[None], y[None], two)
    found = posterior.gradients(x)
    for slope, part in zip(found, (0, 1), strict=True):
        expected = torch.autograd.functional.jacobian(
            lambda p, k=part: posterior.predict(p[None, None])[k][0, 0], x
        )
        torch.testing.assert_close(slope, expected)


def test_a_fit_finds_the_marginal_likelihood_of_scikit_learn() -> None:
    X = 3 * torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (2 * X[:, 0]).sin() + X[:, 1].cos() + 0.1 * normal(40)
    start = Hyperparameters(*(h for h in (hyper(1, 1, 1).lengthscale, hyper(1, 1, 1).variance)),
                            torch.ones(1).double(), torch.zeros(1).double(), [[0, 1]])  # fmt: skip
    found = gp.fit(X, y, start, constant_mean=False)
    assert found is not None
    peer = sklearn_gp(1.0, 1.0, 1.0, n_restarts_optimizer=5, random_state=0).fit(X, y)
    theta = np.log([float(found.variance), float(found.lengthscale), float(found.noise)])
    assert peer.log_marginal_likelihood(theta) > peer.log_marginal_likelihood_value_ - 0.01


def test_a_fitted_constant_mean_is_near_the_data() -> None:
    X, y = normal(20, 2), normal(20, seed=1) * 0.1 - 50
    found = gp.fit(X, y, hyper(1, 1, 1), constant_mean=True)
    assert found is not None and float(found.mean) == pytest.approx(-50, abs=0.5)


def test_pooling_means_is_the_same_as_pooling_all_pairs() -> None:
    y, x = normal(7, 5), normal(5, 2, seed=1)
    y[2, 3] = torch.nan
    kept = torch.ones(1, 7, dtype=torch.bool)
    kept[0, 6] = False
    pooled = Pooled(y, kept)
    h = Hyperparameters(
        hyper().lengthscale, hyper().variance, hyper().noise, torch.zeros(1).double(), [[0, 1]]
    )
    at = normal(3, 2, seed=2)[None]
    mean, variance = GPPosterior(x[None], pooled.mean, h, h.noise[:, None] / pooled.count).predict(at)
    pairs = standardised_rows(y)[:6].flatten()
    everything = GPPosterior(x.repeat(6, 1)[None], pairs[None], h).predict(at)
    torch.testing.assert_close(mean, everything[0])
    torch.testing.assert_close(variance, everything[1])
    assert float(pooled.largest) == pytest.approx(float(pairs[pairs.isfinite()].max()))


def test_functions_are_standardised_and_constant_ones_are_zero() -> None:
    y = torch.stack([normal(50) * 3 + 7, torch.full((50,), -3.352135, dtype=torch.float64)])
    standard = standardised_rows(y)
    assert float(standard[0].mean()) == pytest.approx(0, abs=1e-12)
    assert float(standard[0].std(correction=0)) == pytest.approx(1) and (standard[1] == 0).all()


def test_a_sparse_process_with_all_points_as_inducing_is_the_exact_one() -> None:
    X, y, x = normal(8, 2), normal(8, seed=1), normal(4, 2, seed=2)
    h = Hyperparameters(
        hyper().lengthscale, hyper().variance, hyper().noise, torch.zeros(1).double(), [[0, 1]]
    )
    sparse, exact = SparsePosterior(X, y, X, h), GPPosterior(X[None], y[None], h)
    for found, expected in zip(sparse.predict(x), exact.predict(x[None]), strict=True):
        torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-4)
    for found, expected in zip(sparse.gradients(x[0]), exact.gradients(x[0]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_authors_pairs_are_all_at_the_first_points(tmp_path) -> None:  # type: ignore[no-untyped-def]
    m = fit(module(arms(functions=400), TLSMUpstream(**COMMON), evaluations=2, repeats=1), tmp_path)
    tlsm = m.searcher
    features = m.data.space.features
    repeated = np.repeat(features.numpy(), 400, axis=0)[:1000]
    np.testing.assert_array_equal(tlsm.points, repeated)
    flat = standardised_rows(m.data.family()[0]).numpy().reshape(-1)[:1000]
    np.testing.assert_array_equal(tlsm.values[0], flat)


def test_without_an_observation_plain_takes_the_first_arm(tmp_path) -> None:  # type: ignore[no-untyped-def]
    m = fit(module(arms(), Plain(**COMMON), evaluations=3), tmp_path)
    assert m.seen.x[:, 0, 0].tolist() == [0.0] * 3


def test_fitted_models_serve_all_baselines(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for method, model in ((Plain, {"mean": None}), (Plain, {}), (TLSM, {})):
        m = fit(module(arms(), method(**COMMON), {"fit": "ml"} | model, evaluations=5, repeats=2), tmp_path)
        assert m.results()["simple_regret_at_5"] >= 0


@pytest.mark.parametrize(
    ("given", "model", "line"),
    [
        ({}, {"kernel": "matern52"}, "model.kernel=matern52 (valid: se)"),
        ({}, {"fit": "map"}, "model.fit=map (valid: ml, fixed)"),
        ({"acquisition": "pi", "pi_target": "oracle"}, {}, "is in other units (valid: train_max)"),
    ],
)
def test_models_and_targets_that_do_not_fit_get_one_line(tmp_path, given, model, line) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as raised:
        fit(module(plane(), TLSM(**(COMMON | given)), model, evaluations=3), tmp_path)
    assert line in str(raised.value)


def test_what_is_not_finite_is_not_known_and_units_are_taken_off() -> None:
    y = torch.tensor(
        [[torch.nan, 1.0, 3.0], [torch.inf, 2.0, 4.0], [torch.nan] * 3, [5.0, 5.0, 5.0]]
    ).double()
    found = standardised_rows(y)
    assert found[:2, 0].isnan().all() and found[2].isnan().all() and found[3].tolist() == [0.0] * 3
    for factor in (1e-16, 1e-8, 1e8):
        assert found[:2, 1:].tolist() == [[-1.0, 1.0]] * 2
        torch.testing.assert_close(standardised_rows(factor * y), found, equal_nan=True)
