"""Convolution layers as residual and densely connected networks use them."""

from torch import nn


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (up to the stride), without bias: batch normalisation follows.

    Weights start at N(0, 2 / (kernel² outputs)), the initialisation of He et al. 2015 for ReLU,
    section 2.2, in its backward form; groups do not change that (as in torchvision).
    """
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution, batch normalisation, ReLU."""
    layer = conv(inputs, outputs, kernel, stride, groups)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
