"""Acquisitions: closed forms, identities, submodularity, gradients, BoTorch's."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from botorch.acquisition import (
    qExpectedImprovement,
    qProbabilityOfImprovement,
    qSimpleRegret,
    qUpperConfidenceBound,
)
from botorch.sampling import IIDNormalSampler
from hypothesis import given as hypothesis_given
from hypothesis import settings, strategies
from maxacq_toys import ALL, MYOPIC, given, normal, posterior, prior, quasi_normal, uniform
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm
from test_maxacq_posterior import botorch_model
from torch import Tensor

from common.base.errors import UserError
from papers.maxacq.acquisition import (
    EntropySearch,
    ExpectedImprovement,
    KnowledgeGradient,
    MyopicMaximal,
    ProbabilityOfImprovement,
    SimpleRegret,
    UpperConfidenceBound,
    incremental_improvement,
)

SAMPLES = 2**15


def two_points() -> tuple[Tensor, np.ndarray, np.ndarray, float]:
    """A pair of points of replicate 0: X [2, 1, 2, 2], mean, covariance, alpha near the means."""
    X = uniform(2, 1, 2, 2, seed=7)
    mean, S = posterior().moments(X)
    return X, mean[0, 0].numpy(), S[0, 0].numpy(), float(mean[0].max()) + 0.2


@pytest.mark.parametrize("name", MYOPIC)
def test_estimates_of_single_points_converge_to_the_closed_form(name: str) -> None:
    acquisition = ProbabilityOfImprovement(tau=1e-4) if name == "pi" else MYOPIC[name]
    x = uniform(2, 7, 2, seed=12)
    estimate = acquisition.value(given(), x[:, :, None], (quasi_normal(2, 1, SAMPLES),))
    torch.testing.assert_close(estimate, acquisition.marginal(given(), x), rtol=2e-3, atol=2e-4)


def test_expected_improvement_far_below_alpha_is_not_negative() -> None:
    mean = -torch.linspace(0, 60, 200, dtype=torch.float64)
    value = ExpectedImprovement().closed_form(mean, torch.ones(200).double(), torch.zeros(200).double())
    assert (value >= 0).all() and value.isfinite().all() and (value.diff() <= 0).all()


def test_expected_improvement_of_two_is_the_integral_of_the_tail() -> None:
    X, mean, S, alpha = two_points()
    # E max(m - alpha, 0) of the larger outcome m is the integral of its upper tail
    tail = lambda t: 1 - multivariate_normal(mean, S).cdf([t, t])  # noqa: E731
    exact = quad(tail, alpha, alpha + 8 * S.max() ** 0.5, epsabs=1e-6)[0]
    setting = replace(given(), incumbent=torch.full((2,), alpha, dtype=torch.float64))
    value = ExpectedImprovement().value(setting, X, (quasi_normal(2, 2, SAMPLES),))
    assert float(value[0, 0]) == pytest.approx(exact, rel=3e-3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_expected_improvement_is_the_sum_of_incremental_ones_in_either_order(order: tuple[int, int]) -> None:
    X, mean, S, alpha = two_points()
    i, j = order
    first = quad(lambda a: max(a - alpha, 0) * norm(mean[i], S[i, i] ** 0.5).pdf(a), alpha, alpha + 12)[0]
    pending = posterior().with_pending(X[:, 0, i])
    z = torch.special.ndtri((torch.arange(SAMPLES).double() + 0.5) / SAMPLES).expand(2, 1, -1)
    outcome = pending.pending_mean + (pending.pending_root @ z)[:, 0]
    second = incremental_improvement(pending.belief(X[:, :, j : j + 1]), z, outcome.clamp_min(alpha))
    setting = replace(given(), incumbent=torch.full((2,), alpha, dtype=torch.float64))
    both = ExpectedImprovement().value(setting, X, (quasi_normal(2, 2, SAMPLES),))
    assert first + float(second[0, 0]) == pytest.approx(float(both[0, 0]), rel=3e-3)


def test_incremental_improvement_without_pending_points_is_the_closed_form() -> None:
    x, alpha = uniform(2, 5, 2, seed=13), given().incumbent
    value = incremental_improvement(
        posterior().belief(x[:, :, None]), normal(2, 0, 4), alpha[:, None].expand(2, 4)
    )
    torch.testing.assert_close(value, ExpectedImprovement().marginal(given(), x))


def test_simple_regret_of_two_is_clarks_formula() -> None:
    X, mean, S, _ = two_points()
    theta = np.sqrt(S[0, 0] + S[1, 1] - 2 * S[0, 1])
    d = (mean[0] - mean[1]) / theta
    clark = mean[0] * norm.cdf(d) + mean[1] * norm.cdf(-d) + theta * norm.pdf(d)
    value = SimpleRegret().value(given(), X, (quasi_normal(2, 2, SAMPLES),))
    assert float(value[0, 0]) == pytest.approx(clark, abs=1e-3)


def test_probability_of_improvement_converges_to_the_bivariate_normal_as_tau_falls() -> None:
    X, mean, S, alpha = two_points()
    exact = 1 - multivariate_normal(mean, S).cdf([alpha, alpha])
    setting = replace(given(), incumbent=torch.full((2,), alpha, dtype=torch.float64))
    z = (quasi_normal(2, 2, SAMPLES),)
    errors = [
        abs(float(ProbabilityOfImprovement(tau=tau).value(setting, X, z)[0, 0]) - exact)
        for tau in (1.0, 0.1, 0.0)
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3


def test_upper_confidence_bound_of_a_repeated_point_is_that_of_the_point() -> None:
    x = uniform(2, 4, 1, 2, seed=14)
    ucb = UpperConfidenceBound(beta=2.0)
    twice = ucb.value(given(), x.expand(2, 4, 3, 2), (quasi_normal(2, 3, SAMPLES),))
    # the jitter of a singular covariance is 1e-8, its root 1e-4
    torch.testing.assert_close(twice, ucb.marginal(given(), x[:, :, 0]), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", MYOPIC)
def test_leaving_out_a_point_leaves_the_smaller_sets_value(name: str) -> None:
    acquisition, X, z = MYOPIC[name], uniform(2, 5, 3, 2, seed=15), normal(2, 3, 64)
    belief = given().posterior.belief(X)
    smaller = replace(belief, mean=belief.mean[..., :2], root=belief.root[..., :2, :])
    alpha = given().incumbent[:, None, None]
    marginalised = acquisition.utility(acquisition.best(smaller, z), alpha).mean(-1)
    alone = acquisition.value(given(), X[:, :, :2], (z[:, :2],))
    torch.testing.assert_close(marginalised, alone)


@pytest.mark.parametrize("name", ALL)
def test_pending_points_and_points_of_the_set_count_alike(name: str) -> None:
    acquisition, X = ALL[name], uniform(2, 1, 3, 2, seed=16)
    draws = acquisition.draw(lambda shape: normal(2, *shape), 3, 64)
    later = given().with_pending(X[:, 0, 0]).with_pending(X[:, 0, 1])
    torch.testing.assert_close(
        acquisition.value(later, X[:, :, 2:], draws),
        acquisition.value(given(), X, draws),
        rtol=1e-7,
        atol=1e-9,
    )


def peers(model: object, alpha: float, sampler: IIDNormalSampler) -> dict[str, Callable[[Tensor], Tensor]]:
    return {
        "ei": qExpectedImprovement(model, best_f=alpha, sampler=sampler),
        "pi": qProbabilityOfImprovement(model, best_f=alpha, sampler=sampler, tau=0.05),
        "sr": qSimpleRegret(model, sampler=sampler),
        "ucb": qUpperConfidenceBound(model, beta=2.0, sampler=sampler),
    }


@pytest.mark.parametrize("name", MYOPIC)
def test_values_and_gradients_by_the_same_samples_are_those_of_botorch(name: str) -> None:
    X, x, y = uniform(2, 5, 3, 2, seed=17), uniform(2, 6, 2, seed=4), normal(2, 6, seed=5)
    for r in range(2):
        sampler = IIDNormalSampler(torch.Size([128]), seed=0)
        theirs = peers(botorch_model(prior(), r, x[r], y[r]), float(y[r].max()), sampler)[name]
        mine, other = X.clone().requires_grad_(), X[r].clone().requires_grad_()
        theirs(other)
        # BoTorch's UCB is around the mean of samples: with pairs z, -z that is the exact mean
        half = sampler.base_samples[:64]
        sampler.base_samples = torch.cat([half, -half])
        value = theirs(other)
        z = sampler.base_samples.reshape(128, 3).T.expand(2, -1, -1)
        ours = MYOPIC[name].value(given(), mine, (z,))[r]
        torch.testing.assert_close(ours, value, rtol=5e-6, atol=1e-8)
        slopes = torch.autograd.grad(ours.sum(), mine)[0][r], torch.autograd.grad(value.sum(), other)[0]
        torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("pending", [0, 1])
def test_gradients_are_those_of_finite_differences(name: str, pending: int) -> None:
    acquisition, X = ALL[name], uniform(2, 2, 2, 2, seed=18)
    setting = given()
    for k in range(pending):
        setting = setting.with_pending(uniform(2, 2, seed=30 + k))
    draws = acquisition.draw(lambda shape: normal(2, *shape), 2 + pending, 32)
    value = lambda X: acquisition.value(setting, X, draws)  # noqa: E731
    assert torch.autograd.gradcheck(value, X.requires_grad_(), eps=1e-6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["ei", "ucb", "sr"])
def test_gradients_of_estimates_average_to_the_exact_gradient(name: str) -> None:
    acquisition, x = MYOPIC[name], uniform(2, 4, 2, seed=19).requires_grad_()
    draws = (quasi_normal(2, 1, SAMPLES),)
    estimate = torch.autograd.grad(acquisition.value(given(), x[:, :, None], draws).sum(), x)[0]
    exact = torch.autograd.grad(acquisition.marginal(given(), x).sum(), x)[0]
    torch.testing.assert_close(estimate, exact, rtol=5e-3, atol=2e-3)


def grid_utilities(acquisition: MyopicMaximal, points: int, samples: int) -> Tensor:
    """Of each path the utilities of a grid's single points, [samples, points]."""
    x = uniform(1, points, 2, seed=22)
    alpha = torch.zeros(1, dtype=torch.float64)
    posterior_ = posterior(1)
    belief = posterior_.belief(x[:, None])
    singles = replace(belief, mean=belief.mean.mT, root=belief.root.transpose(1, 2))
    best = acquisition.best(singles, normal(1, points, samples, seed=23))
    return acquisition.utility(best, alpha[:, None, None])[0].T


@pytest.mark.parametrize("name", MYOPIC)
@settings(max_examples=40, deadline=None)
@hypothesis_given(data=strategies.data())
def test_no_path_violates_submodularity(name: str, data: strategies.DataObject) -> None:
    u = grid_utilities(MYOPIC[name], 12, 256)
    subset = strategies.sets(strategies.integers(0, 11), min_size=1, max_size=6)
    small = data.draw(subset)
    large, x = small | data.draw(subset), data.draw(strategies.integers(0, 11))

    def utility(points: set[int]) -> Tensor:
        return u[:, sorted(points)].amax(1)

    gain_small, gain_large = utility(small | {x}) - utility(small), utility(large | {x}) - utility(large)
    assert (gain_small >= gain_large - 1e-12).all() and (gain_large >= 0).all()
    rest = large - small
    if rest:
        difference = utility(large) - utility(small)
        torch.testing.assert_close(difference, torch.relu(utility(rest) - utility(small)))


@pytest.mark.parametrize("name", MYOPIC)
@pytest.mark.parametrize("q", [2, 3])
def test_greedy_is_within_one_minus_one_over_e_of_the_best(name: str, q: int) -> None:
    u = grid_utilities(MYOPIC[name], 24, 512)
    # normalised: L of the empty set is 0
    u = u - (u.min() if name in ("sr", "ucb") else 0.0)
    value = lambda points: float(u[:, list(points)].amax(1).mean())  # noqa: E731
    chosen: list[int] = []
    for _ in range(q):
        chosen.append(max(range(24), key=lambda i: value([*chosen, i])))
    best = max(value(points) for points in itertools.combinations(range(24), q))
    assert (1 - 1 / np.e) * best <= value(chosen) <= best + 1e-12


@pytest.mark.parametrize("q", [1, 2, 3])
def test_knowledge_gradients_are_not_negative(q: int) -> None:
    acquisition = KnowledgeGradient(discretisation=12)
    draws = acquisition.draw(lambda shape: normal(2, *shape), q, 32)
    assert (acquisition.value(given(), uniform(2, 50, q, 2, seed=24), draws) >= -1e-12).all()


def test_the_knowledge_gradient_of_a_point_is_its_integral() -> None:
    x, setting = uniform(2, 3, 2, seed=25), given()
    value = KnowledgeGradient(discretisation=12).marginal(setting, x)
    assert setting.discretisation is not None
    mean = setting.observed.moments(setting.discretisation[:, None])[0][0, 0].numpy()
    for s in range(3):
        point = x[:1, s : s + 1, None].expand(2, 1, 1, 2)
        cross = setting.observed.cross(point, setting.discretisation)[0, 0, 0].numpy()
        variance = float(setting.observed.moments(point)[1][0, 0, 0, 0]) + 1e-3
        rise = lambda z, c=cross, v=variance: (mean + c / v**0.5 * z).max() * norm.pdf(z)  # noqa: E731
        exact = quad(rise, -8, 8, limit=200)[0] - mean.max()
        assert float(value[0, s]) == pytest.approx(exact, abs=3e-3)


def test_entropies_are_between_zero_and_the_logarithm_of_the_discretisation() -> None:
    for tau in (1e-3, 0.1, 100.0):
        acquisition = EntropySearch(discretisation=12, tau=tau, inner=32)
        draws = acquisition.draw(lambda shape: normal(2, *shape), 2, 64)
        value = acquisition.value(given(), uniform(2, 20, 2, 2, seed=26), draws)
        assert (value <= 0).all() and (value >= -np.log(12) - 1e-12).all()
    assert float(value.max()) == pytest.approx(-np.log(12), abs=1e-3)


def test_entropy_search_is_what_sampling_the_conditioned_posterior_gives() -> None:
    """In numpy: condition on each outcome, sample, count the softened argmax."""
    setting, X = given(1), uniform(1, 1, 2, 2, seed=27)
    acquisition = EntropySearch(discretisation=12, tau=0.1, inner=64)
    z_a, z_b = acquisition.draw(lambda shape: normal(1, *shape), 2, 256)
    assert setting.discretisation is not None
    joint = torch.cat([X[:, 0], setting.discretisation], 1)[:, None]
    mean, S = (value[0, 0].numpy() for value in setting.observed.moments(joint))
    A = np.linalg.cholesky(S[:2, :2] + 1e-3 * np.eye(2))
    gain = np.linalg.solve(A, S[:2, 2:])
    later = S[2:, 2:] - gain.T @ gain + 1e-6 * float(setting.observed.prior.variance) * np.eye(12)
    entropies = []
    for k in range(z_a.shape[-1]):
        f = (mean[2:] + gain.T @ z_a[0, :, k].numpy())[:, None] + np.linalg.cholesky(later) @ z_b[0].numpy()
        weights = np.exp((f - f.max(0)) / 0.1)
        p = (weights / weights.sum(0)).mean(1)
        entropies.append(-(p * np.log(np.maximum(p, 1e-300))).sum())
    value = acquisition.value(setting, X, (z_a, z_b))
    assert float(value) == pytest.approx(-np.mean(entropies), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: ProbabilityOfImprovement(tau=-1.0), "method.acquisition.tau=-1.0; valid: at least 0"),
        (lambda: UpperConfidenceBound(beta=-1.0), "method.acquisition.beta=-1.0; valid: at least 0"),
        (lambda: KnowledgeGradient(discretisation=1), "discretisation=1; valid: at least 2"),
        (lambda: EntropySearch(discretisation=9, tau=0.0, inner=4), "tau=0.0; valid: greater than 0"),
    ],
)
def test_settings_out_of_range_get_one_line(make: Callable[[], object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        make()
