"""What a search over architectures maximises, whether it trains networks or reads a table."""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic

from torch import nn

from common.architectures.space import A, ArchitectureSpace


class ArchitectureObjective(ABC, Generic[A]):
    """Architectures with their networks, costs and scores.

    An objective goes to worker processes whole, so it must be picklable; large data it opens there by their
    path.

    Attributes:
        space: of the architectures.
    """

    space: ArchitectureSpace[A]

    def sources(self) -> dict[str, Path]:
        """Files that decide its scores besides the data, by name; none here."""
        return {}

    @abstractmethod
    def build(self, architecture: A) -> nn.Module:
        """Its network, with first weights from torch's global generator."""

    @abstractmethod
    def count(self, architecture: A) -> dict[str, float]:
        """What it costs: numbers by name, exact and quickly had."""

    @abstractmethod
    def train(self, architecture: A, budget: int) -> dict[str, float]:
        """What comes out of a training of `budget` steps: `score`, and other numbers by name.

        The same for the same architecture and budget wherever and whenever it is asked for: what is random
        follows from `seed_of`. NaN is a failure, and so is an exception.
        """


def seed_of(seed: int, key: str) -> int:
    """A seed of 63 bits for one architecture in one run, which depends on nothing else.

    Args:
        seed: of the run.
        key: of the architecture.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "little") >> 1
