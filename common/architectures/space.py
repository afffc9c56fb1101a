"""Architectures as data, and the spaces that they are drawn from."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator
from numbers import Integral
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from common.base.errors import UserError

Random = np.random.Generator


class Architecture(Hashable, Protocol):
    """What a search chooses: data that is hashable and never changes."""

    @property
    def key(self) -> str:
        """A text that is equal for architectures that are the same function, and for no others."""

    def to_json(self) -> Any:
        """Plain data that `ArchitectureSpace.from_json` makes the same architecture of."""


A = TypeVar("A", bound=Architecture)


def whole_numbers(code: Iterable[Any]) -> tuple[int, ...]:
    """A code as whole numbers.

    Raises:
        UserError: one of them is none; its position is named.
    """
    found = tuple(code)
    for position, number in enumerate(found):
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise UserError(f"a code with {number!r} at position {position}; valid: a whole number")
    return tuple(int(number) for number in found)


class ArchitectureSpace(ABC, Generic[A]):
    """A set of architectures, with what searchers need of it.

    All that is random comes from the generator that is handed over.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """How many architectures there are, exactly; those that are the same function count each."""

    @abstractmethod
    def sample(self, random: Random) -> A:
        """One, uniformly."""

    @abstractmethod
    def mutate(self, architecture: A, random: Random) -> A:
        """A neighbour, which differs in one choice."""

    @abstractmethod
    def encode(self, architecture: A) -> tuple[int, ...]:
        """The choices that it stands for, as whole numbers; the inverse of `decode`.

        Raises:
            UserError: it is not in the space.
        """

    @abstractmethod
    def decode(self, code: tuple[int, ...]) -> A:
        """The architecture of these choices.

        Raises:
            UserError: they are none of the space.
        """

    @abstractmethod
    def from_json(self, data: Any) -> A:
        """The architecture that `to_json` gave.

        Raises:
            UserError: it is none, or not in the space.
        """

    def every(self) -> Iterator[A]:
        """All architectures, each function once, always in the same order.

        Raises:
            UserError: the space cannot be counted through, as here.
        """
        raise UserError(f"{type(self).__name__}: its {self.size} architectures are not counted through")
