"""Networks to test on."""

import numpy as np

from papers.nasbot.graph import Kind, Layer, Network, chain
from papers.nasbot.space import Limits, NetworkSpace

OFFICIAL = Limits((5, 60), (8, 1024), 5, 55, 200, None, None)


def space(kind: Kind, limits: Limits = OFFICIAL, pool: str = "fixed") -> NetworkSpace:
    return NetworkSpace(kind, "softmax" if kind == "cnn" else "linear", limits, pool)  # type: ignore[arg-type]


def sampled(kind: Kind, count: int, seed: int = 0) -> list[Network]:
    """Random networks of the paper's space."""
    random = np.random.default_rng(seed)
    whole = space(kind)
    return [whole.sample(random) for _ in range(count)]


def cnn(*layers: Layer) -> Network:
    """A chain of convolutional layers between input and decision."""
    return chain("cnn", [Layer("ip"), *layers, Layer("softmax"), Layer("op")])


def mlp(*layers: Layer) -> Network:
    """A chain of layers of units between input and decision."""
    return chain("mlp", [Layer("ip"), *layers, Layer("linear"), Layer("op")])


def relabelled(network: Network, random: np.random.Generator) -> Network:
    """The same network with its layers in a random order."""
    order = random.permutation(len(network))
    place = np.argsort(order)
    layers = tuple(network.layers[int(old)] for old in order)
    edges = tuple((int(place[u]), int(place[v])) for u, v in network.edges)
    return Network(network.kind, layers, edges)
