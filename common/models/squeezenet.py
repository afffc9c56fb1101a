"""SqueezeNet v1.0 (Iandola et al. 2016, arXiv 1602.07360)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.base.errors import UserError
from common.models.classifier import require_dropout
from common.models.shapes import require_classes, require_image, require_positive, require_sizes
from common.models.split import SpatialMean, cut


class Fire(nn.Module):
    """cat(1x1(s), 3x3(s)) of the squeezed maps s = 1x1(x), ReLU after each convolution (figure 1).

    Args:
        inputs: channels.
        squeeze: channels of s.
        expand: channels of each of the two convolutions of s.
    """

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, 2 expand, h, w]."""
        squeezed = F.relu(self.squeeze(inputs))
        return torch.cat([F.relu(self.expand1(squeezed)), F.relu(self.expand3(squeezed))], 1)


class SqueezeNet(nn.Module):
    """A stem, fire modules between three 3x3 max poolings of stride 2, a 1x1 convolution to the classes.

    The net of table 1 has a 7x7 stem of 96 channels with stride 2 and 1,248,424 parameters on ImageNet. There
    is no batch normalisation and no linear layer; the logits are the last maps, after ReLU, pooled. Weights
    start as in torchvision: He et al.'s uniform, those of the last convolution N(0, 0.01²).

    `features`: the last fire module of each size.

    Args:
        shape: (channels, height, width); stem and poolings must leave a pixel.
        classes: number of logits.
        stem: channels of the first convolution.
        stem_kernel, stem_stride: of it; without padding, as in the paper.
        stages: between poolings, rows (squeeze, expand) of the fire modules.
        dropout: probability before the last convolution, in [0, 1).

    Raises:
        UserError: inputs that are no images or are too small, no classes, numbers out of range.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        stem: int,
        stem_kernel: int,
        stem_stride: int,
        stages: list[list[tuple[int, int]]],
        dropout: float,
    ) -> None:
        super().__init__()
        for key, value in (("stem", stem), ("stem_kernel", stem_kernel), ("stem_stride", stem_stride)):
            require_positive(key, value)
        require_dropout(dropout)
        _require_fires(stages)
        # the last pooling still has to find two pixels
        smallest = stem_kernel + stem_stride * 2 ** len(stages)
        inputs, _, _ = require_image("squeezenet", shape, smallest=smallest)
        count = require_classes("squeezenet", classes)
        self.stem = nn.Sequential(nn.Conv2d(inputs, stem, stem_kernel, stem_stride), nn.ReLU(inplace=True))
        blocks: list[nn.Module] = []
        ends = []
        channels = stem
        for stage in stages:
            blocks.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for squeeze, expand in stage:
                blocks.append(Fire(channels, squeeze, expand))
                channels = 2 * expand
            ends.append(len(blocks) - 1)
        self.blocks = nn.Sequential(*blocks)
        self.features = tuple(f"blocks.{end}" for end in ends)
        last = nn.Conv2d(channels, count, 1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), last, nn.ReLU(inplace=True))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(last.weight, std=0.01)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.blocks(self.stem(inputs))).mean(dim=(2, 3))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.blocks, self.features, unshared)
        return nn.Sequential(self.stem, low), nn.Sequential(high, self.classifier, SpatialMean())


def _require_fires(stages: list[list[tuple[int, int]]]) -> None:
    """Refuse stages that are not made of pairs of sizes.

    Raises:
        UserError: see above.
    """
    for stage in stages or [[]]:
        for row in stage:
            if len(row) != 2:
                raise UserError(f"model.stages: {list(row)}; valid: pairs of squeeze and expand channels")
        require_sizes("stages", [size for row in stage for size in row])
