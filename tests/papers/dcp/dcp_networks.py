"""The networks of DCP's tables, whole and pruned, built with the widths that pruning leaves.

They are made without slicing anything: what slicing gives must be as large as these.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hydra.utils import instantiate
from torch import nn

from common.models.convolution import conv, conv_norm_relu
from common.models.imagenet_resnet import ImageNetNetwork
from common.models.mobilenet import InvertedResidual
from common.models.preact_resnet import PreactNetwork
from common.models.resnet import Residual, grouped_bottleneck
from common.models.weightless import weightless
from common.runs.catalogue import read

CIFAR, ILSVRC, FACES = (3, 32, 32), (3, 224, 224), (3, 112, 96)
VGG = [64, 64, 128, 128, *4 * [256], *8 * [512]]
# input channels of conv1_2 to conv4_8 that DCP-Adapt keeps (table S6), and the last convolution's outputs
VGG_ADAPT = [56, 64, 128, 115, 199, 177, 123, 52, 59, 46, 31, 37, 37, 44, 31, 512]
V1 = [32, 64, 128, 128, 256, 256, *6 * [512], 1024, 1024]


def kept(channels: int, eta: float) -> int:
    """c - floor(eta c), eta in hundredths."""
    return channels - channels * round(100 * eta) // 100


def shape_of(model: str) -> tuple[int, int, int]:
    """Of the images that a network of the tables is for."""
    return FACES if model.startswith("spherenet") else ILSVRC if "imagenet" in model else CIFAR


def built(model: str, **settings: Any) -> nn.Module:
    """A model of conf/model with other settings, on the meta device."""
    node = {**read("model", model), **settings}
    shape = shape_of(model)
    classes = {CIFAR: 10, ILSVRC: 1000, FACES: 10_575}[shape]
    with weightless():
        network: nn.Module = instantiate(node, shape=shape, classes=classes, _convert_="all")
    return network


def vgg(widths: list[int]) -> nn.Module:
    ends = [0, 2, 4, 8, 12, 16]
    stages = [widths[start:end] for start, end in pairwise(ends)]
    return built("vgg19", widths=stages)


def pruned(model: str, eta: float) -> nn.Module:
    """A network of the tables as pruning at the rate eta leaves it."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "vgg19": lambda: vgg([*(kept(width, eta) for width in VGG[:-1]), 512]),
        "preact_resnet56": lambda: _preact(eta),
        "resnet18_imagenet": lambda: _imagenet([2, 2, 2, 2], 1, _basic(eta)),
        "resnet50_imagenet": lambda: _imagenet([3, 4, 6, 3], 4, _bottleneck(eta)),
        # all but the outputs of the last two blocks, on ILSVRC-12 of the last one
        "mobilenet_v1": lambda: built("mobilenet_v1", widths=[*(kept(w, eta) for w in V1[:12]), *V1[12:]]),
        "mobilenet_v1_imagenet": lambda: built(
            "mobilenet_v1_imagenet", widths=[*(kept(w, eta) for w in V1[:13]), *V1[13:]]
        ),
        "mobilenet_v2": lambda: _mobilenet_v2("mobilenet_v2", eta),
        # table S3's 1.81x is that of a first 1x1 convolution in every block, as the form for CIFAR has it
        "mobilenet_v2_imagenet": lambda: _mobilenet_v2("mobilenet_v2_imagenet", eta, expand_always=True),
        "spherenet4": lambda: built("spherenet4", widths=[kept(w, eta) for w in (64, 128, 256, 512)]),
    }
    return makers[model]()


def _preact(eta: float) -> nn.Module:
    def residual(inputs: int, outputs: int, stride: int) -> nn.Module:
        inner = kept(outputs, eta)
        return nn.Sequential(*conv_norm_relu(inputs, inner, 3, stride), conv(inner, outputs, 3))

    with weightless():
        return PreactNetwork(
            channels=3,
            stem=16,
            outputs=[16, 32, 64],
            blocks=[9, 9, 9],
            residual=residual,
            half=True,
            classes=10,
        )


def _basic(eta: float) -> Residual:
    def residual(inputs: int, outputs: int, stride: int) -> nn.Module:
        inner = kept(outputs, eta)
        first = conv_norm_relu(inputs, inner, 3, stride)
        return nn.Sequential(*first, conv(inner, outputs, 3), nn.BatchNorm2d(outputs))

    return residual


def _bottleneck(eta: float) -> Residual:
    def residual(inputs: int, outputs: int, stride: int) -> nn.Module:
        return grouped_bottleneck(inputs, kept(outputs // 4, eta), outputs, stride, groups=1)

    return residual


def _imagenet(blocks: list[int], expansion: int, residual: Residual) -> nn.Module:
    outputs = [expansion * width for width in (64, 128, 256, 512)]
    with weightless():
        return ImageNetNetwork(
            name="resnet",
            shape=ILSVRC,
            classes=1000,
            stem=64,
            blocks=blocks,
            outputs=outputs,
            residual=residual,
        )


def _mobilenet_v2(model: str, eta: float, **form: Any) -> nn.Module:
    whole = built(model, **form)
    blocks = [module for module in whole.modules() if isinstance(module, InvertedResidual)]
    hidden = [kept(block.residual[-2].in_channels, eta) for block in blocks]
    return built(model, hidden=hidden, **form)
