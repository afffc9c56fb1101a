"""A small space of number pairs, with a table of scores."""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from common.architectures.objective import ArchitectureObjective
from common.architectures.space import ArchitectureSpace, Random
from common.base.errors import UserError


@dataclass(frozen=True)
class Pair:
    """Two numbers; their order does not matter to what they are as a function."""

    a: int
    b: int

    @property
    def key(self) -> str:
        return "{} {}".format(*sorted((self.a, self.b)))

    def to_json(self) -> list[int]:
        return [self.a, self.b]


class Pairs(ArchitectureSpace[Pair]):
    """Pairs of numbers below a side."""

    def __init__(self, side: int) -> None:
        self.side = side

    @property
    def size(self) -> int:
        return self.side**2

    def sample(self, random: Random) -> Pair:
        return Pair(int(random.integers(self.side)), int(random.integers(self.side)))

    def mutate(self, architecture: Pair, random: Random) -> Pair:
        return Pair(architecture.a, (architecture.b + 1 + int(random.integers(self.side - 1))) % self.side)

    def encode(self, architecture: Pair) -> tuple[int, ...]:
        return architecture.a, architecture.b

    def decode(self, code: tuple[int, ...]) -> Pair:
        return Pair(*code)

    def from_json(self, data: Any) -> Pair:
        return Pair(*data)


class Table(ArchitectureObjective[Pair]):
    """The score is a + b - 1 / budget, negated for odd sums; some fail.

    Args:
        side: of the space.
        failing: pairs, as keys, whose training raises.
        refused: whether all training is a user's mistake.
    """

    def __init__(self, side: int = 8, failing: tuple[str, ...] = (), refused: bool = False) -> None:
        self.space = Pairs(side)
        self.failing, self.refused = failing, refused

    def build(self, architecture: Pair) -> nn.Module:
        return nn.Linear(architecture.a + 1, architecture.b + 1)

    def count(self, architecture: Pair) -> dict[str, float]:
        return {"parameters": (architecture.a + 1) * (architecture.b + 1)}

    def train(self, architecture: Pair, budget: int) -> dict[str, float]:
        if self.refused:
            raise UserError("this is refused")
        if architecture.key in self.failing:
            raise ValueError("no such network\nwith a second line")
        total = architecture.a + architecture.b
        return {"score": (total if total % 2 == 0 else -total) - 1 / budget, "test": float(total)}


class Nothing(Table):
    """Every training ends in no number."""

    def train(self, architecture: Pair, budget: int) -> dict[str, float]:
        return {"score": math.nan}
