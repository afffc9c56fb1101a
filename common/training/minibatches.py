"""Minibatches one after the other, for trainings that are no run of their own."""

from collections.abc import Iterator

from common.base.dataset import Batch, DataSet


def minibatches(data: DataSet, seed: int) -> Iterator[Batch]:
    """Shuffled minibatches of the training split without end, one a step: inputs and targets, augmented."""
    loader = data.loader(seed)
    loader.block = 1
    for block in loader:
        for item in block:
            yield data.ready(item)
