"""A network between the values that a data set stores and the units in which its targets are."""

from typing import Any

import torch
from torch import Tensor, nn


def as_stored(inputs: Tensor, facts: dict[str, Any]) -> Tensor:
    """A network's inputs [b, *shape] as the data set stores them: n(x) of `Normalised` undone.

    What has a scale of 0, and so no spread, is at its offset. Rows that were divided by their norm stay so.
    """
    offset, scale = (torch.tensor(facts[key], dtype=torch.float32) for key in ("offset", "scale"))
    return torch.where(scale == 0, 0.0, inputs / scale) + offset


class Normalised(nn.Module):
    """A network with its data set's normalisation before it, and for regression the targets' undone after it.

    x -> f(n(x)) with n(x) = (x - offset) * scale, and n(x) / max(|n(x)|, 1e-12) with `unit_rows`: the very
    operations of the data set, in their order, so that f gets the same float32 numbers. For regression the
    prediction y is given as y / target_scale + target_offset (target_offset where all targets were equal).

    Shapes: inputs float32 [b, *shape], as the data set stores them -> what the network gives.

    Args:
        network: f.
        facts: of its data set, see `DataSet.facts`.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, facts: dict[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.unit_rows: bool = facts["unit_rows"]
        self.register_buffer("offset", torch.tensor(facts["offset"], dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(facts["scale"], dtype=torch.float32))
        self.target_offset: float | None = facts.get("target_offset")
        scale = facts.get("target_scale", 1.0)
        self.target_spread = 1 / scale if scale else 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class."""
        inputs = (inputs - self.offset) * self.scale
        if self.unit_rows:
            norms = inputs.flatten(1).norm(dim=1).clamp_min(1e-12)
            inputs = inputs / norms.view(-1, *[1] * (inputs.dim() - 1))
        outputs: Tensor = self.network(inputs)
        return outputs if self.target_offset is None else outputs * self.target_spread + self.target_offset
