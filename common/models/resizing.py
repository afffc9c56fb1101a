"""Maps at another size."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# places of a map up to which two products of matrices are several times as fast as torch's loop over pixels,
# forwards and backwards
SMALL = 32 * 32


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [b, c, h, w] at the size (H, W): bilinearly, corners aligned, as DeepLab does everywhere.

    Small maps that are trained go by way of R maps C^T with `weights`: the same numbers but for rounding.
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    trained = torch.is_grad_enabled() and maps.requires_grad
    if not trained or maps.shape[2] * maps.shape[3] > SMALL:
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)
    rows, columns = (
        weights(before, after).to(maps) for before, after in zip(maps.shape[2:], size, strict=True)
    )
    return rows @ (maps @ columns.T)


@lru_cache(maxsize=64)
def weights(before: int, after: int) -> Tensor:
    """What each of `after` places takes of `before` ones, corners on corners: float64 [after, before]."""
    place = torch.arange(after, dtype=torch.float64) * (before - 1) / max(after - 1, 1)
    apart = (place[:, None] - torch.arange(before, dtype=torch.float64)).abs()
    return (1 - apart).clamp_min(0)
