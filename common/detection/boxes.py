"""Boxes as two forms: corners (x0, y0, x1, y1), and centre and size (cx, cy, w, h).

Both are relative to the image's width and height, so that a whole image is (0, 0, 1, 1) in corners.
Targets of data sets have corners in pixels (`common.data.detection.boxes`, where `iou_matrix` stands too).
"""

import torch
from torch import Tensor

from common.data.detection.boxes import DIFFICULT, LABEL, is_box


def to_corners(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) to (x0, y0, x1, y1): [..., 4] -> [..., 4]."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """(x0, y0, x1, y1) to (cx, cy, w, h): [..., 4] -> [..., 4]."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def relative(target: Tensor, height: int, width: int) -> Tensor:
    """The corners of targets in pixels, relative to the image's sides: [..., 6] -> [..., 4]."""
    return target[..., :4] / target.new_tensor([width, height, width, height])


def counted(target: Tensor, difficult: bool) -> Tensor:
    """Which rows of targets a network is trained on: [..., k, 6] -> bool [..., k].

    Those that are boxes, have an area, and are not marked as difficult unless `difficult` says so.
    """
    found = is_box(target) & (target[..., 2:4] > target[..., :2]).all(-1)
    return found if difficult else found & (target[..., DIFFICULT] == 0)


def labels_of(target: Tensor) -> Tensor:
    """The labels of targets, int64; -1 for padding: [..., 6] -> [...]."""
    return target[..., LABEL].long()
