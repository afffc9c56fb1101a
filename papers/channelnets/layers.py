"""Channel-wise convolutions (Gao, Wang, Ji, NeurIPS 2018, section 3), each usable in any network.

A channel-wise convolution has d weights where a 1x1 convolution of C channels has C². It takes its channels
in their order: pruning leaves them and those that they are made from alone, and says so.
"""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.base.errors import UserError
from papers.channelnets.band import channelwise, same_padding

Padding = Literal["same", "valid"]


class ChannelwiseConv(nn.Module):
    """f kernels of d weights that slide along the channels with stride s, shared by all positions.

        y[j L + o] = sum over t of w_j[t] x[o s + t - p],   d f weights, d L f multiply-adds a position.

    With one kernel and stride 1 it is the paper's channel-wise convolution: d weights, d C multiply-adds.
    Its result is Conv3d's with kernels (d, 1, 1) (`papers.channelnets.band` says how it is computed).

    Args:
        channels: C, of the inputs.
        kernel: d, at most C.
        filters: f.
        stride: s, at most C.
        padding: "same", zeros as TensorFlow puts them so that L = ceil(C / s) (before them the smaller
            half), or "valid": none, L = floor((C - d) / s) + 1.

    Attributes:
        weight: [f, d], uniform in +- 1 / sqrt(d) at first, as torch's convolutions are.
        out_channels: f L.

    Raises:
        UserError: a size below 1, a kernel longer than the channels, a stride beyond them; in the forward
            pass another number of channels.
    """

    # why pruning leaves its channels, in its own words after the layer's name
    keeps_channels: ClassVar[str] = "a channel-wise convolution slides along its channels in their order"

    def __init__(
        self, channels: int, kernel: int, *, filters: int = 1, stride: int = 1, padding: Padding = "same"
    ) -> None:
        super().__init__()
        name = type(self).__name__
        require_sizes(name, channels=channels, kernel=kernel, filters=filters, stride=stride)
        require_choice(name, "padding", padding, ("same", "valid"))
        require_at_most(name, channels, kernel=kernel, stride=stride)
        self.channels, self.kernel, self.filters, self.stride = channels, kernel, filters, stride
        self.padding = same_padding(channels, kernel, stride) if padding == "same" else (0, 0)
        self.length = (channels + sum(self.padding) - kernel) // stride + 1
        self.out_channels = filters * self.length
        self.weight = nn.Parameter(torch.empty(filters, kernel))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        bound = 1 / math.sqrt(self.kernel)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, C, ...] to [b, f L, ...]."""
        require_channels(self, inputs, self.channels)
        return channelwise(inputs, self.weight, stride=self.stride, padding=self.padding)

    def multiply_adds(self, inputs: Tensor, outputs: Tensor) -> int:
        """d for each output, whatever the zeros of the matrices by which it is computed."""
        return self.kernel * outputs.numel()

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel={self.kernel}, filters={self.filters}, stride={self.stride}"


class GroupChannelwiseConv(ChannelwiseConv):
    """The group channel-wise convolution: g kernels with stride g, whose C / g outputs each stand together.

    The next convolution in g groups takes the outputs of kernel j as its group j, which so sees the whole
    range of channels: information crosses groups for g d weights, d C multiply-adds a position. With g = 1
    it is the channel-wise convolution, with g = d = C any 1x1 convolution of C channels.

    Args:
        channels: C, of inputs and outputs.
        groups: g, divides C.
        kernel: d.

    Raises:
        UserError: as `ChannelwiseConv`; groups that do not divide the channels.
    """

    def __init__(self, channels: int, groups: int, kernel: int) -> None:
        require_groups(type(self).__name__, channels, groups)
        super().__init__(channels, kernel, filters=groups, stride=groups)
        self.groups = groups


class SeparableChannelwiseConv(nn.Sequential):
    """The depthwise separable channel-wise convolution: 3x3 depthwise, then channel-wise in place of 1x1.

    d_k² C + d weights, (d_k² + d) C multiply-adds a position, where a depthwise separable convolution has
    d_k² C + C² of both.

    Args:
        channels: C, of inputs and outputs.
        kernel: d, of the channel-wise convolution.
        size: d_k, odd: of the depthwise convolution, which keeps the size of the maps.

    Raises:
        UserError: as `ChannelwiseConv`; an even size.
    """

    def __init__(self, channels: int, kernel: int, *, size: int = 3) -> None:
        name = type(self).__name__
        require_sizes(name, channels=channels, kernel=kernel, size=size)
        if size % 2 == 0:
            raise UserError(f"{name}: size={size}; valid: an odd number, so that the maps keep their size")
        depthwise = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)
        super().__init__(depthwise, ChannelwiseConv(channels, kernel))


class PositionMixingConv(nn.Module):
    """What the authors' code has in the place of v2's channel-wise convolution: it mixes all positions.

    A one-dimensional convolution along the channels whose own channels are the h w positions of the maps:
    (h w)² d weights where the paper has d, and a size of maps that is fixed.

        y[c, q] = sum over positions p and t of W[q, p, t] x[c + t - p0, p]

    Args:
        channels: of inputs and outputs.
        kernel: d, at most C; padded as TensorFlow's SAME, with the smaller half before.
        size: (h, w) of the maps.

    Raises:
        UserError: as `ChannelwiseConv`; in the forward pass maps of another size.
    """

    keeps_channels: ClassVar[str] = "it slides along its channels in their order"

    def __init__(self, channels: int, kernel: int, size: tuple[int, int]) -> None:
        super().__init__()
        name = type(self).__name__
        require_sizes(name, channels=channels, kernel=kernel, height=size[0], width=size[1])
        require_at_most(name, channels, kernel=kernel)
        self.channels, self.kernel, self.size = channels, kernel, size
        self.padding = same_padding(channels, kernel, 1)
        positions = math.prod(size)
        self.weight = nn.Parameter(torch.empty(positions, positions, kernel))
        bound = 1 / math.sqrt(positions * kernel)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, C, h, w] to the same shape."""
        require_channels(self, inputs, self.channels)
        require_maps(self, inputs, self.size)
        along = F.pad(inputs.flatten(2).transpose(1, 2), self.padding)
        return F.conv1d(along, self.weight).transpose(1, 2).unflatten(2, self.size)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel={self.kernel}, size={self.size}"


def require_sizes(layer: str, **sizes: int) -> None:
    """Refuse sizes that are no whole numbers of at least 1.

    Raises:
        UserError: see above; the layer is named.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise UserError(f"{layer}: {name}={size}; valid: a whole number >= 1")


def require_at_most(layer: str, channels: int, **sizes: int) -> None:
    """Refuse a kernel that is longer than the channels, or a stride that leaves nothing of them.

    Raises:
        UserError: see above; the layer is named.
    """
    for name, size in sizes.items():
        if size > channels:
            raise UserError(
                f"{layer}: {name}={size} is more than its {channels} channels; valid: 1 to {channels}"
            )


def require_choice(layer: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is none of the choices.

    Raises:
        UserError: see above; the layer is named.
    """
    if value not in choices:
        raise UserError(f"{layer}: {name}={value}; valid: {', '.join(choices)}")


def require_groups(layer: str, channels: int, groups: int) -> None:
    """Refuse groups that do not divide the channels.

    Raises:
        UserError: see above; the layer and the numbers that divide are named.
    """
    require_sizes(layer, channels=channels, groups=groups)
    if channels % groups:
        divisors = [number for number in range(1, channels + 1) if channels % number == 0]
        shown = ", ".join(map(str, divisors[:12])) + (", ..." if len(divisors) > 12 else "")
        raise UserError(f"{layer}: {groups} groups do not divide {channels} channels; valid: {shown}")


def require_channels(layer: nn.Module, inputs: Tensor, channels: int) -> None:
    """Refuse inputs that are not [b, channels, ...].

    Raises:
        UserError: see above; the layer is named.
    """
    if inputs.dim() < 2 or inputs.shape[1] != channels:
        raise UserError(
            f"{type(layer).__name__}: takes {channels} channels, got inputs of shape {tuple(inputs.shape)}; "
            f"valid: [batch, {channels}, ...]"
        )


def require_maps(layer: nn.Module, inputs: Tensor, size: tuple[int, int]) -> None:
    """Refuse maps of another size.

    Raises:
        UserError: see above; the layer is named.
    """
    if tuple(inputs.shape[2:]) != tuple(size):
        raise UserError(
            f"{type(layer).__name__}: takes maps of {size[0]}x{size[1]}, got inputs of shape "
            f"{tuple(inputs.shape)}; valid: [batch, channels, {size[0]}, {size[1]}]"
        )
