"""Multilayer perceptron; LeNet-300-100 is one with hidden sizes 300 and 100."""

import math
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn

from common.models.shapes import require_classes, require_sizes

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class MLP(nn.Module):
    """Fully connected layers with an activation after each hidden one (the features).

    LeNet-300-100 (LeCun, Bottou, Bengio, Haffner 1998, section III.C.4) on 28x28 images has
    266,610 parameters.

    Args:
        shape: of one input, flattened.
        classes: number of logits.
        hidden: sizes of the hidden layers.
        activation: of the hidden layers.

    Raises:
        UserError: no classes, or hidden sizes below 1.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        hidden: list[int],
        activation: Literal["relu", "tanh", "sigmoid"],
    ) -> None:
        super().__init__()
        require_sizes("hidden", hidden)
        sizes = [math.prod(shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
        layers.append(nn.Linear(sizes[-1], require_classes("mlp", classes)))
        self.layers = nn.Sequential(*layers)
        self.features = tuple(f"layers.{2 * i + 2}" for i in range(len(hidden)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, *shape] to logits [b, classes]."""
        return self.layers(inputs)
