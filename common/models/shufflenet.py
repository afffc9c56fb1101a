"""ShuffleNet v1 (Zhang, Zhou, Lin, Sun, CVPR 2018, arXiv 1707.01083)."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.base.errors import UserError
from common.models.classifier import linear
from common.models.convolution import conv, conv_norm_relu
from common.models.shapes import require_classes, require_image, require_positive, require_sizes
from common.models.split import SpatialMean, cut
from common.models.stages import stage_ends


class ShuffleUnit(nn.Module):
    """ReLU(x + residual(x)); with stride 2 ReLU(cat(residual(x), average pool(x))).

    The residual (figure 2): 1x1 convolution in groups to a quarter of the outputs, ReLU, channel shuffle, 3x3
    depthwise, 1x1 convolution in groups; batch normalisation after each.

    Args:
        inputs, outputs: channels; with stride 2 the residual gives outputs - inputs of them.
        stride: 1, where inputs = outputs, or 2.
        groups: of the 1x1 convolutions.
        first: of the network: its first convolution is not in groups, as its inputs are few.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int, first: bool) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        hidden = outputs // 4
        added = outputs - inputs if stride == 2 else outputs
        self.reduce = nn.Sequential(*conv_norm_relu(inputs, hidden, 1, groups=1 if first else groups))
        self.depthwise = nn.Sequential(conv(hidden, hidden, 3, stride, groups=hidden), nn.BatchNorm2d(hidden))
        self.expand = nn.Sequential(conv(hidden, added, 1, groups=groups), nn.BatchNorm2d(added))

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h/stride, w/stride]."""
        shuffled = F.channel_shuffle(self.reduce(inputs), self.groups)
        residual = self.expand(self.depthwise(shuffled))
        if self.stride == 1:
            return F.relu(inputs + residual)
        return F.relu(torch.cat([residual, F.avg_pool2d(inputs, 3, 2, 1)], 1))


class ShuffleNet(nn.Module):
    """A 3x3 stem, three stages of shuffle units, average pooling, logits.

    With 3 groups, a stem of 24 and stages of 240, 480 and 960 channels (table 1) it is ShuffleNet 1x of
    1,865,728 parameters; with all twice as wide 2x: 5,450,776 parameters and 524.0 M multiply-adds on
    ImageNet (524 in table 5).

    `features`: the last unit of each size.

    Args:
        shape: (channels, height, width), at least as many pixels a side as the strides multiply to.
        classes: number of logits.
        stem: channels of the first convolution.
        widths: channels of each stage, multiples of 4 times the groups.
        units: of each stage, the first of which halves the maps.
        groups: of the 1x1 convolutions.
        stem_stride: of the stem, 1 or 2.
        pool: 3x3 max pooling with stride 2 after the stem.

    Raises:
        UserError: inputs that are no images or are too small, no classes, widths that the groups do not
            divide, numbers out of range.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        stem: int,
        widths: list[int],
        units: list[int],
        groups: int,
        stem_stride: int,
        pool: bool,
    ) -> None:
        super().__init__()
        require_positive("stem", stem)
        _require_stages(widths, units, groups, stem)
        require_positive("stem_stride", stem_stride)
        steps = stem_stride * (2 if pool else 1)
        strides = [stride for count in units for stride in (2, *[1] * (count - 1))]
        channels, _, _ = require_image("shufflenet", shape, smallest=steps * math.prod(strides))
        pooling = [nn.MaxPool2d(3, 2, 1)] if pool else []
        self.stem = nn.Sequential(*conv_norm_relu(channels, stem, 3, stem_stride), *pooling)
        outputs = [width for width, count in zip(widths, units, strict=True) for _ in range(count)]
        inputs = [stem, *outputs]
        self.blocks = nn.Sequential(
            *(
                ShuffleUnit(inputs[unit], outputs[unit], stride, groups, first=unit == 0)
                for unit, stride in enumerate(strides)
            )
        )
        self.features = tuple(f"blocks.{end}" for end in stage_ends(strides))
        self.classifier = linear(outputs[-1], require_classes("shufflenet", classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.blocks(self.stem(inputs)).mean(dim=(2, 3)))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.blocks, self.features, unshared)
        return nn.Sequential(self.stem, low), nn.Sequential(high, SpatialMean(), self.classifier)


def _require_stages(widths: list[int], units: list[int], groups: int, stem: int) -> None:
    """Refuse stages that cannot be built.

    Raises:
        UserError: see `ShuffleNet`.
    """
    require_positive("groups", groups)
    require_sizes("units", units)
    require_sizes("widths", widths)
    if len(widths) != len(units):
        raise UserError(f"model.widths={list(widths)}; valid: {len(units)} numbers, one for each stage")
    before = [stem, *widths]
    for inputs, width in zip(before, widths, strict=False):
        if width % (4 * groups) or (width - inputs) % groups or width <= inputs:
            raise UserError(
                f"model.widths={list(widths)}: {groups} groups do not divide {width} channels after "
                f"{inputs}; valid: rising multiples of {4 * groups}, whose steps {groups} divides"
            )
