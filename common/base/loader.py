"""Endless loaders: of blocks of minibatches, by index or streamed, and of rounds.

They are endless (the module ends a run when its budget is spent) and `Stateful`: Lightning saves
`state_dict` in its checkpoints and puts it back, so a killed run goes on with the very batch that it would
have had.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

# a block takes a fraction of a second: long enough to be cheap, short enough to be followed
BLOCK_SECONDS = (0.05, 0.3)
LARGEST_BLOCK = 64


class EndlessLoader:
    """A loader without end: its length only bounds from above."""

    LENGTH = 1_000_000_000

    def __len__(self) -> int:
        return self.LENGTH


class BlockLoader(EndlessLoader, ABC):
    """Yields blocks of minibatches: a list of up to `block` items, one a step.

    A block never spans two epochs. `block` may change between two yields: it says how many steps one
    `training_step` makes, never which. Which samples the batches hold follows from (seed, epoch) alone.

    Attributes:
        epoch: the current one, from 0.
        position: steps of it that were yielded.
        steps_per_epoch: how many it has.
    """

    def __init__(self, steps_per_epoch: int, seed: int) -> None:
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self.block = 1
        self.epoch = 0
        self.position = 0

    @property
    def at_epoch_end(self) -> bool:
        return self.position == self.steps_per_epoch

    def batch_sizes(self) -> tuple[int, int] | None:
        """How many examples the first and the last batch of an epoch have; None where that has no meaning."""
        return None

    def fit_block(self, seconds: float) -> None:
        """Let the next block take a time within `BLOCK_SECONDS`, by how long the last one took."""
        shortest, longest = BLOCK_SECONDS
        if seconds < shortest:
            self.block = min(2 * self.block, LARGEST_BLOCK)
        elif seconds > longest:
            self.block = max(self.block // 2, 1)

    @abstractmethod
    def items(self) -> Iterator[Any]:
        """The items of epoch `epoch` from step `position` on, in order."""

    def __iter__(self) -> Iterator[list[Any]]:
        while True:
            if self.at_epoch_end:
                self.epoch, self.position = self.epoch + 1, 0
            items = self.items()
            while not self.at_epoch_end:
                # a method may have left out the last batches
                chosen = list(islice(items, min(self.block, self.steps_per_epoch - self.position)))
                self.position += len(chosen)
                yield chosen

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def shuffled(size: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch's samples, from (seed, epoch) alone: int64 [size]."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def minibatches(order: Tensor, batch_size: int) -> list[Tensor]:
    """The samples of an epoch, int64 [n] in their order, cut into the batches of its steps.

    All have `batch_size` samples but the last, which holds the rest; a rest of a single sample joins the
    batch before it, as batch normalisation has no variance of one. So only batch_size 1, or a set of one
    sample, gives a batch of one.
    """
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) < min(2, batch_size):
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def steps_of(size: int, batch_size: int) -> int:
    """How many `minibatches` there are of `size` samples, at least 1."""
    full, rest = divmod(size, batch_size)
    return max(1, full + (rest > 1))


def ends_of(size: int, batch_size: int) -> tuple[int, int]:
    """How many samples the first and the last of the `minibatches` of `size` samples have."""
    steps = steps_of(size, batch_size)
    return (size if steps == 1 else batch_size), size - (steps - 1) * batch_size


class IndexLoader(BlockLoader):
    """Blocks of index tensors, for data that live in memory: a batch is a set of indices.

    Args:
        size: number of samples.
        batch_size: samples a step, see `minibatches`.
        seed: of the permutations.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        super().__init__(steps_of(size, batch_size), seed)
        self.size, self.batch_size = size, batch_size

    def batch_sizes(self) -> tuple[int, int]:
        return ends_of(self.size, self.batch_size)

    def items(self) -> Iterator[Tensor]:
        order = shuffled(self.size, self.seed, self.epoch)
        return iter(minibatches(order, self.batch_size)[self.position :])


class RoundLoader(EndlessLoader):
    """Counts rounds 0, 1, ... for modules that choose their own samples."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            self.position += 1
            yield self.position - 1

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]
