"""Convolutional cells as data: a normal and a reduction cell make a network.

A cell has two inputs, 0 (the output of the cell before the last) and 1 (that of the last cell), and B nodes;
node i = op1(source1) + op2(source2), each source an input or an earlier node. What no node reads is
concatenated.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from common.base.errors import UserError
from papers.nao.operations import (
    BY_NUMBER,
    BY_TOKENS,
    FIRST_KERNEL,
    FIRST_TYPE,
    KERNELS,
    NAO,
    OPERATIONS,
    TYPES,
    Operation,
    first_number,
)

INPUTS = 2


class Branch(NamedTuple):
    """What one half of a node does.

    Attributes:
        source: what it reads: 0 and 1 are the inputs, 2 the first node, ...
        operation: a name of `OPERATIONS`.
    """

    source: int
    operation: str


class Node(NamedTuple):
    """The sum of two branches."""

    first: Branch
    second: Branch

    @property
    def swapped(self) -> "Node":
        """The same node with its branches exchanged."""
        return Node(self.second, self.first)


Cell = tuple[Node, ...]


@dataclass(frozen=True)
class ConvArchitecture:
    """The two cells of a network.

    Attributes:
        normal: the cell that keeps the size of maps.
        reduction: the cell that halves it.
    """

    normal: Cell
    reduction: Cell

    @cached_property
    def canonical(self) -> "ConvArchitecture":
        """The one that stands for all that differ by the order of branches or by the numbers of nodes."""
        if self.normal == self.reduction:
            cell = canonical(self.normal)
            return ConvArchitecture(cell, cell)
        return ConvArchitecture(canonical(self.normal), canonical(self.reduction))

    @cached_property
    def key(self) -> str:
        """Equal for networks that are the same function but for the order of channels."""
        return json.dumps(self.canonical.to_json(), separators=(",", ":"))

    @property
    def operations(self) -> set[str]:
        """The names of those that occur."""
        return {b.operation for node in (*self.normal, *self.reduction) for b in node}

    def to_json(self) -> dict[str, Any]:
        """{"normal": [[source, operation, source, operation], ...], "reduction": ...}."""
        cells = {"normal": self.normal, "reduction": self.reduction}
        return {name: [[*node.first, *node.second] for node in cell] for name, cell in cells.items()}

    @classmethod
    def from_json(cls, data: Any) -> "ConvArchitecture":
        """What `to_json` gave, or the dictionary of the first official code, `conv_dag` and `reduc_dag`.

        Raises:
            UserError: it is neither; the place is named.
        """
        if isinstance(data, dict) and data.keys() == {"conv_dag", "reduc_dag"}:
            return cls(_dag(data["conv_dag"], "conv_dag"), _dag(data["reduc_dag"], "reduc_dag"))
        if not (isinstance(data, dict) and data.keys() == {"normal", "reduction"}):
            raise UserError(
                "an architecture is a dictionary of normal and reduction, or of conv_dag and reduc_dag"
            )
        return cls(_listed(data["normal"], "normal"), _listed(data["reduction"], "reduction"))


def loose_ends(cell: Cell) -> list[int]:
    """What no node reads, inputs included: what a cell concatenates."""
    read = {branch.source for node in cell for branch in node}
    return [state for state in range(INPUTS + len(cell)) if state not in read]


def canonical(cell: Cell) -> Cell:
    """The cell with the smallest code of all that are the same graph: branches sorted, nodes renumbered.

    Nodes are placed one by one, each time one whose sources are placed and whose renumbered branches are
    the smallest; where several are equal, all are tried.
    """
    best: list[Cell] = []

    def place(numbers: dict[int, int], placed: Cell) -> None:
        if len(placed) == len(cell):
            best[:] = [min([*best, placed])]
            return
        ready: dict[int, Node] = {}
        for index, node in enumerate(cell):
            own = INPUTS + index
            if own not in numbers and all(branch.source in numbers for branch in node):
                branches = sorted(Branch(numbers[b.source], b.operation) for b in node)
                ready[own] = Node(*branches)
        least = min(ready.values())
        for own in (number for number, node in ready.items() if node == least):
            place({**numbers, own: INPUTS + len(placed)}, (*placed, least))

    place({number: number for number in range(INPUTS)}, ())
    return best[0]


# --- what the parsers share


def _whole_numbers(text: str) -> list[int]:
    found = []
    for position, word in enumerate(text.split()):
        try:
            found.append(int(word))
        except ValueError as error:
            raise UserError(f"position {position}: {word!r} is no whole number") from error
    return found


def _nodes_of(count: int, each: int, text: str) -> int:
    """How many nodes a cell has where a pair of nodes takes `each` numbers."""
    nodes, rest = divmod(count, each)
    if rest or not nodes:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise UserError(
            f"{count} numbers ({shown}): valid: {each} for each node, as {5 * each} of five nodes"
        )
    return nodes


def _check(position: int, value: int, what: str, valid: range) -> None:
    if value not in valid:
        raise UserError(
            f"position {position}: {value} is no {what} (valid: {valid.start} to {valid.stop - 1})"
        )


def _listed(rows: Any, where: str) -> Cell:
    nodes = []
    for number, row in enumerate(_sequence(rows, where)):
        place = f"{where}, node {number}"
        if len(row := _sequence(row, place)) != 4:
            raise UserError(f"{place}: {row}; valid: [source, operation, source, operation]")
        nodes.append(Node(_branch(row[0], row[1], number, place), _branch(row[2], row[3], number, place)))
    return tuple(nodes)


def _dag(nodes: Any, where: str) -> Cell:
    """A cell of the first code's file: node_3 on has [name, source, source, operation, operation]."""
    if not isinstance(nodes, dict):
        raise UserError(f"{where}: valid: a dictionary of node_1, node_2, ...")
    found = []
    for number in range(len(nodes) - INPUTS):
        name = f"node_{number + INPUTS + 1}"
        place = f"{where}, {name}"
        row = nodes.get(name)
        if not (isinstance(row, Sequence) and len(row) == 5):
            raise UserError(f"{place}: {row}; valid: [name, source, source, operation, operation]")
        found.append(Node(*(_dag_branch(row[1 + half], row[3 + half], number, place) for half in range(2))))
    if not found:
        raise UserError(f"{where}: {len(nodes)} nodes; valid: at least {INPUTS + 1}, of which two are inputs")
    return tuple(found)


def _dag_branch(source: Any, operation: Any, number: int, place: str) -> Branch:
    kind, _, kernel = str(operation).partition(" ")
    name = BY_TOKENS.get(Operation(kind, kernel or "1x1"), str(operation))
    digits = str(source).removeprefix("node_")
    return _branch(int(digits) - 1 if digits.isdigit() else source, name, number, place)


def _branch(source: Any, operation: Any, number: int, place: str) -> Branch:
    if type(source) is not int or not 0 <= source < INPUTS + number:
        raise UserError(f"{place}: source {source}; valid: 0 to {INPUTS + number - 1}")
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise UserError(f"{place}: operation {operation}; valid: {', '.join(OPERATIONS)}")
    return Branch(source, operation)


def _sequence(value: Any, place: str) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise UserError(f"{place}: {value}; valid: a list")
    return value


def branches(cell: Cell) -> Iterator[Branch]:
    """All branches of a cell, the first and the second of each node."""
    for node in cell:
        yield from node


# --- the second official code: whole numbers


def parse_numbers(text: str) -> ConvArchitecture:
    """An architecture as 8 B whole numbers: per node `source operation source operation`.

    The normal cell comes first. Sources count from 0, operations are numbers of `BY_NUMBER`.

    Raises:
        UserError: another length, or a number that the grammar has no place for; its position is named.
    """
    values = _whole_numbers(text)
    nodes = _nodes_of(len(values), 8, text)
    cells: list[list[Node]] = [[], []]
    for index in range(2 * nodes):
        number = index % nodes
        branches = []
        for half in range(2):
            position = 4 * index + 2 * half
            source, operation = values[position], values[position + 1]
            _check(position, source, "source", range(INPUTS + number))
            _check(position + 1, operation, "operation", range(len(BY_NUMBER)))
            branches.append(Branch(source, BY_NUMBER[operation]))
        cells[index // nodes].append(Node(*branches))
    return ConvArchitecture(tuple(cells[0]), tuple(cells[1]))


def to_numbers(architecture: ConvArchitecture, operations: tuple[str, ...] = NAO) -> str:
    """The inverse of `parse_numbers`, with the numbers that a space gives its operations.

    Raises:
        UserError: an operation that the space has not.
    """
    first = first_number(operations)
    found: list[int] = []
    for node in (*architecture.normal, *architecture.reduction):
        for branch in node:
            if branch.operation not in operations:
                raise UserError(f"{branch.operation} is no operation of the space ({', '.join(operations)})")
            found += [branch.source, first + operations.index(branch.operation)]
    return " ".join(map(str, found))


# --- the first official code: tokens


def parse_tokens(text: str) -> ConvArchitecture:
    """An architecture as 12 B tokens: per branch `source type kernel`, a `|` may stand between the cells.

    Sources count from 1, types from 7 (`TYPES`), kernels from 14 (`KERNELS`); the identity is 7 14.

    Raises:
        UserError: another length, or a token that the grammar has no place for; its position is named.
    """
    values = _whole_numbers(text.replace("|", " "))
    nodes = _nodes_of(len(values), 12, text)
    bars = [len(part.split()) for part in text.split("|")[:-1]]
    if bars not in ([], [6 * nodes]):
        raise UserError(f"a | behind {bars[0]} tokens (valid: one, between the cells, behind {6 * nodes})")
    cells: list[list[Node]] = [[], []]
    for index in range(2 * nodes):
        branches = []
        for half in range(2):
            position = 6 * index + 3 * half
            source, kind, kernel = values[position : position + 3]
            _check(position, source, "source", range(1, 1 + INPUTS + index % nodes))
            _check(position + 1, kind, "type", range(FIRST_TYPE, FIRST_TYPE + len(TYPES)))
            _check(position + 2, kernel, "kernel", range(FIRST_KERNEL, FIRST_KERNEL + len(KERNELS)))
            pair = Operation(TYPES[kind - FIRST_TYPE], KERNELS[kernel - FIRST_KERNEL])
            if pair not in BY_TOKENS:
                raise UserError(
                    f"position {position + 2}: {pair.type} has no kernel {pair.kernel} "
                    f"(valid: {', '.join(other.kernel for other in BY_TOKENS if other.type == pair.type)})"
                )
            branches.append(Branch(source - 1, BY_TOKENS[pair]))
        cells[index // nodes].append(Node(*branches))
    return ConvArchitecture(tuple(cells[0]), tuple(cells[1]))


def to_tokens(architecture: ConvArchitecture) -> str:
    """The inverse of `parse_tokens`."""
    texts = [
        " ".join(str(token) for node in cell for branch in node for token in branch_tokens(branch))
        for cell in (architecture.normal, architecture.reduction)
    ]
    return " | ".join(texts)


def branch_tokens(branch: Branch) -> tuple[int, int, int]:
    """Source, type and kernel of a branch as tokens of the first official code."""
    kind, kernel = OPERATIONS[branch.operation]
    return branch.source + 1, FIRST_TYPE + TYPES.index(kind), FIRST_KERNEL + KERNELS.index(kernel)


# --- published ones

NAMED: dict[str, ConvArchitecture] = {
    # NAONet, which the second code calls NAONet-A
    "naonet": parse_numbers(
        "0 7 1 15 2 8 1 7 0 6 1 7 0 8 4 7 1 5 0 7 0 7 1 13 0 6 0 14 0 9 1 10 0 14 2 6 1 11 0 7"
    ),
    # as the first code's file has it: the inputs of the reduction cell's third node are exchanged
    "naonet_dag": parse_numbers(
        "0 7 1 15 2 8 1 7 0 6 1 7 0 8 4 7 1 5 0 7 0 7 1 13 0 6 0 14 1 9 0 10 0 14 2 6 1 11 0 7"
    ),
    "naonet_b": parse_numbers(
        "0 1 0 2 0 1 2 2 1 3 0 2 4 0 1 3 2 1 0 3 1 1 1 0 2 1 2 4 1 0 2 3 3 1 2 2 0 2 0 2"
    ),
    "naonet_ws": parse_numbers(
        "0 1 0 4 2 2 1 3 1 0 2 0 2 3 1 3 1 2 0 4 1 1 0 3 2 3 2 3 1 0 0 1 0 4 2 4 2 3 2 3"
    ),
    "amoebanet_a": parse_tokens(
        "1 11 16 1 12 16 3 11 16 1 8 16 4 11 16 1 8 16 2 8 16 2 7 14 2 11 16 1 7 14 | "
        "1 11 16 2 8 16 1 12 16 3 8 18 1 8 18 2 11 16 2 12 16 1 12 16 6 8 16 1 9 20"
    ),
    "nasnet_a": parse_tokens(
        "2 8 16 2 7 14 1 8 16 2 8 17 2 11 16 1 7 14 1 11 16 1 11 16 1 8 17 1 8 16 | "
        "1 8 18 2 8 17 2 12 16 1 8 18 2 11 16 1 8 17 2 12 16 3 8 16 3 11 16 4 7 14"
    ),
    "enas": parse_tokens(
        "1 11 16 1 8 16 1 7 14 1 8 17 1 7 14 2 8 17 2 8 16 1 8 17 1 11 16 2 8 17 | "
        "2 8 16 2 8 16 1 12 16 1 11 16 2 8 17 4 8 17 2 8 16 1 7 14 1 12 16 2 8 17"
    ),
}  # fmt: skip


def conv_architecture_of(given: Any) -> ConvArchitecture:
    """An architecture by its name, its numbers, its tokens, as a dictionary, or as a JSON file.

    Of a text of whole numbers, one that the first code wrote has 12 for each node and no 0; all others are
    read as the second code's.

    Raises:
        UserError: it is none; the position of the first wrong number is named.
    """
    if isinstance(given, ConvArchitecture):
        return given
    if isinstance(given, dict):
        return ConvArchitecture.from_json(given)
    text = str(given).strip()
    if text in NAMED:
        return NAMED[text]
    if text.endswith(".json"):
        return _from_file(Path(text).expanduser())
    words = text.replace("|", " ").split()
    if not (words and all(word.lstrip("-").isdigit() for word in words)):
        raise UserError(
            f"architecture {text}: valid: {', '.join(NAMED)}, a string of whole numbers, or a JSON file"
        )
    tokens = "|" in text or (len(words) % 12 == 0 and "0" not in words)
    return parse_tokens(text) if tokens else parse_numbers(text)


def _from_file(path: Path) -> ConvArchitecture:
    try:
        return ConvArchitecture.from_json(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"architecture {path}: {str(error).splitlines()[0]}") from error
    except UserError as error:
        raise UserError(f"architecture {path}: {error}") from error
