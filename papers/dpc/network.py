"""The whole network: a backbone, a context module, DeepLabv3+'s decoder, and logits at the images' size."""

import copy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.limits import require
from common.models.resizing import resized
from common.models.shapes import require_classes, require_image
from papers.dpc.backbones import Backbone, make_backbone, padded, padded_side
from papers.dpc.cell import Cell, cell_of
from papers.dpc.heads import (
    ASPP,
    RATES_AT_STRIDE,
    AtrousSeparable,
    DensePredictionCell,
    HeadSettings,
    PoolingForm,
    map_of,
    pointwise_conv,
    truncated_normal,
)

LOGITS_STD = 0.01
DECODER_LOW, DECODER_WIDTH = 48, 256


class Decoder(nn.Module):
    """DeepLabv3+'s (Chen et al., ECCV 2018): the low map in 48 channels beside the head's output, two 3x3.

    Args:
        channels: of the head's output.
        low_channels: of the map of stride 4.
        momentum: of batch normalisation.
    """

    def __init__(self, channels: int, low_channels: int, momentum: float) -> None:
        super().__init__()
        self.low = pointwise_conv(low_channels, DECODER_LOW, momentum)
        self.convs = nn.Sequential(
            AtrousSeparable(channels + DECODER_LOW, DECODER_WIDTH, (1, 1), momentum),
            AtrousSeparable(DECODER_WIDTH, DECODER_WIDTH, (1, 1), momentum),
        )
        self.outputs = DECODER_WIDTH

    def forward(self, head: Tensor, low: Tensor) -> Tensor:
        """[b, channels, h, w] and [b, low_channels, H, W] to [b, 256, H, W]."""
        return self.convs(torch.cat([resized(head, low.shape[2:]), self.low(low)], 1))


def classifier(channels: int, classes: int) -> nn.Conv2d:
    """The 1x1 convolution that gives the logits."""
    layer = nn.Conv2d(channels, classes, 1)
    truncated_normal(layer.weight, LOGITS_STD)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def make_head(
    head: str | list[dict[str, Any]], channels: int, settings: HeadSettings
) -> DensePredictionCell | ASPP:
    """ASPP by its name, else the cell that `cell_of` finds.

    Raises:
        UserError: it is neither.
    """
    if head == "aspp":
        return ASPP(channels, settings)
    return DensePredictionCell(cell_of(head), channels, settings)


class DeepLab(nn.Module):
    """Semantic segmentation by a backbone, a context module and, if wanted, a decoder.

    Images are filled up at the right and at the bottom to sides of stride * k + 1 and the logits cut off
    again, so that any size goes in. Everything is resized bilinearly with aligned corners.

    Args:
        shape: (channels, height, width); other sizes go in too.
        classes: number of logits.
        backbone: `xception_65`, `xception_71`, `mobilenet_v2` or `small`.
        width: channels of `small`; the others have their own.
        output_stride: of the backbone's last map: 16 or 8; 4 of `small`. Rates are those of stride 16,
            doubled at 8.
        head: `aspp`, `top1`, `aspp_cell`, `worst`, `pointwise`, a list of branches, or the path of a JSON
            file.
        filters: channels of each branch.
        decoder: whether there is one.
        pooling, dropout: see `HeadSettings`.
        pooling_crop: [height, width] of the images that official pooling windows are made for, whatever
            comes; null: those that come (the official code's `image_pooling_crop_size`).
        momentum: of batch normalisation in head and decoder, 1 - decay.
        weight_decay: w of the penalty w / 2 ||.||² on the weights of all convolutions that are not
            depthwise, of the backbone too; none on biases and batch normalisation.
        class_weights: c of ENet's weights of classes; null weighs all alike.
        test_scales, test_flip: how images are looked at where the network is judged, see
            `common.training.segmentation.Views`.

    Raises:
        UserError: a value out of range, or that does not go with another.
    """

    task: ClassVar[Literal["segmentation"]] = "segmentation"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        backbone: str,
        width: int,
        output_stride: int,
        head: str | list[dict[str, Any]],
        filters: int,
        decoder: bool,
        pooling: PoolingForm,
        pooling_crop: list[int] | None,
        dropout: float,
        momentum: float,
        weight_decay: float,
        class_weights: float | None,
        test_scales: list[float],
        test_flip: bool,
    ) -> None:
        super().__init__()
        require("at least 1", "model", width=width, filters=filters)
        require("from 0 to 1", "model", dropout=dropout, momentum=momentum)
        require("at least 0", "model", weight_decay=weight_decay)
        channels, _, _ = require_image("deeplab", shape, smallest=1)
        self.classes = require_classes("deeplab", classes)
        self.backbone: Backbone = make_backbone(backbone, channels, output_stride, width)
        self.settings = HeadSettings(
            filters,
            rate_multiplier(output_stride),
            pooling,
            _pooling_map(pooling_crop, output_stride),
            momentum,
            dropout,
        )
        self.head = make_head(head, self.backbone.channels, self.settings)
        self.decoder: Decoder | None = None
        if decoder:
            if self.backbone.low_channels is None:
                raise UserError(
                    f"model.decoder=true: {backbone} has no map of stride 4 for it (valid: false)"
                )
            self.decoder = Decoder(self.head.outputs, self.backbone.low_channels, momentum)
        last = self.head.outputs if self.decoder is None else self.decoder.outputs
        self.classifier = classifier(last, self.classes)
        self.weight_decay, self.class_weights = weight_decay, class_weights
        self.test_scales, self.test_flip = test_scales, test_flip

    def forward(self, images: Tensor) -> Tensor:
        """[b, channels, H, W] to logits [b, classes, H, W]."""
        filled = padded(images, self.backbone.output_stride)
        maps = self.backbone.maps(filled)
        found = self.head(maps.features)
        if self.decoder is not None:
            assert maps.low is not None
            found = self.decoder(found, maps.low)
        height, width = images.shape[2:]
        return resized(self.classifier(found), filled.shape[2:])[..., :height, :width]

    def with_head(self, cell: Cell) -> "DeepLab":
        """A copy with another cell and new weights from the head on; the backbone's stay."""
        other = copy.deepcopy(self)
        other.head = DensePredictionCell(cell, self.backbone.channels, self.settings)
        other.decoder = None
        if self.decoder is not None:
            assert self.backbone.low_channels is not None
            other.decoder = Decoder(other.head.outputs, self.backbone.low_channels, self.settings.momentum)
        last = other.head.outputs if other.decoder is None else other.decoder.outputs
        other.classifier = classifier(last, self.classes)
        return other

    def on_features(self, cell: Cell, image: tuple[int, int]) -> "CellOnFeatures":
        """A new cell and classifier for maps of this backbone, without decoder.

        Args:
            image: (H, W) of the images that the maps are of.
        """
        return CellOnFeatures(
            cell, self.backbone.channels, self.settings, self.classes, image, self.backbone.output_stride
        )

    def penalty(self) -> Tensor | float:
        """w / 2 times the sum of squares of what is decayed."""
        return decay_of(self, self.weight_decay)


class CellOnFeatures(nn.Module):
    """A cell and a classifier on cached maps: logits at the images' size.

    Args:
        cell, channels, settings: see `DensePredictionCell`.
        classes: number of logits.
        image: (H, W) of the images that the maps are of.
        output_stride: of the maps.
    """

    def __init__(
        self,
        cell: Cell,
        channels: int,
        settings: HeadSettings,
        classes: int,
        image: tuple[int, int],
        output_stride: int,
    ) -> None:
        super().__init__()
        self.head = DensePredictionCell(cell, channels, settings)
        self.classifier = classifier(self.head.outputs, classes)
        self.image = image
        self.filled = [padded_side(side, output_stride) for side in image]

    def forward(self, maps: Tensor) -> Tensor:
        """[b, channels, h, w] to logits [b, classes, H, W]."""
        height, width = self.image
        return resized(self.classifier(self.head(maps)), self.filled)[..., :height, :width]


def decay_of(network: nn.Module, weight_decay: float) -> Tensor | float:
    """w / 2 times the sum of squares of the weights of all convolutions that are not depthwise."""
    if weight_decay == 0:
        return 0.0
    decayed = [
        layer.weight
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d) and layer.weight.requires_grad and layer.groups == 1
    ]
    return weight_decay / 2 * torch.stack(torch._foreach_norm(decayed)).square().sum()


def rate_multiplier(output_stride: int) -> int:
    """What a cell's rates are multiplied by: 2 at output stride 8; 1 at 16, and at 4, whose cells are its
    own."""
    return RATES_AT_STRIDE // output_stride if output_stride in (8, 16) else 1


def _pooling_map(crop: list[int] | None, output_stride: int) -> tuple[int, int] | None:
    if crop is None:
        return None
    if len(crop) != 2 or min(crop) < 1:
        raise UserError(f"model.pooling_crop={list(crop)}: give [height, width], each at least 1, or null")
    return map_of((crop[0], crop[1]), output_stride)
