"""Backbones at output stride 16 or 8: aligned Xception-65 and -71, MobileNet v2, and a small one.

Xception: Chollet, CVPR 2017, as modified by Chen et al., "Encoder-Decoder with Atrous Separable Convolution
for Semantic Image Segmentation", ECCV 2018, and the official code (deeplab/core/xception.py). MobileNet v2:
Sandler et al., CVPR 2018.

A backbone takes images [b, 3, H, W] and gives its last map and the map of stride 4 that a decoder reads;
sides of maps are (H - 1) // stride + 1. Where the output stride is less than a backbone's own, later strides
are 1 and the convolutions after them dilated instead.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.convolution import conv
from common.models.mobilenet import InvertedResidual
from papers.dpc.heads import MOMENTUM, norm

XCEPTION_EPS = 1e-3
MIDDLE_UNITS = 16
# a stride-4 map's name for what reads it
LOW_STRIDE = 4


class Maps(NamedTuple):
    """What a backbone gives: its last map, and one of stride 4 or none."""

    features: Tensor
    low: Tensor | None


class Backbone(nn.Module):
    """What the heads read.

    Attributes:
        channels: of the last map.
        low_channels: of the map of stride 4; None where there is none.
        output_stride: of the last map.
    """

    channels: int
    low_channels: int | None
    output_stride: int

    @abstractmethod
    def maps(self, images: Tensor) -> Maps:
        """The maps of images [b, c, H, W]."""

    def forward(self, images: Tensor) -> Tensor:
        """The last map alone, [b, channels, h, w]."""
        return self.maps(images).features


class Strides:
    """Turns strides into dilations once an output stride is reached (DeepLab's `stack_blocks_dense`)."""

    def __init__(self, reached: int, output_stride: int) -> None:
        self.reached, self.output_stride, self.rate = reached, output_stride, 1

    def next(self, stride: int) -> tuple[int, int]:
        """The stride and the rate of the next unit; a stride that is undone dilates the units after it."""
        rate = self.rate
        if self.reached * stride > self.output_stride:
            self.rate *= stride
            return 1, rate
        self.reached *= stride
        return stride, rate


class XceptionSeparable(nn.Module):
    """[ReLU,] depthwise 3x3, BN, [ReLU,] 1x1, BN[, ReLU]: ReLU first, or after both convolutions (exit
    flow)."""

    def __init__(self, inputs: int, outputs: int, stride: int, rate: int, relu_after: bool) -> None:
        super().__init__()
        depthwise = nn.Conv2d(
            inputs, inputs, 3, stride, padding=rate, dilation=rate, groups=inputs, bias=False
        )
        pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        for layer in (depthwise, pointwise):
            nn.init.xavier_uniform_(layer.weight)
        after: list[nn.Module] = [nn.ReLU(inplace=True)] if relu_after else []
        # not in place: the skip connection reads the same map
        before: list[nn.Module] = [] if relu_after else [nn.ReLU()]
        self.layers = nn.Sequential(
            *before, depthwise, norm(inputs, MOMENTUM, XCEPTION_EPS), *after,
            pointwise, norm(outputs, MOMENTUM, XCEPTION_EPS), *after,
        )  # fmt: skip

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class XceptionUnit(nn.Module):
    """Three separable convolutions, the third with the stride, and a skip connection.

    Args:
        inputs: channels.
        widths: of the three.
        stride: of the third, and of the skip.
        rate: of all three.
        skip: `conv`: 1x1 with BN; `sum`: the inputs themselves; `none`.
    """

    def __init__(self, inputs: int, widths: Sequence[int], stride: int, rate: int, skip: str) -> None:
        super().__init__()
        pairs = zip([inputs, *widths], widths, (1, 1, stride), strict=False)
        self.convs = nn.ModuleList(
            XceptionSeparable(before, after, step, rate, skip == "none") for before, after, step in pairs
        )
        self.kind = skip
        self.skip: nn.Module | None = None
        if skip == "conv":
            layer = nn.Conv2d(inputs, widths[-1], 1, stride, bias=False)
            nn.init.xavier_uniform_(layer.weight)
            self.skip = nn.Sequential(layer, norm(widths[-1], MOMENTUM, XCEPTION_EPS))

    def both(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The unit's output, and that of its second convolution."""
        first, second, third = self.convs
        inner = second(first(inputs))
        outputs = third(inner)
        if self.skip is not None:
            outputs = outputs + self.skip(inputs)
        elif self.kind == "sum":
            outputs = outputs + inputs
        return outputs, inner

    def forward(self, inputs: Tensor) -> Tensor:
        return self.both(inputs)[0]


class Xception(Backbone):
    """Modified aligned Xception: a stem of two 3x3 convolutions, entry, middle and exit flow; 2,048 channels.

    Strided convolutions pad symmetrically, as the official fixed padding does. The map of stride 4 is the
    output of the second separable convolution, before the next ReLU, of the last entry unit of 256 channels.

    Args:
        layers: 65 or 71, which has two more entry units.
        channels: of an image.
        output_stride: 16 or 8.
    """

    def __init__(self, layers: int, channels: int, output_stride: int) -> None:
        super().__init__()
        entry = [(128, 2), (256, 2), (728, 2)]
        if layers == 71:
            entry = [(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)]
        self.stem = nn.Sequential(*_stem(channels, 32, 2), *_stem(32, 64, 1))
        strides, units, inputs = Strides(2, output_stride), [], 64
        for width, own in entry:
            units.append(XceptionUnit(inputs, [width] * 3, *strides.next(own), "conv"))
            inputs = width
        for _ in range(MIDDLE_UNITS):
            units.append(XceptionUnit(inputs, [inputs] * 3, *strides.next(1), "sum"))
        units.append(XceptionUnit(inputs, [728, 1024, 1024], *strides.next(2), "conv"))
        units.append(XceptionUnit(1024, [1536, 1536, 2048], *strides.next(1), "none"))
        self.units = nn.ModuleList(units)
        self.low_unit = max(number for number, (width, _) in enumerate(entry) if width == 256)
        self.channels, self.low_channels, self.output_stride = 2048, 256, output_stride

    def maps(self, images: Tensor) -> Maps:
        found, low = self.stem(images), None
        for number, unit in enumerate(self.units):
            assert isinstance(unit, XceptionUnit)
            found, inner = unit.both(found)
            if number == self.low_unit:
                low = inner
        return Maps(found, low)


def _stem(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return [layer, norm(outputs, MOMENTUM, XCEPTION_EPS), nn.ReLU(inplace=True)]


class MobileNetV2(Backbone):
    """MobileNet v2 without its last convolution: 320 channels.

    The map of stride 4 is that of the last depthwise convolution of that size (`layer_4/depthwise_output`),
    144 channels.

    Args:
        channels: of an image.
        output_stride: 16 or 8.
    """

    ROWS = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    STEM, LOW_BLOCK = 32, 2
    # of a residual: all up to the ReLU6 after its depthwise convolution
    LOW_LAYERS = 6

    def __init__(self, channels: int, output_stride: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(channels, self.STEM, 3, 2), nn.BatchNorm2d(self.STEM), nn.ReLU6(inplace=True)
        )
        strides, blocks, inputs = Strides(2, output_stride), [], self.STEM
        for expansion, width, repeats, own in self.ROWS:
            for repeat in range(repeats):
                stride, rate = strides.next(own if repeat == 0 else 1)
                hidden = expansion * inputs
                block = InvertedResidual(inputs, hidden, width, stride, expansion > 1, projection=False)
                blocks.append(_dilated(block, rate))
                inputs = width
        self.blocks = nn.ModuleList(blocks)
        self.channels, self.output_stride = inputs, output_stride
        self.low_channels = 6 * 24

    def maps(self, images: Tensor) -> Maps:
        found, low = self.stem(images), None
        for number, block in enumerate(self.blocks):
            if number == self.LOW_BLOCK:
                assert isinstance(block, InvertedResidual)
                low = block.residual[: self.LOW_LAYERS](found)
                found = block.residual[self.LOW_LAYERS :](low) + found
            else:
                found = block(found)
        return Maps(found, low)


def _dilated(block: InvertedResidual, rate: int) -> InvertedResidual:
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.dilation, layer.padding = (rate, rate), (rate, rate)
    return block


class SmallBackbone(Backbone):
    """Two 3x3 convolutions of stride 2 with BN and ReLU: for small images, output stride 4.

    Args:
        channels: of an image.
        width: of both convolutions.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (channels, width):
            layers += [conv(inputs, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.channels, self.low_channels, self.output_stride = width, None, LOW_STRIDE

    def maps(self, images: Tensor) -> Maps:
        return Maps(self.layers(images), None)


def make_backbone(name: str, channels: int, output_stride: int, width: int) -> Backbone:
    """A backbone by its name.

    Raises:
        UserError: no such name, or an output stride that it has not.
    """
    strides = {
        "small": (LOW_STRIDE,),
        "mobilenet_v2": (8, 16),
        "xception_65": (8, 16),
        "xception_71": (8, 16),
    }
    if name not in strides:
        raise UserError(f"model.backbone={name}; valid: {', '.join(strides)}")
    if output_stride not in strides[name]:
        valid = " or ".join(map(str, strides[name]))
        raise UserError(f"model.output_stride={output_stride}: valid for {name}: {valid}")
    if name == "small":
        return SmallBackbone(channels, width)
    if name == "mobilenet_v2":
        return MobileNetV2(channels, output_stride)
    return Xception(int(name[-2:]), channels, output_stride)


def padded_side(side: int, output_stride: int) -> int:
    """The least stride * k + 1, k >= 1, that is at least `side`: DeepLab's sizes, whose corners meet in all
    maps."""
    return max(1, math.ceil((side - 1) / output_stride)) * output_stride + 1


def padded(images: Tensor, output_stride: int) -> Tensor:
    """Images filled up with zeros, the mean colour of normalised ones, at the right and at the bottom."""
    height, width = images.shape[2:]
    below, right = (padded_side(side, output_stride) - side for side in (height, width))
    return torch.nn.functional.pad(images, (0, right, 0, below)) if below or right else images
