"""MobileNet v1 (Howard et al. 2017, arXiv 1704.04861) and v2 (Sandler et al., CVPR 2018)."""

import math
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from common.base.errors import UserError
from common.models.classifier import linear, require_dropout
from common.models.convolution import conv, conv_norm_relu
from common.models.shapes import require_classes, require_image, require_sizes
from common.models.split import SpatialMean, cut
from common.models.stages import ends_of_stages, require_strides, stage_ends

STEM, HEAD = 32, 1280  # channels of v2's first and last convolution


class MobileNetV1(nn.Module):
    """A 3x3 stem, depthwise separable blocks, global average pooling, logits.

    A block is a 3x3 depthwise and a 1x1 convolution, each with batch normalisation and ReLU (Howard et al.
    2017, "MobileNets", figure 3). The net of table 1 has 4,231,976 parameters and 568.7 M multiply-adds on
    ImageNet; with width multiplier 0.75 325 M, with 0.5 149 M (table 6). The form for CIFAR (Zhuang et al.,
    NeurIPS 2018, derived from its counts) halves the image at blocks 3, 7 and 13 and has 3,217,226.

    `features`: the last block of each size, "blocks.0", "blocks.2", ...

    Args:
        shape: (channels, height, width), at least as many pixels a side as the strides multiply to.
        classes: number of logits.
        widths: channels of the stem and of each block; a net whose channels were pruned is the same net
            with smaller widths.
        strides: of the stem and of each block, 1 or 2.
        multiplier: every width is this times the one in `widths`, rounded.

    Raises:
        UserError: inputs that are no images or are too small, no classes, no width for a stride, numbers
            out of range.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        widths: list[int],
        strides: list[int],
        multiplier: float,
    ) -> None:
        super().__init__()
        require_sizes("widths", widths)
        if not 0.5 < multiplier * min(widths) < math.inf:
            raise UserError(
                f"model.multiplier={multiplier}; valid: a number that leaves each width a channel"
            )
        require_strides(strides, len(widths))
        channels, _, _ = require_image("mobilenet_v1", shape, smallest=math.prod(strides))
        stem, *outputs = (round(multiplier * width) for width in widths)
        self.stem = nn.Sequential(*conv_norm_relu(channels, stem, 3, strides[0]))
        blocks, inputs = [], stem
        for width, stride in zip(outputs, strides[1:], strict=True):
            blocks.append(_separable(inputs, width, stride))
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        ends = stage_ends(strides[1:])
        self.features = tuple(f"blocks.{block}" for block in ends)
        self.source_channels = tuple(outputs[block] for block in ends)
        self.classifier = linear(inputs, require_classes("mobilenet_v1", classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.blocks(self.stem(inputs)).mean(dim=(2, 3)))

    def sources(self, inputs: Tensor) -> list[Tensor]:
        """The outputs of all stages: maps that a detector sees (`common.detection.ssd`)."""
        return ends_of_stages(self.blocks, self.features, self.stem(inputs))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.blocks, self.features, unshared)
        return nn.Sequential(self.stem, low), nn.Sequential(high, SpatialMean(), self.classifier)


class InvertedResidual(nn.Module):
    """residual(x) + shortcut(x): 1x1 to `hidden` channels, 3x3 depthwise, 1x1 to `outputs`, linear.

    Sandler et al. 2018, figure 4(d). Each convolution has batch normalisation, the first two ReLU6. With
    stride 1 the shortcut is the identity where inputs = outputs, else a 1x1 convolution with batch
    normalisation if `projection`; otherwise the block is its residual alone.

    Args:
        inputs: channels.
        hidden: channels of the depthwise convolution; without `expand` as many as inputs.
        outputs: channels.
        stride: of the depthwise convolution.
        expand: whether the first 1x1 convolution exists.
        projection: see above.
    """

    def __init__(
        self, inputs: int, hidden: int, outputs: int, stride: int, expand: bool, projection: bool
    ) -> None:
        super().__init__()
        expansion = [*_conv_norm(inputs, hidden), nn.ReLU6(inplace=True)] if expand else []
        depthwise = [conv(hidden, hidden, 3, stride, groups=hidden), nn.BatchNorm2d(hidden)]
        self.residual = nn.Sequential(
            *expansion, *depthwise, nn.ReLU6(inplace=True), *_conv_norm(hidden, outputs)
        )
        self.shortcut: nn.Module | None = None
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif stride == 1 and projection:
            self.shortcut = nn.Sequential(*_conv_norm(inputs, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h/stride, w/stride]."""
        outputs = self.residual(inputs)
        return outputs if self.shortcut is None else outputs + self.shortcut(inputs)


class MobileNetV2(nn.Module):
    """A 3x3 stem of 32 channels, inverted residuals, a 1x1 convolution to 1280, average pooling, logits.

    Two forms, each a set of arguments in conf/model:
        ImageNet (Sandler et al. 2018, table 2; as torchvision's): 3,504,872 parameters, 300.8 M
            multiply-adds.
        CIFAR (the usual one for 32x32 images): stem and second stage with stride 1, a first 1x1
            convolution in every block and projecting shortcuts. 2,296,922 parameters. Its usual code has
            ReLU in place of the paper's ReLU6, which stays here.

    `features`: the last block of each size, "blocks.0", "blocks.2", ...

    Args:
        shape: (channels, height, width), at least as many pixels a side as the strides multiply to.
        classes: number of logits.
        stages: rows (t, c, n, s) of the paper's table 2: n blocks of c channels, the first with stride s,
            whose hidden channels are t times their inputs.
        hidden: the hidden channels of each block, for pruned nets; None for what `stages` says.
        stem_stride: 1 or 2.
        expand_always: also blocks with t = 1 have the first 1x1 convolution.
        projection: blocks of stride 1 that change the channels have a shortcut too.
        dropout: probability before the logits, in [0, 1).

    Raises:
        UserError: inputs that are no images or are too small, no classes, numbers out of range, hidden
            channels that do not fit the blocks.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        stages: list[tuple[int, int, int, int]],
        hidden: list[int] | None,
        stem_stride: int,
        expand_always: bool,
        projection: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        require_dropout(dropout)
        blocks = _list_blocks(stages, hidden, expand_always)
        strides = [stem_stride, *(block.stride for block in blocks)]
        require_strides(strides, len(strides))
        channels, _, _ = require_image("mobilenet_v2", shape, smallest=math.prod(strides))
        stem = conv(channels, STEM, 3, stem_stride)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(STEM), nn.ReLU6(inplace=True))
        self.blocks = nn.Sequential(*(InvertedResidual(*block, projection) for block in blocks))
        ends = stage_ends(strides[1:])
        self.features = tuple(f"blocks.{block}" for block in ends)
        self.source_channels = (*(blocks[block].outputs for block in ends[:-1]), HEAD)
        self.head = nn.Sequential(*_conv_norm(blocks[-1].outputs, HEAD), nn.ReLU6(inplace=True))
        logits = linear(HEAD, require_classes("mobilenet_v2", classes))
        self.classifier = nn.Sequential(nn.Dropout(dropout), logits)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.head(self.blocks(self.stem(inputs))).mean(dim=(2, 3)))

    def sources(self, inputs: Tensor) -> list[Tensor]:
        """The outputs of all stages, the last after the 1x1 convolution that follows it.

        Maps that a detector sees (`common.detection.ssd`).
        """
        *finer, last = ends_of_stages(self.blocks, self.features, self.stem(inputs))
        return [*finer, self.head(last)]

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.blocks, self.features, unshared)
        return nn.Sequential(self.stem, low), nn.Sequential(high, self.head, SpatialMean(), self.classifier)


def _separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A 3x3 depthwise and a 1x1 convolution, each with batch normalisation and ReLU."""
    depthwise = conv_norm_relu(inputs, inputs, 3, stride, groups=inputs)
    return nn.Sequential(*depthwise, *conv_norm_relu(inputs, outputs, 1))


def _conv_norm(inputs: int, outputs: int) -> list[nn.Module]:
    """A 1x1 convolution and batch normalisation."""
    return [conv(inputs, outputs, 1), nn.BatchNorm2d(outputs)]


class _Block(NamedTuple):
    """The arguments of an InvertedResidual, but for `projection`."""

    inputs: int
    hidden: int
    outputs: int
    stride: int
    expand: bool


def _list_blocks(
    stages: list[tuple[int, int, int, int]], hidden: list[int] | None, expand_always: bool
) -> list[_Block]:
    """The blocks that the rows (t, c, n, s) stand for, with other hidden channels where given."""
    rows = [list(row) for row in stages]
    if not rows or any(len(row) != 4 or min(row) < 1 for row in rows):
        raise UserError(
            f"model.stages={rows}; valid: rows of 4 numbers >= 1: expansion, channels, blocks, stride"
        )
    blocks: list[_Block] = []
    inputs = STEM
    for t, c, n, s in rows:
        for repeat in range(n):
            blocks.append(_Block(inputs, t * inputs, c, s if repeat == 0 else 1, t > 1 or expand_always))
            inputs = c
    if hidden is None:
        return blocks
    require_sizes("hidden", hidden)
    fixed = {number: block.inputs for number, block in enumerate(blocks) if not block.expand}
    if len(hidden) != len(blocks) or any(hidden[number] != inputs for number, inputs in fixed.items()):
        raise UserError(
            f"model.hidden={list(hidden)}; valid: {len(blocks)} numbers, one for each block"
            + "".join(f", {inputs} for block {number}" for number, inputs in fixed.items())
        )
    return [block._replace(hidden=width) for block, width in zip(blocks, hidden, strict=True)]
