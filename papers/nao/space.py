"""The spaces that are searched: pairs of convolutional cells, and recurrent cells."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, Literal

from common.architectures.space import ArchitectureSpace, Random, whole_numbers
from common.base.errors import UserError
from papers.nao.cell import INPUTS, Branch, Cell, ConvArchitecture, Node, branches
from papers.nao.grammar import Grammar, PairGrammar, RecurrentGrammar, SplitGrammar
from papers.nao.operations import OPERATIONS
from papers.nao.recurrent_cell import ACTIVATIONS, STEPS, RecurrentCell, Step

# descriptions of a space that may be counted through
LARGEST = 1_000_000

Tokens = Literal["pairs", "split"]


class ConvSpace(ArchitectureSpace[ConvArchitecture]):
    """Networks of a normal and a reduction cell of B nodes with n operations.

    A cell has prod_{i=2..B+1} (i n)^2 descriptions, as each branch of a node reads one of i earlier states.

    Args:
        nodes: B.
        operations: names of `OPERATIONS`.
        one_cell: the reduction cell is the normal cell, with stride.
        tokens: how the grammar writes an operation.

    Attributes:
        grammar: its language.
        counts: how many choices each number of a code has, which do not depend on each other.

    Raises:
        UserError: no nodes, an unknown operation, one twice.
    """

    def __init__(
        self, nodes: int, operations: tuple[str, ...], one_cell: bool = False, tokens: Tokens = "pairs"
    ) -> None:
        if nodes < 1:
            raise UserError(f"method.nodes={nodes}; valid: at least 1")
        wrong = [name for name in operations if name not in OPERATIONS]
        if wrong or not operations or len(set(operations)) != len(operations):
            raise UserError(
                f"method.operations={list(operations)}; valid: different ones of {', '.join(OPERATIONS)}"
            )
        self.nodes, self.operations, self.one_cell = nodes, tuple(operations), one_cell
        make = PairGrammar if tokens == "pairs" else SplitGrammar
        self.grammar: Grammar[ConvArchitecture] = make(nodes, self.operations, one_cell)
        of_cell = [count for node in range(nodes) for count in (INPUTS + node, len(self.operations)) * 2]
        self.counts = tuple(of_cell * (1 if one_cell else 2))

    @property
    def size(self) -> int:
        """prod (i n)^2 of one cell, and its square where the cells differ."""
        of_cell = math.prod((i * len(self.operations)) ** 2 for i in range(INPUTS, INPUTS + self.nodes))
        return of_cell if self.one_cell else of_cell**2

    def sample(self, random: Random) -> ConvArchitecture:
        normal = self._sample_cell(random)
        return ConvArchitecture(normal, normal if self.one_cell else self._sample_cell(random))

    def _sample_cell(self, random: Random) -> Cell:
        nodes = []
        for number in range(self.nodes):
            drawn = [Branch(int(random.integers(INPUTS + number)), self._operation(random)) for _ in range(2)]
            nodes.append(Node(*drawn))
        return tuple(nodes)

    def _operation(self, random: Random) -> str:
        return self.operations[int(random.integers(len(self.operations)))]

    def mutate(self, architecture: ConvArchitecture, random: Random) -> ConvArchitecture:
        """Another source or (with probability 1/2) another operation of one branch of one cell."""
        code = list(self.encode(architecture))
        branch = int(random.integers(len(code) // 2))
        node = branch // 2 % self.nodes
        change_operation = random.random() < 0.5 and len(self.operations) > 1
        place = 2 * branch + change_operation
        choices = len(self.operations) if change_operation else INPUTS + node
        code[place] = (code[place] + 1 + int(random.integers(choices - 1))) % choices
        return self.decode(tuple(code))

    def every(self) -> Iterator[ConvArchitecture]:
        """Those of a space of one cell, each as the one that stands for all of its key.

        Raises:
            UserError: more than a million descriptions.
        """
        if self.size > LARGEST:
            raise UserError(
                f"the space has {self.size} architectures; valid to count through: up to {LARGEST}"
            )
        seen: set[str] = set()
        for code in itertools.product(*map(range, self.counts)):
            architecture = self.decode(code)
            if architecture.key not in seen:
                seen.add(architecture.key)
                yield architecture.canonical

    def encode(self, architecture: ConvArchitecture) -> tuple[int, ...]:
        """(source, operation) of each branch, the normal cell first: 4 B numbers a cell."""
        self.require(architecture)
        cells = (architecture.normal,) if self.one_cell else (architecture.normal, architecture.reduction)
        return tuple(
            number
            for cell in cells
            for branch in branches(cell)
            for number in (branch.source, self.operations.index(branch.operation))
        )

    def decode(self, code: tuple[int, ...]) -> ConvArchitecture:
        length = 4 * self.nodes * (1 if self.one_cell else 2)
        if len(code) != length:
            raise UserError(f"a code of {len(code)} numbers; valid: {length}")
        found: list[Branch] = []
        code = whole_numbers(code)
        for number, (source, operation) in enumerate(zip(code[::2], code[1::2], strict=True)):
            sources = INPUTS + number // 2 % self.nodes
            if not (0 <= source < sources and 0 <= operation < len(self.operations)):
                raise UserError(
                    f"a code with ({source}, {operation}) at position {2 * number}; valid: a source of 0 to "
                    f"{sources - 1}, an operation of 0 to {len(self.operations) - 1}"
                )
            found.append(Branch(source, self.operations[operation]))
        nodes = [Node(*found[at : at + 2]) for at in range(0, len(found), 2)]
        return ConvArchitecture(tuple(nodes[: self.nodes]), tuple(nodes[-self.nodes :]))

    def from_json(self, data: Any) -> ConvArchitecture:
        architecture = ConvArchitecture.from_json(data)
        self.require(architecture)
        return architecture

    def require(self, architecture: ConvArchitecture) -> None:
        """Refuse an architecture outside the space.

        Raises:
            UserError: other numbers of nodes, an operation that is none of the space's, two cells for one.
        """
        for name, cell in (("normal", architecture.normal), ("reduction", architecture.reduction)):
            if len(cell) != self.nodes:
                raise UserError(f"the {name} cell has {len(cell)} nodes; valid in this space: {self.nodes}")
            for number, node in enumerate(cell):
                for branch in node:
                    if branch.operation not in self.operations:
                        raise UserError(
                            f"the {name} cell's node {number} has {branch.operation}; valid in this space: "
                            f"{', '.join(self.operations)}"
                        )
        if self.one_cell and architecture.normal != architecture.reduction:
            raise UserError(
                "the reduction cell is not the normal one; valid in this space: one cell for both"
            )


class RecurrentSpace(ArchitectureSpace[RecurrentCell]):
    """Recurrent cells of n steps: prod_{i=1..n} 4 i descriptions.

    Args:
        steps: n, at least 1.

    Attributes:
        grammar: its language.
        counts: how many choices each number of a code has, which do not depend on each other.

    Raises:
        UserError: no steps.
    """

    def __init__(self, steps: int = STEPS) -> None:
        if steps < 1:
            raise UserError(f"method.steps={steps}; valid: at least 1")
        self.steps = steps
        self.grammar: Grammar[RecurrentCell] = RecurrentGrammar(steps)
        self.counts = tuple(count for i in range(1, steps + 1) for count in (i, len(ACTIVATIONS)))

    @property
    def size(self) -> int:
        """prod 4 i."""
        return math.prod(len(ACTIVATIONS) * i for i in range(1, self.steps + 1))

    def sample(self, random: Random) -> RecurrentCell:
        drawn = [
            (int(random.integers(i)), int(random.integers(len(ACTIVATIONS))))
            for i in range(1, self.steps + 1)
        ]
        return RecurrentCell(tuple(Step(source, ACTIVATIONS[act]) for source, act in drawn))

    def mutate(self, architecture: RecurrentCell, random: Random) -> RecurrentCell:
        """Another activation, or (with probability 1/2, where it has a choice) another source of one step."""
        code = list(self.encode(architecture))
        step = int(random.integers(self.steps))
        place = 2 * step + (random.random() < 0.5 or step == 0)
        choices = len(ACTIVATIONS) if place % 2 else step + 1
        code[place] = (code[place] + 1 + int(random.integers(choices - 1))) % choices
        return self.decode(tuple(code))

    def encode(self, architecture: RecurrentCell) -> tuple[int, ...]:
        """(source, activation) of each step."""
        if len(architecture.steps) != self.steps:
            raise UserError(f"a cell of {len(architecture.steps)} steps; valid in this space: {self.steps}")
        pairs = ((step.source, ACTIVATIONS.index(step.activation)) for step in architecture.steps)
        return tuple(number for pair in pairs for number in pair)

    def decode(self, code: tuple[int, ...]) -> RecurrentCell:
        if len(code) != 2 * self.steps:
            raise UserError(f"a code of {len(code)} numbers; valid: {2 * self.steps}")
        steps = []
        code = whole_numbers(code)
        for number, (source, activation) in enumerate(zip(code[::2], code[1::2], strict=True)):
            if not (0 <= source <= number and 0 <= activation < len(ACTIVATIONS)):
                raise UserError(
                    f"a code with ({source}, {activation}) at position {2 * number}; valid: a source of 0 to "
                    f"{number}, an activation of 0 to {len(ACTIVATIONS) - 1}"
                )
            steps.append(Step(source, ACTIVATIONS[activation]))
        return RecurrentCell(tuple(steps))

    def from_json(self, data: Any) -> RecurrentCell:
        cell = RecurrentCell.from_json(data)
        self.encode(cell)
        return cell
