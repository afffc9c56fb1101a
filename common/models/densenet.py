"""Densely connected networks: Huang, Liu, van der Maaten, Weinberger, CVPR 2017."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.convolution import conv
from common.models.shapes import require_classes, require_depth, require_image, require_positive
from common.models.split import SpatialMean, cut


class DenseLayer(nn.Module):
    """Appends `growth` channels: BN-ReLU-conv3x3, or with a bottleneck a BN-ReLU-conv1x1(4 growth) before."""

    def __init__(self, inputs: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if bottleneck:
            layers += _norm_relu_conv(inputs, 4 * growth, 1)
            inputs = 4 * growth
        self.layers = nn.Sequential(*layers, *_norm_relu_conv(inputs, growth, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, inputs + growth, h, w]."""
        return torch.cat([inputs, self.layers(inputs)], dim=1)


class DenseNet(nn.Module):
    """DenseNet for small images (section 3, "Implementation Details"): three dense blocks.

    Plain: a 16-channel stem, n = (depth - 4)/3 layers a block, transitions keep the channels. BC: a
    stem of 2 growth channels, n = (depth - 4)/6 bottlenecked layers a block, transitions halve the
    channels. Parameters with 10 classes (table 2): plain 40/12 1.0M, plain 100/12 7.0M, BC 100/12 0.8M.
    A stage, and so a feature, is a dense block with the transition before it.

    Args:
        shape: (channels, height, width), at least 4 pixels a side.
        classes: number of logits.
        depth: number of layers with weights.
        growth: k, the channels that a layer adds.
        bc: bottlenecks and compression 0.5.

    Raises:
        UserError: a depth that no n gives, growth < 1, inputs that are no images, no classes.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self, *, shape: tuple[int, ...], classes: int | None, depth: int, growth: int, bc: bool
    ) -> None:
        super().__init__()
        n = require_depth(depth, 6 if bc else 3, 4, f" with bc={bc}")
        require_positive("growth", growth)
        channels, _, _ = require_image("densenet", shape, smallest=4)
        width = 2 * growth if bc else 16
        self.stem = conv(channels, width, 3)
        self.stages = nn.Sequential()
        for block in range(3):
            layers: list[nn.Module] = []
            if block > 0:
                outputs = width // 2 if bc else width
                layers = [*_norm_relu_conv(width, outputs, 1), nn.AvgPool2d(2)]
                width = outputs
            layers += [DenseLayer(width + i * growth, growth, bottleneck=bc) for i in range(n)]
            width += n * growth
            self.stages.append(nn.Sequential(*layers))
        self.features = ("stages.0", "stages.1", "stages.2")
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, require_classes("densenet", classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        outputs = functional.relu_(self.norm(self.stages(self.stem(inputs))))
        return self.classifier(outputs.mean(dim=(2, 3)))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.stages, self.features, unshared)
        head = (self.norm, nn.ReLU(inplace=True), SpatialMean(), self.classifier)
        return nn.Sequential(self.stem, low), nn.Sequential(high, *head)


def _norm_relu_conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), conv(inputs, outputs, kernel)]
