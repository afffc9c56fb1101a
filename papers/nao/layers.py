"""The layers of a convolutional cell: every operation, reduction of maps, and dropping of whole paths."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from papers.nao.operations import OPERATIONS


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    **options: int,
) -> list[nn.Module]:
    """ReLU, a convolution without bias, batch normalisation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False, **options)  # type: ignore[arg-type]
    return [nn.ReLU(), layer, nn.BatchNorm2d(outputs)]


def separable(inputs: int, outputs: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    """ReLU, a convolution of each channel by itself, a 1x1 convolution, batch normalisation."""
    padding = dilation * (kernel // 2)
    depthwise = nn.Conv2d(inputs, inputs, kernel, stride, padding, dilation, groups=inputs, bias=False)
    return [nn.ReLU(), depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]


class FactorizedReduce(nn.Module):
    """Halves a map: two 1x1 convolutions of half the channels, on its even places and on those one beside.

    Args:
        inputs: channels that come.
        outputs: channels that leave; of an odd number the first half has one less.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, ceil(h / 2), ceil(w / 2)]."""
        beside = functional.pad(inputs, (0, 1, 0, 1))[:, :, 1:, 1:]
        return cast(Tensor, self.norm(torch.cat([self.even(inputs), self.odd(beside)], 1)))


class Pool(nn.Module):
    """The largest, smallest or mean number of each window, at a stride, the size kept at stride 1.

    Zeros stand around the map, on all sides for odd windows, and on the right and below for 2x2.

    Args:
        kind: "max", "min" or "avg".
        kernel: side of a window.
        stride: from one window to the next.
        inside: leave the zeros around out of means.
    """

    def __init__(self, kind: str, kernel: int, stride: int, inside: bool = False) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride, self.inside = kind, kernel, stride, inside

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, c, h, w] to [b, c, ceil(h / stride), ceil(w / stride)]."""
        if self.kernel % 2 == 0:
            inputs = functional.pad(inputs, (0, 1, 0, 1))
        padding = (self.kernel - 1) // 2
        if self.kind == "avg":
            return functional.avg_pool2d(
                inputs, self.kernel, self.stride, padding, count_include_pad=not self.inside
            )
        if self.kind == "min":
            return -functional.max_pool2d(-inputs, self.kernel, self.stride, padding)
        return functional.max_pool2d(inputs, self.kernel, self.stride, padding)


def layer_of(operation: str, channels: int, stride: int) -> nn.Module:
    """An operation on maps of `channels`, which it keeps."""
    kind, kernel = OPERATIONS[operation]
    if kind == "identity":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if kind.endswith("_pool"):
        return Pool(kind.removesuffix("_pool"), int(kernel[0]), stride, operation.endswith("_inside"))
    if kind == "conv" and "+" in kernel:
        side = int(kernel.split("x")[1].split("+")[0])
        return nn.Sequential(
            *conv_norm(channels, channels, (1, side), (1, stride), (0, side // 2)),
            *conv_norm(channels, channels, (side, 1), (stride, 1), (side // 2, 0)),
        )
    side = int(kernel[0])
    if kind == "conv":
        return nn.Sequential(*conv_norm(channels, channels, side, stride, side // 2))
    if kind == "dil_sep_conv":
        return nn.Sequential(*separable(channels, channels, side, stride, dilation=2))
    first, second = separable(channels, channels, side, stride), separable(channels, channels, side, 1)
    return nn.Sequential(*first, *second)


def drop_path(inputs: Tensor, keep: Tensor | None) -> Tensor:
    """Each example [b, ...] kept with probability `keep` and divided by it, else zeros; None keeps all."""
    if keep is None:
        return inputs
    mask = torch.rand(len(inputs), *[1] * (inputs.dim() - 1), device=inputs.device) < keep
    return inputs * (mask / keep).to(inputs.dtype)
