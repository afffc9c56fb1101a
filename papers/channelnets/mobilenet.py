"""MobileNet v2 with group channel-wise convolutions, of the journal version (TPAMI 2020)."""

from typing import TypedDict, Unpack

from torch import nn

from common.base.errors import UserError
from common.models.convolution import conv
from common.models.mobilenet import InvertedResidual, MobileNetV2
from papers.channelnets.layers import GroupChannelwiseConv, require_groups
from papers.channelnets.network import naming


class Settings(TypedDict):
    """What `MobileNetV2` takes, where its blocks are the whole ones."""

    shape: tuple[int, ...]
    classes: int | None
    stages: list[tuple[int, int, int, int]]
    hidden: list[int] | None
    stem_stride: int
    expand_always: bool
    projection: bool
    dropout: float


class ChannelMobileNetV2(MobileNetV2):
    """MobileNet v2 whose later blocks have 1x1 convolutions in groups, mixed by a channel-wise convolution.

    Of the journal version we know only that it saves 0.4 M parameters. As GCWM stand in ChannelNet for layers
    of equal channels, here every block with an identity shortcut in the stages `grouped` has its two 1x1
    convolutions in g groups, and a group channel-wise convolution after the second: x + gcw(residual(x)).
    With g = 2 in the stages of 96 and 160 channels that saves 417,728 of 3,504,872 parameters.

    Args:
        grouped: positions of these stages in `stages`, from 0.
        groups: g, divides their channels.
        gcw_kernel: d_c.
        settings: see `MobileNetV2`.

    Raises:
        UserError: as `MobileNetV2`; a stage that there is not, or without a block with an identity shortcut;
            what a layer refuses, with its block.
    """

    def __init__(
        self, *, grouped: list[int], groups: int, gcw_kernel: int, **settings: Unpack[Settings]
    ) -> None:
        super().__init__(**settings)
        first = 0
        for position, (_, _, count, _) in enumerate(settings["stages"]):
            if position in grouped:
                self._group(range(first, first + count), position, groups, gcw_kernel)
            first += count
        beyond = [position for position in grouped if not 0 <= position < len(settings["stages"])]
        if beyond:
            raise UserError(f"model.grouped={list(grouped)}; valid: 0 to {len(settings['stages']) - 1}")

    def _group(self, blocks: range, stage: int, groups: int, kernel: int) -> None:
        """Put the blocks of one stage that keep their channels into groups."""
        changed = 0
        for number in blocks:
            block = self.blocks[number]
            assert isinstance(block, InvertedResidual)
            if isinstance(block.shortcut, nn.Identity):
                with naming(f"blocks.{number}"):
                    block.residual = _in_groups(block.residual, groups, kernel)
                changed += 1
        if not changed:
            raise UserError(
                f"model.grouped: stage {stage} has no block with an identity shortcut; valid: others"
            )


def _in_groups(residual: nn.Module, groups: int, kernel: int) -> nn.Sequential:
    """The same layers, 1x1 convolutions in groups, then the channel-wise convolution."""
    layers = list(residual.children())
    outputs = 0
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            outputs = layer.out_channels
            if layer.kernel_size == (1, 1):
                for channels in (layer.in_channels, outputs):
                    require_groups("InvertedResidual", channels, groups)
                layers[i] = conv(layer.in_channels, outputs, 1, groups=groups)
    return nn.Sequential(*layers, GroupChannelwiseConv(outputs, groups, kernel))
