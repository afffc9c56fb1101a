"""zeta, the bounds of Lemma 1, acquisitions, completion of missing entries, bases."""

import math

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy import stats

from common.base.errors import UserError
from papers.meta_bo.acquisition import improvement, refine, ucb
from papers.meta_bo.basis import fit_weights, learned_cosines, random_cosines
from papers.meta_bo.completion import soft_impute, soft_threshold
from papers.meta_bo.zeta import mean_error_bound, variance_ratio_bounds, zeta

DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def by_hand(t: int, N: int, d: float, kind: str) -> float:
    log = math.log(6 / d)
    inner = {
        "paper": N - 3 + t + 2 * math.sqrt(t * log) + 2 * log,
        "upstream": N - 2 + (t - 1) + 2 * math.sqrt((t - 1) * log) + 2 * log,
        "corrected": N - 2 + N * (t - 1 + 2 * math.sqrt(t * log) + 2 * log),
    }[kind]
    top = math.sqrt(6 * inner / (d * N * (N - t - 1))) + math.sqrt(2 * math.log(3 / d))
    return top / math.sqrt(1 - 2 * math.sqrt(log / (N - t)))


@pytest.mark.parametrize("kind", ["paper", "upstream", "corrected"])
@pytest.mark.parametrize(("t", "N"), [(1, 100), (20, 1799), (5, 31)])
def test_zeta_is_the_formula(kind: str, t: int, N: int) -> None:
    found = float(zeta(t - 1, N, 0.01, kind, "numerator_only"))
    assert found == pytest.approx(by_hand(t, N, 0.01, kind), rel=1e-13)


def test_a_fixed_zeta_is_that_number_for_all() -> None:
    assert zeta(torch.arange(3.0), torch.tensor([9.0, 9, 9]), 0.01, 3, "upstream_nan").tolist() == [3.0] * 3


def test_zeta_falls_with_the_number_of_functions_and_rises_with_t() -> None:
    N = torch.arange(60.0, 2000.0)
    for kind in ("paper", "upstream", "corrected"):
        assert (zeta(5, N, 0.01, kind, "upstream_nan").diff() < 0).all()
        assert (zeta(torch.arange(30.0), 200, 0.01, kind, "upstream_nan").diff() > 0).all()


def test_zeta_is_a_number_only_beyond_four_logarithms() -> None:
    limit = 4 * math.log(6 / 0.01)
    assert limit == pytest.approx(25.6, abs=0.05)
    N, tau = torch.arange(10.0, 60.0), 2.0
    known = ~zeta(tau, N, 0.01, "paper", "upstream_nan").isnan()
    assert known.tolist() == [n - tau - 1 > limit for n in N.tolist()]
    fallback = zeta(tau, N, 0.01, "paper", "numerator_only")
    assert fallback.isfinite().all()
    log = math.log(600)
    inner = 20 - 3 + 3 + 2 * math.sqrt(3 * log) + 2 * log
    expected = math.sqrt(6 * inner / (0.01 * 20 * 16)) + math.sqrt(2 * math.log(300))
    assert float(fallback[10]) == pytest.approx(expected, rel=1e-13)


def test_zeta_jumps_where_its_denominator_is_no_number() -> None:
    found = [float(zeta(tau, 60.0, 0.01, "paper", "numerator_only")) for tau in (33.0, 34.0)]
    assert found == pytest.approx([119.7, 10.9], abs=0.05)


def test_the_corrected_zeta_is_the_larger_one() -> None:
    assert float(zeta(4, 100, 0.01, "corrected", "upstream_nan")) > 2 * float(
        zeta(4, 100, 0.01, "paper", "upstream_nan")
    )


def test_the_bounds_of_lemma_1_hold_for_the_variance_and_the_corrected_mean() -> None:
    N, t, delta = 60, 4, 0.1
    low, high = (float(b) for b in variance_ratio_bounds(t, N, delta))
    law = stats.chi2(N - t - 1, scale=1 / (N - t - 1))
    assert law.cdf(high) - law.cdf(low) > 1 - delta / 2
    log = math.log(4 / delta)
    Q = t + 2 * math.sqrt(t * log) + 2 * log
    variance = (N - 2 + N * Q) / (N * (N - t - 2))
    # Chebyshev at delta / 4
    assert float(mean_error_bound(t, N, delta, corrected=True)) == pytest.approx(4 * variance / delta)
    assert float(mean_error_bound(t, N, delta, corrected=False)) < 4 * variance / delta / 10


def test_the_correction_changes_where_ucb_is_largest_and_never_where_pi_is() -> None:
    mean, variance = normal(400, 30), normal(400, 30, seed=1).square() + 0.01
    target = mean.max(1, keepdim=True).values + 1
    for factor in (1.1, 3.0):
        same = improvement(mean, variance, target).argmax(1) == improvement(
            mean, factor * variance, target
        ).argmax(1)
        assert same.all()
        moved = ucb(mean, variance, torch.tensor(2.0)).argmax(1) != ucb(
            mean, factor * variance, torch.tensor(2.0)
        ).argmax(1)
        assert moved.any()


def test_improvement_without_variance_is_certain() -> None:
    mean = torch.tensor([0.0, 1.0, 2.0, 0.5], dtype=DOUBLE)
    variance = torch.tensor([0.0, 0.0, 0.0, 0.25], dtype=DOUBLE)
    largest = torch.finfo(DOUBLE).max
    found = improvement(mean, variance, torch.tensor(1.0, dtype=DOUBLE)).tolist()
    assert found == [-largest, 0.0, largest, -1.0]


def test_a_maximum_in_a_box_is_refined_up_to_its_sides() -> None:
    centre = np.array([0.3, 2.0])
    f = lambda x: (-float(((x - centre) ** 2).sum()), -2 * (x - centre))  # noqa: E731
    lower, upper = torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)
    found = refine(f, torch.tensor([0.9, 0.1], dtype=DOUBLE), lower, upper)
    np.testing.assert_allclose(found, [0.3, 1.0], atol=1e-6)


@pytest.mark.parametrize("factor", [1e-8, 1.0, 1e8])
def test_a_maximum_in_a_box_is_refined_in_any_units(factor: float) -> None:
    centre = np.array([0.3, 0.6])
    f = lambda x: (factor * (5 - float(((x - centre) ** 2).sum())), -2 * factor * (x - centre))  # noqa: E731
    lower, upper = torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)
    found = refine(f, torch.tensor([0.9, 0.1], dtype=DOUBLE), lower, upper)
    np.testing.assert_allclose(found, centre, atol=1e-5)


def test_soft_thresholding_is_that_of_the_singular_values() -> None:
    for shape in ((9, 5), (5, 9)):
        Y = normal(*shape)
        U, S, V = np.linalg.svd(Y.numpy(), full_matrices=False)
        np.testing.assert_allclose(soft_threshold(Y, 1.0), (U * np.maximum(S - 1, 0)) @ V, atol=1e-10)


def test_soft_impute_solves_its_nuclear_norm_problem() -> None:
    truth = normal(8, 2) @ normal(2, 6, seed=1)
    Y = truth.clone()
    Y[torch.rand(8, 6, generator=torch.Generator().manual_seed(3)) < 0.25] = torch.nan
    known = ~Y.isnan().numpy()
    filled = soft_impute(Y, iterations=5000, tolerance=1e-12)
    shrinkage = np.linalg.norm(np.where(known, Y, 0), 2) / 50
    X = cp.Variable((8, 6))
    loss = 0.5 * cp.sum_squares(cp.multiply(known, X - np.where(known, Y, 0))) + shrinkage * cp.normNuc(X)
    cp.Problem(cp.Minimize(loss)).solve(solver=cp.SCS, eps=1e-9, max_iters=100_000)
    np.testing.assert_allclose(filled.numpy()[~known], X.value[~known], atol=2e-3)
    np.testing.assert_array_equal(filled.numpy()[known], Y.numpy()[known])
    assert torch.equal(soft_impute(truth), truth)


def test_a_matrix_of_which_nothing_is_known_gets_one_line() -> None:
    with pytest.raises(UserError, match="no training value is left"):
        soft_impute(torch.full((2, 2), torch.nan, dtype=DOUBLE))


def test_random_cosines_have_the_se_kernel_and_the_slopes_are_derivatives() -> None:
    basis = random_cosines(200_000, 2, 0.7, seed=1)
    x = normal(4, 2)
    kernel = torch.exp(-torch.cdist(x, x).square() / (2 * 0.49))
    torch.testing.assert_close(basis(x) @ basis(x).T, kernel, rtol=0, atol=0.015)
    small = random_cosines(5, 2, 0.7, seed=1)
    expected = torch.autograd.functional.jacobian(small, x[0])
    torch.testing.assert_close(small.slopes(x[0]), expected)


def test_a_learned_basis_fits_functions_that_a_few_cosines_make() -> None:
    x = 4 * torch.rand(300, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE) - 2
    y = normal(20, 3) @ torch.stack([x[:, 0].cos(), (x[:, 0] + x[:, 1]).sin(), torch.ones(300)]).double()
    settings = {"features": 64, "epochs": 60, "lr": 0.01, "batch": 32, "patience": 10}
    basis = learned_cosines(x, y, seed=0, **settings)
    again = learned_cosines(x, y, seed=0, **settings)
    assert torch.equal(basis.B, again.B) and torch.equal(basis.c, again.c)
    W = fit_weights(basis(x), y, 1e-5)
    assert float((basis(x) @ W.T - y.T).square().mean()) < 1e-3 * float(y.var())


def test_more_features_than_points_need_a_ridge() -> None:
    with pytest.raises(UserError, match=r"method\.features=6: more than the 4 training points"):
        fit_weights(normal(4, 6), normal(2, 4), 0.0)
