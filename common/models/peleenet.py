"""PeleeNet and what it was made from: Wang, Li, Ling, "Pelee", NeurIPS 2018 (arXiv 1804.06882), section 2.

One class stands for the whole chain of table 2, from DenseNet-41 (pre-activation, bottlenecks of 4k channels,
compression 0.5) to PeleeNet; conf/model/peleenet_*.yaml has each of its steps.
"""

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.classifier import linear, require_dropout
from common.models.convolution import conv, conv_norm_relu
from common.models.shapes import require_classes, require_image, require_sizes
from common.models.split import SpatialMean, cut
from common.models.stages import chained

# (inputs, outputs, kernel) to the layers of one convolution with its normalisation and ReLU
Layers = Callable[[int, int, int], list[nn.Module]]


class StemBlock(nn.Module):
    """The stem of figure 2: a = CBR(3, c, stride)(x); CBR(1, c)([maxpool(a), CBR(3, c, 2)(CBR(1, c/2)(a))]).

    CBR(k, c, s) is a k x k convolution with c channels and stride s, batch normalisation, ReLU. The pooled
    half comes first, as in the authors' code. The pool rounds up, as the convolution beside it does.

    Args:
        inputs: channels of the image.
        channels: c, even.
        stride: of the first convolution; the block halves what it gives once more.
    """

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*conv_norm_relu(inputs, channels, 3, stride))
        self.branch = nn.Sequential(
            *conv_norm_relu(channels, channels // 2, 1), *conv_norm_relu(channels // 2, channels, 3, 2)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.last = nn.Sequential(*conv_norm_relu(2 * channels, channels, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, channels, h / (2 stride), w / (2 stride)]."""
        first = self.first(inputs)
        return self.last(torch.cat([self.pool(first), self.branch(first)], dim=1))


class OneWayLayer(nn.Module):
    """A dense layer as DenseNet has it: [x, 3x3 convolution of a 1x1 bottleneck of x].

    Args:
        inputs: channels.
        growth: k, the channels that the layer adds.
        bottleneck: channels between its convolutions.
        layers: makes a convolution with normalisation and ReLU, before or after it.
    """

    def __init__(self, inputs: int, growth: int, bottleneck: int, layers: Layers) -> None:
        super().__init__()
        self.way = nn.Sequential(*layers(inputs, bottleneck, 1), *layers(bottleneck, growth, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, inputs + growth, h, w]; the first channels are the inputs."""
        return torch.cat([inputs, self.way(inputs)], dim=1)


class TwoWayLayer(nn.Module):
    """The two-way dense layer of figure 1: [x, 3x3 of a bottleneck of x, 3x3 of 3x3 of another one].

    Each way adds k/2 channels; they see 3x3 and 5x5 pixels.

    Args:
        inputs, growth, layers: see `OneWayLayer`; growth is even.
        bottleneck: channels of both ways' bottlenecks together. A way has half of them, rounded down to a
            multiple of four, and where that is more than half of the inputs, inputs/8 rounded down, times
            four (the authors' code; it never happens with the paper's widths).
    """

    def __init__(self, inputs: int, growth: int, bottleneck: int, layers: Layers) -> None:
        super().__init__()
        half, width = growth // 2, bottleneck // 8 * 4
        if width > inputs / 2:
            width = inputs // 8 * 4
        # inputs below 8 and bottlenecks below 8 leave a way no channel by these rules
        width = max(width, 1)
        self.short = nn.Sequential(*layers(inputs, width, 1), *layers(width, half, 3))
        self.long = nn.Sequential(*layers(inputs, width, 1), *layers(width, half, 3), *layers(half, half, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, inputs + growth, h, w]; the first channels are the inputs."""
        return torch.cat([inputs, self.short(inputs), self.long(inputs)], dim=1)


class PeleeNet(nn.Module):
    """A stem, stages of dense layers, global average pooling, dropout, logits.

    A stage is a 2x2 average pool (none in the first), its dense layers, and a transition: a 1x1 convolution.
    So the outputs of stages, which `features` names and `sources` gives, are those before a pool: at 304x304
    pixels with `ceil_mode` the third is [512, 19, 19] and the fourth [704, 10, 10], the detector's first two.

    With 1,000 classes at 224x224 PeleeNet has 2.8 M parameters, 508 M multiply-adds, 113 convolutions.

    Args:
        shape: (channels, height, width); without `ceil_mode` at least as many pixels a side as its halvings
            multiply to, 32 in the paper's form.
        classes: number of logits.
        blocks: dense layers of each stage.
        growth: k, the channels that a dense layer adds; even.
        stem: channels of the stem; even.
        stem_block: the paper's `StemBlock`, or a 3x3 convolution and a 2x2 max-pool.
        stem_stride: of the stem's first convolution, 2, or 1 for small images.
        bottleneck: for each stage the channels of a bottleneck as a multiple of `growth`. 4 throughout is
            DenseNet's; 1, 2, 4, 4 the paper's dynamic one.
        compression: a transition gives this times its inputs' channels, rounded down.
        post_activation: convolution, batch normalisation, ReLU, so that the normalisation folds into the
            convolution; or DenseNet's batch normalisation, ReLU, convolution, which does not fold.
        two_way: dense layers are `TwoWayLayer`s, or `OneWayLayer`s.
        last_transition: whether the last stage ends in a transition too.
        ceil_mode: pools between stages round odd sizes up, as Caffe does (the detector), or down.
        dropout: probability before the logits, in [0, 1).
        norm_eps, norm_momentum: of batch normalisation; 1e-5 and 0.1 in PyTorch, 1e-3 and 0.001 in the
            authors' Caffe form of the detector.

    Raises:
        UserError: inputs that are no images or are too small, no classes, numbers out of range.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        blocks: list[int],
        growth: int,
        stem: int,
        stem_block: bool,
        stem_stride: int,
        bottleneck: list[float],
        compression: float,
        post_activation: bool,
        two_way: bool,
        last_transition: bool,
        ceil_mode: bool,
        dropout: float,
        norm_eps: float,
        norm_momentum: float,
    ) -> None:
        super().__init__()
        require_sizes("blocks", blocks)
        _require_even(growth=growth, stem=stem)
        _require_bottleneck(len(blocks), bottleneck)
        _require_numbers(stem_stride, compression, norm_eps, norm_momentum)
        require_dropout(dropout)
        smallest = 1 if ceil_mode else stem_stride * 2 ** len(blocks)
        channels, _, _ = require_image("peleenet", shape, smallest=smallest)
        self.stem = _stem(channels, stem, stem_block, stem_stride)
        layers: Layers = conv_norm_relu if post_activation else _norm_relu_conv
        layer = TwoWayLayer if two_way else OneWayLayer
        self.stages = nn.Sequential()
        widths, width = [], stem
        for stage, (count, times) in enumerate(zip(blocks, bottleneck, strict=True)):
            parts: list[nn.Module] = [nn.AvgPool2d(2, ceil_mode=ceil_mode)] if stage > 0 else []
            for _ in range(count):
                parts.append(layer(width, growth, max(1, int(times * growth)), layers))
                width += growth
            if stage < len(blocks) - 1 or last_transition:
                outputs = max(1, int(compression * width))
                parts += layers(width, outputs, 1)
                width = outputs
            self.stages.append(nn.Sequential(*parts))
            widths.append(width)
        self.features = tuple(f"stages.{stage}" for stage in range(len(blocks)))
        self.source_channels = tuple(widths)
        last = [] if post_activation else [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.norm = nn.Sequential(*last)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), linear(width, require_classes("peleenet", classes))
        )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = norm_eps, norm_momentum

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        outputs = self.norm(self.stages(self.stem(inputs)))
        return self.classifier(outputs.mean(dim=(2, 3)))

    def sources(self, images: Tensor) -> list[Tensor]:
        """The outputs of all stages: maps that a detector sees (`common.detection.ssd`)."""
        return chained(self.stages, self.stem(images))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.stages, self.features, unshared)
        head = (self.norm, SpatialMean(), self.classifier)
        return nn.Sequential(self.stem, low), nn.Sequential(high, *head)


def _stem(inputs: int, channels: int, block: bool, stride: int) -> nn.Module:
    if block:
        return StemBlock(inputs, channels, stride)
    pool = nn.MaxPool2d(2, ceil_mode=True)
    return nn.Sequential(*conv_norm_relu(inputs, channels, 3, stride), pool)


def _norm_relu_conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), conv(inputs, outputs, kernel)]


def _require_even(**sizes: int) -> None:
    for key, size in sizes.items():
        if size < 2 or size % 2:
            raise UserError(f"model.{key}={size}; valid: an even number >= 2")


def _require_bottleneck(stages: int, bottleneck: list[float]) -> None:
    if len(bottleneck) != stages or not all(0 < times < math.inf for times in bottleneck):
        raise UserError(
            f"model.bottleneck={list(bottleneck)}; valid: {stages} positive numbers, one for each stage"
        )


def _require_numbers(stem_stride: int, compression: float, norm_eps: float, norm_momentum: float) -> None:
    if stem_stride not in (1, 2):
        raise UserError(f"model.stem_stride={stem_stride}; valid: 1 or 2")
    if not 0 < compression <= 1:
        raise UserError(f"model.compression={compression}; valid: above 0, up to 1")
    if not 0 < norm_eps < math.inf:
        raise UserError(f"model.norm_eps={norm_eps}; valid: above 0 and finite")
    if not 0 < norm_momentum <= 1:
        raise UserError(f"model.norm_momentum={norm_momentum}; valid: above 0, up to 1")
