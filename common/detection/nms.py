"""Non-maximum suppression of whole batches, images and classes at once, and what a detector has found."""

from typing import Final, NamedTuple, TypedDict

import torch
from torch import Tensor

from common.detection.boxes import to_corners
from common.detection.coding import decode

# pairs of boxes that are compared at once on a CPU: what is computed of them stays in a core's cache
TILE = 2**16
# boxes of a group that are compared at once with those after them
ROWS = 16


class Limits(TypedDict):
    """What `detections` takes beside the outputs of a network, see there."""

    score: float
    top: int
    iou: float
    keep: int


# of SSD and of Pelee
STANDARD: Final[Limits] = {"score": 0.01, "top": 400, "iou": 0.45, "keep": 200}


def above(score: float) -> Limits:
    """The standard limits, with boxes of a probability above `score` alone."""
    return {**STANDARD, "score": score}


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
    left = Left(
        boxes=torch.cat([groups, _areas(groups)], dim=2).permute(2, 0, 1).contiguous(),
        there=there.reshape(groups.shape[:2]),
        group=torch.arange(len(groups), device=boxes.device),
        place=torch.arange(groups.shape[1], device=boxes.device).expand(groups.shape[:2]),
    )
    kept = torch.zeros_like(left.there)
    while (left := _packed(left)).there.numel():
        rows = left.boxes[..., :ROWS].contiguous()
        stay = _resolve(rows, left.there[:, :ROWS], iou)
        kept[left.group[:, None], left.place[:, :ROWS]] |= stay
        after = left.boxes[..., ROWS:].contiguous()
        # those that do not stay suppress nothing
        hit = _hit(rows, after, torch.where(stay, iou, torch.inf))
        left = Left(after, left.there[:, ROWS:] & ~hit, left.group, left.place[:, ROWS:])
    return kept.view_as(there)


class Left(NamedTuple):
    """The boxes of each group that are neither kept nor suppressed yet, in order.

    Shapes: boxes [5, g, k], corners and area, the numbers of each kind together; there bool [g, k], False for
    padding; group int64 [g] and place int64 [g, k], where they were at first.
    """

    boxes: Tensor
    there: Tensor
    group: Tensor
    place: Tensor


def _packed(left: Left) -> Left:
    """The same without groups that are empty, and with each group's boxes before its padding."""
    counts = left.there.sum(dim=1)
    most = int(counts.max()) if counts.numel() else 0
    if most == left.there.shape[1] and bool(counts.min() > 0):
        return left
    some = counts > 0
    boxes, there, place = left.boxes[:, some], left.there[some], left.place[some]
    order = there.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    boxes = boxes.gather(2, order.expand(len(boxes), -1, -1))
    return Left(boxes, there.gather(1, order), left.group[some], place.gather(1, order))


def _resolve(rows: Tensor, there: Tensor, iou: float) -> Tensor:
    """Which of a few boxes stay, one after the other: [5, g, n], bool [g, n] -> bool [g, n]."""
    space = rows.new_empty(3, *there.shape, there.shape[1])
    over = (_overlaps(rows[..., None], rows[:, :, None], space) > iou).permute(1, 2, 0).contiguous()
    stay = there.t().contiguous()
    for row in range(len(stay) - 1):
        stay[row + 1 :] &= ~(over[row, row + 1 :] & stay[row])
    return stay.t()


def _hit(rows: Tensor, after: Tensor, limits: Tensor) -> Tensor:
    """Whether one of `rows` overlaps a box by more than its limit.

    Shapes: rows [5, g, n], after [5, g, m], limits [g, n] -> bool [g, m].
    """
    groups, step = len(limits), max(1, TILE // max(1, limits.shape[1] * after.shape[2]))
    step = step if rows.device.type == "cpu" else max(1, groups)
    hit = torch.zeros(after.shape[1:], dtype=torch.bool, device=rows.device)
    space = rows.new_empty(3, step, limits.shape[1], after.shape[2])
    for first in range(0, groups if after.shape[2] else 0, step):
        part = slice(first, first + step)
        own = space[:, : len(limits[part])]
        over = _overlaps(rows[:, part, :, None], after[:, part, None], own) > limits[part, :, None]
        # as bytes: torch looks for the largest of those many times faster than for any that is true
        hit[part] = over.view(torch.uint8).amax(dim=1) > 0
    return hit


def _areas(boxes: Tensor) -> Tensor:
    """Of corners: [..., 4] -> [..., 1]."""
    return ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))[..., None]


def _overlaps(a: Tensor, b: Tensor, space: Tensor) -> Tensor:
    """IoU of corners and areas [5, ...] that broadcast to [...]; `space` is three such, to be written over.

    Fresh memory for each step would cost as much as the step.
    """
    shared, height, other = space
    torch.minimum(a[2], b[2], out=shared)
    shared.sub_(torch.maximum(a[0], b[0], out=other)).clamp_min_(0)
    torch.minimum(a[3], b[3], out=height)
    height.sub_(torch.maximum(a[1], b[1], out=other)).clamp_min_(0)
    shared.mul_(height)
    return shared.div_(torch.add(a[4], b[4], out=other).sub_(shared))


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
