"""A frozen network that others learn from."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.models.features import forward_features
from common.training.memory import channels_last

Reduce = Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, ...]]


class Teacher:
    """A network in evaluation mode without gradients.

    It is no `nn.Module`, so that a student that holds one has it neither among its parameters nor in its
    checkpoints. It follows its inputs to their device.

    Args:
        model: the trained network.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self.device = torch.device("cpu")

    def logits(self, inputs: Tensor) -> Tensor:
        """The network's output for a batch."""
        with torch.inference_mode():
            found = self._on(inputs)(inputs)
        return found.clone()

    def targets(self, inputs: Tensor, reduce: Reduce) -> tuple[Tensor, ...]:
        """What `reduce(logits, features)` makes of the network's output and of its features by name.

        What `reduce` returns is copied, as inference tensors must not meet the student's gradients: it
        should be small.
        """
        with torch.inference_mode():
            found = reduce(*forward_features(self._on(inputs), inputs))
        return tuple(tensor.clone() for tensor in found)

    def _on(self, inputs: Tensor) -> nn.Module:
        if inputs.device != self.device:
            self.device = inputs.device
            self.model.to(inputs.device)
            if inputs.is_cuda:
                channels_last(self.model)
        return self.model
