"""Chains of tags, held against enumeration of all sequences; gradients against finite differences."""

from copy import deepcopy
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from common.models.crf import ConditionalRandomField, LogPartition

LENGTHS = torch.tensor([4, 1, 3, 2])


@pytest.fixture(params=["flat", "steep"])
def crf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ConditionalRandomField:
    """Sums as products of matrices, and one by one, as where transitions differ by more than 30."""
    if request.param == "steep":
        monkeypatch.setattr("common.models.crf.FLAT", -1.0)
    torch.manual_seed(0)
    found = ConditionalRandomField(3).double()
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter)
    return found


@pytest.fixture
def emissions() -> Tensor:
    return torch.randn(4, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def scores(crf: ConditionalRandomField, emissions: Tensor, length: int) -> dict[tuple[int, ...], float]:
    """s(y) of every sequence of one sentence, written from the definition."""
    found = {}
    crf = deepcopy(crf).requires_grad_(False)
    for tags in product(range(emissions.shape[1]), repeat=length):
        total = float(crf.start[tags[0]] + crf.end[tags[-1]])
        total += sum(float(emissions[t, tag]) for t, tag in enumerate(tags))
        total += sum(float(crf.transitions[a, b]) for a, b in pairwise(tags))
        found[tags] = total
    return found


def test_partition_score_and_best_sequence_are_those_of_enumeration(
    crf: ConditionalRandomField, emissions: Tensor
) -> None:
    total, best = crf.log_partition(emissions, LENGTHS), crf.decode(emissions, LENGTHS)
    for n, length in enumerate(LENGTHS.tolist()):
        known = scores(crf, emissions[n], length)
        exact = torch.tensor([*known.values()], dtype=torch.float64).logsumexp(0)
        assert torch.allclose(total[n], exact)
        assert tuple(best[n, :length].tolist()) == max(known, key=lambda tags: known[tags])
        assert best[n, length:].eq(0).all()
    for tags in product(range(3), repeat=4):
        found = crf.score(emissions, torch.tensor([tags] * 4), LENGTHS).tolist()
        for n, length in enumerate(LENGTHS.tolist()):
            assert found[n] == pytest.approx(scores(crf, emissions[n], length)[tags[:length]])


def test_probabilities_of_all_sequences_sum_to_1(crf: ConditionalRandomField, emissions: Tensor) -> None:
    crf.requires_grad_(False)
    every = [
        crf(emissions[:1], torch.tensor([tags]), LENGTHS[:1]).neg().exp()
        for tags in product(range(3), repeat=4)
    ]
    assert float(torch.stack(every).sum()) == pytest.approx(1.0, abs=1e-12)


def test_gradients_are_those_of_finite_differences(crf: ConditionalRandomField, emissions: Tensor) -> None:
    inputs = (emissions.requires_grad_(), crf.transitions, crf.start, crf.end)
    assert torch.autograd.gradcheck(lambda *given: LogPartition.apply(*given, LENGTHS), inputs)
    tags = torch.randint(3, (4, 4), generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda given: crf(given, tags, LENGTHS), (emissions,))


def test_gradients_are_those_of_a_graph_of_the_recursion(
    crf: ConditionalRandomField, emissions: Tensor
) -> None:
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    given = [
        emissions.clone().requires_grad_(),
        *(p.detach().clone().requires_grad_() for p in crf.parameters()),
    ]
    e, transitions, start, end = given
    total = torch.zeros((), dtype=torch.float64)
    for n, length in enumerate(LENGTHS.tolist()):
        alpha = start + e[n, 0]
        for t in range(1, length):
            alpha = (alpha[:, None] + transitions).logsumexp(0) + e[n, t]
        total = total + weight[n] * (alpha + end).logsumexp(0)
    wanted = torch.autograd.grad(total, given)
    found = torch.autograd.grad(
        (LogPartition.apply(e, transitions, start, end, LENGTHS) * weight).sum(), given
    )
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(found, wanted, strict=True))


def test_what_stands_behind_a_sentence_counts_nowhere(crf: ConditionalRandomField, emissions: Tensor) -> None:
    inside = torch.arange(4) < LENGTHS[:, None]
    other = torch.where(inside[:, :, None], emissions, torch.full_like(emissions, torch.nan))
    tags = torch.randint(3, (4, 4)).where(inside, -100)
    loss, changed = (crf(given, tags, LENGTHS) for given in (emissions, other.requires_grad_()))
    assert torch.equal(loss, changed)
    (gradient,) = torch.autograd.grad(changed.sum(), other)
    assert gradient[~inside].eq(0).all() and gradient[inside].isfinite().all()
    assert torch.equal(crf.decode(other, LENGTHS), crf.decode(emissions, LENGTHS))
    wide = torch.cat([emissions, torch.randn(4, 5, 3, dtype=torch.float64)], 1)
    assert torch.allclose(crf.log_partition(wide, LENGTHS), crf.log_partition(emissions, LENGTHS))


def test_what_must_not_follow_is_never_given_and_learns_nothing(
    crf: ConditionalRandomField, emissions: Tensor
) -> None:
    with torch.no_grad():
        crf.transitions[0, 1] = crf.start[2] = -torch.inf
    total = crf.log_partition(emissions, LENGTHS)
    total.sum().backward()
    assert total.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in crf.parameters())
    assert crf.transitions.grad[0, 1] == 0 and crf.start.grad[2] == 0
    best = crf.decode(emissions, LENGTHS)
    assert not any((a, b) == (0, 1) for row in best[:1].tolist() for a, b in pairwise(row))
    assert best[:, 0].ne(2).all()


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scores_of_any_size_go_in_single_precision(
    crf: ConditionalRandomField, emissions: Tensor, scale: float
) -> None:
    exact = crf.log_partition(emissions * scale, LENGTHS)
    crf.float()
    given = (emissions * scale).float().requires_grad_()
    found = crf.log_partition(given, LENGTHS)
    found.sum().backward()
    assert torch.allclose(found.double(), exact, rtol=1e-6)
    assert given.grad is not None and given.grad.isfinite().all()
    inside = torch.arange(4) < LENGTHS[:, None]
    assert torch.allclose(given.grad.sum(2)[inside], torch.ones(int(LENGTHS.sum())), atol=1e-4)


@pytest.mark.parametrize("spread", [5.0, 29.0, 31.0, 1e4])
def test_single_precision_is_that_of_logarithms_whatever_the_transitions(spread: float) -> None:
    torch.manual_seed(1)
    crf = ConditionalRandomField(4)
    with torch.no_grad():
        crf.transitions.copy_(torch.rand(4, 4) * spread)
        crf.transitions[0, 0], crf.transitions[1, 2] = 0.0, spread
    emissions, lengths = 40 * torch.randn(6, 9, 4), torch.tensor([9, 9, 1, 5, 2, 7])
    found = [emissions.clone().requires_grad_(), *crf.parameters()]
    total = crf.log_partition(found[0], lengths)
    single = torch.autograd.grad(total.sum(), found)
    crf.double()
    given = [emissions.double().requires_grad_(), *crf.parameters()]
    exact = crf.log_partition(given[0], lengths)
    double = torch.autograd.grad(exact.sum(), given)
    assert torch.allclose(total.double(), exact, rtol=1e-6)
    assert all(
        torch.allclose(a.double(), b, atol=2e-3 + 5e-6 * spread) for a, b in zip(single, double, strict=True)
    )
