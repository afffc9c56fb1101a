"""Changes of a network (table 2 of the paper; probabilities and details are those of the released code).

Each modifier takes a network and a random generator and gives a changed network, or None where it finds
nothing to change or what comes out is no network (images of unequal sizes at a join). `modified` draws and
applies some of them in a row.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from papers.nasbot.graph import (
    CONVOLUTIONS,
    DECISIONS,
    ON_IMAGES,
    POOLS,
    RECTIFIERS,
    RESIDUALS,
    SIGMOIDS,
    Layer,
    Network,
    valid_or_none,
)

Random = np.random.Generator
Modifier = Callable[[Network, Random], Network | None]

# by how much of them units grow or shrink
CHANGE = 1 / 8
# groups of consecutive layers that are changed together: so many where there are so many internal layers
GROUPS_OF_LAYERS = ((2, 4), (4, 8), (8, 16))
SWAPS: dict[str, dict[str, float]] = {
    "conv3": {"res3": 0.25, "res5": 0.25, "conv5": 0.15, "conv7": 0.25, "max-pool": 0.05, "avg-pool": 0.05},
    "conv5": {"res3": 0.25, "res5": 0.25, "conv3": 0.2, "conv7": 0.2, "max-pool": 0.05, "avg-pool": 0.05},
    "conv7": {"res3": 0.25, "res5": 0.25, "conv3": 0.25, "conv5": 0.15, "max-pool": 0.05, "avg-pool": 0.05},
    "res3": {"conv3": 0.25, "conv5": 0.25, "res5": 0.15, "res7": 0.25, "max-pool": 0.05, "avg-pool": 0.05},
    "res5": {"conv3": 0.25, "conv5": 0.25, "res3": 0.2, "res7": 0.2, "max-pool": 0.05, "avg-pool": 0.05},
    "res7": {"conv3": 0.25, "conv5": 0.25, "res3": 0.25, "res5": 0.15, "max-pool": 0.05, "avg-pool": 0.05},
    "max-pool": {"avg-pool": 1.0},
    "avg-pool": {"max-pool": 1.0},
    **{label: dict.fromkeys(SIGMOIDS, 1.0) for label in RECTIFIERS},
    **{label: dict.fromkeys(RECTIFIERS, 1.0) for label in SIGMOIDS},
}
FLIP_STRIDE, WEDGE_POOL, WEDGE_STRIDE = 0.05, 0.05, 0.05
# of a copied path: the fewest layers with both ends, the chance to end at each further one, and to keep a
# layer
PATH_LAYERS, END_PATH, KEEP = 4, 0.2, 0.5
# of a wedged layer between layers none of which has units
USUAL_UNITS = 16
# how many modifications a child gets
STEPS = (0.5, 0.25, 0.125, 0.075, 0.05)
# draws of a modifier until one gives a valid network
TRIES = 20


@dataclass
class Draft:
    """A network under change: not checked before it is finished."""

    origin: Network
    layers: list[Layer] = field(init=False)
    edges: set[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.layers, self.edges = list(self.origin.layers), set(self.origin.edges)

    def add(self, layer: Layer) -> int:
        """Append a layer without edges; its number."""
        self.layers.append(layer)
        return len(self.layers) - 1

    def remove(self, number: int) -> None:
        """Take away a layer with its edges; those behind it move up."""
        del self.layers[number]
        kept = (edge for edge in self.edges if number not in edge)
        self.edges = {(u - (u > number), v - (v > number)) for u, v in kept}

    def finished(self) -> Network | None:
        """The network; None where it is none, or the same as before."""
        network = valid_or_none(
            lambda: Network(self.origin.kind, tuple(self.layers), tuple(sorted(self.edges)))
        )
        return None if network == self.origin else network


def rounded(value: float) -> int:
    """The nearest whole number, of two the larger, as Python 2 rounds."""
    return math.floor(value + 0.5)


def _choice(random: Random, items: list[int]) -> int:
    return items[int(random.integers(len(items)))]


# --- units


def scale_units(network: Network, numbers: list[int], factor: float) -> Network | None:
    """The units of some layers times a factor, rounded; None where none of them changes."""
    draft = Draft(network)
    for number in numbers:
        units = network.layers[number].units
        assert units is not None
        draft.layers[number] = network.layers[number]._replace(units=rounded(units * factor))
    return draft.finished()


def _single(factor: float) -> Modifier:
    def change(network: Network, random: Random) -> Network | None:
        if not network.with_units:
            return None
        return scale_units(network, [_choice(random, list(network.with_units))], factor)

    return change


def en_masse_groups(network: Network) -> list[list[int]]:
    """The groups of layers that may be changed together.

    Of the layers with units in their order the halves where the network has 4 or more layers between input
    and output, the quarters from 8 and the eighths from 16 on.
    """
    layers = list(network.with_units)
    inner = len(network) - 2
    parts = [count for count, least in GROUPS_OF_LAYERS if inner >= least]
    groups = [layers[k * len(layers) // n : (k + 1) * len(layers) // n] for n in parts for k in range(n)]
    return [group for group in groups if group]


def _en_masse(factor: float) -> Modifier:
    def change(network: Network, random: Random) -> Network | None:
        groups = en_masse_groups(network)
        return scale_units(network, groups[int(random.integers(len(groups)))], factor) if groups else None

    return change


# --- labels


def swap_layer(network: Network, random: Random) -> Network | None:
    """Another label for one layer; of a convolution, now and then, the other stride too."""
    numbers = [number for number, layer in enumerate(network.layers) if layer.label in SWAPS]
    if not numbers:
        return None
    number = _choice(random, numbers)
    old = network.layers[number]
    names = list(SWAPS[old.label])
    weights = np.array(list(SWAPS[old.label].values()))
    label = names[int(random.choice(len(names), p=weights / weights.sum()))]
    draft = Draft(network)
    if label in POOLS:
        draft.layers[number] = Layer(label)
    elif label in ON_IMAGES:
        assert old.stride is not None
        stride = 3 - old.stride if random.random() < FLIP_STRIDE else old.stride
        draft.layers[number] = Layer(label, old.units, stride)
    else:
        draft.layers[number] = Layer(label, old.units)
    return draft.finished()


# --- layers


def wedge_layer(network: Network, random: Random) -> Network | None:
    """A new layer on an edge that does not lead to the output."""
    edges = [edge for edge in network.edges if edge[1] != len(network) - 1]
    before, after = edges[int(random.integers(len(edges)))]
    draft = Draft(network)
    new = draft.add(_wedged(network, before, after, random))
    draft.edges -= {(before, after)}
    draft.edges |= {(before, new), (new, after)}
    return draft.finished()


def _wedged(network: Network, before: int, after: int, random: Random) -> Layer:
    first = network.layers[before]
    if network.kind == "mlp":
        label = str(random.choice(RECTIFIERS + SIGMOIDS))
        return Layer(label, _between(network, before, after))
    if first.label == "fc":
        return Layer("fc", first.units)
    if first.label != "ip" and random.random() < WEDGE_POOL:
        return Layer(str(random.choice(POOLS)))
    label = str(random.choice(CONVOLUTIONS + RESIDUALS))
    stride = 2 if random.random() < WEDGE_STRIDE else 1
    return Layer(label, _between(network, before, after), stride)


def _between(network: Network, before: int, after: int) -> int:
    """Units for a layer between two: the mean of theirs; without any, of the nearest layers above.

    Of those that follow the input where that is the nearest; 16 where no layer has units.
    """
    found = [units for n in (before, after) if (units := network.layers[n].units) is not None]
    above = [before]
    while not found and above != [0]:
        above = sorted({parent for number in above for parent in network.parents[number]})
        found = [units for n in above if (units := network.layers[n].units) is not None]
    if not found:
        found = [units for n in network.children[0] if (units := network.layers[n].units) is not None]
    return rounded(sum(found) / len(found)) if found else USUAL_UNITS


def remove_layer(network: Network, random: Random) -> Network | None:
    """One processing layer less; a fully connected one only where all its parents are so.

    Parents and children that are left alone are joined one to one at random, those that are over to a random
    child or parent. Where the layer halved the image, its children get stride 2 if all have 1, else its
    parents if they all do.
    """
    numbers = [
        number
        for number in network.internal
        if network.layers[number].label != "fc"
        or all(network.layers[parent].label == "fc" for parent in network.parents[number])
    ]
    if not numbers:
        return None
    number = _choice(random, numbers)
    parents, children = network.parents[number], network.children[number]
    draft = Draft(network)
    if network.layers[number].halves:
        for group in (children, parents):
            if all(network.layers[other].stride == 1 for other in group):
                for other in group:
                    draft.layers[other] = draft.layers[other]._replace(stride=2)
                break
    draft.edges |= _rejoined(network, parents, children, random)
    draft.remove(number)
    return draft.finished()


def _rejoined(
    network: Network, parents: tuple[int, ...], children: tuple[int, ...], random: Random
) -> set[tuple[int, int]]:
    sons = [child for child in children if len(network.parents[child]) == 1]
    fathers = [parent for parent in parents if len(network.children[parent]) == 1]
    random.shuffle(sons)
    random.shuffle(fathers)
    edges = set(zip(fathers, sons, strict=False))
    edges |= {(_choice(random, list(parents)), child) for child in sons[len(fathers) :]}
    edges |= {(parent, _choice(random, list(children))) for parent in fathers[len(sons) :]}
    return edges


# --- branches


def start_weights(network: Network) -> np.ndarray:
    """How probable each layer is as the start of a branch or a skip: 1 / sqrt(1 + its distance from ip).

    The distance is the shortest path; 0 for fully connected layers, decision layers and the output.
    """
    far = network.path_lengths[:, 0, 0, 0]
    allowed = [layer.label not in ("op", "fc", *DECISIONS) for layer in network.layers]
    return np.where(allowed, 1 / np.sqrt(1 + far), 0.0)


def branch(network: Network, random: Random) -> Network | None:
    """A copy of a path beside it (`dup_path`), of which some layers are left out.

    The path is a random walk of at least four layers. Always copied are pools, layers of stride 2, what
    follows the input, the first fully connected layer, decision layers, and the last where nothing else is.
    """
    if not network.internal:
        return None
    weights = start_weights(network)
    path = [int(random.choice(len(network), p=weights / weights.sum()))]
    while path[-1] != len(network) - 1:
        path.append(_choice(random, list(network.children[path[-1]])))
        if len(path) >= PATH_LAYERS and random.random() < END_PATH:
            break
    kept = _kept(network, path, random)
    draft = Draft(network)
    row = [path[0], *(draft.add(network.layers[number]) for number in kept), path[-1]]
    draft.edges |= set(pairwise(row))
    return draft.finished()


def _kept(network: Network, path: list[int], random: Random) -> list[int]:
    kept: list[int] = []
    dense = False
    for place, number in enumerate(path[1:-1], 1):
        layer = network.layers[number]
        always = (place == 1 and path[0] == 0) or (place == len(path) - 2 and not kept)
        always = always or layer.halves or layer.label in DECISIONS
        if not always and layer.label == "fc" and not dense:
            always = dense = True
        if always or random.random() < KEEP:
            kept.append(number)
    return kept


def skip(network: Network, random: Random) -> Network | None:
    """A new edge between layers that are at least two apart; average pools on it where images shrink."""
    weights = start_weights(network)
    weights[0] = 0.0
    if not weights.any():
        return None
    start = int(random.choice(len(network), p=weights / weights.sum()))
    ends = [end for end in range(1, len(network) - 1) if _may_skip(network, start, end)]
    if not ends:
        return None
    end = _choice(random, ends)
    draft = Draft(network)
    row = [start]
    if network.kind == "cnn":
        row += [
            draft.add(Layer("avg-pool")) for _ in range(_size_before(network, end) - _size(network, start))
        ]
    row.append(end)
    draft.edges |= set(pairwise(row))
    return draft.finished()


def _may_skip(network: Network, start: int, end: int) -> bool:
    from_input, to_output = network.path_lengths[:, 0, 0, 0], network.path_lengths[:, 1, 0, 0]
    layer = network.layers[end]
    if from_input[end] - 1 <= from_input[start] or to_output[end] + 1 >= to_output[start]:
        return False
    if network.kind == "mlp":
        return True
    if layer.label == "softmax" or any(network.halvings[parent] is None for parent in network.parents[end]):
        # of fully connected layers only the first, which still reads images
        return False
    return _size(network, start) <= _size_before(network, end)


def _size(network: Network, number: int) -> int:
    found = network.halvings[number]
    assert found is not None
    return found


def _size_before(network: Network, number: int) -> int:
    return _size(network, network.parents[number][0])


# the groups of modifiers, with their weights
MODIFIERS: dict[str, tuple[float, Modifier]] = {
    "inc_single": (0.1, _single(1 + CHANGE)),
    "dec_single": (0.1, _single(1 - CHANGE)),
    "inc_en_masse": (0.1, _en_masse(1 + CHANGE)),
    "dec_en_masse": (0.1, _en_masse(1 - CHANGE)),
    "swap_layer": (0.2, swap_layer),
    "wedge_layer": (0.1, wedge_layer),
    "remove_layer": (0.1, remove_layer),
    "branch": (0.2, branch),
    "skip": (0.2, skip),
}
_WEIGHTS = np.array([weight for weight, _ in MODIFIERS.values()])
_NAMES = list(MODIFIERS)


def steps_of(random: Random) -> int:
    """How many modifications a child gets: 1 to 5 with probabilities `STEPS`."""
    return 1 + int(random.choice(len(STEPS), p=STEPS))


def modified(network: Network, steps: int, random: Random, valid: Callable[[Network], bool]) -> Network:
    """A network after some modifications, each of which leaves a valid network.

    Each is drawn by the groups' weights, and drawn again (20 times at most) where it comes to nothing: the
    network may come back as it was.

    Args:
        valid: whether a network lies in the space.
    """
    for _ in range(steps):
        for _ in range(TRIES):
            name = _NAMES[int(random.choice(len(_NAMES), p=_WEIGHTS / _WEIGHTS.sum()))]
            found = MODIFIERS[name][1](network, random)
            if found is not None and valid(found):
                network = found
                break
    return network
