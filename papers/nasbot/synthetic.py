"""Functions of a network's shape alone, to try searches on (released code, e1_syn/syn_nn_functions.py).

Sums of exponentials of how far counts are from values that are good; to be maximised.
"""

import math
from typing import ClassVar, Literal

import numpy as np

from common.base.dataset import check
from common.base.generated import Function
from papers.nasbot.graph import Kind, Network


def common_part(network: Network) -> float:
    """What both functions have.

    exp(-.002 |mean units - 1000|) + exp(-.4 |mean degree - 5|) + exp(-.2 |shortest path ip to op - 10|)
    + exp(-.5 |edges into op - 3|) + exp(-.5 |edges out of ip - 4|) + exp(-.1 |layers - 30|)
    + exp(-.05 |edges - 100|). The mean degree is that of (mean in + mean out) / 2, which is edges / layers.
    """
    edges, layers = len(network.edges), len(network)
    return (
        _near(_mean_units(network), 1000, 0.002)
        + _near(edges / layers, 5, 0.4)
        + _near(float(network.path_lengths[-1, 0, 0, 0]), 10, 0.2)
        + _near(len(network.parents[-1]), 3, 0.5)
        + _near(len(network.children[0]), 4, 0.5)
        + _near(layers, 30, 0.1)
        + _near(edges, 100, 0.05)
    )


def cnn_function(network: Network) -> float:
    """`cnn_syn_func1`: the common part and four terms.

    exp(-.001 |mean units - 500|) + exp(-.3 |layers - 50|) + exp(-3 |mean stride - 1.5|)
    + (convolutions of kernel 3) / (convolutions + 1), plain and residual ones.
    """
    convolutions = [layer for layer in network.layers if layer.on_images]
    strides = [layer.stride for layer in convolutions if layer.stride is not None]
    threes = sum(layer.label.endswith("3") for layer in convolutions)
    return (
        common_part(network)
        + _near(_mean_units(network), 500, 0.001)
        + _near(len(network), 50, 0.3)
        + (_near(float(np.mean(strides)), 1.5, 3.0) if strides else 0.0)
        + threes / (len(convolutions) + 1)
    )


def mlp_function(network: Network) -> float:
    """`mlp_syn_func1`: the common part and three terms.

    exp(-.1 |edges - 50|) + exp(-.001 |mean units - 2000|) + (layers logistic or relu) / (inner layers + 1).
    """
    inner = [layer for layer in network.layers if layer.label not in ("ip", "op", "linear")]
    good = sum(layer.label in ("logistic", "relu") for layer in inner)
    return (
        common_part(network)
        + _near(len(network.edges), 50, 0.1)
        + _near(_mean_units(network), 2000, 0.001)
        + good / (len(inner) + 1)
    )


FUNCTIONS = {"cnn": cnn_function, "mlp": mlp_function}


def _near(value: float, good: float, decay: float) -> float:
    return math.exp(-decay * abs(value - good))


def _mean_units(network: Network) -> float:
    """Over the layers that have units; 0 where none has."""
    units = [layer.units for layer in network.layers if layer.units is not None]
    return float(np.mean(units)) if units else 0.0


class NetworkFunction(Function):
    """One of the functions in the place of a data set.

    Args:
        kind: must be `network_function`.
        function: `cnn` or `mlp`, by the kind of networks that it is of.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "network_function"
    KIND: ClassVar = "network_function"

    def __init__(self, *, kind: str, function: Literal["cnn", "mlp"]) -> None:
        super().__init__()
        check("kind", kind, kind == self.KIND, f"must be {self.KIND}")
        check("function", function, function in FUNCTIONS, f"give one of {', '.join(FUNCTIONS)}")
        self.function: Kind = function
        # what the networks would be made for
        self.shape, self.classes = ((3, 32, 32), 10) if function == "cnn" else ((10,), None)
        self.batch_size, self.normalise = 1, "none"

    def __call__(self, network: Network) -> float:
        """The value of a network."""
        return FUNCTIONS[self.function](network)
