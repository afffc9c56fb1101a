"""The networks that a search starts from (appendix of the paper, and the released code's lists).

Convolutional: four VGG-like nets, six of blocks of 3x3 convolutions, one of residual blocks, one of several
paths with two decision layers. Perceptrons: ten of blocks, rectifiers and sigmoids in turn.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from papers.nasbot.graph import RECTIFIERS, SIGMOIDS, Kind, Layer, Network, chain

InitialPool = Literal["fixed", "official_bug"]

# of blocks: the first has so many units, each next one twice as many up to the last number
FIRST_WIDTH, LAST_WIDTH = 64, 512
VGG_BLOCKS = (128, 256, 512)
VGG_LAYERS = (1, 2, 3, 4)
# (blocks, layers of each)
CNN_BLOCKS = ((3, 1), (3, 2), (3, 3), (3, 4), (3, 5), (4, 4))
RESIDUAL_BLOCKS = ((3, 2),)
MLP_BLOCKS = ((3, 2), (4, 2), (5, 2), (3, 4), (6, 2), (8, 2), (6, 3), (10, 2), (4, 6), (8, 3))


def initial_networks(kind: Kind, decision: str, pool: InitialPool) -> list[Network]:
    """The pool of a kind, in its order.

    Args:
        decision: the label of the decision layers of perceptrons, linear or softmax.
        pool: `fixed`, or with the widths that the released code gives perceptrons (`official_bug`), which
            stand shifted: its list of units begins with a block's widths that belong to no layer. Of
            convolutional nets both are the same.
    """
    if kind == "cnn":
        return [
            *(vgg(count) for count in VGG_LAYERS),
            *(blocked_cnn(blocks, count, "conv3") for blocks, count in CNN_BLOCKS),
            *(blocked_cnn(blocks, count, "res3") for blocks, count in RESIDUAL_BLOCKS),
            several_paths(),
        ]
    # which activations the blocks have is drawn once for all searches, so that they share trainings
    random = np.random.default_rng(0)
    return [blocked_mlp(blocks, count, decision, pool, random) for blocks, count in MLP_BLOCKS]


def widths(blocks: int) -> list[int]:
    """Of each block: 64, doubled from block to block up to 512."""
    return [min(FIRST_WIDTH * 2**block, LAST_WIDTH) for block in range(blocks)]


def vgg(count: int) -> Network:
    """A VGG-like net: two blocks of two 3x3 convolutions, three of `count`, each with a pool, three fc."""
    layers = [Layer("ip")]
    for width, size in ((64, 2), (128, 2), *((width, count) for width in VGG_BLOCKS)):
        layers += [Layer("conv3", width, 1)] * size + [Layer("max-pool")]
    layers += [Layer("fc", width) for width in VGG_BLOCKS]
    return chain("cnn", [*layers, Layer("softmax"), Layer("op")])


def blocked_cnn(blocks: int, count: int, label: str) -> Network:
    """A 7x7 convolution and a pool, then blocks whose first layer has stride 2, a pool and one fc."""
    layers = [Layer("ip"), Layer("conv7", FIRST_WIDTH, 1), Layer("max-pool")]
    for width in widths(blocks):
        layers += [Layer(label, width, 2), *[Layer(label, width, 1)] * (count - 1)]
    fc = Layer("fc", 2 * widths(blocks)[-1])
    return chain("cnn", [*layers, Layer("avg-pool"), fc, Layer("softmax"), Layer("op")])


def several_paths() -> Network:
    """A net of several paths with two decision layers (`multidepth_cnn_eg2` of the released code)."""
    layers = [
        Layer("ip"), Layer("op"), Layer("softmax"), Layer("fc", 64), Layer("softmax"), Layer("fc", 64),
        Layer("conv5", 128, 2), Layer("avg-pool"), Layer("max-pool"), Layer("conv3", 64, 2),
        Layer("conv3", 64, 1), Layer("max-pool"), Layer("max-pool"), Layer("conv3", 128, 1),
        Layer("conv7", 64, 1),
    ]  # fmt: skip
    edges = [
        (0, 14), (14, 6), (14, 9), (14, 10), (6, 7), (7, 3), (3, 2), (2, 1), (9, 8), (8, 5), (5, 4), (4, 1),
        (10, 11), (11, 13), (13, 12), (12, 5), (6, 8),
    ]  # fmt: skip
    return Network("cnn", tuple(layers), tuple(edges))


def blocked_mlp(
    blocks: int, count: int, decision: str, pool: InitialPool, random: np.random.Generator
) -> Network:
    """Blocks of `count` layers each, of one rectifier or one sigmoid in turn."""
    names = _names(random)
    labels = [next(names[block % 2]) for block in range(blocks)]
    units = [width for width in widths(blocks) for _ in range(count)]
    if pool == "official_bug":
        # a list of a block's widths and then the layers', of which layer k (from 1) takes number k (from 0)
        units = [*widths(blocks), *units][1 : 1 + len(units)]
    inner = [label for label in labels for _ in range(count)]
    layers = [Layer(label, size) for label, size in zip(inner, units, strict=True)]
    return chain("mlp", [Layer("ip"), *layers, Layer(decision), Layer("op")])


def _names(random: np.random.Generator) -> list[Iterator[str]]:
    """Of rectifiers and of sigmoids each an endless row in a random order."""
    return [_endless([str(name) for name in random.permutation(group)]) for group in (RECTIFIERS, SIGMOIDS)]


def _endless(items: list[str]) -> Iterator[str]:
    while True:
        yield from items
