"""Projected gradient ascent on each margin: inputs in the box, so lower bounds on the exact optimum."""

import torch
from torch import Tensor

from papers.sdp_cert.bounds import Interval, Objective
from papers.sdp_cert.network import ReluNetwork


def attack(
    network: ReluNetwork,
    box: Interval,
    goal: Objective,
    *,
    steps: int,
    step_size: float,
    restarts: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The largest margin found for each target (Madry et al. 2018, one ascent a target).

    Args:
        goal: the margins, k a example.
        steps: signed gradient steps an ascent.
        step_size: of a step, as a fraction of each input's radius.
        restarts: ascents a target; the first starts at the centre, the others at random points of the box.
        generator: of the starts, on the CPU.

    Returns:
        margins [e, k] and the inputs [e, k, n_0] that have them.
    """
    center, radius = box.center[:, None], box.radius[:, None]
    shape = (*goal.constants.shape, network.inputs)
    best = torch.full_like(goal.constants, -torch.inf)
    where = center.expand(shape).clone()
    for start in range(restarts):
        noise = torch.rand(shape, generator=generator, dtype=torch.float64).to(center.device) * 2 - 1
        x = center + radius * (noise if start else torch.zeros_like(noise))
        for step in range(steps + 1):
            x = x.detach().requires_grad_(step < steps)
            margin = _margin(network, x, goal)
            better = margin.detach() > best
            best = torch.where(better, margin.detach(), best)
            where = torch.where(better[..., None], x.detach(), where)
            if step < steps:
                (slope,) = torch.autograd.grad(margin.sum(), x)
                x = x.detach() + step_size * radius * slope.sign()
                x = x.maximum(box.lower[:, None]).minimum(box.upper[:, None])
    return best, where


def _margin(network: ReluNetwork, x: Tensor, goal: Objective) -> Tensor:
    """C x_L + c of inputs [e, k, n_0], row by row: [e, k]."""
    for W, b in zip(network.weights[:-1], network.biases[:-1], strict=True):
        x = (x @ W.mT + b).clamp_min(0)
    return (x * goal.rows).sum(-1) + goal.constants
