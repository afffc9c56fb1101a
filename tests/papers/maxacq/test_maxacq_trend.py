"""What other functions say of a new one."""

from collections.abc import Callable

import pytest
import torch
from search_toys import Bowl, surrogate
from torch import Tensor

from common.base.objective import Earlier
from common.numerics.sampling import ReplicateSampler
from common.search.searcher import Observations, Task
from papers.maxacq.practical import PracticalSearch
from papers.maxacq.trend import trend_of

CPU = torch.device("cpu")


def points(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hill(x: Tensor) -> Tensor:
    """A narrow hill at (0.7, 0.2)."""
    return torch.exp(-20 * (x - torch.tensor([0.7, 0.2]).to(x)).square().sum(-1))


def regret(earlier: tuple[Earlier, ...], f: Callable[[Tensor], Tensor], evaluations: int = 6) -> float:
    """After few evaluations from the same two poor points."""
    searcher = PracticalSearch()
    fitted = surrogate(2, lengthscale=None, variance=None, noise=None, mean=None, fit="standardised")
    random = ReplicateSampler(0, 1, None, CPU, torch.float64)
    searcher.start(Task(Bowl(noise=0.0), fitted, [0], evaluations, random, CPU, earlier))
    x = torch.tensor([[[0.1, 0.9], [0.3, 0.7]]], dtype=torch.float64)
    seen = Observations(x, f(x))
    while seen.count < evaluations:
        x = searcher.propose(seen, 1)
        seen = seen.plus(x, f(x))
    return float(f(torch.tensor([[0.7, 0.2]]).double()) - seen.y.max())


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (1e-8, 5.0), (1e8, -1e8)])
def test_a_function_alike_in_other_units_shortens_a_search(factor: float, shift: float) -> None:
    x = points(40)
    alike = Earlier("alike", x, factor * hill(x + 0.03) + shift)
    known, unknown = regret((alike,), hill), regret((), hill)
    # at the top of the other one f is 0.035 below its own
    assert known < 0.05 and known < 0.2 * unknown


def test_units_of_what_is_searched_change_nothing() -> None:
    x = points(40)
    alike = (Earlier("alike", x, hill(x + 0.03)),)
    for factor in (1e-8, 1e8):
        found = regret(alike, lambda x, factor=factor: factor * hill(x)) / factor  # type: ignore[misc]
        assert found == pytest.approx(regret(alike, hill), rel=1e-3, abs=1e-6)


def test_from_a_single_value_on_the_trend_is_believed_in_any_units() -> None:
    x = points(40)
    for factor in (1e-8, 1.0, 1e8):
        searcher = PracticalSearch()
        fitted = surrogate(2, lengthscale=None, variance=None, noise=None, mean=None, fit="standardised")
        random = ReplicateSampler(0, 1, None, CPU, torch.float64)
        alike = Earlier("alike", x, factor * hill(x))
        searcher.start(Task(Bowl(noise=0.0), fitted, [0], 2, random, CPU, (alike,)))
        first = torch.tensor([[[0.1, 0.9]]], dtype=torch.float64)
        second = searcher.propose(Observations(first, factor * hill(first)), 1)
        assert float(hill(second)) > 0.8


def test_what_was_observed_of_the_very_function_counts_as_observations() -> None:
    x = points(30)
    searcher = PracticalSearch()
    fitted = surrogate(2, lengthscale=None, variance=None, noise=None, mean=None, fit="standardised")
    nothing = Observations(x[None, :0], x[None, :0, 0])

    def proposed(seen: Observations, earlier: tuple[Earlier, ...]) -> Tensor:
        random = ReplicateSampler(0, 1, None, CPU, torch.float64)
        searcher.start(Task(Bowl(noise=0.0), fitted, [0], 2, random, CPU, earlier))
        return searcher.propose(seen, 1)

    before = proposed(nothing, (Earlier("itself", x, hill(x), same=True),))
    assert before.equal(proposed(Observations(x[None], hill(x)[None]), ()))
    assert float(hill(before)) > float(hill(x).max())


def test_of_a_function_that_goes_its_own_way_little_is_believed() -> None:
    x, y = points(30), points(30, seed=1)
    trend = trend_of("matern52", [(x, hill(x))])
    assert trend is not None
    # b is in units of f, whose standard deviation is that of y
    same = trend.fitted(y, hill(y)).factor / hill(y).std()
    opposite = trend.fitted(y, -hill(y)).factor
    assert 0.4 < float(same) < 1.5 and float(opposite) == 0.0


def test_a_trend_is_the_mean_of_what_each_function_says() -> None:
    x, at = points(25), points(5, seed=3)
    one, other = trend_of("matern52", [(x, hill(x))]), trend_of("matern52", [(x, x[:, 0])])
    both = trend_of("matern52", [(x, hill(x)), (x, x[:, 0])])
    assert one is not None and other is not None and both is not None
    torch.testing.assert_close(both(at), (one(at) + other(at)) / 2)


def test_what_is_hardly_known_says_nothing_and_of_much_a_part_is_taken() -> None:
    x = points(1000)
    assert trend_of("matern52", []) is None
    assert trend_of("matern52", [(x[:2], x[:2, 0]), (x[[0, 0, 0]], x[:3, 0]), (x, torch.ones(1000))]) is None
    many = trend_of("matern52", [(x, x[:, 0])])
    assert many is not None and many.parts[0].points.shape[1] == 300
    at = points(50, seed=2)
    assert float(torch.corrcoef(torch.stack([many(at), at[:, 0]]))[0, 1]) > 0.99
