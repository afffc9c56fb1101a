"""How tensors lie in memory."""

import torch
from torch import nn


def channels_last(model: nn.Module) -> None:
    """Lay the weights of two-dimensional convolutions with channels last, where a GPU computes faster.

    The images that pass through take the same form from the first convolution on.
    """
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
