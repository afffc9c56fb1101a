"""Labels of channels as tensors, expanded along the dimensions where they do not vary."""

import torch
from torch import Tensor


def blank_labels(value: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.int64, device="cpu").expand(value.shape)


def varies(labels: Tensor, dim: int) -> bool:
    """Whether labels differ along a dimension."""
    if labels.shape[dim] < 2 or labels.stride(dim) == 0:
        return False
    return not torch.equal(labels, labels.narrow(dim, 0, 1).expand(labels.shape))


def compact(labels: Tensor) -> Tensor:
    """The same labels without memory for dimensions along which they do not vary."""
    for d in range(labels.dim()):
        if labels.shape[d] > 1 and labels.stride(d) != 0 and not varies(labels, d):
            labels = labels.narrow(d, 0, 1).expand(labels.shape)
    return labels


def few(labels: Tensor, keep: int | None = None) -> Tensor:
    """The labels, each dimension that is expanded cut to one entry, but for `keep`."""
    for d in range(labels.dim()):
        if labels.stride(d) == 0 and labels.shape[d] > 1 and (keep is None or d != keep % labels.dim()):
            labels = labels.narrow(d, 0, 1)
    return labels


def together(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Two label tensors of one shape, cut where both are expanded."""
    for d in range(left.dim()):
        if left.shape[d] > 1 and left.stride(d) == 0 and right.stride(d) == 0:
            left, right = left.narrow(d, 0, 1), right.narrow(d, 0, 1)
    return left, right


def both_labelled(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Where both have a label their labels, elsewhere 0 on both sides."""
    left, right = together(left, right)
    met = (left > 0) & (right > 0)
    return torch.where(met, left, 0), torch.where(met, right, 0)


def merged_labels(left: Tensor, right: Tensor) -> Tensor:
    """Where the first has no label the second's; of the first's shape."""
    shape = left.shape
    left, right = together(left, right)
    return torch.where(left > 0, left, right).expand(shape)


def labels_along(labels: Tensor, dim: int) -> Tensor:
    """The labels along a dimension, which vary along no other one."""
    for d in range(labels.dim()):
        if d != dim % labels.dim():
            labels = labels.narrow(d, 0, 1)
    return labels.reshape(-1)
