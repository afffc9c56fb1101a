"""Boxes as offsets from their priors, and back: SSD's centre-size code with variances.

t = ((cx - px) / pw / 0.1, (cy - py) / ph / 0.1, ln(w / pw) / 0.2, ln(h / ph) / 0.2) for a box (cx, cy, w, h)
and a prior (px, py, pw, ph): Liu et al., ECCV 2016, equation 2, divided by Caffe's variances.
"""

import torch
from torch import Tensor

VARIANCES = (0.1, 0.2)


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """Offsets of boxes from their priors: (cx, cy, w, h), [..., 4], [..., 4] -> [..., 4].

    Sides must be above 0.
    """
    centre = (boxes[..., :2] - priors[..., :2]) / priors[..., 2:] / VARIANCES[0]
    return torch.cat([centre, (boxes[..., 2:] / priors[..., 2:]).log() / VARIANCES[1]], dim=-1)


def decode(offsets: Tensor, priors: Tensor) -> Tensor:
    """Boxes (cx, cy, w, h) at offsets from priors: [..., 4], [..., 4] -> [..., 4]; undoes `encode`."""
    centre = priors[..., :2] + offsets[..., :2] * VARIANCES[0] * priors[..., 2:]
    return torch.cat([centre, priors[..., 2:] * (offsets[..., 2:] * VARIANCES[1]).exp()], dim=-1)
