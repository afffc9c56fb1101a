"""DeepSets: a network of sets of points, whose answer does not depend on their order."""

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.classifier import require_dropout
from common.models.shapes import require_classes, require_positive

# equivariant layers
LAYERS = 3


class MaxEquivariant(nn.Module):
    """Sets x [b, p, n] to [b, p, m]: W (x_i - max_j x_j) + c, the largest of each feature over the set.

    A permutation of the points permutes the outputs alike, and a shift of all points changes nothing.

    Args:
        inputs, outputs: n and m.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # a layer of its own, so that methods that take linear layers find it
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, points: Tensor) -> Tensor:
        """See the class."""
        return self.linear(points - points.amax(1, keepdim=True))


class DeepSets(nn.Module):
    """DTanh of the point clouds of Zaheer et al., "Deep Sets", NeurIPS 2017.

    Three equivariant layers with tanh, the largest of each feature over the set, and a network of one
    hidden layer with dropout before both of its layers. With 3 coordinates, width 256 and 40 classes it has
    208,680 parameters.

    Args:
        shape: (points, coordinates) of one input; the weights do not depend on the points.
        classes: number of logits.
        width: of all layers.
        dropout: of the set's features, and of the hidden layer.

    Raises:
        UserError: inputs that are no sets of points, no classes, a width below 1, a dropout outside [0, 1).
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, width: int, dropout: float) -> None:
        super().__init__()
        if len(shape) != 2:
            raise UserError(
                f"model: deepsets cannot take inputs of shape {tuple(shape)}; "
                "valid: point clouds (points, coordinates), as dataset=solids"
            )
        require_positive("width", width)
        require_dropout(dropout)
        sizes = [shape[1], *[width] * LAYERS]
        self.equivariant = nn.Sequential(
            *(
                layer
                for inputs, outputs in pairwise(sizes)
                for layer in (MaxEquivariant(inputs, outputs), nn.Tanh())
            )
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(width, require_classes("deepsets", classes)),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Sets [b, p, d] to logits [b, classes]."""
        return self.classifier(torch.amax(self.equivariant(inputs), 1))
