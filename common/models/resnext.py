"""ResNeXt: Xie, Girshick, Dollar, Tu, He, "Aggregated Residual Transformations", CVPR 2017."""

from functools import partial

from torch import nn

from common.models.convolution import conv_norm_relu
from common.models.imagenet_resnet import ImageNetNetwork
from common.models.resnet import ResidualNetwork, grouped_bottleneck
from common.models.shapes import require_classes, require_depth, require_image, require_positive


def resnext_residual(
    inputs: int, outputs: int, stride: int, *, cardinality: int, group_width: int
) -> nn.Module:
    """1x1 to D = cardinality group_width outputs/256 channels, 3x3 in groups, 1x1 to `outputs`."""
    width = cardinality * group_width * outputs // 256
    return grouped_bottleneck(inputs, width, outputs, stride, groups=cardinality)


class CifarResNeXt(ResidualNetwork):
    """ResNeXt for CIFAR (section 5.3), depth 9n + 2: three stages of n blocks, 256-512-1024 channels.

    A 3x3 stem of 64 channels, 1x1 convolutions with BN as shortcuts where the shape changes. ResNeXt-29
    8x64d has 34,426,698 parameters with 10 classes.

    Args:
        shape: (channels, height, width), at least 4 pixels a side.
        classes: number of logits.
        depth: number of layers with weights, shortcuts apart.
        cardinality: number of groups (8 of 8x64d).
        group_width: channels of a group in the first stage (64 of 8x64d).

    Raises:
        UserError: a depth that no n gives, numbers below 1, inputs that are no images or too small, no
            classes.
    """

    def __init__(
        self, *, shape: tuple[int, ...], classes: int | None, depth: int, cardinality: int, group_width: int
    ) -> None:
        n = require_depth(depth, 9, 2)
        require_positive("cardinality", cardinality)
        require_positive("group_width", group_width)
        channels, _, _ = require_image("resnext", shape, smallest=4)
        super().__init__(
            stem=nn.Sequential(*conv_norm_relu(channels, 64, 3)),
            inputs=64,
            outputs=[256, 512, 1024],
            blocks=[n, n, n],
            residual=partial(resnext_residual, cardinality=cardinality, group_width=group_width),
            shortcut="B",
            classes=require_classes("resnext", classes),
        )


class ImageNetResNeXt(ImageNetNetwork):
    """ResNeXt for ImageNet (table 1): stages of 256-512-1024-2048 channels.

    Blocks 3-4-6-3 and 32x4d is ResNeXt-50 with 25,028,904 parameters with 1000 classes.

    Args:
        shape: (channels, height, width), at least 32 pixels a side.
        classes: number of logits.
        blocks: number of blocks in each of the four stages.
        cardinality: number of groups (32 of 32x4d).
        group_width: channels of a group in the first stage (4 of 32x4d).

    Raises:
        UserError: not four numbers of blocks, numbers below 1, inputs that are no images or too small, no
            classes.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        blocks: list[int],
        cardinality: int,
        group_width: int,
    ) -> None:
        require_positive("cardinality", cardinality)
        require_positive("group_width", group_width)
        super().__init__(
            name="resnext",
            shape=shape,
            classes=classes,
            stem=64,
            blocks=blocks,
            outputs=[256, 512, 1024, 2048],
            residual=partial(resnext_residual, cardinality=cardinality, group_width=group_width),
        )
