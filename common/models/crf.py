"""Conditional random fields on chains: the partition function, its gradient, and the best sequence, batched.

With emissions e [T, K] of a sentence and tags y the score is
s(y) = start(y_1) + sum_t e_t(y_t) + sum_t A(y_t, y_{t+1}) + end(y_T), and p(y) = exp(s(y)) / Z (Lafferty,
McCallum, Pereira, "Conditional Random Fields", ICML 2001). All is computed with logarithms, so any scores go,
-inf for what must not be among them; padding behind a sentence counts nowhere, whatever it holds.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# the largest difference of transitions that are flat: over it, single precision would lose what counts
FLAT = 30.0


class LogPartition(torch.autograd.Function):
    """log Z by the forward recursion; its gradient, the marginals, by the backward recursion.

    One recursion each for a whole batch, without a graph of its steps.
    """

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, lengths: Tensor
    ) -> Tensor:
        """log Z [b] of emissions [b, T, K], A [K, K] (from, to), start [K], end [K], lengths int64 [b]."""
        alphas = _forwards(emissions, transitions, start, lengths)
        ctx.save_for_backward(emissions, transitions, end, lengths, alphas)
        return (alphas[:, -1] + end).logsumexp(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        """Of each sentence: p(y_t = k), sum over t of p(y_t = i, y_{t+1} = j), p(y_1 = k), p(y_T = k)."""
        emissions, transitions, end, lengths, alphas = ctx.saved_tensors
        betas = _backwards(emissions, transitions, end, lengths)
        inside = _inside(lengths, emissions.shape[1])
        # shares, and not exp(alpha + beta - log Z): of large scores the difference is lost in rounding
        single = (alphas + betas).softmax(2) * gradient[:, None, None]
        single = single.masked_fill(~inside[:, :, None], 0.0)
        behind = (emissions + betas)[:, 1:].masked_fill(~inside[:, 1:, None], 0.0)
        weights = gradient[:, None].expand(behind.shape[:2]).masked_fill(~inside[:, 1:], 0.0)
        pairs = _pairs(alphas[:, :-1].flatten(0, 1), transitions, behind.flatten(0, 1), weights.flatten())
        last = single.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, single.shape[2]))
        return single, pairs, single[:, 0].sum(0), last.sum((0, 1)), None


def _is_flat(transitions: Tensor) -> bool:
    """Whether transitions are so alike that sums over them may be products of matrices."""
    return bool(transitions.max() - transitions.min() <= FLAT)


def _summed(transitions: Tensor) -> Callable[[Tensor], Tensor]:
    """x [b, K] to log sum_i exp(x_i + A_ij), [b, K].

    Of flat transitions it is log(exp(x - max x) exp(A - max A)) + max x + max A, a product of matrices: what
    vanishes in exp(x - max x) is nothing beside the rest, which is at least exp(-FLAT).
    """
    if not _is_flat(transitions):
        return lambda x: (x[:, :, None] + transitions).logsumexp(1)
    top = transitions.max()
    factors = (transitions - top).exp()

    def summed(x: Tensor) -> Tensor:
        largest = x.amax(1, keepdim=True)
        return ((x - largest).exp_() @ factors).log_().add_(largest + top)

    return summed


def _pairs(before: Tensor, transitions: Tensor, behind: Tensor, weights: Tensor) -> Tensor:
    """sum_n w_n p_n, [K, K]; p_n is in proportion to exp(before_ni + A_ij + behind_nj) and sums to 1."""
    if not _is_flat(transitions):
        joint = before[:, :, None] + transitions + behind[:, None]
        joint = joint.flatten(1).softmax(1).view_as(joint)
        return torch.einsum("nij,n->ij", joint, weights)
    factors = (transitions - transitions.max()).exp()
    left, right = ((x - x.amax(1, keepdim=True)).exp() for x in (before, behind))
    total = (left * (right @ factors.T)).sum(1)
    return factors * (left.T @ (right * (weights / total)[:, None]))


def _forwards(emissions: Tensor, transitions: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
    """log of the sums over what stands before, alpha [b, T, K]; behind the end the last one stands on."""
    inside, summed = _inside(lengths, emissions.shape[1])[:, :, None], _summed(transitions)
    found = [start + emissions[:, 0]]
    for t in range(1, emissions.shape[1]):
        found.append(torch.where(inside[:, t], summed(found[-1]) + emissions[:, t], found[-1]))
    return torch.stack(found, 1)


def _backwards(emissions: Tensor, transitions: Tensor, end: Tensor, lengths: Tensor) -> Tensor:
    """log of the sums over what stands behind, beta [b, T, K]; that of the last tag is `end`."""
    inside, summed = _inside(lengths, emissions.shape[1])[:, :, None], _summed(transitions.T)
    found = [end.expand(len(emissions), -1)]
    for t in range(emissions.shape[1] - 1, 0, -1):
        found.append(torch.where(inside[:, t], summed(emissions[:, t] + found[-1]), end))
    return torch.stack(found[::-1], 1)


def _inside(lengths: Tensor, longest: int) -> Tensor:
    """Whether a place belongs to the sentence, bool [b, T]."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


class ConditionalRandomField(nn.Module):
    """Scores of neighbouring tags, beside those of the single ones that a network gives.

    Args:
        tags: K, at least 1. All scores start uniform in [-0.1, 0.1].
    """

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.empty(tags, tags).uniform_(-0.1, 0.1))
        self.start = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))

    def forward(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """-log p of each sentence's tags, [b]: see `log_partition` and `score`."""
        return self.log_partition(emissions, lengths) - self.score(emissions, tags, lengths)

    def log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """log Z [b] of emissions [b, T, K] of sentences of `lengths` int64 [b], each from 1 to T."""
        found: Tensor = LogPartition.apply(emissions, self.transitions, self.start, self.end, lengths)
        return found

    def score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """s(y) [b] of tags int64 [b, T]; behind the end they may be anything."""
        inside = _inside(lengths, emissions.shape[1])
        known = tags.masked_fill(~inside, 0)
        single = emissions.gather(2, known[:, :, None])[:, :, 0].masked_fill(~inside, 0.0)
        pairs = self.transitions[known[:, :-1], known[:, 1:]].masked_fill(~inside[:, 1:], 0.0)
        last = known.gather(1, (lengths - 1)[:, None])[:, 0]
        return self.start[known[:, 0]] + single.sum(1) + pairs.sum(1) + self.end[last]

    @torch.no_grad()
    def decode(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """The tags of the highest score (Viterbi), int64 [b, T]; 0 behind the end."""
        inside = _inside(lengths, emissions.shape[1])
        best, back = self.start + emissions[:, 0], []
        for t in range(1, emissions.shape[1]):
            onward, before = (best[:, :, None] + self.transitions).max(1)
            best = torch.where(inside[:, t, None], onward + emissions[:, t], best)
            back.append(before)
        tag = (best + self.end).argmax(1)
        found = [tag]
        for t in range(emissions.shape[1] - 1, 0, -1):
            before = back[t - 1].gather(1, tag[:, None])[:, 0]
            tag = torch.where(inside[:, t], before, tag)
            found.append(tag)
        return torch.stack(found[::-1], 1).masked_fill(~inside, 0)
