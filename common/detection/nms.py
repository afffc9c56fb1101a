"""Non-maximum suppression of whole batches, and what a detector has found."""

from typing import Final, NamedTuple, TypedDict

import torch
from torch import Tensor

from common.detection.boxes import to_corners
from common.detection.coding import decode


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

    A box that is itself suppressed suppresses none. Groups (images, classes) know nothing of each other. A
    box with a coordinate that is NaN overlaps none.

    Args:
        boxes: corners, [..., k, 4], each group in the order of its scores, the best first; overlaps are
            computed in float64 where they are, else in float32.
        there: which are boxes and not padding, bool [..., k].
        iou: in [0, 1].

    Returns:
        bool [..., k]; padding never stays.
    """
    # a run that finds no boxes is not to wait for Numba
    from common.detection.suppression import mark_kept

    # boxes of another device are brought here, too: for a batch it takes some milliseconds
    dtype = torch.promote_types(boxes.dtype, torch.float32)
    groups = boxes.detach()[None].flatten(0, -3).to("cpu", dtype).contiguous().numpy()
    given = there[None].flatten(0, -2).cpu().contiguous().numpy()
    kept = torch.zeros(given.shape, dtype=torch.bool)
    mark_kept(groups, given, groups.dtype.type(iou), kept.numpy())
    return kept.view_as(there).to(boxes.device)


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
