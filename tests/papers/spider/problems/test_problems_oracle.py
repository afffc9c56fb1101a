"""Every way of asking is counted, retired replicates are not."""

import torch

from common.numerics.sampling import ReplicateSampler
from papers.spider.problems.linear import LogisticProblem
from papers.spider.problems.protocol import Oracle
from papers.spider.problems.regulariser import Regulariser

N, D, R = 11, 3, 2


def oracle() -> Oracle:
    rows = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = LogisticProblem(rows, torch.arange(N) % 2, Regulariser("none", 0.0, D))
    return Oracle(problem, ReplicateSampler(0, R, N, problem.device, problem.dtype))


def test_each_call_costs_its_samples() -> None:
    o = oracle()
    x = o.problem.start(R)
    batch = o.draw(4)
    costs = {}
    for name, call in {
        "gradient": lambda: o.gradient(x, batch),
        "difference": lambda: o.gradient_difference(x, x, batch),
        "full": lambda: o.checkpoint_gradient(x, None),
        "checkpoint": lambda: o.checkpoint_gradient(x, 5),
        "minibatch": lambda: o.minibatch_gradient(x, 6),
        "hvp": lambda: o.hvp(x, x, batch),
        "values": lambda: o.values(x[:, None].expand(R, 3, D), batch),
        "paired": lambda: o.paired_values(x[:, None].expand(R, 4, D), batch),
    }.items():
        before = o.counter.ifo[0], o.counter.izo[0]
        call()
        costs[name] = (o.counter.ifo[0] - before[0], o.counter.izo[0] - before[1])
    assert costs == {
        "gradient": (4, 0),
        "difference": (8, 0),
        "full": (N, 0),
        "checkpoint": (5, 0),
        "minibatch": (6, 0),
        "hvp": (4, 0),
        "values": (0, 12),
        "paired": (0, 4),
    }


def test_true_gradients_and_values_are_not_counted() -> None:
    o = oracle()
    o.problem.true_gradient(o.problem.start(R))
    o.problem.true_value(o.problem.start(R))
    assert o.counter.calls == [0, 0]


def test_a_retired_replicate_keeps_its_point_and_is_counted_no_more() -> None:
    o = oracle()
    old = o.problem.start(R)
    o.gradient(old, o.draw(3))
    o.retire(torch.tensor([True, False]))
    o.gradient(old, o.draw(3))
    assert o.counter.ifo == [3, 6]
    kept = o.keep_retired(old + 1, old)
    assert torch.equal(kept, torch.tensor([[0.0] * D, [1.0] * D], dtype=torch.float64))


def test_calls_for_some_replicates_count_for_these() -> None:
    o = oracle()
    x = o.problem.start(1)
    o.gradient(x, o.draw(3, rows=[1]), rows=[1])
    assert o.counter.ifo == [0, 3]


def test_counts_survive_a_resume() -> None:
    o = oracle()
    o.gradient(o.problem.start(R), o.draw(3))
    o.retire(torch.tensor([False, True]))
    again = oracle()
    again.load_state_dict(o.state_dict())
    assert again.counter.ifo == [3, 3]
    assert again.active == [True, False]
    assert torch.equal(again.draw(4).inputs, o.draw(4).inputs)
