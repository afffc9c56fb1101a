"""Networks as directed acyclic graphs of labelled layers, with masses and path lengths (section 3 of the
paper).

    net = Network.from_json({
        "kind": "mlp",
        "layers": [{"label": "ip"}, {"label": "relu", "units": 64}, {"label": "linear"}, {"label": "op"}],
        "edges": [[0, 1], [1, 2], [2, 3]],
    })
    net.masses, net.path_lengths

A layer reads all its parents, concatenated along channels. Where the paper's main text and its released code
differ, the code (kirthevasank/nasbot, MIT licence) is followed and the place says so.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from common.base.errors import UserError
from papers.nasbot.canonical import canonical_form

Kind = Literal["cnn", "mlp"]

CONVOLUTIONS = ("conv3", "conv5", "conv7")
RESIDUALS = ("res3", "res5", "res7")
POOLS = ("max-pool", "avg-pool")
RECTIFIERS = ("relu", "crelu", "leaky-relu", "softplus", "elu")
SIGMOIDS = ("logistic", "tanh")
DECISIONS = ("softmax", "linear")
# layers that keep an image an image
ON_IMAGES = CONVOLUTIONS + RESIDUALS
# in this order: the numbers by which `Network.code` and the matrix of label penalties know them
LABELS: dict[Kind, tuple[str, ...]] = {
    "cnn": ("ip", "op", *CONVOLUTIONS, *RESIDUALS, *POOLS, "fc", "softmax"),
    "mlp": ("ip", "op", *RECTIFIERS, *SIGMOIDS, "softmax", "linear"),
}
# of path lengths: an edge out of a layer costs 1 where the layer is of the group
GROUPS: dict[Kind, dict[str, tuple[str, ...]]] = {
    "cnn": {"all": LABELS["cnn"], "conv": ON_IMAGES, "pool": POOLS, "fc": ("fc",)},
    "mlp": {"all": LABELS["mlp"], "rectifier": RECTIFIERS, "sigmoid": SIGMOIDS},
}
WALKS = ("shortest", "longest", "random walk")
# of the processing layers' mass, what input and output have, and the decision layers together; its floor is
# the code's; the mass of a fully connected layer is a tenth of its weights
ZETA, LEAST_OUTER_MASS, FC_MASS = 0.1, 100.0, 0.1


class Layer(NamedTuple):
    """One layer.

    Attributes:
        label: one of `LABELS` of the network's kind.
        units: of fully connected layers their units, of (residual) convolutions their filters; else None.
        stride: 1 or 2, of (residual) convolutions; else None. Pools halve the image.
    """

    label: str
    units: int | None = None
    stride: int | None = None

    @property
    def has_units(self) -> bool:
        """Whether it has units of its own."""
        return self.label not in ("ip", "op", *POOLS, *DECISIONS)

    @property
    def on_images(self) -> bool:
        """Whether it is a (residual) convolution."""
        return self.label in ON_IMAGES

    @property
    def halves(self) -> bool:
        """Whether its images have half the sides of those that it reads."""
        return self.label in POOLS or self.stride == 2

    @property
    def text(self) -> str:
        """Its label with what else it has, as `conv3 64 /2`."""
        units = "" if self.units is None else f" {self.units}"
        return f"{self.label}{units}{' /2' if self.stride == 2 else ''}"


@dataclass(frozen=True)
class Network:
    """A network: layers in a topological order, the input first and the output last, and edges between them.

    What is given in another order is brought into one.

    Args:
        kind: `cnn` or `mlp`.
        layers: exactly one `ip` and one `op` among them.
        edges: pairs (from, to) of their numbers.

    Raises:
        UserError: it is no network of the kind: an unknown label, wrong units or strides, a cycle, a layer
            without input or output, parents of `op` that are no decision layers, images of unequal sizes at
            a join, a layer on images behind one without.
    """

    kind: Kind
    layers: tuple[Layer, ...]
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _check_layers(self.kind, self.layers)
        _check_edges(self.layers, self.edges)
        order = _topological(self.layers, self.edges)
        place = {old: new for new, old in enumerate(order)}
        object.__setattr__(self, "layers", tuple(self.layers[old] for old in order))
        object.__setattr__(self, "edges", tuple(sorted((place[u], place[v]) for u, v in self.edges)))
        _check_decisions(self)
        if self.kind == "cnn":
            _check_images(self)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def labels(self) -> tuple[str, ...]:
        """What its layers may be, in the order of their penalties."""
        return LABELS[self.kind]

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The groups of labels that its path lengths count."""
        return GROUPS[self.kind]

    @cached_property
    def parents(self) -> tuple[tuple[int, ...], ...]:
        """Of each layer the numbers of those that it reads, ascending."""
        found: list[list[int]] = [[] for _ in self.layers]
        for u, v in self.edges:
            found[v].append(u)
        return tuple(map(tuple, found))

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Of each layer the numbers of those that read it, ascending."""
        found: list[list[int]] = [[] for _ in self.layers]
        for u, v in self.edges:
            found[u].append(v)
        return tuple(map(tuple, found))

    @cached_property
    def key(self) -> str:
        """A text that is equal for networks that differ by the order of their layers alone."""
        return f"{self.kind} {self._canonical[0]}"

    @cached_property
    def canonical(self) -> "Network":
        """The same network with its layers in the order that `key` has them in."""
        order = self._canonical[1]
        place = {old: new for new, old in enumerate(order)}
        edges = tuple((place[u], place[v]) for u, v in self.edges)
        return Network(self.kind, tuple(self.layers[old] for old in order), edges)

    @cached_property
    def _canonical(self) -> tuple[str, list[int]]:
        words = [f"{layer.label}.{layer.units or ''}.{layer.stride or ''}" for layer in self.layers]
        return canonical_form(words, self.parents, self.children)

    @cached_property
    def channels(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of each layer, as masses are counted.

        in is the sum of the parents' out. The input's out is 1 whatever the data, a pool's its in, a decision
        layer's and the output's 0; else it is the units.
        """
        found: list[tuple[int, int]] = []
        for layer, parents in zip(self.layers, self.parents, strict=True):
            into = sum(found[parent][1] for parent in parents)
            if layer.label == "ip":
                out = 1
            elif layer.label in POOLS:
                out = into
            else:
                out = layer.units or 0
            found.append((into, out))
        return tuple(found)

    @cached_property
    def masses(self) -> np.ndarray:
        """The mass of each layer, float64 [n].

        Of a layer with units in * units (fully connected ones a tenth of it), of a pool in. Input and output
        have a tenth of the sum of these each, at least 100; the decision layers share as much.
        """
        mass = np.zeros(len(self.layers))
        for number, (layer, (into, out)) in enumerate(zip(self.layers, self.channels, strict=True)):
            if layer.label in POOLS:
                mass[number] = into
            elif layer.has_units:
                mass[number] = into * out * (FC_MASS if layer.label == "fc" else 1.0)
        outer = max(ZETA * mass.sum(), LEAST_OUTER_MASS)
        decisions = [number for number, layer in enumerate(self.layers) if layer.label in DECISIONS]
        mass[decisions] = outer / len(decisions)
        mass[[0, -1]] = outer
        return mass

    @cached_property
    def path_lengths(self) -> np.ndarray:
        """Lengths of paths from each layer to the input and to the output, float64 [n, 2, G, 3].

        An edge taken out of a layer costs 1 where the layer is of the group, else 0. Axes: target (input,
        output), group (`GROUPS`), walk (`WALKS`: the shortest path, the longest, and the expectation where
        each next layer is drawn uniformly).
        """
        groups = self.groups.values()
        inside = np.array([[float(layer.label in group) for group in groups] for layer in self.layers])
        n = len(self.layers)
        to_input = _lengths(range(n), self.parents, inside)
        to_output = _lengths(range(n - 1, -1, -1), self.children, inside)
        return np.stack([to_input, to_output], 1)

    @cached_property
    def halvings(self) -> tuple[int | None, ...]:
        """How often the image was halved behind each layer; None where there is no image (any more)."""
        found: list[int | None] = []
        for layer, parents in zip(self.layers, self.parents, strict=True):
            before = 0 if layer.label == "ip" else found[parents[0]]
            if layer.label == "ip":
                found.append(before)
            elif before is None or not (layer.on_images or layer.label in POOLS):
                found.append(None)
            else:
                found.append(before + int(layer.halves))
        return tuple(found)

    @property
    def internal(self) -> tuple[int, ...]:
        """The numbers of the layers that process something: all but input, output and decision layers."""
        outer = ("ip", "op", *DECISIONS)
        return tuple(number for number, layer in enumerate(self.layers) if layer.label not in outer)

    @property
    def with_units(self) -> tuple[int, ...]:
        """The numbers of the layers that have units."""
        return tuple(number for number, layer in enumerate(self.layers) if layer.has_units)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` makes the same network of."""
        layers = []
        for layer in self.layers:
            told: dict[str, Any] = {"label": layer.label}
            told |= {} if layer.units is None else {"units": layer.units}
            layers.append(told | ({} if layer.stride is None else {"stride": layer.stride}))
        return {"kind": self.kind, "layers": layers, "edges": [list(edge) for edge in self.edges]}

    @classmethod
    def from_json(cls, data: Any) -> "Network":
        """The network that plain data describe; a convolution without `stride` has stride 1.

        Raises:
            UserError: they describe none.
        """
        form = (
            '{"kind": ..., "layers": [{"label": ..., "units": ..., "stride": ...}], "edges": [[0, 1], ...]}'
        )
        if not isinstance(data, dict) or set(data) != {"kind", "layers", "edges"}:
            raise UserError(f"a network is told as {form}")
        if not isinstance(data["layers"], list) or not isinstance(data["edges"], list):
            raise UserError(f"layers and edges of a network are lists; valid: {form}")
        layers = tuple(_layer_of(one, number, form) for number, one in enumerate(data["layers"]))
        edges = []
        for edge in data["edges"]:
            if not isinstance(edge, list | tuple) or len(edge) != 2 or not all(map(_is_whole, edge)):
                raise UserError(f"edge {edge} of a network; valid: two numbers of layers, as [0, 1]")
            edges.append((int(edge[0]), int(edge[1])))
        return cls(data["kind"], layers, tuple(edges))

    @property
    def code(self) -> tuple[int, ...]:
        """The network as whole numbers; the inverse of `decoded`.

        Kind (0 cnn, 1 mlp), layers n, then for each its label's number, units and stride (0 for none), then
        the edges' ends.
        """
        numbers = [list(LABELS).index(self.kind), len(self.layers)]
        for label, units, stride in self.layers:
            numbers += [LABELS[self.kind].index(label), units or 0, stride or 0]
        return (*numbers, *(end for edge in self.edges for end in edge))

    @classmethod
    def decoded(cls, code: Sequence[int]) -> "Network":
        """The network of a code.

        Raises:
            UserError: it is none.
        """
        kinds: list[Kind] = list(LABELS)
        if len(code) < 2 or not 0 <= code[0] < len(kinds) or code[1] < 0 or len(code) < 2 + 3 * code[1]:
            raise UserError(f"a code of {len(code)} numbers is no network; valid: what Network.code gives")
        kind, rest = kinds[code[0]], list(code[2 + 3 * code[1] :])
        layers = []
        for number in range(code[1]):
            label, units, stride = code[2 + 3 * number : 5 + 3 * number]
            if not 0 <= label < len(LABELS[kind]):
                raise UserError(f"label {label} of a code; valid: 0 to {len(LABELS[kind]) - 1}")
            layers.append(Layer(LABELS[kind][label], units or None, stride or None))
        if len(rest) % 2:
            raise UserError("the edges of a code are pairs; its last has one end")
        return cls(kind, tuple(layers), tuple(zip(rest[::2], rest[1::2], strict=True)))


def chain(kind: Kind, layers: Iterable[Layer]) -> Network:
    """A network whose layers, input and output included, stand in one row."""
    row = tuple(layers)
    return Network(kind, row, tuple((number, number + 1) for number in range(len(row) - 1)))


def read_network(path: Path) -> Network:
    """The network in a JSON file, as a search leaves it in `found.json`.

    Raises:
        UserError: no file, no JSON, or no network.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); valid: a network as JSON") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({str(error).splitlines()[0]})") from error
    try:
        return Network.from_json(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _lengths(order: Iterable[int], following: Sequence[Sequence[int]], inside: np.ndarray) -> np.ndarray:
    """Lengths from each layer to the first of an order, [n, G, 3], by dynamic programming.

    Args:
        order: the target first, each layer behind all that follow it on its way.
        following: of each layer those that a path may go to.
        inside: [n, G], 1 where a layer is of a group.
    """
    found = np.zeros((*inside.shape, len(WALKS)))
    for number in order:
        ahead = following[number]
        if len(ahead) == 1:
            found[number] = found[ahead[0]] + inside[number][:, None]
        elif ahead:
            several = found[list(ahead)]
            ways = (several[..., 0].min(0), several[..., 1].max(0), several[..., 2].mean(0))
            found[number] = np.stack(ways, -1) + inside[number][:, None]
    return found


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _layer_of(data: Any, number: int, form: str) -> Layer:
    if not isinstance(data, dict) or "label" not in data or not set(data) <= set(Layer._fields):
        raise UserError(f"layer {number} of a network is {data}; valid: {form}")
    units, stride = data.get("units"), data.get("stride")
    stride = 1 if stride is None and data["label"] in ON_IMAGES else stride
    return Layer(data["label"], units, stride)


def _check_layers(kind: Any, layers: Sequence[Layer]) -> None:
    if not isinstance(kind, str) or kind not in LABELS:
        raise UserError(f"kind {kind!r} of a network; valid: {', '.join(LABELS)}")
    if len(layers) < 3:
        raise UserError(
            f"a network of {len(layers)} layer{'s' * (len(layers) != 1)}; "
            "valid: at least three (ip, a decision layer, op)"
        )
    for number, layer in enumerate(layers):
        name = f"layer {number} ({layer.label})"
        if layer.label not in LABELS[kind]:
            raise UserError(
                f"layer {number} of a network is {layer.label!r}; valid: {', '.join(LABELS[kind])}"
            )
        if layer.has_units and not (_is_whole(layer.units) and (layer.units or 0) >= 1):
            raise UserError(f"{name} has units={layer.units}; valid: a whole number from 1 on")
        if not layer.has_units and layer.units is not None:
            raise UserError(
                f"{name} has units={layer.units}; valid: none, only {_unit_layers(kind)} have units"
            )
        if layer.on_images and layer.stride not in (1, 2):
            raise UserError(f"{name} has stride={layer.stride}; valid: 1 or 2")
        if not layer.on_images and layer.stride is not None:
            raise UserError(f"{name} has stride={layer.stride}; valid: none, only convolutions have strides")
    for label, what in (("ip", "input"), ("op", "output")):
        count = sum(layer.label == label for layer in layers)
        if count != 1:
            raise UserError(f"a network with {count} layers {label!r}; valid: exactly one {what}")


def _unit_layers(kind: Kind) -> str:
    return "convolutions and fc" if kind == "cnn" else "rectifiers and sigmoids"


def _check_edges(layers: Sequence[Layer], edges: Sequence[tuple[int, int]]) -> None:
    if len(set(edges)) != len(edges):
        twice = next(edge for edge in edges if list(edges).count(edge) > 1)
        raise UserError(f"edge {list(twice)} stands twice in a network; valid: each once")
    for u, v in edges:
        if not (0 <= u < len(layers) and 0 <= v < len(layers)):
            raise UserError(f"edge [{u}, {v}] of a network; valid: numbers of layers, 0 to {len(layers) - 1}")
    for number, layer in enumerate(layers):
        reads, read = any(v == number for _, v in edges), any(u == number for u, _ in edges)
        name = f"layer {number} ({layer.label})"
        if reads == (layer.label == "ip"):
            raise UserError(
                f"{name} {'reads a layer' if reads else 'has no input'}; valid: all but ip read one"
            )
        if read == (layer.label == "op"):
            raise UserError(f"{name} {'is read' if read else 'has no output'}; valid: all but op are read")


def _topological(layers: Sequence[Layer], edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layers' numbers, each behind those that it reads; of several possible ones the smallest first.

    Raises:
        UserError: there is a cycle.
    """
    waiting = [0] * len(layers)
    children: list[list[int]] = [[] for _ in layers]
    for u, v in edges:
        waiting[v] += 1
        children[u].append(v)
    ready = sorted(number for number, count in enumerate(waiting) if count == 0)
    order: list[int] = []
    while ready:
        number = ready.pop(0)
        order.append(number)
        for child in children[number]:
            waiting[child] -= 1
            if waiting[child] == 0:
                ready.append(child)
        ready.sort()
    if len(order) < len(layers):
        left = [number for number, count in enumerate(waiting) if count > 0]
        cycle = _cycle(left, children)
        names = " -> ".join(f"{number} ({layers[number].label})" for number in cycle)
        raise UserError(f"a network with the cycle {names}; valid: none")
    # nothing but the output is without children, so it comes last by itself
    return order


def _cycle(left: list[int], children: Sequence[Sequence[int]]) -> list[int]:
    """One cycle among the layers that no topological order has reached, its first layer twice."""
    among = set(left)
    parents = {v: [u for u in left if v in children[u]] for v in left}
    walk = [left[0]]
    # each of them reads another of them: walking backwards a layer must come again
    while walk[-1] not in walk[:-1]:
        walk.append(next(u for u in parents[walk[-1]] if u in among))
    return walk[walk.index(walk[-1]) :][::-1]


def _check_decisions(network: Network) -> None:
    for number in network.parents[-1]:
        if network.layers[number].label not in DECISIONS:
            label, valid = network.layers[number].label, _decisions(network)
            raise UserError(f"op reads a layer {label!r}; valid: decision layers ({valid})")
    for layer, children in zip(network.layers, network.children, strict=True):
        if layer.label in DECISIONS and children != (len(network) - 1,):
            raise UserError(f"a layer {layer.label!r} is read by others than op; valid: op alone")
    labels = {layer.label for layer in network.layers if layer.label in DECISIONS}
    if len(labels) > 1:
        raise UserError("a network with decision layers both linear and softmax; valid: one of them")


def _decisions(network: Network) -> str:
    return ", ".join(label for label in LABELS[network.kind] if label in DECISIONS)


def _check_images(network: Network) -> None:
    for layer, parents in zip(network.layers, network.parents, strict=True):
        sizes = [network.halvings[parent] for parent in parents]
        if layer.label == "op":
            continue
        if len(set(sizes)) > 1:
            told = ", ".join(
                f"{network.layers[parent].text} gives {_size(size)}"
                for parent, size in zip(parents, sizes, strict=True)
            )
            raise UserError(
                f"images of unequal sizes meet at a layer {layer.text}: {told}; valid: equal ones"
            )
        if (layer.on_images or layer.label in POOLS) and sizes[0] is None:
            raise UserError(f"a layer {layer.text} reads one without images; valid: convolutions and pools")


def _size(halvings: int | None) -> str:
    return "no image" if halvings is None else f"1/{2**halvings} of the sides"


Found = TypeVar("Found")


def valid_or_none(make: Callable[[], Found]) -> Found | None:
    """What `make` makes, or None where that is no network."""
    try:
        return make()
    except UserError:
        return None
