"""Which prior is to find which object: SSD's matching (Liu et al., ECCV 2016, section 2.2)."""

from typing import NamedTuple

import torch
from torch import Tensor

from common.data.detection.boxes import iou_matrix
from common.detection.boxes import to_corners

THRESHOLD = 0.5
UNMATCHED = -1


class Matches(NamedTuple):
    """What the priors of a batch are matched to.

    Shapes: objects int64 [b, P], the number of each prior's object in its image, -1 for none; overlaps
    float32 [b, P], the largest IoU of each prior with an object of its image, 0 without objects.
    """

    objects: Tensor
    overlaps: Tensor

    @property
    def matched(self) -> Tensor:
        """Which priors have an object: bool [b, P]."""
        return self.objects != UNMATCHED


@torch.no_grad()
def match(boxes: Tensor, there: Tensor, priors: Tensor, threshold: float = THRESHOLD) -> Matches:
    """Match priors and objects in two steps, as Caffe's MultiBoxLoss does ("per prediction").

    First greedily: of all pairs of an object and a prior that are both free the one of the largest IoU is
    matched, until no object is left that overlaps a free prior. So each object has a prior of its own. Then
    each prior that is left over is matched to the object of its largest IoU, if that is at least the
    threshold. Of equal overlaps the first prior, and then the first object, goes first.

    Args:
        boxes: corners of the objects, [b, k, 4], in parts of the image.
        there: which of them are objects and not padding, bool [b, k].
        priors: (cx, cy, w, h), [P, 4].
        threshold: of the second step.
    """
    overlaps = iou_matrix(boxes, to_corners(priors).expand(len(boxes), -1, -1))
    # [b, k, P]; what is padding overlaps nothing, less than an object without overlap does
    overlaps = overlaps.masked_fill_(~there[..., None], UNMATCHED)
    if boxes.shape[1] == 0:
        nothing = overlaps.new_zeros(len(boxes), len(priors))
        return Matches(nothing.long() + UNMATCHED, nothing)
    best, objects = overlaps.max(dim=1)
    objects = torch.where(best >= threshold, objects, UNMATCHED)
    return Matches(_greedy(overlaps, objects), best.clamp_min(0))


def _greedy(overlaps: Tensor, objects: Tensor) -> Tensor:
    """Give each object the prior that the first step finds for it; writes over `overlaps`.

    All images of the batch take a step at once. Only objects whose best prior has just been taken by another
    look for their next one, so that a step costs no pass over all pairs.

    Shapes: overlaps [b, k, P], objects int64 [b, P] -> int64 [b, P].
    """
    images = torch.arange(len(overlaps), device=overlaps.device)
    best, prior = overlaps.max(dim=2)
    for _ in range(overlaps.shape[1]):
        largest, chosen = best.max(dim=1)
        found = largest > 0
        taken = prior[images, chosen]
        objects[images, taken] = torch.where(found, chosen, objects[images, taken])
        # an image that has no pair left repeats its last step, and changes nothing
        best[images, chosen] = UNMATCHED
        overlaps[images, :, taken] = torch.where(found[:, None], UNMATCHED, overlaps[images, :, taken])
        again = (prior == taken[:, None]) & (best > 0) & found[:, None]
        image, which = again.nonzero(as_tuple=True)
        best[image, which], prior[image, which] = overlaps[image, which].max(dim=1)
    return objects
