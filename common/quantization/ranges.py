"""The ranges of activations: of each batch in training, their running averages in evaluation."""

import torch
from torch import Tensor, nn


def sample_range(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The means over the batch of each example's smallest and of its largest value: [b, ...] to scalars."""
    rows = inputs.detach().flatten(1) if inputs.ndim > 1 else inputs.detach()[:, None]
    return rows.amin(1).mean(), rows.amax(1).mean()


def averaged(running: Tensor, batch: Tensor, momentum: float, batches: Tensor) -> Tensor:
    """m running + (1 - m) batch; the batch alone where it is the first.

    The momentum weighs the old value, as in the authors' code, whose buffers begin at 0 though.
    """
    return torch.where(batches == 0, batch, momentum * running + (1 - momentum) * batch)


class ActivationRange(nn.Module):
    """The range by which a layer's inputs are quantised.

    In training that of the batch (`sample_range`), in evaluation the running averages; of a layer that
    has seen no training batch, that of the batch in evaluation too.

    Args:
        momentum: weight of the old average, from 0 to 1; 0.1 in the authors' code.
    """

    low: Tensor
    high: Tensor
    batches: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(low, high) for these inputs, [b, ...]."""
        low, high = sample_range(inputs)
        if not self.training:
            seen = self.batches > 0
            return torch.where(seen, self.low, low), torch.where(seen, self.high, high)
        self.low.copy_(averaged(self.low, low, self.momentum, self.batches))
        self.high.copy_(averaged(self.high, high, self.momentum, self.batches))
        self.batches += 1
        return low, high
