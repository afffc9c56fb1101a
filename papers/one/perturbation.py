"""The loss around a minimum: how fast it rises along random directions (figure 4)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Scaling = Literal["filter", "unit"]


def random_direction(model: nn.Module, scaling: Scaling, generator: torch.Generator) -> list[Tensor]:
    """A random direction v in the space of a model's parameters, in their order.

    Args:
        model: its parameters are not changed.
        scaling: "filter": each filter of v is Gaussian with the norm of the model's filter, and what is no
            kernel or matrix stays (Li, Xu, Taylor, Studer, Goldstein, "Visualizing the Loss Landscape of
            Neural Nets", NeurIPS 2018, section 4), so that nets whose batch normalisation hides the scale
            of their weights compare. "unit": v is Gaussian with norm 1 over all parameters.
        generator: on the CPU.
    """
    noise = [torch.randn(p.shape, generator=generator).to(p.device) for p in model.parameters()]
    if scaling == "unit":
        length = torch.stack([part.norm() for part in noise]).norm()
        return [part / length for part in noise]
    return [_like_filters(part, p.detach()) for part, p in zip(noise, model.parameters(), strict=True)]


def _like_filters(noise: Tensor, weights: Tensor) -> Tensor:
    if weights.dim() < 2:
        return torch.zeros_like(weights)
    rows = noise.flatten(1)
    norms = weights.flatten(1).norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)
    return (rows * norms).view_as(weights)


@contextmanager
def moved(model: nn.Module, direction: list[Tensor], distance: float) -> Iterator[None]:
    """The model at theta + distance * direction, and back exactly where it was."""
    kept = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p, part in zip(model.parameters(), direction, strict=True):
            p.add_(part, alpha=distance)
    try:
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(model.parameters(), kept, strict=True):
                p.copy_(old)


def perturbed_losses(
    model: nn.Module,
    losses: Callable[[], dict[str, float]],
    distances: Sequence[float],
    directions: int,
    scaling: Scaling,
    seed: int,
) -> dict[str, list[float]]:
    """Losses at theta + d v by name, for each distance d the mean over random directions v.

    Args:
        model: at its minimum.
        losses: gives the model's present losses by name.
        distances: d.
        directions: how many v.
        scaling: of v, see `random_direction`.
        seed: of the directions, which are the same at every distance.
    """
    generator = torch.Generator().manual_seed(seed)
    totals: dict[str, list[float]] = {}
    for _ in range(directions):
        direction = random_direction(model, scaling, generator)
        for i, distance in enumerate(distances):
            with moved(model, direction, distance):
                for name, value in losses().items():
                    totals.setdefault(name, [0.0] * len(distances))[i] += value / directions
    return totals
