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
# the part of its boxes that a group has left at most where it is worth packing
WORTH = 0.7


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
    kept = torch.zeros(groups.shape[:2], dtype=torch.bool, device=boxes.device)
    left = Left(
        boxes=torch.cat([groups, _areas(groups)], dim=2).permute(2, 1, 0).contiguous(),
        there=there.reshape(groups.shape[:2]).t().contiguous(),
        group=torch.arange(len(groups), device=boxes.device),
        place=torch.arange(groups.shape[1], device=boxes.device)[:, None].expand(groups.shape[1::-1]),
    )
    # written over by all steps, as fresh memory would cost as much as they do
    size = TILE if boxes.device.type == "cpu" else ROWS * kept.numel()
    space = boxes.new_empty(3, max(size, ROWS * len(groups)))
    while (left := _packed(left)).there.numel():
        done = _resolve_first(left, iou, space)
        kept[left.group, left.place[:done]] = left.there[:done]
        left = left.after(done)
    return kept.view_as(there)


class Left(NamedTuple):
    """Boxes of each group in order, neither kept nor suppressed yet; groups side by side, so that what is
    done to one is done to many at once.

    Shapes: boxes [5, k, g], corners and area, the numbers of each kind together; there bool [k, g], False for
    padding and for what is suppressed; group int64 [g] and place int64 [k, g], where they were at first.
    """

    boxes: Tensor
    there: Tensor
    group: Tensor
    place: Tensor

    def after(self, done: int) -> "Left":
        """Those after the first `done` of each group."""
        return Left(self.boxes[:, done:], self.there[done:], self.group, self.place[done:])


def _packed(left: Left) -> Left:
    """The same without groups that are empty, and with each group's boxes before its padding."""
    counts = left.there.sum(dim=0)
    most, least = (int(counts.max()), int(counts.min())) if counts.numel() else (0, 0)
    if least == len(left.there):
        return left
    if least == 0:
        some = counts > 0
        left = Left(left.boxes[..., some], left.there[:, some], left.group[some], left.place[:, some])
    order = left.there.byte().argsort(dim=0, descending=True, stable=True)[:most]
    boxes = left.boxes.gather(1, order.expand(len(left.boxes), -1, -1))
    return Left(boxes, left.there.gather(0, order), left.group, left.place.gather(0, order))


def _resolve_first(left: Left, iou: float, space: Tensor) -> int:
    """Mark in `left.there` what stays of the first boxes of each group, and what they suppress.

    It goes on until so many are suppressed that those that are left are worth packing; the rest is not
    looked at.

    Returns:
        Of how many boxes of each group it is known whether they stay.
    """
    boxes, there = left.boxes, left.there
    count = len(there)
    for first in range(0, count, ROWS):
        done = min(first + ROWS, count)
        rows, after = boxes[:, first:done], there[done:]
        _resolve(rows, there[first:done], iou)
        after &= ~_hit(rows, there[first:done], boxes[:, done:], iou, space)
        if int(after.sum(dim=0).max() if len(after) else 0) <= WORTH * (count - done):
            return done
    return count


def _resolve(rows: Tensor, there: Tensor, iou: float) -> None:
    """Mark which of a few boxes stay, one after the other: [5, n, g], bool [n, g], written over."""
    space = rows.new_empty(3, len(there), *there.shape)
    over = _overlaps(rows[:, :, None], rows[:, None], space) > iou
    for row in range(len(there) - 1):
        there[row + 1 :] &= ~(over[row, row + 1 :] & there[row])


def _hit(rows: Tensor, stay: Tensor, after: Tensor, iou: float, space: Tensor) -> Tensor:
    """Whether one of those of `rows` that stay overlaps a box by more than `iou`.

    Shapes: rows [5, n, g], stay bool [n, g], after [5, m, g], space [3, some] -> bool [m, g].
    """
    count, groups = after.shape[1:]
    step = max(1, space.shape[1] // stay.numel())
    # in an area without end nothing overlaps: so pairs need no limits of their own, as to compare costs torch
    # ten times as much as to divide
    rows = torch.cat([rows[:4], torch.where(stay, rows[4], torch.inf)[None]])[:, :, None]
    hit = torch.empty(count, groups, dtype=torch.bool, device=rows.device)
    for first in range(0, count, step):
        part = after[:, None, first : first + step]
        own = space[:, : len(stay) * part[0].numel()].view(3, len(stay), *part.shape[2:])
        torch.gt(_overlaps(rows, part, own).amax(dim=0), iou, out=hit[first : first + step])
    return hit


def _areas(boxes: Tensor) -> Tensor:
    """Of corners: [..., 4] -> [..., 1]."""
    return ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))[..., None]


def _overlaps(a: Tensor, b: Tensor, space: Tensor) -> Tensor:
    """IoU of corners and areas [5, ...] that broadcast to [...]; `space`, three such, is written over."""
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
