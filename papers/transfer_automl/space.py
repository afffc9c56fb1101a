"""Designs as data: one choice for each of a fixed list of decisions, the same list for all tasks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from common.architectures.space import ArchitectureSpace, Random, whole_numbers
from common.base.errors import UserError

Value = str | float | int | bool


@dataclass(frozen=True)
class Design:
    """A choice for each decision.

    Attributes:
        code: the number of each choice.
    """

    code: tuple[int, ...]

    @property
    def key(self) -> str:
        return "-".join(map(str, self.code))

    def to_json(self) -> list[int]:
        return list(self.code)


class DesignSpace(ArchitectureSpace[Design]):
    """All sequences of choices (Wong et al. 2018: the action list that a controller goes through).

    Args:
        decisions: by name the values to choose from, in the order in which they are decided.

    Attributes:
        counts: how many choices each decision has.

    Raises:
        UserError: no decision, or one without a choice, or with one that stands twice.
    """

    task: ClassVar[Literal["design"]] = "design"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(self, decisions: dict[str, list[Any]]) -> None:
        if not decisions:
            raise UserError("model: a space of designs needs a decision (valid: name: [values])")
        for name, values in decisions.items():
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise UserError(f"model.decisions.{name}={values}; valid: a list of values")
            if not values or len({repr(value) for value in values}) < len(values):
                raise UserError(f"model.decisions.{name}={values}; valid: one or more values, each once")
        self.decisions = {name: list(values) for name, values in decisions.items()}
        self.counts = tuple(len(values) for values in decisions.values())

    @property
    def size(self) -> int:
        return math.prod(self.counts)

    def sample(self, random: Random) -> Design:
        return Design(tuple(int(random.integers(count)) for count in self.counts))

    def mutate(self, architecture: Design, random: Random) -> Design:
        """Another choice for one of the decisions that have several."""
        code = list(self.encode(architecture))
        free = [t for t, count in enumerate(self.counts) if count > 1]
        if not free:
            return architecture
        place = free[int(random.integers(len(free)))]
        code[place] = (code[place] + 1 + int(random.integers(self.counts[place] - 1))) % self.counts[place]
        return Design(tuple(code))

    def encode(self, architecture: Design) -> tuple[int, ...]:
        return self.decode(architecture.code).code

    def decode(self, code: tuple[int, ...]) -> Design:
        code = whole_numbers(code)
        fits = len(code) == len(self.counts)
        if not fits or any(not 0 <= c < n for c, n in zip(code, self.counts, strict=True)):
            raise UserError(
                f"design {list(code)} is not in the space (valid: {len(self.counts)} whole numbers, "
                f"each from "
                f"0 and below {', '.join(map(str, self.counts))})"
            )
        return Design(code)

    def from_json(self, data: Any) -> Design:
        if not isinstance(data, list) or not all(type(one) is int for one in data):
            raise UserError(f"design {data!r} is no list of whole numbers")
        return self.decode(tuple(data))

    def values(self, code: Sequence[int]) -> dict[str, Any]:
        """What a code chooses, by the names of the decisions.

        Raises:
            UserError: it is not in the space.
        """
        found = self.decode(tuple(int(c) for c in code)).code
        return {name: v[c] for (name, v), c in zip(self.decisions.items(), found, strict=True)}

    def code_of(self, values: dict[str, Any]) -> tuple[int, ...]:
        """The inverse of `values`.

        Raises:
            UserError: a decision that is missing, or a value that it has not.
        """
        code = []
        for name, choices in self.decisions.items():
            if values.get(name) not in choices:
                raise UserError(f"design {name}={values.get(name)} is not in the space (valid: {choices})")
            code.append(choices.index(values[name]))
        return tuple(code)

    def number(self, codes: Tensor) -> Tensor:
        """The number 0, ..., size - 1 of each code: int64 [..., L] -> [...], the last decision fastest.

        Raises:
            UserError: a code that is not in the space.
        """
        self.check(codes)
        weights = torch.tensor(strides(self.counts))
        return (codes * weights).sum(-1)

    def check(self, codes: Tensor) -> None:
        """Refuse codes [..., L] that are not in the space.

        Raises:
            UserError: names the first of them.
        """
        counts = torch.tensor(self.counts)
        if codes.shape[-1] != len(self.counts) or bool(((codes < 0) | (codes >= counts)).any()):
            rows: list[list[int]] = codes.flatten(0, -2).tolist() if codes.dim() > 1 else [codes.tolist()]
            for row in rows:
                self.decode(tuple(row))

    def codes(self, numbers: Tensor) -> Tensor:
        """The inverse of `number`: int64 [...] -> [..., L]."""
        weights, counts = torch.tensor(strides(self.counts)), torch.tensor(self.counts)
        return numbers[..., None] // weights % counts


def strides(counts: Sequence[int]) -> list[int]:
    """How far apart neighbours in each decision are in the numbering of all designs."""
    return [math.prod(counts[t + 1 :]) for t in range(len(counts))]


class OwnSpace(DesignSpace):
    """In the place of a space where the tasks bring their own, as a table of another paper does.

    Args:
        shape, classes: of the data; not used.
    """

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__({"own": [True]})


class ChoicesOf(DesignSpace):
    """The codes of another space of architectures as designs, so that a controller can choose in it.

    Args:
        space: one whose codes have one length, and whose decisions are free of each other: it says so by
            `counts`, the number of choices at each place.

    Raises:
        UserError: it has no `counts`.
    """

    def __init__(self, space: ArchitectureSpace[Any]) -> None:
        counts = getattr(space, "counts", None)
        if counts is None:
            raise UserError(
                f"a controller cannot choose in {type(space).__name__}: its decisions depend on each other "
                "(valid: a space with `counts`, the number of choices of each decision)"
            )
        super().__init__({f"choice{t}": list(range(count)) for t, count in enumerate(counts)})
        self.inner = space


def uniform_codes(counts: Sequence[int], uniforms: np.ndarray | Tensor) -> Tensor:
    """Choices that uniform numbers in [0, 1) stand for: [..., L] -> int64 [..., L]."""
    sizes = torch.tensor(counts)
    return (torch.as_tensor(uniforms) * sizes).long().clamp_max(sizes - 1)
