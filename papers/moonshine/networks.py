"""The networks of Moonshine: a teacher's depth and width, with any block of `papers.moonshine.blocks`."""

from torch import nn

from common.base.errors import UserError
from common.models.imagenet_resnet import ImageNetNetwork
from common.models.preact_resnet import PreactNetwork
from common.models.shapes import require_classes, require_image, require_sizes
from common.models.wide_resnet import WideResNet
from papers.moonshine.blocks import parse_block


class MoonshineWideResNet(WideResNet):
    """WRN-depth-width with another block (section 4.1); the stem and the 1x1 shortcuts stay as they are.

    Depth counts as in the teacher: WRN-40 has six residual blocks a stage whatever the block, two
    convolutions each for S and G, one bottleneck each for B and BG. Convolutions start at
    N(0, 2 / (k² outputs)), groups or not; the classifier's bias at 0.

    Args:
        shape: (channels, height, width), at least 4 pixels a side.
        classes: number of logits.
        depth: 6n + 4.
        width: factor of the channels 16-32-64.
        block: in the paper's notation, see `parse_block`.

    Raises:
        UserError: no such block, groups that do not divide the channels; else as WideResNet.
    """

    def __init__(
        self, *, shape: tuple[int, ...], classes: int | None, depth: int, width: int, block: str
    ) -> None:
        residual = parse_block(block).residual
        super().__init__(shape=shape, classes=classes, depth=depth, width=width, residual=residual)


class MoonshineSmallNet(PreactNetwork):
    """The same kind of network in any size, for small images: stages of given widths and numbers of blocks.

    Args:
        shape: (channels, height, width), at least 2 pixels a side for each stage after the first.
        classes: number of logits.
        widths: channels of each stage; the stem has as many as the first.
        blocks: number of blocks in each stage.
        block: in the paper's notation, see `parse_block`.

    Raises:
        UserError: widths and blocks that are not as many or below 1; else as MoonshineWideResNet.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        widths: list[int],
        blocks: list[int],
        block: str,
    ) -> None:
        _require_stages(widths, blocks)
        channels, _, _ = require_image("moonshine_small", shape, smallest=2 ** (len(widths) - 1))
        super().__init__(
            channels=channels,
            stem=widths[0],
            outputs=widths,
            blocks=blocks,
            residual=parse_block(block).residual,
            half=False,
            classes=require_classes("moonshine_small", classes),
        )
        nn.init.zeros_(self.classifier.bias)


class MoonshineResNet(ImageNetNetwork):
    """A ResNet of basic blocks for ImageNet with another block (section 4.2).

    BN and ReLU follow each convolution; the 7x7 stem and the 1x1 shortcuts with their BN stay as they are.
    Blocks 3-4-6-3 and widths 64-128-256-512 are the teacher's, ResNet-34; blocks 2-2-2-2 and widths
    64-64-128-256 are Res18-0.5.

    Args:
        shape: (channels, height, width), at least 32 pixels a side.
        classes: number of logits.
        blocks: number of blocks in each stage.
        widths: channels of each stage; the stem has as many as the first.
        block: in the paper's notation, see `parse_block`.

    Raises:
        UserError: no such block, groups that do not divide the channels; else as ImageNetNetwork.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        blocks: list[int],
        widths: list[int],
        block: str,
    ) -> None:
        _require_stages(widths, blocks)
        super().__init__(
            name="moonshine_resnet_imagenet",
            shape=shape,
            classes=classes,
            stem=widths[0],
            blocks=blocks,
            outputs=widths,
            residual=parse_block(block).post_residual,
        )


def _require_stages(widths: list[int], blocks: list[int]) -> None:
    require_sizes("widths", widths)
    require_sizes("blocks", blocks)
    if len(widths) != len(blocks):
        raise UserError(
            f"model.blocks={list(blocks)}; valid: {len(widths)} numbers, one for each of the widths"
        )
