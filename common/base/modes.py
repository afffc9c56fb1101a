"""Evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode, and afterwards each of their layers in the mode that it had.

    A layer that its owner holds in evaluation mode within a network that trains, as a frozen batch
    normalisation is, so stays in it. Whether gradients are recorded is left to the caller.
    """
    modes = {layer: layer.training for module in modules for layer in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for layer, training in modes.items():
            layer.training = training
