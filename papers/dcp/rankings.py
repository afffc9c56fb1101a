"""Rankings of a layer's input channels that need no search: by their weights, or by their activations.

Each gives an order, the channel that is to stay longest first; `kept_of` takes the first ones, and
`ChannelSelection.select(order=...)` solves the same sub-problem for them as for any other choice.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from papers.dcp.layer_problem import LayerProblem


def weight_sums(problem: LayerProblem) -> Tensor:
    """sum |W[:, k]| of each input channel: [c], float64 (Li et al., "Pruning Filters", ICLR 2017, section
    3.1,
    there of a producer's filters; Zhuang et al. rank the consumer's kernels by it)."""
    return problem.by_channel(problem.start).double().abs().sum((0, 2))


def zero_fractions(problem: LayerProblem) -> Tensor:
    """APoZ, the average percentage of zeros: the share of each input channel's activations that are 0, [c],
    float64
    (Hu et al., "Network Trimming", 2016, equation 1; the inputs are those after ReLU)."""
    zeros = torch.zeros(problem.channels, dtype=torch.float64)
    for rows in problem.chunks():
        zeros += (problem.activations(rows) == 0).double().mean(2).sum(0).cpu()
    return zeros / len(problem.inputs)


def by_weight_sum(problem: LayerProblem) -> list[int]:
    """The channels from the largest sum of weights to the smallest; of equal ones the lowest number first."""
    return weight_sums(problem).argsort(descending=True, stable=True).tolist()


def by_zero_fraction(problem: LayerProblem) -> list[int]:
    """The channels from the fewest zeros to the most; of equal ones the lowest number first."""
    return zero_fractions(problem).argsort(stable=True).tolist()


def kept_of(order: Sequence[int], kept: int) -> list[int]:
    """The first `kept` channels of an order, ascending."""
    return sorted(order[:kept])
