"""Seeded, stratified choices of rows."""

import torch
from torch import Tensor


def class_quotas(counts: Tensor, size: int) -> Tensor:
    """How many rows each class gives to a subset of `size`: the largest-remainder rule.

    Every class gets its exact share `counts * size / counts.sum()` rounded down; the rows that are
    left go to the largest fractional parts (ties to the lower class). So each quota differs from the
    exact share by less than one, and the quotas sum to `size`.

    Shapes: `counts` int64 [classes] -> int64 [classes].
    """
    total = int(counts.sum())
    quotas = counts * size // total
    fractions = counts * size % total
    left = size - int(quotas.sum())
    quotas[fractions.argsort(descending=True, stable=True)[:left]] += 1
    return quotas


def stratified_subset(labels: Tensor | None, total: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw `size` of `total` rows without replacement, each class in its share of the whole.

    Args:
        labels: int64 [total], or None for a plain random subset.
        total: the number of rows, at least 1.
        size: the number of rows to draw, 0 to `total`.
        generator: the only source of randomness.

    Returns:
        int64 [size], ascending row numbers.
    """
    order = torch.randperm(total, generator=generator)
    if labels is None:
        return order[:size].sort().values
    _, classes, counts = labels[order].unique(return_inverse=True, return_counts=True)
    by_class = classes.argsort(stable=True)
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(classes)
    rank[by_class] = torch.arange(total) - first[classes[by_class]]
    return order[rank < class_quotas(counts, size)[classes]].sort().values


def complement(index: Tensor, total: int) -> Tensor:
    """The rows of 0..total-1 that are not in `index`, ascending."""
    keep = torch.ones(total, dtype=torch.bool)
    keep[index] = False
    return keep.nonzero().flatten()
