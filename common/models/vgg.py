"""VGG networks: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015."""

from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn

from common.models.classifier import linear, require_dropout
from common.models.shapes import require_classes, require_image, require_positive, require_sizes
from common.models.split import cut
from common.models.stages import chained


class VGG(nn.Module):
    """Stages of 3x3 convolutions with ReLU, 2x2 pooling after each stage, fully connected layers.

    The convolutions have a bias, also where batch normalisation follows, as in torchvision. Kernels start
    at N(0, 2 / (9 outputs)), linear weights at N(0, 0.01²), biases at 0.

    Two forms, each a set of arguments in conf/model:
        ImageNet: two hidden layers of 4096 units with dropout on a 7x7 map. VGG-16 has 138,357,544
            parameters, VGG-19 143,667,240; with batch normalisation 138,365,992 and 143,678,248.
        CIFAR: batch normalisation and one linear layer on a 1x1 map. VGG-13 has 9,416,010 parameters,
            VGG-16 14,728,266, VGG-19 20,040,522.

    `features`: the stages' outputs, after ReLU and before pooling: "stages.0", "stages.1", ...

    Args:
        shape: (channels, height, width), at least 2^stages pixels a side.
        classes: number of logits.
        widths: channels of each convolution, a list for each stage; a net whose channels were pruned is
            the same net with smaller widths.
        batch_norm: between each convolution and its ReLU.
        last_pool: the pooling after the last stage, "max" or "average"; the others are max.
        pixels: side of the map that the first linear layer sees, by adaptive average pooling.
        hidden: units of the hidden linear layers, each followed by ReLU and dropout.
        dropout: probability, in [0, 1).

    Raises:
        UserError: inputs that are no images or are pooled to nothing, no classes, a stage without
            convolutions, numbers out of range.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        widths: list[list[int]],
        batch_norm: bool,
        last_pool: Literal["max", "average"],
        pixels: int,
        hidden: list[int],
        dropout: float,
    ) -> None:
        super().__init__()
        for stage_widths in widths or [[]]:
            require_sizes("widths", stage_widths)
        require_positive("pixels", pixels)
        require_dropout(dropout)
        if hidden:
            require_sizes("hidden", hidden)
        channels, _, _ = require_image("vgg", shape, smallest=2 ** len(widths))
        stages: list[nn.Module] = []
        for stage_widths in widths:
            pool = [nn.MaxPool2d(2)] if stages else []
            stages.append(nn.Sequential(*pool, *_convolutions(channels, stage_widths, batch_norm)))
            channels = stage_widths[-1]
        self.stages = nn.Sequential(*stages)
        self.features = tuple(f"stages.{stage}" for stage in range(len(stages)))
        self.source_channels = tuple(stage_widths[-1] for stage_widths in widths)
        last = nn.MaxPool2d(2) if last_pool == "max" else nn.AvgPool2d(2)
        self.pool = nn.Sequential(last, nn.AdaptiveAvgPool2d(pixels), nn.Flatten())
        sizes = [channels * pixels**2, *hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [linear(inputs, outputs), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.classifier = nn.Sequential(*layers, linear(sizes[-1], require_classes("vgg", classes)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.pool(self.stages(inputs)))

    def sources(self, inputs: Tensor) -> list[Tensor]:
        """The outputs of all stages, before pooling: maps that a detector sees (`common.detection.ssd`)."""
        return chained(self.stages, inputs)

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.stages, self.features, unshared)
        return low, nn.Sequential(high, self.pool, self.classifier)


def _convolutions(inputs: int, widths: list[int], batch_norm: bool) -> list[nn.Module]:
    """3x3 convolutions to each width, each with ReLU, batch normalisation before it if asked for."""
    layers: list[nn.Module] = []
    for outputs in widths:
        layer = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
        layers += [layer, *norm, nn.ReLU(inplace=True)]
        inputs = outputs
    return layers
