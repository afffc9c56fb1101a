"""A small convolutional network with batch normalisation, for digits and MNIST."""

import math
from typing import ClassVar, Literal

from torch import Tensor, nn

from common.models.convolution import conv_norm_relu
from common.models.shapes import require_classes, require_image, require_sizes
from common.models.split import SpatialMean, cut
from common.models.stages import require_strides, stage_ends


class DigitConvNet(nn.Module):
    """Convolutions 3x3 without bias, each with batch normalisation and ReLU, average pooling, logits.

    With inputs c_0 and widths c_1 .. c_n it has sum_i (9 c_{i-1} c_i + 2 c_i) + (c_n + 1) classes parameters.

    `features`: the last layer of each size, "layers.1", "layers.3", ...; layer i is convolution,
    normalisation and ReLU.

    Args:
        shape: (channels, height, width), at least as many pixels a side as the strides multiply to.
        classes: number of logits.
        widths: channels of the convolutions.
        strides: of the convolutions, 1 or 2.

    Raises:
        UserError: inputs that are no images or are too small, no classes, no stride for a width, numbers
            out of range.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self, *, shape: tuple[int, ...], classes: int | None, widths: list[int], strides: list[int]
    ) -> None:
        super().__init__()
        require_sizes("widths", widths)
        require_strides(strides, len(widths))
        channels, _, _ = require_image("digit_convnet", shape, smallest=math.prod(strides))
        inputs = [channels, *widths[:-1]]
        layers = zip(inputs, widths, strides, strict=True)
        self.layers = nn.Sequential(*(nn.Sequential(*conv_norm_relu(i, o, 3, s)) for i, o, s in layers))
        self.features = tuple(f"layers.{layer}" for layer in stage_ends(strides))
        self.classifier = nn.Linear(widths[-1], require_classes("digit_convnet", classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.layers(inputs).mean(dim=(2, 3)))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.layers, self.features, unshared)
        return low, nn.Sequential(high, SpatialMean(), self.classifier)
