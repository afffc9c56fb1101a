"""ThiNet: Luo, Wu, Lin, "ThiNet: A Filter Level Pruning Method", ICCV 2017, sections 3.2 to 3.4.

An output of the layer at one position is a sum over its input channels, y = sum_k x_k, where x_k is channel
k's patch of inputs times its weights. From a sample of outputs y_i = sum_k x_ik

    T <- argmin over T of given size of  sum_i (sum over k in T of x_ik)²        (equation 6), greedily,

are the channels that go, and the others are scaled by  w = argmin sum_i (y_i - sum_k w_k x_ik)²  (equation
7).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.base.limits import require
from papers.dcp.layer_problem import LayerProblem
from papers.dcp.quadratic import least_squares


def sample_contributions(problem: LayerProblem, samples: int, seed: int) -> Tensor:
    """x_ik: what each input channel adds to a layer's output at random places: [m, c], float64.

    Each example gives as many outputs, of a unit and a position drawn at random; m is `samples`, rounded up
    to a whole number an example.

    Raises:
        UserError: no samples.
    """
    require("at least 1", "method", samples=samples)
    weight = problem.by_channel(problem.start).double()
    examples, each = len(problem.inputs), -(-samples // len(problem.inputs))
    positions = problem.baseline[0].numel() // len(weight)
    generator = torch.Generator().manual_seed(seed)
    # all at once, so that it does not matter how many examples are looked at together
    places = torch.randint(positions, (examples, each), generator=generator).to(weight.device)
    units = torch.randint(len(weight), (examples, each), generator=generator).to(weight.device)
    found = []
    for rows in problem.feature_chunks():
        features = problem.features(rows).view(-1, positions, problem.channels, weight.shape[2])
        own = torch.arange(len(features), device=weight.device).unsqueeze(1)
        found.append((features[own, places[rows]] * weight[units[rows]]).sum(3).flatten(0, 1))
    return torch.cat(found)


def removed_channels(contributions: Tensor, count: int) -> list[int]:
    """The `count` channels that go, in the order in which they are chosen; of equal ones the lowest number.

    Adding k to T changes sum_i (sum_T x_i)² by 2 sum_(l in T) G_kl + G_kk, G = x'x: [m, c] is read once.
    """
    gram = contributions.T @ contributions
    increase = gram.diagonal().clone()
    removed: list[int] = []
    for _ in range(count):
        k = int(increase.argmin())
        removed.append(k)
        increase += 2 * gram[k]
        increase[k] = torch.inf
    return removed


def channel_scales(contributions: Tensor, kept: Sequence[int]) -> Tensor:
    """w of the kept channels: [len(kept)], the least squares solution of least norm."""
    chosen = contributions[:, list(kept)]
    return least_squares(chosen.T @ chosen, chosen.T @ contributions.sum(1, keepdim=True)).squeeze(1)


def thinet(problem: LayerProblem, kept: int, *, samples: int, seed: int) -> tuple[list[int], Tensor]:
    """The channels that stay, ascending, and the layer's weights, scaled and 0 elsewhere.

    Args:
        problem: the layer with its inputs; its losses are not used.
        kept: how many channels stay, 1 to c.
        samples: m, outputs that are looked at.
        seed: of their places.
    """
    problem.require_kept(kept)
    contributions = sample_contributions(problem, samples, seed)
    removed = set(removed_channels(contributions, problem.channels - kept))
    stay = [k for k in range(problem.channels) if k not in removed]
    weight = torch.zeros_like(problem.start)
    scales = channel_scales(contributions, stay).to(weight).view(1, -1, 1)
    problem.by_channel(weight)[:, stay] = problem.by_channel(problem.start)[:, stay] * scales
    return stay, weight
