"""How large a model is."""

from torch import nn


def count_parameters(model: nn.Module) -> int:
    """The number of trainable numbers in a model; statistics of batch normalisation are none."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
