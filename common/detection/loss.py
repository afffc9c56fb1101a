"""SSD's loss with hard negative mining (Liu et al., ECCV 2016, section 2.2; Caffe's MultiBoxLoss)."""

import torch
from torch import Tensor
from torch.nn import functional

from common.detection.boxes import counted, labels_of, relative, to_centres
from common.detection.coding import encode
from common.detection.matching import THRESHOLD, Matches, match

# of negatives to matched priors, in each image
NEGATIVES = 3


def multibox_loss(
    offsets: Tensor,
    logits: Tensor,
    priors: Tensor,
    targets: Tensor,
    size: tuple[int, int],
    difficult: bool,
) -> Tensor:
    """The loss of SSD: `multibox_sums`, the first over the second; a scalar."""
    total, matched = multibox_sums(offsets, logits, priors, targets, size, difficult)
    return total / matched


def multibox_sums(
    offsets: Tensor,
    logits: Tensor,
    priors: Tensor,
    targets: Tensor,
    size: tuple[int, int],
    difficult: bool,
) -> tuple[Tensor, Tensor]:
    """S = smooth L1 over matched priors + cross-entropies over matched and mined priors, and N: loss = S / N.

    - Smooth L1 is of the four offsets (1/2 d² for |d| < 1, else |d| - 1/2).
    - Cross-entropy is of classes + 1 logits; the class of unmatched priors is the background.
    - Mined are in each image those 3 m unmatched priors, m the number of its matched ones, whose
      -ln p(background) is largest, of equal ones the first, as far as there are so many.
    - N is the number of matched priors in the batch.

    An image without a matched prior counts as if it had one, in m and in N, so that it teaches what is
    background. (Caffe's layer mines nothing there.)

    Args:
        offsets: [b, P, 4].
        logits: [b, P, classes + 1].
        priors: (cx, cy, w, h), [P, 4].
        targets: see `common.data.detection.boxes`, [b, k, 6].
        size: (height, width) of the images, in whose pixels the targets are.
        difficult: whether objects marked as difficult are trained on.

    Returns:
        S and N, scalars.
    """
    boxes, there = relative(targets, *size), counted(targets, difficult)
    matches = match(boxes, there, priors, THRESHOLD)
    located = location_loss(offsets, priors, boxes, matches)
    named = confidence_loss(logits, labels_of(targets), matches)
    return located + named, matches.matched.sum(dim=1).clamp_min(1).sum()


def location_loss(offsets: Tensor, priors: Tensor, boxes: Tensor, matches: Matches) -> Tensor:
    """The sum of smooth L1 over the offsets of matched priors, for boxes in corners [b, k, 4]: a scalar."""
    image, prior = matches.matched.nonzero(as_tuple=True)
    wanted = encode(to_centres(boxes[image, matches.objects[image, prior]]), priors[prior])
    return functional.smooth_l1_loss(offsets[image, prior], wanted, reduction="sum")


def confidence_loss(logits: Tensor, labels: Tensor, matches: Matches) -> Tensor:
    """The sum of cross-entropies over matched and mined priors: logits [b, P, C + 1], labels [b, k]."""
    matched = matches.matched
    background = (logits.logsumexp(dim=2) - logits[..., 0]).detach()
    chosen = matched | hardest(background, matched, matches.overlaps)
    image, prior = chosen.nonzero(as_tuple=True)
    objects = matches.objects[image, prior]
    wanted = torch.zeros_like(objects)
    known = objects >= 0
    wanted[known] = labels[image[known], objects[known]] + 1
    return functional.cross_entropy(logits[image, prior], wanted, reduction="sum")


@torch.no_grad()
def hardest(background: Tensor, matched: Tensor, overlaps: Tensor) -> Tensor:
    """The mined negatives: of each image the 3 max(m, 1) free priors with the largest loss.

    Free is what is unmatched and overlaps no object by 1/2 or more.

    Shapes: background, the losses as background, [b, P]; matched bool [b, P]; overlaps [b, P] -> bool [b, P].
    """
    free = ~matched & (overlaps < THRESHOLD)
    wanted = NEGATIVES * matched.sum(dim=1, keepdim=True).clamp_min(1)
    order = background.masked_fill(~free, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(order.shape[1], device=order.device).expand_as(order)
    first = torch.zeros_like(free).scatter_(1, order, rank < wanted)
    return first & free
