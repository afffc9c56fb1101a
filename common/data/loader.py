"""Loaders of indices: data live on the device as tensors, so a batch is a set of indices.

Both loaders are endless (the module ends a run when its budget is spent) and `Stateful`: Lightning
saves `state_dict` in its checkpoints and puts it back, so a killed run goes on with the very batch
that it would have had.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class EndlessLoader:
    """What both loaders share: a length that only bounds from above."""

    LENGTH = 1_000_000_000

    def __len__(self) -> int:
        return self.LENGTH


class IndexLoader(EndlessLoader):
    """Yields blocks of shuffled minibatches: a list of up to `block` index tensors, one a step.

    The permutation of an epoch follows from (seed, epoch) alone, and a block never spans two epochs.
    `block` may change between two yields: it says how many steps one `training_step` makes, never which.

    Args:
        size: number of samples.
        batch_size: samples a step; the last batch of an epoch holds the rest.
        seed: of the permutations.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.block = 1
        self.epoch = 0
        self.position = 0

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.size // self.batch_size)

    @property
    def at_epoch_end(self) -> bool:
        return self.position == self.steps_per_epoch

    def __iter__(self) -> Iterator[list[Tensor]]:
        while True:
            if self.at_epoch_end:
                self.epoch, self.position = self.epoch + 1, 0
            batches = self._permutation().split(self.batch_size)
            while not self.at_epoch_end:
                chosen = list(batches[self.position : self.position + self.block])
                self.position += len(chosen)
                yield chosen

    def _permutation(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(self.size, generator=generator)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


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
