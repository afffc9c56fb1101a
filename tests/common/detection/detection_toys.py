"""Plain loops that the batched code of detection must agree with, and scenes to try them on."""

import math

import torch
from torch import Tensor

from common.data.detection.boxes import iou_matrix
from common.detection.boxes import to_corners

Corners = list[float]


def naive_iou(a: Corners, b: Corners) -> float:
    """IoU of two boxes in corners."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def naive_match(overlaps: list[list[float]], threshold: float) -> list[int]:
    """Caffe's matching of one image, as its loops do it: overlaps[prior][object] -> object or -1."""
    found = [-1] * len(overlaps)
    free = set(range(len(overlaps[0]) if overlaps else 0))
    while free:
        best, prior, which = 0.0, -1, -1
        for i, row in enumerate(overlaps):
            if found[i] != -1:
                continue
            for j in sorted(free):
                if row[j] > best:
                    best, prior, which = row[j], i, j
        if prior == -1:
            break
        found[prior] = which
        free.remove(which)
    for i, row in enumerate(overlaps):
        if found[i] == -1:
            best, which = -1.0, -1
            for j, overlap in enumerate(row):
                if overlap >= threshold and overlap > best:
                    best, which = overlap, j
            found[i] = which
    return found


def naive_suppress(boxes: list[Corners], iou: float) -> list[bool]:
    """Which boxes of a group stay, the best first."""
    kept: list[int] = []
    for number, box in enumerate(boxes):
        if all(naive_iou(boxes[other], box) <= iou for other in kept):
            kept.append(number)
    return [number in kept for number in range(len(boxes))]


def naive_loss(
    offsets: Tensor, logits: Tensor, priors: Tensor, boxes: list[list[Corners]], labels: list[list[int]]
) -> float:
    """SSD's loss by loops, in float64; each image must have an object."""
    total, matched = 0.0, 0
    corners = to_corners(priors).tolist()
    for image, (some, names) in enumerate(zip(boxes, labels, strict=True)):
        # in float32, as overlaps that are equal on paper must differ, or not, as they do there
        overlaps = iou_matrix(torch.tensor(corners), torch.tensor(some)).tolist()
        objects = naive_match(overlaps, 0.5)
        rows = logits[image].double().log_softmax(-1).tolist()
        positive = [i for i, j in enumerate(objects) if j >= 0]
        negative = [i for i, j in enumerate(objects) if j < 0]
        negative.sort(key=lambda i: rows[i][0])
        for i in positive:
            px, py, pw, ph = priors[i].tolist()
            x0, y0, x1, y1 = some[objects[i]]
            code = [
                ((x0 + x1) / 2 - px) / pw / 0.1,
                ((y0 + y1) / 2 - py) / ph / 0.1,
                math.log((x1 - x0) / pw) / 0.2,
                math.log((y1 - y0) / ph) / 0.2,
            ]
            for given, wanted in zip(offsets[image, i].tolist(), code, strict=True):
                d = abs(given - wanted)
                total += 0.5 * d * d if d < 1 else d - 0.5
            total -= rows[i][names[objects[i]] + 1]
        total -= sum(rows[i][0] for i in negative[: 3 * len(positive)])
        matched += len(positive)
    return total / matched


def random_corners(generator: torch.Generator, *shape: int) -> Tensor:
    """Boxes within (0, 0, 1, 1), with sides of 0.02 to 0.6: float32 [*shape, 4]."""
    sides = 0.02 + 0.58 * torch.rand(*shape, 2, generator=generator)
    low = (1 - sides) * torch.rand(*shape, 2, generator=generator)
    return torch.cat([low, low + sides], dim=-1)
