"""The cheap blocks of Crowley, Gray, Storkey, "Moonshine: Distilling with Cheap Convolutions", NeurIPS 2018,
section 3 and table 1.

N channels, kernel k x k, g groups, contraction b, M = N/b; weights of the convolutions and of batch
normalisation (scale, shift, running mean and variance: 4 a channel) of a block from N to N channels:

    S           Conv, Conv                                      2 N² k²               8 N
    G(g)        GConv(g), Conv1x1, GConv(g), Conv1x1            2 N² (k²/g + 1)       16 N
    B(b)        Conv1x1(N to M), Conv(M), Conv1x1(M to N)       N² (k²/b² + 2/b)      N (4 + 8/b)
    BG(b,g)     Conv1x1(N to M), GConv(M,g), Conv1x1(M to N)    N² (k²/(g b²) + 2/b)  N (4 + 8/b)

BN and ReLU stand between any two convolutions. S-2x2 is S with a 2x2 kernel, dilated by 2 so that the size of
the image stays. Where a block changes the number of channels, G's grouped convolution keeps it and has the
stride, and the 1x1 changes it; in B and BG, M is a fraction of the outputs and the middle one has the stride.
"""

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn

from common.base.errors import UserError
from common.models.convolution import conv, conv_norm_relu

VALID = (
    "S, S-2x2, G(g), B(b) or BG(b,g) with whole numbers b, g >= 1, or g a fraction of the channels: "
    "N, N/2, ... in G, M, M/2, ... in BG"
)


@dataclass(frozen=True)
class Groups:
    """The number of groups of a convolution: fixed, or a fraction of its channels.

    Attributes:
        number: of groups, or of channels in each group.
        fraction: which of the two: 4 is (4, False), N/4 is (4, True), N is (1, True).
    """

    number: int
    fraction: bool

    def of(self, channels: int) -> int:
        """The number of groups of a convolution with so many channels, which `number` divides."""
        return channels // self.number if self.fraction else self.number


@dataclass(frozen=True)
class Block:
    """A residual path in the paper's notation.

    Attributes:
        name: as the user wrote it, for errors.
        kind: which of the five.
        contraction: b of B and BG.
        groups: g of G and BG.
    """

    name: str
    kind: Literal["S", "S-2x2", "G", "B", "BG"]
    contraction: int = 1
    groups: Groups = Groups(1, fraction=False)

    def residual(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        """What follows the first BN and ReLU of a pre-activation block.

        Takes [batch, inputs, h, w] and gives [batch, outputs, h/stride, w/stride].

        Raises:
            UserError: the groups do not divide the channels, or the contraction the outputs.
        """
        if self.kind in ("B", "BG"):
            return nn.Sequential(*self._bottleneck(inputs, outputs, stride))
        norm = [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        first, second = self._convolution(inputs, outputs, stride), self._convolution(outputs, outputs, 1)
        return nn.Sequential(*first, *norm, *second)

    def post_residual(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        """The same path with a last BN, for blocks whose BN and ReLU follow their convolutions (ImageNet)."""
        return nn.Sequential(*self.residual(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def cost(self, channels: int) -> tuple[int, int]:
        """The closed forms of table 1 for a pre-activation block from N to N channels.

        Returns:
            Weights of its convolutions; scales, shifts and running statistics of its batch normalisations.

        Raises:
            UserError: see `residual`.
        """
        area = 4 if self.kind == "S-2x2" else 9
        if self.kind in ("B", "BG"):
            inner = self._inner(channels)
            grouped = inner**2 * area // self._groups(inner)
            return grouped + 2 * channels * inner, 4 * channels + 8 * inner
        if self.kind == "G":
            return 2 * channels**2 * area // self._groups(channels) + 2 * channels**2, 16 * channels
        return 2 * channels**2 * area, 8 * channels

    def _convolution(self, inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        """What takes the place of one 3x3 convolution."""
        if self.kind == "S":
            return [conv(inputs, outputs, 3, stride)]
        if self.kind == "S-2x2":
            return [_dilated(inputs, outputs, stride)]
        grouped = conv_norm_relu(inputs, inputs, 3, stride, self._groups(inputs))
        return [*grouped, conv(inputs, outputs, 1)]

    def _bottleneck(self, inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        inner = self._inner(outputs)
        middle = conv_norm_relu(inner, inner, 3, stride, self._groups(inner))
        return [*conv_norm_relu(inputs, inner, 1), *middle, conv(inner, outputs, 1)]

    def _inner(self, outputs: int) -> int:
        """M, the width of a bottleneck."""
        if outputs % self.contraction:
            raise UserError(
                f"model.block={self.name}: {outputs} channels cannot be contracted by {self.contraction}; "
                f"valid: b that divides {outputs}"
            )
        return outputs // self.contraction

    def _groups(self, channels: int) -> int:
        number = self.groups.number
        if channels % number:
            what = f"groups of {number}" if self.groups.fraction else f"{number} groups"
            raise UserError(
                f"model.block={self.name}: a convolution of {channels} channels cannot have {what}; "
                f"valid: a number that divides {channels}"
            )
        return self.groups.of(channels)


def parse_block(text: str) -> Block:
    """The block that the paper writes so: "S", "S-2x2", "G(4)", "G(N/8)", "B(2)", "BG(2,M)", ...

    Raises:
        UserError: no such block.
    """
    name = text.replace(" ", "")
    if name == "S":
        return Block(name, "S")
    if name == "S-2x2":
        return Block(name, "S-2x2")
    if grouped := re.fullmatch(r"G\(([^,]+)\)", name):
        return Block(name, "G", groups=_parse_groups(text, grouped[1], "N"))
    if contracted := re.fullmatch(r"B\(([^,]+)\)", name):
        return Block(name, "B", contraction=_parse_number(text, contracted[1]))
    if both := re.fullmatch(r"BG\(([^,]+),([^,]+)\)", name):
        contraction = _parse_number(text, both[1])
        return Block(name, "BG", contraction, _parse_groups(text, both[2], "M"))
    raise _unknown(text)


def _parse_groups(block: str, text: str, channels: Literal["N", "M"]) -> Groups:
    """`4`, `N` or `N/4`."""
    if text == channels:
        return Groups(1, fraction=True)
    whole = text.removeprefix(f"{channels}/")
    return Groups(_parse_number(block, whole), fraction=whole != text)


def _parse_number(block: str, text: str) -> int:
    if not re.fullmatch("[1-9][0-9]*", text):
        raise _unknown(block)
    return int(text)


def _unknown(block: str) -> UserError:
    return UserError(f"model.block={block}; valid: {VALID}")


def _dilated(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """A 2x2 convolution over the corners of a 3x3 window: padding 1 keeps the size, up to the stride."""
    layer = nn.Conv2d(inputs, outputs, 2, stride, padding=1, dilation=2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
