"""Batches of pairs of like lengths, so that little of them is padding."""

from collections.abc import Iterator

import torch
from torch import Tensor

from common.base.loader import BlockLoader, shuffled


def by_length(sources: Tensor, targets: Tensor, order: Tensor) -> Tensor:
    """`order`, sorted by the lengths of targets, and among equal ones by those of sources.

    Sources grow among targets of an even length and shrink among those of an odd one, so that neighbours are
    alike everywhere. Pairs of equal lengths stay in their order.

    Args:
        sources, targets: lengths of all pairs, int64 [n].
        order: int64 [m], pairs.
    """
    span = int(sources.max()) + 1
    keys = targets * span + torch.where(targets % 2 == 0, sources, span - 1 - sources)
    return order[keys[order].sort(stable=True).indices]


def cuts(sources: Tensor, targets: Tensor, budget: int) -> list[int]:
    """How many pairs each batch has: as many as fit, in the order given, and at least one.

    They fit where their number times the longest of them, source or target, is at most the budget.

    Args:
        sources, targets: lengths in the order of the batches, int64 [n].
        budget: tokens of one language in a batch, with padding.
    """
    sizes, size, longest = [], 0, 0
    for length in torch.maximum(sources, targets).tolist():
        if size and (size + 1) * max(longest, length) > budget:
            sizes.append(size)
            size, longest = 0, 0
        size, longest = size + 1, max(longest, length)
    return [*sizes, size] if size else sizes


def padding(sources: Tensor, targets: Tensor, batches: list[Tensor]) -> float:
    """The share of the tokens of both languages in the batches that is padding."""
    real = sum(int(sources[batch].sum() + targets[batch].sum()) for batch in batches)
    filled = sum(len(batch) * int(sources[batch].max() + targets[batch].max()) for batch in batches)
    return 1 - real / filled


class BucketLoader(BlockLoader):
    """Blocks of batches of like lengths, in an order that is drawn anew in each epoch.

    Which pairs of equal lengths come together is drawn anew as well; how many pairs each batch has, sorted by
    length, is the same in every epoch.

    Args:
        sources, targets: lengths of all pairs, int64 [n], n at least 1.
        budget: see `cuts`.
        seed: of the orders.
    """

    def __init__(self, sources: Tensor, targets: Tensor, budget: int, seed: int) -> None:
        self.sources, self.targets = sources, targets
        alike = by_length(sources, targets, torch.arange(len(sources)))
        self.sizes = cuts(sources[alike], targets[alike], budget)
        super().__init__(len(self.sizes), seed)

    def items(self) -> Iterator[Tensor]:
        order = shuffled(len(self.sources), self.seed, self.epoch)
        batches = by_length(self.sources, self.targets, order).split(self.sizes)
        turns = shuffled(len(batches), self.seed, self.epoch).tolist()
        return (batches[turn] for turn in turns[self.position :])
