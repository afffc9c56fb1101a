"""The space of dense prediction cells: B branches, each with one of its inputs and one of the operators."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from common.architectures.space import ArchitectureSpace, Random, whole_numbers
from common.base.errors import UserError
from papers.dpc.cell import FEATURES, Branch, Cell, Operator

# the paper's: 1 + 8² + 4² = 81 operators, 5! 81^5 cells of five branches
RATES = (1, 3, 6, 9, 12, 15, 18, 21)
GRIDS = (1, 2, 4, 8)
BRANCHES = 5


class CellSpace(ArchitectureSpace[Cell]):
    """Cells of B branches: branch i reads F or one of i earlier branches, by one of n operators; B! n^B
    cells.

    Operators, in the order of their numbers: the 1x1 convolution, the 3x3 convolutions by their rates, the
    poolings by their grids.

    Args:
        branches: B.
        rates: of the 3x3 convolutions, for each direction.
        grids: of the poolings, for each direction.

    Raises:
        UserError: no branches, a size below 1 or twice.
    """

    def __init__(
        self, branches: int = BRANCHES, rates: Sequence[int] = RATES, grids: Sequence[int] = GRIDS
    ) -> None:
        if branches < 1:
            raise UserError(f"method.branches={branches}; valid: at least 1")
        for key, sizes in (("rates", rates), ("grids", grids)):
            if len(set(sizes)) != len(sizes) or any(size < 1 for size in sizes):
                raise UserError(f"method.{key}={list(sizes)}; valid: different whole numbers from 1 on")
        self.branches = branches
        self.operators = (
            Operator("conv1x1"),
            *(Operator("atrous", pair) for pair in itertools.product(rates, rates)),
            *(Operator("pool", pair) for pair in itertools.product(grids, grids)),
        )
        self._numbers = {operator: number for number, operator in enumerate(self.operators)}

    @property
    def size(self) -> int:
        """B! n^B."""
        return math.factorial(self.branches) * len(self.operators) ** self.branches

    @property
    def functions(self) -> int:
        """How many cells differ as functions: forests of B nodes with n labels.

        With t_k trees of k nodes (n times the forests of k - 1) the forests are the coefficients of
        prod_k (1 - x^k)^(-t_k), the Euler transform of t.
        """
        forests, trees = [1], [0]
        for nodes in range(1, self.branches + 1):
            trees.append(len(self.operators) * forests[nodes - 1])
            total = sum(
                sum(d * trees[d] for d in range(1, k + 1) if k % d == 0) * forests[nodes - k]
                for k in range(1, nodes + 1)
            )
            forests.append(total // nodes)
        return forests[self.branches]

    def sample(self, random: Random) -> Cell:
        """For each branch an input and an operator, all alike probable."""
        return Cell(
            tuple(
                Branch(int(random.integers(number + 1)) - 1, self._operator(random))
                for number in range(self.branches)
            )
        )

    def _operator(self, random: Random) -> Operator:
        return self.operators[int(random.integers(len(self.operators)))]

    def mutate(self, architecture: Cell, random: Random) -> Cell:
        """Another operator, or (with probability 1/2, where it has a choice) another input of one branch."""
        branches = list(architecture.branches)
        number = int(random.integers(len(branches)))
        source, operator = branches[number]
        if number > 0 and random.random() < 0.5:
            others = [other for other in range(FEATURES, number) if other != source]
            branches[number] = Branch(others[int(random.integers(len(others)))], operator)
        else:
            rest = [other for other in self.operators if other != operator]
            if not rest:
                raise UserError("method.rates=[], method.grids=[]: there is no second operator to change to")
            branches[number] = Branch(source, rest[int(random.integers(len(rest)))])
        return Cell(tuple(branches))

    def encode(self, architecture: Cell) -> tuple[int, ...]:
        """(input + 1, operator) of each branch, one after the other: 2 B numbers."""
        self.require(architecture)
        pairs = ((source + 1, self._numbers[operator]) for source, operator in architecture.branches)
        return tuple(itertools.chain.from_iterable(pairs))

    def decode(self, code: tuple[int, ...]) -> Cell:
        if len(code) != 2 * self.branches:
            raise UserError(f"a code of {len(code)} numbers; valid: {2 * self.branches}")
        branches = []
        code = whole_numbers(code)
        for number, (source, operator) in enumerate(zip(code[::2], code[1::2], strict=True)):
            if not (0 <= source <= number and 0 <= operator < len(self.operators)):
                raise UserError(
                    f"a code with ({source}, {operator}) for branch {number}; "
                    f"valid: an input of 0 to {number}, an operator of 0 to {len(self.operators) - 1}"
                )
            branches.append(Branch(source - 1, self.operators[operator]))
        return Cell(tuple(branches))

    def from_json(self, data: Any) -> Cell:
        cell = Cell.from_json(data)
        self.require(cell)
        return cell

    def require(self, cell: Cell) -> None:
        """Refuse a cell that is not in the space.

        Raises:
            UserError: other numbers of branches, an operator that is none of the space's.
        """
        if len(cell.branches) != self.branches:
            raise UserError(f"a cell of {len(cell.branches)} branches; valid: {self.branches}")
        for number, (_, operator) in enumerate(cell.branches):
            if operator not in self._numbers:
                raise UserError(f"a cell whose branch {number} is {operator.label}: no operator of the space")
