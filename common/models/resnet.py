"""Residual networks for small images: He, Zhang, Ren, Sun, "Deep Residual Learning", CVPR 2016."""

from collections.abc import Callable
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from common.models.convolution import conv, conv_norm_relu
from common.models.shapes import (
    require_classes,
    require_depth,
    require_image,
    require_positive,
    require_sizes,
)
from common.models.split import SpatialMean, cut
from common.models.stages import chained


class PaddedShortcut(nn.Module):
    """Option A (section 3.3): identity, subsampled by the stride, extra channels filled with zeros.

    It has no parameters.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = outputs - inputs, stride

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h/stride, w/stride]."""
        return functional.pad(inputs[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def shortcut_path(option: Literal["A", "B"], inputs: int, outputs: int, stride: int) -> nn.Module:
    """The shortcut of a block: identity where shapes agree, else option A or B (1x1 convolution, BN)."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    if option == "A":
        return PaddedShortcut(inputs, outputs, stride)
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """relu(residual(x) + shortcut(x)); `residual` ends in batch normalisation."""

    def __init__(self, residual: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual, self.shortcut = residual, shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h/stride, w/stride]."""
        return functional.relu_(self.residual(inputs) + self.shortcut(inputs))


def basic_residual(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Two 3x3 convolutions (figure 5, left)."""
    return nn.Sequential(
        *conv_norm_relu(inputs, outputs, 3, stride), conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
    )


def bottleneck_residual(inputs: int, outputs: int, stride: int) -> nn.Module:
    """1x1 to outputs/4 channels, 3x3 with the stride, 1x1 to `outputs` (figure 5, right).

    The paper's own code has the stride in the first 1x1; in the 3x3 it loses no inputs, as in
    torchvision.
    """
    return grouped_bottleneck(inputs, outputs // 4, outputs, stride, groups=1)


def grouped_bottleneck(inputs: int, width: int, outputs: int, stride: int, groups: int) -> nn.Module:
    """1x1 to `width` channels, 3x3 in groups with the stride, 1x1 to `outputs`."""
    return nn.Sequential(
        *conv_norm_relu(inputs, width, 1),
        *conv_norm_relu(width, width, 3, stride, groups),
        conv(width, outputs, 1),
        nn.BatchNorm2d(outputs),
    )


# (inputs, outputs, stride) to the residual path of a block
Residual = Callable[[int, int, int], nn.Module]

RESIDUALS: dict[str, Residual] = {"basic": basic_residual, "bottleneck": bottleneck_residual}
EXPANSION = {"basic": 1, "bottleneck": 4}
CONVOLUTIONS = {"basic": 2, "bottleneck": 3}


class ResidualNetwork(nn.Module):
    """A stem, stages of residual blocks, global average pooling, logits: what this family shares.

    Every stage but the first halves the image.

    Args:
        stem: from the image to `inputs` channels.
        inputs: channels that the first stage gets.
        outputs: channels that each stage gives.
        blocks: number of blocks in each stage.
        residual: makes the residual path of a block.
        shortcut: where the shape changes, "A" (zero padding) or "B" (1x1 convolution).
        classes: number of logits.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        stem: nn.Module,
        inputs: int,
        outputs: list[int],
        blocks: list[int],
        residual: Residual,
        shortcut: Literal["A", "B"],
        classes: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        stages = []
        for stage, (channels, count) in enumerate(zip(outputs, blocks, strict=True)):
            stages.append(_stage(inputs, channels, count, 1 if stage == 0 else 2, residual, shortcut))
            inputs = channels
        self.stages = nn.Sequential(*stages)
        self.features = tuple(f"stages.{stage}" for stage in range(len(stages)))
        self.source_channels = tuple(outputs)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.stages(self.stem(inputs)).mean(dim=(2, 3)))

    def sources(self, inputs: Tensor) -> list[Tensor]:
        """The outputs of all stages: maps that a detector sees (`common.detection.ssd`)."""
        return chained(self.stages, self.stem(inputs))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.stages, self.features, unshared)
        return nn.Sequential(self.stem, low), nn.Sequential(high, SpatialMean(), self.classifier)


class ResNet(ResidualNetwork):
    """A 3x3 stem, stages of residual blocks, global average pooling, logits.

    Every stage but the first halves the image and doubles the width. Blocks 3-4-6-3, bottleneck,
    width 64, shortcut B is ResNet-50 (table 1) with a 3x3 stem for 32x32 images: 23,520,842
    parameters with 10 classes.

    Args:
        shape: (channels, height, width).
        classes: number of logits.
        blocks: number of blocks in each stage.
        width: channels of the first stage (its bottlenecks' inner ones).
        block: "basic" or "bottleneck".
        shortcut: where the shape changes, "A" (zero padding) or "B" (1x1 convolution).

    Raises:
        UserError: inputs that are no images or are halved to nothing, no classes, numbers below 1.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        blocks: list[int],
        width: int,
        block: Literal["basic", "bottleneck"],
        shortcut: Literal["A", "B"],
    ) -> None:
        require_sizes("blocks", blocks)
        require_positive("width", width)
        channels, _, _ = require_image("resnet", shape, smallest=2 ** (len(blocks) - 1))
        super().__init__(
            stem=nn.Sequential(*conv_norm_relu(channels, width, 3)),
            inputs=width,
            outputs=[EXPANSION[block] * width * 2**stage for stage in range(len(blocks))],
            blocks=blocks,
            residual=RESIDUALS[block],
            shortcut=shortcut,
            classes=require_classes("resnet", classes),
        )


class CifarResNet(ResNet):
    """The paper's networks for CIFAR-10 (section 4.2): three stages of n blocks, 16-32-64 channels.

    Depth 6n + 2 with basic blocks; 9n + 2 with bottlenecks (He et al. 2016, "Identity mappings",
    keeps the same rule). With option A, the paper's choice, ResNet-20 has 269,722 parameters, with B
    272,474.

    Args:
        shape: (channels, height, width).
        classes: number of logits.
        depth: number of layers with weights, shortcuts apart.
        block: "basic" or "bottleneck".
        shortcut: "A" or "B".

    Raises:
        UserError: a depth that no n gives; else as ResNet.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        depth: int,
        block: Literal["basic", "bottleneck"],
        shortcut: Literal["A", "B"],
    ) -> None:
        n = require_depth(depth, 3 * CONVOLUTIONS[block], 2, f" with {block} blocks")
        super().__init__(
            shape=shape, classes=classes, blocks=[n, n, n], width=16, block=block, shortcut=shortcut
        )


def _stage(
    inputs: int, outputs: int, count: int, stride: int, residual: Residual, shortcut: Literal["A", "B"]
) -> nn.Sequential:
    """`count` blocks, the first with the stride."""
    layers: list[nn.Module] = []
    for _ in range(count):
        path = residual(inputs, outputs, stride)
        layers.append(ResidualBlock(path, shortcut_path(shortcut, inputs, outputs, stride)))
        inputs, stride = outputs, 1
    return nn.Sequential(*layers)
