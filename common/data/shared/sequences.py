"""Sequences of different lengths in memory, one after the other, and some of them as padded rows."""

from array import array
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

PAD = 0


class Sequences:
    """Sequences of numbers, one after the other.

    Args:
        rows: the numbers of each; asked for one by one, as lists of millions of them would not fit into
            memory.

    Attributes:
        flat: int32 [all], the numbers.
        lengths, starts: int64 [n], of each sequence, and where it begins in `flat`.
    """

    def __init__(self, rows: Iterable[Sequence[int]]) -> None:
        flat, lengths = array("i"), array("q")
        for one in rows:
            flat.extend(one)
            lengths.append(len(one))
        self.lengths = torch.tensor(lengths, dtype=torch.int64)
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.flat = torch.tensor(flat, dtype=torch.int32)

    def keep(self, kept: Tensor) -> None:
        """Leave out all but those at some places, int64 [m], which are in that order from now on."""
        self.lengths, self.starts = self.lengths[kept], self.starts[kept]

    def places(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Where the numbers of some of them stand in `flat`, and what is no padding.

        Returns:
            int64 and bool [b, longest of them]; behind the end of a sequence stands the place of its first
            number.
        """
        lengths, starts = self.lengths[index], self.starts[index]
        offsets = torch.arange(int(lengths.max()) if len(index) else 0, device=index.device)
        inside = offsets < lengths[:, None]
        return (starts[:, None] + offsets).where(inside, starts[:, None]), inside

    def padded(self, index: Tensor) -> Tensor:
        """Some of them as rows, padded on the right: int64 [b, longest of them]."""
        places, inside = self.places(index)
        # an empty sequence at the end begins where nothing stands
        return self.flat[places.clamp_max(len(self.flat) - 1)].long().where(inside, PAD)

    def to(self, device: torch.device) -> "Sequences":
        """The same on a device."""
        moved = Sequences(())
        moved.flat, moved.lengths, moved.starts = (
            part.to(device) for part in (self.flat, self.lengths, self.starts)
        )
        return moved


def in_order(lengths: Sequence[int], most: int, budget: int) -> list[slice]:
    """Batches of neighbours in their order, so that a long one among them costs no memory for the others.

    Args:
        lengths: of the sequences.
        most: how many a batch has at most.
        budget: the most of their number times the longest of them; one that is longer has a batch of its own.
    """
    found, start, longest = [], 0, 0
    for place, length in enumerate(lengths):
        longest = max(longest, length)
        if place > start and (place - start == most or (place - start + 1) * longest > budget):
            found.append(slice(start, place))
            start, longest = place, length
    return [*found, slice(start, len(lengths))] if len(lengths) > start else found
