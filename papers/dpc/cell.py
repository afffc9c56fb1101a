"""Dense prediction cells as data: Chen et al., "Searching for Efficient Multi-Scale Architectures for Dense
Image Prediction", NeurIPS 2018, section 3.1.

A cell has B branches b_i = (X_i, OP_i). X_i is F, the backbone's last map, or the output of an earlier
branch; the output of the cell is the concatenation of all branches. A cell as the official code publishes it
is a list of dicts, one a branch:

    {"op": "conv", "kernel": 1, "input": -1}
    {"op": "conv", "kernel": 3, "rate": [6, 3], "input": 1}
    {"op": "pyramid_pooling", "grid_size": [1, 1], "input": -1}

where input -1 is F and other numbers are branches, from 0.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from common.base.errors import UserError

Kind = Literal["conv1x1", "atrous", "pool"]
Pair = tuple[int, int]
# the input of a branch that reads the backbone's map
FEATURES = -1


class Operator(NamedTuple):
    """What a branch does to its input.

    Attributes:
        kind: `conv1x1`; `atrous`: a 3x3 separable convolution; `pool`: average pooling over a grid.
        sizes: the rates (vertical, horizontal) of `atrous`, the cells (down, across) of `pool`; (1, 1) of
            `conv1x1`.
    """

    kind: Kind
    sizes: Pair = (1, 1)

    @property
    def label(self) -> str:
        """A few signs, for pictures: `1x1`, `3x3 6x21`, `pool 2x4`."""
        if self.kind == "conv1x1":
            return "1x1"
        return f"{'3x3' if self.kind == 'atrous' else 'pool'} {self.sizes[0]}x{self.sizes[1]}"


class Branch(NamedTuple):
    """An operator and what it reads: -1 for F, else the number of an earlier branch."""

    input: int
    operator: Operator


@dataclass(frozen=True)
class Cell:
    """A dense prediction cell; equal and hashed by its branches in their order.

    Args:
        branches: at least one.

    Raises:
        UserError: a branch reads itself, a later one, or one that is not there; a size below 1.
    """

    branches: tuple[Branch, ...]

    def __post_init__(self) -> None:
        if not self.branches:
            raise UserError("cell: has no branches (valid: a list of at least one)")
        for number, (source, operator) in enumerate(self.branches):
            if not FEATURES <= source < number:
                what = "itself" if source == number else f"branch {source}"
                earlier = f", 0 to {number - 1}" if number else ""
                raise UserError(f"cell: branch {number} reads {what} (valid: -1 for the backbone{earlier})")
            if min(operator.sizes) < 1:
                raise UserError(f"cell: branch {number} has sizes {list(operator.sizes)} (valid: at least 1)")

    @cached_property
    def _children(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {number: [] for number in range(FEATURES, len(self.branches))}
        for number, (source, _) in enumerate(self.branches):
            found[source].append(number)
        return found

    def canonical(self) -> "Cell":
        """The same function with its branches in the one order that all its relabellings share.

        As a branch reads one map, a cell is a tree with the root F; two cells are the same function, up to
        the order of the concatenated channels, where their trees are. Children are sorted by their subtrees
        (Aho, Hopcroft, Ullman 1974), and branches numbered on the way down.
        """
        order: list[Branch] = []
        self._walk(FEATURES, FEATURES, order)
        return Cell(tuple(order))

    def _walk(self, number: int, source: int, order: list[Branch]) -> None:
        for child in sorted(self._children[number], key=self._subtree):
            order.append(Branch(source, self.branches[child].operator))
            self._walk(child, len(order) - 1, order)

    def _subtree(self, number: int) -> tuple[Any, ...]:
        return self.branches[number].operator, tuple(sorted(map(self._subtree, self._children[number])))

    @property
    def key(self) -> str:
        """A text that is equal for cells of one canonical form, and for no others."""
        return json.dumps(self.canonical().to_json(), separators=(",", ":"))

    def to_json(self) -> list[dict[str, Any]]:
        """As the official code has it, see above."""
        return [_to_json(branch) for branch in self.branches]

    @classmethod
    def from_json(cls, branches: Any) -> "Cell":
        """A cell out of the official form; keys that its code adds on its way (`target_size`) are left out.

        Raises:
            UserError: what is no such list names the branch and the key.
        """
        if isinstance(branches, str | Mapping) or not isinstance(branches, Iterable):
            raise UserError("cell: is no list of branches (valid: [{op: conv, kernel: 1, input: -1}, ...])")
        return cls(tuple(_from_json(number, branch) for number, branch in enumerate(branches)))

    @classmethod
    def read(cls, path: Path) -> "Cell":
        """A cell out of a JSON file.

        Raises:
            UserError: no such file, no JSON, no cell.
        """
        try:
            return cls.from_json(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise UserError(f"cell {path}: {str(error).splitlines()[0]} (valid: a JSON file)") from error


def _to_json(branch: Branch) -> dict[str, Any]:
    kind, sizes = branch.operator
    if kind == "conv1x1":
        return {"op": "conv", "kernel": 1, "input": branch.input}
    if kind == "atrous":
        return {"op": "conv", "kernel": 3, "rate": list(sizes), "input": branch.input}
    return {"op": "pyramid_pooling", "grid_size": list(sizes), "input": branch.input}


def _from_json(number: int, branch: Any) -> Branch:
    if not isinstance(branch, Mapping):
        raise UserError(f"cell: branch {number} is {branch} (valid: a dictionary of op, input, ...)")
    source = branch.get("input")
    if not isinstance(source, int) or isinstance(source, bool):
        raise UserError(f"cell: branch {number} has input {source} (valid: -1 for the backbone, or a branch)")
    op, kernel = branch.get("op"), branch.get("kernel")
    if op == "conv" and kernel == 1:
        return Branch(source, Operator("conv1x1"))
    if op == "conv" and kernel == 3:
        return Branch(source, Operator("atrous", _pair(number, "rate", branch.get("rate"))))
    if op == "pyramid_pooling":
        return Branch(source, Operator("pool", _pair(number, "grid_size", branch.get("grid_size"))))
    raise UserError(
        f"cell: branch {number} has op {op} and kernel {kernel} "
        "(valid: conv with kernel 1 or 3, pyramid_pooling)"
    )


def _pair(number: int, key: str, value: object) -> Pair:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        first, second = value
        if type(first) is int and type(second) is int:
            return first, second
    raise UserError(f"cell: branch {number} has {key} {value} (valid: two whole numbers)")


def atrous(rows: int, columns: int, source: int = FEATURES) -> Branch:
    """A branch with a 3x3 separable convolution of these rates."""
    return Branch(source, Operator("atrous", (rows, columns)))


def pool(down: int, across: int, source: int = FEATURES) -> Branch:
    """A branch that averages over a grid."""
    return Branch(source, Operator("pool", (down, across)))


def pointwise(source: int = FEATURES) -> Branch:
    """A branch with a 1x1 convolution."""
    return Branch(source, Operator("conv1x1"))


# the best cell of the paper's search (figure 5a; dense_prediction_cell_branch5_top1_cityscapes.json)
TOP1 = Cell((atrous(1, 6), atrous(18, 15, 0), atrous(6, 3, 1), atrous(1, 1, 0), atrous(6, 21, 0)))
# DeepLabv3's module in the space (figure 5 of the paper's related work; rates of output stride 16)
ASPP_CELL = Cell((pointwise(), atrous(6, 6), atrous(12, 12), atrous(18, 18), pool(1, 1)))
# the same with rates for maps a few places wide
ASPP_SMALL = Cell((pointwise(), atrous(2, 2), atrous(4, 4), atrous(6, 6), pool(1, 1)))
# The worst cell of figure 6 pools over the whole map and has the other branches in a row behind that. Which
# operators those are stands in a picture alone; those of the best cell are in their place.
WORST = Cell((pool(1, 1), atrous(1, 6, 0), atrous(18, 15, 1), atrous(6, 3, 2), atrous(6, 21, 3)))
# a head that mixes channels and looks at no neighbour
POINTWISE = Cell((pointwise(),) * 5)
NAMED = {
    "top1": TOP1,
    "aspp_cell": ASPP_CELL,
    "aspp_small": ASPP_SMALL,
    "worst": WORST,
    "pointwise": POINTWISE,
}


def cell_of(value: object) -> Cell:
    """A cell by its name, as a list of branches, or by the path of a JSON file.

    Raises:
        UserError: it is none of them.
    """
    if not isinstance(value, str):
        return Cell.from_json(value)
    if value in NAMED:
        return NAMED[value]
    if value.endswith(".json"):
        return Cell.read(Path(value))
    raise UserError(
        f"cell {value}: valid: {', '.join(NAMED)}, a list of branches, or a file that ends in .json"
    )
