"""NASBOT for convolutional cells: a pair of cells as a graph, whose layers are what its branches do.

Cells are known by their plain data, `{"normal": [[source, operation, source, operation], ...], "reduction":
...}` with a row for each node, as `paper=nao` has them: sources 0 and 1 are the outputs of the cells before,
2 the first node. A node adds both branches up, so whatever reads it reads both of their layers. The paper has
no such space: labels, penalties and masses are its rules carried over.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, ClassVar, Unpack

import numpy as np

from common.architectures.record import Evaluated, Record
from common.architectures.space import ArchitectureSpace
from common.base.errors import UserError
from common.base.limits import require
from papers.nasbot.acquisition import evolve, values_at
from papers.nasbot.distances import NON_ASSIGNMENT, Otmann
from papers.nasbot.graph import ZETA, Layer, Network
from papers.nasbot.modifiers import Random
from papers.nasbot.searchers import Nasbot, NasbotSettings

CONVOLUTIONS = ("conv", "sep_conv", "dil_sep_conv")
POOLS = ("max_pool", "avg_pool", "min_pool")
FAMILIES = (*CONVOLUTIONS, *POOLS)
KERNELS = (1, 2, 3, 5, 7)
# the cell before, and what a branch does: a family with the larger side of its window
LABELS = ("ip", "op", "cell", "identity", *(f"{name} {kernel}" for name in FAMILIES for kernel in KERNELS))
GROUPS = {
    "all": LABELS,
    "conv": tuple(label for label in LABELS if label.split()[0] in CONVOLUTIONS),
    "pool": tuple(label for label in LABELS if label.split()[0] in POOLS),
}
# descriptions of a space whose distances are all remembered, as searches come back to the same pairs
REMEMBERED = 10_000


def label_of(operation: str) -> str:
    """`conv 3` of `conv_3x3`, `conv 7` of `conv_1x7_7x1`.

    Raises:
        UserError: no operation of a cell.
    """
    family = re.split(r"_\d", operation)[0]
    sides = [int(side) for side in re.findall(r"\d", operation)]
    label = f"{family} {max(sides)}" if sides else family
    if label not in LABELS[3:]:
        raise UserError(f"operation {operation}; valid: identity, or one of {', '.join(FAMILIES)} with _KxK")
    return label


@cache
def penalties() -> np.ndarray:
    """Of matching layers by their labels, [labels, labels], after those of layers (`label_penalties`).

    Same label 0. Convolutions of windows a, b: sqrt(2) / 10 sqrt|a - b|, of two families 0.9 of that + 0.1.
    Poolings of one family likewise by their windows, of two 0.5. All others infinite.
    """
    return np.array([[_penalty(one, other) for other in LABELS] for one in LABELS])


def _penalty(one: str, other: str) -> float:
    if one == other:
        return 0.0
    (first, *sides), (second, *others) = one.split(), other.split()
    if not (sides and others) or (first in POOLS) != (second in POOLS):
        return math.inf
    windows = math.sqrt(2) / 10 * math.sqrt(abs(int(sides[0]) - int(others[0])))
    if first == second:
        return windows * NON_ASSIGNMENT
    return (0.5 if first in POOLS else 0.9 * windows + 0.1) * NON_ASSIGNMENT


@dataclass(frozen=True)
class CellGraph(Network):
    """A pair of cells as a network of layers; see `graph_of`.

    Attributes:
        architecture: what it is the graph of; its key is the graph's.
        width: see `graph_of`.
    """

    architecture: Any = field(default=None, compare=False)
    width: int = 1

    def __post_init__(self) -> None:
        """Nothing to check: `graph_of` makes it of cells."""

    @property
    def labels(self) -> tuple[str, ...]:
        return LABELS

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        return GROUPS

    @cached_property
    def key(self) -> str:
        return str(self.architecture.key)

    @cached_property
    def masses(self) -> np.ndarray:
        """Of a convolution width^2, of other layers the width, of input and output a tenth of their sum."""
        convolutional = [layer.label in GROUPS["conv"] for layer in self.layers]
        mass = np.where(convolutional, float(self.width) ** 2, float(self.width))
        mass[[0, -1]] = ZETA * mass[1:-1].sum()
        return mass


def graph_of(architecture: Any, width: int) -> CellGraph:
    """The graph of a normal and a reduction cell, the second behind the first; of two equal ones just one.

    Args:
        architecture: its `to_json` gives cells as the module has them.
        width: channels of a branch.

    Raises:
        UserError: it has no cells.
    """
    data = architecture.to_json()
    if not (isinstance(data, dict) and data.keys() == {"normal", "reduction"}):
        raise UserError(
            f"{type(architecture).__name__} has no cells (valid: those of a normal and a reduction cell)"
        )
    layers, edges = [Layer("ip"), Layer("cell")], [(0, 1)]
    before, last = [0], [1]
    cells = [data["normal"], data["reduction"]]
    for cell in cells[:1] if cells[0] == cells[1] else cells:
        before, last = last, _add_cell(cell, [before, last], layers, edges)
    edges += [(end, len(layers)) for end in last]
    layers.append(Layer("op"))
    return CellGraph("cnn", tuple(layers), tuple(sorted(edges)), architecture, width)


def _add_cell(
    cell: Sequence[Sequence[Any]],
    states: list[list[int]],
    layers: list[Layer],
    edges: list[tuple[int, int]],
) -> list[int]:
    """Append a cell's layers and edges; the layers that it ends with, those of the states that none reads.

    Args:
        states: of both inputs the layers that make them.
    """
    read: set[int] = set()
    for row in cell:
        ends = []
        for source, operation in (row[:2], row[2:]):
            edges += [(end, len(layers)) for end in states[source]]
            ends.append(len(layers))
            layers.append(Layer(label_of(operation)))
            read.add(source)
        states = [*states, ends]
    return [end for number, state in enumerate(states) if number not in read for end in state]


class CellNasbot(Nasbot):
    """NASBOT in a space of cells: what is uphill of its acquisition is found by the space's own mutations.

    Args:
        initial: architectures at random before the first that the process chooses.
        distances, form, weights, acquisition, refit, draws: see `Nasbot`.
        width: see `graph_of`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "nasbot"

    def __init__(self, *, width: int, **settings: Unpack[NasbotSettings]) -> None:
        super().__init__(start="evaluated", **settings)
        require("at least 1", "method.searcher", width=width)
        self.width = width
        self.otmann = Otmann(settings["weights"], penalties())

    def propose(self, space: ArchitectureSpace[Any], record: Record[Any], random: Random) -> Any:
        number = len(record) + len(record.pending)
        if number < self.initial or not record.best(1):
            return space.sample(random)
        self.remembers = space.size <= REMEMBERED
        belief = self._belief(self._graphs(record), random)

        def change(parent: Network, own: Random) -> Network:
            assert isinstance(parent, CellGraph)
            return graph_of(space.mutate(parent.architecture, own), self.width)

        made = evolve(belief.values, belief.networks, change, belief.known, values_at(len(record)), random)
        if not made:
            return space.sample(random)
        assert isinstance(made[0], CellGraph)
        return made[0].architecture

    def _graphs(self, record: Record[Any]) -> Record[Network]:
        """The record of the graphs."""
        found: Record[Network] = Record()
        for one in record:
            graph = graph_of(one.architecture, self.width)
            found.add(Evaluated(graph, one.measures, one.costs, one.seconds, one.failure))
        found.pending = [graph_of(one, self.width) for one in record.pending]
        return found
