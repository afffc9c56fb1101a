"""Maps at another size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps [b, c, h, w] at the size (H, W): bilinearly, corners aligned, as DeepLab does everywhere."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)
