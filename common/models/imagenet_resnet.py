"""Residual networks for large images: He, Zhang, Ren, Sun, "Deep Residual Learning", CVPR 2016, table 1."""

from typing import Literal

from torch import nn

from common.base.errors import UserError
from common.models.convolution import conv_norm_relu
from common.models.resnet import EXPANSION, RESIDUALS, Residual, ResidualNetwork
from common.models.shapes import require_classes, require_image, require_sizes


class ImageNetNetwork(ResidualNetwork):
    """conv 7x7 of stride 2, BN, ReLU, max-pool 3x3 of stride 2; stages of residual blocks; pooling, logits.

    Shortcut B. A side is divided by 32 in all.

    Args:
        name: of the model, for errors.
        shape: (channels, height, width), at least 32 pixels a side.
        classes: number of logits.
        stem: channels that the first stage gets.
        blocks: number of blocks in each stage.
        outputs: channels that each stage gives.
        residual: makes the residual path of a block.

    Raises:
        UserError: as many blocks as outputs are not given or below 1, inputs that are no images or too
            small, no classes.
    """

    def __init__(
        self,
        *,
        name: str,
        shape: tuple[int, ...],
        classes: int | None,
        stem: int,
        blocks: list[int],
        outputs: list[int],
        residual: Residual,
    ) -> None:
        require_sizes("blocks", blocks)
        if len(blocks) != len(outputs):
            raise UserError(f"model.blocks={list(blocks)}; valid: {len(outputs)} numbers, one for each stage")
        channels, _, _ = require_image(name, shape, smallest=32)
        pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        super().__init__(
            stem=nn.Sequential(*conv_norm_relu(channels, stem, 7, 2), pool),
            inputs=stem,
            outputs=outputs,
            blocks=blocks,
            residual=residual,
            shortcut="B",
            classes=require_classes(name, classes),
        )


class ImageNetResNet(ImageNetNetwork):
    """ResNets for ImageNet as torchvision has them: bottlenecks have the stride in the 3x3.

    Widths 64-128-256-512 and 1000 classes; blocks 2-2-2-2, basic: ResNet-18, 11,689,512 parameters; 3-4-6-3,
    basic: ResNet-34, 21,797,672; 3-4-6-3, bottleneck: ResNet-50, 25,557,032; 3-4-23-3, bottleneck:
    ResNet-101, 44,549,160.

    Args:
        shape: (channels, height, width), at least 32 pixels a side.
        classes: number of logits.
        blocks: number of blocks in each stage.
        widths: channels of each stage (its bottlenecks' inner ones); the stem has as many as the first.
        block: "basic" or "bottleneck".

    Raises:
        UserError: as ImageNetNetwork; widths below 1.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        blocks: list[int],
        widths: list[int],
        block: Literal["basic", "bottleneck"],
    ) -> None:
        require_sizes("widths", widths)
        super().__init__(
            name="imagenet_resnet",
            shape=shape,
            classes=classes,
            stem=widths[0],
            blocks=blocks,
            outputs=[EXPANSION[block] * width for width in widths],
            residual=RESIDUALS[block],
        )
