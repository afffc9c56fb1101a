"""The blocks of ChannelNets: depthwise separable convolutions in groups, and the group modules of them."""

from typing import Literal

import torch
from torch import Tensor, nn

from papers.channelnets.layers import (
    GroupChannelwiseConv,
    SeparableChannelwiseConv,
    require_choice,
    require_groups,
    require_sizes,
)

ResidualPlace = Literal["outer", "inner"]


class SeparableConv(nn.Sequential):
    """DWSConv: 3x3 depthwise, 1x1 in g groups, dropout, batch normalisation, ReLU6.

    Nothing stands between the two convolutions, unlike in MobileNet. 9 m + m n / g weights without those of
    batch normalisation.

    Args:
        inputs: m channels.
        outputs: n channels.
        stride: of the depthwise convolution.
        groups: g, of the 1x1 convolution; divides m and n.
        dropout: probability, after the 1x1 convolution.

    Raises:
        UserError: groups that do not divide the channels.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, *, groups: int = 1, dropout: float = 0.0
    ) -> None:
        name = type(self).__name__
        require_sizes(name, inputs=inputs, outputs=outputs, stride=stride)
        for channels in (inputs, outputs):
            require_groups(name, channels, groups)
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False),
            *_normalised(outputs, dropout),
        )


class SeparableChannelwiseBlock(nn.Sequential):
    """DWSCWConv as a layer of a network: with batch normalisation and ReLU6 after it, as a DWSConv has.

    Args:
        channels: of inputs and outputs.
        kernel: d_c.
        dropout: probability, after the convolution.

    Raises:
        UserError: as `SeparableChannelwiseConv`.
    """

    def __init__(self, channels: int, kernel: int, *, dropout: float = 0.0) -> None:
        super().__init__(SeparableChannelwiseConv(channels, kernel), *_normalised(channels, dropout))


class GroupModule(nn.Module):
    """GM: x + two DWSConv of C channels in g groups. With g = 1, two DWSConv with a residual.

    Args:
        channels: C, of inputs and outputs.
        groups: g, divides C.
        dropout: see `SeparableConv`.

    Raises:
        UserError: groups that do not divide the channels.
    """

    def __init__(self, channels: int, groups: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        require_groups(type(self).__name__, channels, groups)
        self.units = separable_pair(channels, groups, dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, C, h, w] to the same shape."""
        return inputs + self.units(inputs)


class GroupChannelwiseModule(nn.Module):
    """GCWM: a GM with a group channel-wise convolution after its second DWSConv, which mixes the groups.

    The paper's text has it within the block, x + gcw(units(x)) ("outer"); read from its figure it follows
    the sum, gcw(x + units(x)) ("inner"). Neither normalisation nor activation follow it, as in the code.

    Args:
        channels: C, of inputs and outputs.
        groups: g, of all convolutions; divides C.
        kernel: d_c, of the channel-wise kernels.
        residual: see above.
        dropout: see `SeparableConv`.

    Raises:
        UserError: groups that do not divide the channels, a kernel longer than these.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        kernel: int,
        *,
        residual: ResidualPlace = "outer",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        require_choice(name, "residual", residual, ("outer", "inner"))
        require_groups(name, channels, groups)
        self.residual = residual
        self.units = separable_pair(channels, groups, dropout)
        self.gcw = GroupChannelwiseConv(channels, groups, kernel)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, C, h, w] to the same shape."""
        if self.residual == "outer":
            return inputs + self.gcw(self.units(inputs))
        return self.gcw(inputs + self.units(inputs))


class CodeGroupModule(nn.Module):
    """The authors' code's block: a group channel-wise convolution first, units(gcw(x)), with or without x.

    The outputs of kernel j are what group j of the units takes.

    Args:
        channels, groups, kernel, dropout: see `GroupChannelwiseModule`; dropout follows the channel-wise
            convolution too.
        residual: whether the block's inputs are added.

    Raises:
        UserError: as `GroupChannelwiseModule`.
    """

    def __init__(
        self, channels: int, groups: int, kernel: int, *, residual: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        require_groups(type(self).__name__, channels, groups)
        self.gcw = GroupChannelwiseConv(channels, groups, kernel)
        self.dropout = nn.Dropout(dropout)
        self.units = separable_pair(channels, groups, dropout)
        self.residual = residual

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, C, h, w] to the same shape."""
        outputs = self.units(self.dropout(self.gcw(inputs)))
        return inputs + outputs if self.residual else outputs


class Joined(nn.Module):
    """The outputs of two layers in a row, joined along the channels: cat(first(x), second(first(x)))."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps whose channels are those of both layers; the second keeps the size of the first's."""
        middle = self.first(inputs)
        return torch.cat([middle, self.second(middle)], 1)


def separable_pair(channels: int, groups: int, dropout: float = 0.0) -> nn.Sequential:
    """Two DWSConv in a row: what a GM adds to its inputs."""
    return nn.Sequential(
        *(SeparableConv(channels, channels, groups=groups, dropout=dropout) for _ in range(2))
    )


def _normalised(channels: int, dropout: float) -> list[nn.Module]:
    return [nn.Dropout(dropout), nn.BatchNorm2d(channels), nn.ReLU6(inplace=True)]
