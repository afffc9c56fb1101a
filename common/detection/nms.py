"""Non-maximum suppression of whole batches, images and classes at once, and what a detector has found."""

from typing import NamedTuple

import torch
from torch import Tensor

from common.detection.boxes import to_corners
from common.detection.coding import decode

# of the maps, in numbers: a tile of pairs of boxes and what is computed on it stay in a core's cache
TILE = 2**16
# candidates that are compared at once with those after them
ROWS = 32


class Detections(NamedTuple):
    """What was found in an image, the surest first.

    Shapes: boxes float32 [n, 4], corners in parts of the image, within it; scores float32 [n], in (0, 1];
    labels int64 [n], 0..classes-1.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@torch.no_grad()
def suppress(boxes: Tensor, there: Tensor, iou: float) -> Tensor:
    """Which boxes stay when each suppresses those after it that overlap it by more than `iou`.

    A box that is itself suppressed suppresses none. Groups (images, classes) know nothing of each other.
    The same as a loop over the boxes of each group.

    Args:
        boxes: corners, [..., k, 4], each group in the order of its scores, the best first.
        there: which are boxes and not padding, bool [..., k].
        iou: in [0, 1].

    Returns:
        bool [..., k]; padding never stays.
    """
    groups = boxes.flatten(0, -3)
    kept = there.reshape(groups.shape[:2]).clone()
    for start in range(0, kept.shape[1], ROWS):
        _suppress_after(groups, kept, start, iou)
    return kept.view_as(there)


def _suppress_after(boxes: Tensor, kept: Tensor, start: int, iou: float) -> None:
    """Let the boxes from `start` on, `ROWS` of them, suppress those after them: [g, k, 4], bool [g, k]."""
    some, left = boxes[:, start:], kept[:, start:]
    rows = min(ROWS, some.shape[1])
    over = torch.empty(len(some), rows, some.shape[1], dtype=torch.bool, device=boxes.device)
    step = max(1, TILE // (rows * some.shape[1])) if boxes.device.type == "cpu" else len(some)
    for first in range(0, len(some), step):
        tile = some[first : first + step]
        over[first : first + step] = _overlapping(tile[:, :rows], tile, iou)
    for row in range(rows - 1):
        left[:, row + 1 : rows] &= ~(over[:, row, row + 1 : rows] & left[:, row, None])
    left[:, rows:] &= ~(over[:, :, rows:] & left[:, :rows, None]).any(dim=1)


def _overlapping(one: Tensor, other: Tensor, iou: float) -> Tensor:
    """Whether pairs overlap by more than `iou`: [g, n, 4], [g, m, 4] -> bool [g, n, m]."""
    a, b = one[:, :, None].unbind(-1), other[:, None].unbind(-1)
    shared = (torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0]))).clamp_min_(0)
    # where boxes are apart in height this is negative, and so is what is compared with `iou`
    shared *= torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared.div_((areas[0] + areas[1]).sub_(shared)) > iou


@torch.no_grad()
def detections(
    offsets: Tensor,
    logits: Tensor,
    priors: Tensor,
    *,
    score: float,
    top: int,
    iou: float,
    keep: int,
) -> list[Detections]:
    """What a detector has found in each image of a batch.

    Probabilities are softmax(logits). Of each class but the background the `top` boxes with a probability
    above `score` are taken; of those, non-maximum suppression leaves the ones that none with a higher
    probability overlaps by more than `iou`; of all classes together the `keep` most probable are given.
    Boxes are cut to the image at the end.

    Args:
        offsets: [b, P, 4].
        logits: [b, P, classes + 1], the background first.
        priors: (cx, cy, w, h), [P, 4].
        score, top, iou, keep: see above; SSD's are 0.01, 400, 0.45 and 200.
    """
    boxes = to_corners(decode(offsets, priors))
    scores = logits.softmax(dim=2)[..., 1:].transpose(1, 2)
    values, which = scores.topk(min(top, scores.shape[2]), dim=2)
    most = int((values > score).sum(dim=2).max()) if values.numel() else 0
    values, which = _in_order(values[..., :most], which[..., :most])
    taken = boxes[torch.arange(len(boxes), device=boxes.device)[:, None, None], which]
    kept = suppress(taken, values > score, iou)
    return [_best(*one, keep) for one in zip(taken, values, kept, strict=True)]


def _in_order(values: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Largest values first, of equal ones the first prior: both [b, classes, n]."""
    which, order = which.sort(dim=2)
    values, again = values.gather(2, order).sort(dim=2, descending=True, stable=True)
    return values, which.gather(2, again)


def _best(boxes: Tensor, scores: Tensor, kept: Tensor, keep: int) -> Detections:
    """The `keep` best of an image: boxes [classes, n, 4], scores [classes, n], kept bool [classes, n]."""
    label, place = kept.nonzero(as_tuple=True)
    found, order = scores[label, place].sort(descending=True, stable=True)
    order = order[:keep]
    return Detections(boxes[label, place][order].clamp(0, 1), found[:keep], label[order])
