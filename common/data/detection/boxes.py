"""Boxes of objects in images as plain tensors: the targets of every detection set.

A target is float32 [..., k, 6] with rows (x0, y0, x1, y1, label, difficult):
- corners in pixels of the image as it is given, half-open: x from 0 (left edge of the first pixel) to W
  (right edge of the last one), so that width is x1 - x0 and a whole image is (0, 0, W, H);
- label 0..classes-1; -1 marks a row as padding, all its other entries are 0;
- difficult 1 for objects that an evaluation should not count (VOC's difficult, COCO's crowds), else 0.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from common.data.shared.decode import Box

COLUMNS = 6
LABEL, DIFFICULT = 4, 5
PADDING = -1
# of a random patch, as a fraction of the image's side, and how many are tried
SMALLEST_PATCH = 0.3
PATCHES = 50


def pad_boxes(boxes: Sequence[Tensor]) -> Tensor:
    """One target for a batch: [k_i, 6] for each image -> [b, k, 6], k the most boxes of one (0 for none)."""
    most = max((len(rows) for rows in boxes), default=0)
    padded = torch.zeros(len(boxes), most, COLUMNS)
    padded[..., LABEL] = PADDING
    for target, rows in zip(padded, boxes, strict=True):
        target[: len(rows)] = rows
    return padded


def is_box(target: Tensor) -> Tensor:
    """Which rows are boxes and not padding: [..., k, 6] -> bool [..., k]."""
    return target[..., LABEL] != PADDING


def area(corners: Tensor) -> Tensor:
    """(x1 - x0) (y1 - y0), 0 for boxes turned inside out: [..., 4 or 6] -> [...]."""
    return (corners[..., 2:4] - corners[..., :2]).clamp_min(0).prod(-1)


def clip_boxes(boxes: Tensor, height: float | Tensor, width: float | Tensor) -> tuple[Tensor, int, int]:
    """Clip boxes to their images and drop those that have no area then.

    Shapes: boxes [k, 6 or more] (columns beyond the sixth go along), without padding; height and width
    numbers, or [k] for boxes of several images -> [k', 6 or more], k' <= k, in the same order.

    Returns:
        The boxes, how many of them were clipped, and how many were dropped.
    """
    bottom, right = (torch.as_tensor(edge).to(boxes).expand(len(boxes)) for edge in (height, width))
    limit = torch.stack([right, bottom, right, bottom], dim=1)
    clipped = torch.cat([boxes[:, :4].clamp_min(0).minimum(limit), boxes[:, 4:]], dim=1)
    keep = area(clipped) > 0
    changed = (clipped != boxes).any(1) & keep
    return clipped[keep], int(changed.sum()), int((~keep).sum())


def resize_boxes(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """The boxes after their image was stretched from (height, width) `old` to `new`: [..., 6] -> [..., 6]."""
    down, across = new[0] / old[0], new[1] / old[1]
    return boxes * boxes.new_tensor([across, down, across, down, 1, 1])


def flip_boxes(boxes: Tensor, width: float) -> Tensor:
    """The boxes after their image was mirrored left to right: x0, x1 = W - x1, W - x0.

    Shapes: [..., k, 6] -> [..., k, 6]; padding stays as it is.
    """
    flipped = boxes.clone()
    flipped[..., 0], flipped[..., 2] = width - boxes[..., 2], width - boxes[..., 0]
    return torch.where(is_box(boxes)[..., None], flipped, boxes)


def crop_boxes(boxes: Tensor, window: Tensor) -> Tensor:
    """The boxes after their image was cut to `window`, in pixels of the cut.

    Kept are the boxes whose centre lies inside the window, clipped to it (SSD: Liu et al. 2016, section 2.2);
    the others become padding, so that the shape stays.

    Shapes: boxes [..., k, 6], window [..., 4] (x0, y0, x1, y1), its leading dimensions those of boxes.
    """
    low, high = window[..., None, :2], window[..., None, 2:]
    centre = (boxes[..., :2] + boxes[..., 2:4]) / 2
    inside = ((centre >= low) & (centre < high)).all(-1) & is_box(boxes)
    corners = [torch.clamp(boxes[..., i : i + 2], low, high) - low for i in (0, 2)]
    padding = torch.zeros_like(boxes)
    padding[..., LABEL] = PADDING
    return torch.where(inside[..., None], torch.cat([*corners, boxes[..., 4:]], dim=-1), padding)


def iou_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every pair; 0 where neither box has an area.

    Shapes: [..., n, 4 or 6], [..., m, 4 or 6] -> [..., n, m].
    """
    one, other = first[..., :, None, :], second[..., None, :, :]
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:4], other[..., 2:4])
    overlap = (high - low).clamp_min(0).prod(-1)
    union = area(one) + area(other) - overlap
    return torch.where(union > 0, overlap / union, torch.zeros_like(union))


def to_metric(target: Tensor) -> list[dict[str, Tensor]]:
    """The targets of a batch as torchmetrics' `MeanAveragePrecision` takes them, without padding.

    Difficult boxes are given as crowds, which that metric ignores: neither found nor missed counts.

    Shapes: [b, k, 6] -> for each image boxes float32 [n, 4], labels int64 [n], iscrowd int64 [n].
    """
    return [
        {
            "boxes": rows[:, :4],
            "labels": rows[:, LABEL].long(),
            "iscrowd": rows[:, DIFFICULT].long(),
        }
        for rows in (image[is_box(image)] for image in target)
    ]


def random_patch(boxes: Tensor, height: int, width: int, generator: np.random.Generator) -> Box:
    """A random part of an image to cut it to, as SSD draws it (Liu et al. 2016, section 2.2, and its code).

    Its sides are s √a and s / √a of the image's, s uniform in 0.3 to 1, a uniform in 1/2 to 2 as far as that
    fits, rounded to whole pixels; its place is uniform. Patches are drawn until one holds the centre of a
    box; after 50, or where there is no box, the whole image is given.

    Shapes: boxes [k, 6], without padding.
    """
    for _ in range(PATCHES if len(boxes) else 0):
        scale = generator.uniform(SMALLEST_PATCH, 1)
        root = generator.uniform(max(0.5, scale**2), min(2, scale**-2)) ** 0.5
        across, down = max(1, round(scale * root * width)), max(1, round(scale / root * height))
        left, top = generator.integers(width - across + 1), generator.integers(height - down + 1)
        patch = Box(int(left), int(top), int(left) + across, int(top) + down)
        if is_box(crop_boxes(boxes, boxes.new_tensor(patch))).any():
            return patch
    return Box(0, 0, width, height)
