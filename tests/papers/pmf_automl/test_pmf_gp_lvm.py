"""The latent variable model against scipy's normal distributions, its gradients, and what leaves it alone."""

import numpy as np
import pytest
import torch
from pmf_automl_toys import matrix, model, settings
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from torch import Tensor

from common.base.errors import UserError
from papers.pmf_automl.gp_lvm import LatentModel, gaussian_nll, pca_start, prior_mean
from papers.pmf_automl.training import StochasticObjective, Training


def by_scipy(found: LatentModel, Y: Tensor) -> float:
    """-sum log N of each column, its covariance written out entry by entry."""
    kernel, X = found.kernel(), found.X.detach().numpy()
    v, w, s2, scale = (
        x.detach().numpy() for x in (kernel.variance, kernel.white, kernel.noise, kernel.lengthscale)
    )
    total = 0.0
    for y in Y.numpy().T:
        own = np.flatnonzero(~np.isnan(y))
        if len(own):
            C = [
                [v * np.exp(-0.5 * (((X[i] - X[j]) / scale) ** 2).sum()) + (w + s2) * (i == j) for j in own]
                for i in own
            ]
            total -= multivariate_normal.logpdf(y[own], np.zeros(len(own)), np.array(C))
    return total


def value_of(found: LatentModel, Y: Tensor) -> float:
    return float(found.full_nll(Y).detach())


def test_the_objective_is_the_sum_of_the_columns_normal_densities() -> None:
    Y, found = matrix(), model()
    assert value_of(found, Y) == pytest.approx(by_scipy(found, Y), rel=1e-10)


def test_full_columns_share_a_factor_and_give_the_same_value() -> None:
    Y, found = matrix(gaps=0.0)[[0, 1, 2, 3, 5, 6]], model(6)
    assert value_of(found, Y) == pytest.approx(by_scipy(found, Y), rel=1e-10)


def test_a_column_without_scores_adds_nothing_and_a_row_without_scores_has_no_gradient() -> None:
    Y, found = matrix(), model()
    without = Y[:, [d for d in range(Y.shape[1]) if d != 2]]
    assert value_of(found, Y) == pytest.approx(value_of(found, without), rel=1e-13)
    found.full_nll(Y).backward()
    assert found.X.grad is not None
    assert found.X.grad[4].abs().max() == 0 and found.X.grad[3].abs().max() > 0


def test_the_value_is_that_of_permuted_translated_and_with_equal_lengthscales_rotated_points() -> None:
    Y, found = matrix(), model()
    with torch.no_grad():
        found.free_lengthscale.fill_(0.3)
    value = value_of(found, Y)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    rotation = torch.linalg.qr(
        torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    )[0]
    X = found.X.detach().clone()
    for moved, scores in (
        (X[order], Y[order]),
        (X @ rotation, Y),
        (X + 5.0, Y),
        (X, Y[:, [6, 1, 0, 3, 2, 5, 4]]),
    ):
        with torch.no_grad():
            found.X.copy_(moved)
        assert value_of(found, scores) == pytest.approx(value, rel=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    Y, found = matrix(), model()
    found.full_nll(Y).backward()
    for parameter in found.parameters():
        flat, gradient = parameter.data.flatten(), parameter.grad
        assert gradient is not None
        for i in (0, len(flat) - 1):
            ends = []
            for step in (1e-5, -1e-5):
                flat[i] += step
                parameter.data = flat.reshape(parameter.shape).clone()
                ends.append(value_of(found, Y))
                flat[i] -= step
            parameter.data = flat.reshape(parameter.shape).clone()
            assert float(gradient.flatten()[i]) == pytest.approx(
                (ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-6
            )


def test_the_gradient_by_the_covariance_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64)
    root = A.requires_grad_()
    Y = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    count = torch.tensor([3.0, 1.5], dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r, y: gaussian_nll(r @ r.mT + eye, y, count), (root, Y))


def test_a_step_on_all_columns_and_rows_is_the_full_objective() -> None:
    Y, found = matrix(), model()
    objective = StochasticObjective(Y, None, 1000, False, seed=0)
    assert float(objective.loss(found).detach()) == pytest.approx(value_of(found, Y), rel=1e-12)


def test_the_mean_over_an_order_of_columns_is_the_full_objective() -> None:
    Y, found = matrix(data_sets=8), model()
    objective = StochasticObjective(Y, 2, 1000, False, seed=0)
    mean = sum(float(objective.loss(found).detach()) for _ in range(4)) / 4
    assert mean == pytest.approx(value_of(found, Y), rel=1e-10)


def test_fewer_rows_weigh_less_and_row_scaling_gives_the_column_its_weight() -> None:
    Y = torch.zeros(12, 1, dtype=torch.float64)
    found = model()
    with torch.no_grad():
        found.free_variance.fill_(-60.0)
    full = value_of(found, Y)
    assert float(StochasticObjective(Y, None, 3, False, 0).loss(found).detach()) == pytest.approx(
        full / 4, rel=1e-9
    )
    assert float(StochasticObjective(Y, None, 3, True, 0).loss(found).detach()) == pytest.approx(
        full, rel=1e-9
    )


def test_the_start_is_scikit_learns_pca_of_imputed_scores() -> None:
    Y = matrix()[:, [0, 1, 3, 4, 5, 6]]
    full = SimpleImputer(strategy="mean").fit_transform(Y.numpy())
    expected = PCA(3, svd_solver="full").fit_transform(full)
    np.testing.assert_allclose(pca_start(Y, 3).numpy(), expected, atol=1e-10)


def test_more_latent_dimensions_than_the_matrix_has_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.latent_dim=8; valid: at most 7"):
        pca_start(matrix(), 8)


def test_the_authors_training_takes_2783_steps_on_464_data_sets() -> None:
    Y = torch.rand(25, 464, dtype=torch.float64)
    training = Training(
        Y, settings(), optimizer="sgd", lr=1e-7, epochs=300, columns=50, rows=1000, row_scaling=False, seed=0
    )
    assert training.steps == 2783


def test_training_lowers_the_objective_and_goes_on_as_if_unbroken() -> None:
    def made() -> Training:
        return Training(
            matrix(),
            settings(),
            optimizer="adam",
            lr=0.05,
            epochs=10,
            columns=3,
            rows=5,
            row_scaling=False,
            seed=0,
        )

    whole = made()
    before = whole.nll_per_dataset()
    half = made()
    for _ in range(8):
        half.step()
    state, resumed = half.state_dict(), made()
    resumed.load_state_dict(state)
    for training in (whole, resumed):
        training.go_on(1e9)
    assert whole.done and whole.nll_per_dataset() < before
    assert torch.equal(whole.model.X, resumed.model.X)


def test_prior_means_are_those_of_what_is_observed() -> None:
    Y = matrix()
    offset, new = prior_mean(Y, "pipeline_mean")
    assert float(offset[0, 0]) == pytest.approx(float(Y[0].nanmean())) and float(new[4]) == float(Y.nanmean())
    offset, new = prior_mean(Y, "dataset_mean")
    assert float(offset[0, 1]) == pytest.approx(float(Y[:, 1].nanmean()))
    assert float(new[0]) == pytest.approx(float(Y.nanmean(0)[[0, 1, 3, 4, 5, 6]].mean()))
