"""Maximisers, forms, starts and budgets of the inner problem."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from maxacq_toys import normal, problem, uniform
from torch import Tensor

from papers.maxacq.acquisition import Draws, ExpectedImprovement
from papers.maxacq.budget import Budget
from papers.maxacq.maximise import (
    CMAES,
    Adam,
    BoTorchLBFGS,
    Maximiser,
    RandomSearch,
    appraise,
    best_of,
    folded,
    starting_sets,
)
from papers.maxacq.problem import Problem, discretise, draw_by_weight, greedy, incremental, joint

COMMON = {"starts": 8, "samples": 64, "appraisal_samples": 256}
MAXIMISERS: dict[str, Maximiser] = {
    "random": RandomSearch(**COMMON),
    "cma": CMAES(**COMMON, sigma=0.3),
    "adam": Adam(**COMMON, lr=0.025),
    "botorch_lbfgs": BoTorchLBFGS(**COMMON),
}


class Counted(ExpectedImprovement):
    """EI that counts sets times samples."""

    def __init__(self) -> None:
        self.values = 0
        self.marginals = 0

    def value(self, given, X, draws: Draws) -> Tensor:  # type: ignore[no-untyped-def]
        gradient = Budget.GRADIENT if X.requires_grad else 1
        self.values += gradient * X.shape[1] * draws[0].shape[-1]
        return super().value(given, X, draws)

    def marginal(self, given, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        self.marginals += x.shape[1]
        return super().marginal(given, x)


def counted(points: int = 2) -> tuple[Problem, Counted]:
    acquisition = Counted()
    return replace(problem(points=points), acquisition=acquisition), acquisition


@pytest.mark.parametrize("name", ["random", "cma", "adam"])
def test_a_maximiser_spends_its_evaluations_and_no_more(name: str) -> None:
    inner, counter = counted()
    MAXIMISERS[name](inner, Budget(evaluations=40))
    spent = counter.values / Budget.SAMPLES + counter.marginals / inner.batch
    # appraisals of few sets by few samples are rounded up to whole steps
    assert 32 <= spent <= 40.5


def test_a_tenth_of_the_budget_goes_into_starts() -> None:
    inner, counter = counted()
    budget = Budget(evaluations=100)
    starting_sets(inner, budget, 8)
    assert counter.marginals == 20 and budget.spent == pytest.approx(10)


def test_seconds_are_kept() -> None:
    inner, _ = counted()
    began = time.perf_counter()
    MAXIMISERS["adam"](inner, Budget(seconds=0.3))
    assert time.perf_counter() - began >= 0.3


def test_shares_of_a_budget_make_up_the_whole() -> None:
    budget = Budget(evaluations=90)
    assert budget.share(1 / 3).evaluations == pytest.approx(30)
    assert Budget(seconds=9.0).share(1 / 3).seconds == pytest.approx(3.0)
    with pytest.raises(ValueError, match="evaluations or seconds"):
        Budget()


def test_indices_are_drawn_in_proportion_to_their_weights() -> None:
    weights = torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0], [torch.nan, 1.0, 1.0]]).double()
    index = draw_by_weight(weights, uniform(3, 40_000))
    counts = torch.stack([(index == i).double().mean(1) for i in range(3)], 1)
    expected = torch.tensor([[0.25, 0.0, 0.75], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.5, 0.5]]).double()
    torch.testing.assert_close(counts, expected, rtol=0, atol=0.01)
    assert float(counts[0, 1]) == 0


def test_starts_are_drawn_by_marginal_values_and_have_no_point_twice() -> None:
    inner = problem(points=3)
    X = starting_sets(inner, Budget(evaluations=200), 400)
    assert X.shape == (2, 400, 3, 2) and (X >= 0).all() and (X <= 1).all()
    same = (X[:, :, :, None] == X[:, :, None]).all(-1).sum((-1, -2))
    assert (same == 3).all()
    values = inner.weights(X.reshape(2, -1, 2)).mean(1)
    assert (values > 1.5 * inner.weights(uniform(2, 4000, 2)).mean(1)).all()


@pytest.mark.parametrize("name", MAXIMISERS)
@pytest.mark.parametrize("form", ["joint", "greedy", "incremental"])
def test_what_is_found_is_in_the_cube_and_better_than_a_random_batch(name: str, form: str) -> None:
    inner, budget = problem(points=2), Budget(evaluations=96)
    if form == "incremental":
        x = incremental(inner, MAXIMISERS[name], budget, 8, inner.given.pending)
    else:
        x = (joint if form == "joint" else greedy)(inner, MAXIMISERS[name], budget)
    assert x.shape == (2, 2, 2) and (x >= 0).all() and (x <= 1).all()
    draws = (normal(2, 2, 2048),)
    found = appraise(inner, x[:, None], draws, 2048)[:, 0]
    random = appraise(inner, uniform(2, 200, 2, 2, seed=3), draws, 2048)
    assert (found > random.quantile(0.9, dim=1)).all()


def test_adam_and_lbfgs_agree_on_the_maximum() -> None:
    draws, values = (normal(2, 1, 4096),), {}
    for name in ("adam", "botorch_lbfgs"):
        inner = problem(points=1)
        x = MAXIMISERS[name](inner, Budget(evaluations=600))
        values[name] = appraise(inner, x[:, None], draws, 4096)
    torch.testing.assert_close(values["adam"], values["botorch_lbfgs"], rtol=0.03, atol=0)


@pytest.mark.parametrize("name", MAXIMISERS)
def test_a_replicate_alone_finds_the_same(name: str) -> None:
    both = problem(points=2)
    x = greedy(both, MAXIMISERS[name], Budget(evaluations=48))
    alone = problem(points=2, R=1)
    torch.testing.assert_close(
        greedy(alone, MAXIMISERS[name], Budget(evaluations=48)), x[:1], rtol=1e-6, atol=1e-8
    )


def test_greedy_chooses_what_the_grid_chooses_one_by_one() -> None:
    """Each point has, given the earlier ones, the value of the best of a fine grid, up to estimates."""
    inner = problem(points=2)
    x = greedy(inner, MAXIMISERS["adam"], Budget(evaluations=1500))
    side = torch.linspace(0, 1, 41, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side).expand(2, -1, -1)
    given = inner.given
    for j in range(2):
        z = (normal(2, j + 1, 4096, seed=9),)
        step = replace(inner, points=1, given=given)
        best = appraise(step, grid[:, :, None], z, 4096).max(1).values
        found = appraise(step, x[:, j : j + 1, None], z, 4096)[:, 0]
        assert (found > 0.97 * best).all()
        given = given.with_pending(x[:, j])


def test_cma_leaves_the_global_random_numbers_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    MAXIMISERS["cma"](problem(points=2), Budget(evaluations=24))
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


def test_numbers_outside_are_folded_at_the_ends() -> None:
    x = torch.tensor([-0.25, 0.0, 0.4, 1.0, 1.25, 2.5])
    torch.testing.assert_close(folded(x), torch.tensor([0.25, 0.0, 0.4, 1.0, 0.75, 0.5]))


def test_a_value_that_is_not_finite_is_never_the_best() -> None:
    X = torch.arange(3.0).reshape(1, 3, 1)
    assert best_of(X, torch.tensor([[1.0, torch.nan, 0.5]])).item() == 0.0


def test_a_discretisation_prefers_points_that_may_improve() -> None:
    inner = problem()
    b = discretise(inner.given, 64, 512, 2, inner.random)
    assert b.shape == (2, 64, 2)
    value = ExpectedImprovement().marginal(inner.given, b).log().mean(1)
    assert (value > ExpectedImprovement().marginal(inner.given, uniform(2, 512, 2)).log().mean(1)).all()
