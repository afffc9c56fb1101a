"""Average precision of detections, as Pascal VOC and as COCO define it, for all images and classes at once.

VOC (Everingham et al., IJCV 2010, section 4.2, and its development kit): detections of a class, the surest
first, are each held against the object of the class in their image that they overlap most. With an IoU of at
least 1/2 the first one that finds an object is right, later ones are wrong; one that finds a difficult object
counts neither way, and difficult objects need not be found. Precision at a recall is the largest at that
recall or beyond it.

COCO (Lin et al., ECCV 2014; its `cocoeval.py` is the definition, and `common.metrics.coco_api` calls it): of
the 100 surest of a class in an image each in turn takes the free object that it overlaps most, at ten
thresholds of IoU. Crowds are only taken where nothing else is, by any number of detections, which count
neither way; their IoU is the part of the detection that lies in the crowd.

Both give a fraction for each class, and NaN for a class without objects that count.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

VOC_IOU = 0.5
COCO_IOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())
COCO_RECALLS = 101
COCO_MOST = 100
# numbers that a part of COCO's matching works on at once
PART = 2**22
MISSED, RIGHT, UNCOUNTED = 0, 1, 2


class Found(NamedTuple):
    """Detections of many images.

    Shapes: image int64 [n], label int64 [n], boxes float64 [n, 4] (corners, of any unit), scores [n].
    """

    image: Tensor
    label: Tensor
    boxes: Tensor
    scores: Tensor


class Objects(NamedTuple):
    """The objects in those images; `ignored` are VOC's difficult ones and COCO's crowds.

    Shapes: image int64 [m], label int64 [m], boxes float64 [m, 4], ignored bool [m].
    """

    image: Tensor
    label: Tensor
    boxes: Tensor
    ignored: Tensor


class Pairs(NamedTuple):
    """All pairs of a detection and an object of the same image and class, in the order of detections.

    Shapes: all [p]; found and objects int64, the numbers of both; shared, the area of the intersection, and
    areas, of both boxes, float64.
    """

    found: Tensor
    objects: Tensor
    shared: Tensor
    areas: tuple[Tensor, Tensor]

    def iou(self) -> Tensor:
        """Intersection over union, 0 where that is empty: float64 [p]."""
        union = self.areas[0] + self.areas[1] - self.shared
        return torch.where(union > 0, self.shared / union, 0.0)

    def covered(self) -> Tensor:
        """The part of the detection that lies in the object, 0 without an area: float64 [p]."""
        return torch.where(self.areas[0] > 0, self.shared / self.areas[0], 0.0)


def pairs_of(found: Found, objects: Objects, classes: int) -> Pairs:
    """All pairs of a detection and an object of the same image and class."""
    own, group = found.image * classes + found.label, objects.image * classes + objects.label
    order = group.argsort(stable=True)
    group = group[order]
    first, last = torch.searchsorted(group, own), torch.searchsorted(group, own, right=True)
    counts = last - first
    detection = torch.arange(len(own)).repeat_interleave(counts)
    start = (first - (counts.cumsum(0) - counts)).repeat_interleave(counts)
    target = order[start + torch.arange(len(detection))]
    a, b = found.boxes[detection], objects.boxes[target]
    shared = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0).prod(1)
    areas = tuple((box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (a, b))
    return Pairs(detection, target, shared, areas)  # type: ignore[arg-type]


def voc_ap(found: Found, objects: Objects, classes: int, points: Literal["eleven", "area"]) -> Tensor:
    """VOC's average precision of each class: float64 [classes].

    Args:
        found, objects: see there.
        classes: how many.
        points: "eleven" is the mean of the precisions at recalls 0, 0.1, ..., 1 (VOC 2007), "area" the area
            under the whole curve (from 2010 on).
    """
    order = found.scores.argsort(descending=True, stable=True)
    found = Found(*(part[order] for part in found))
    status = voc_status(found, objects, classes)
    values = []
    for label in range(classes):
        wanted = int(((objects.label == label) & ~objects.ignored).sum())
        own = status[found.label == label]
        values.append(_voc_area(own[own != UNCOUNTED] == RIGHT, wanted, points))
    return torch.tensor(values, dtype=torch.float64)


def voc_status(found: Found, objects: Objects, classes: int) -> Tensor:
    """Whether each detection is right, wrong, or not counted: int64 [n], for detections in falling order."""
    pairs = pairs_of(found, objects, classes)
    iou = pairs.iou()
    # of each detection the object of its largest overlap, of equal ones the first
    order = (-iou).argsort(stable=True)
    order = order[pairs.found[order].argsort(stable=True)]
    best = order[_first_of_each(pairs.found[order])]
    best = best[iou[best] >= VOC_IOU]
    detection, target = pairs.found[best], pairs.objects[best]
    status = torch.full((len(found.label),), MISSED)
    status[detection[objects.ignored[target]]] = UNCOUNTED
    by_object = target.argsort(stable=True)
    first = by_object[_first_of_each(target[by_object])]
    first = first[~objects.ignored[target[first]]]
    status[detection[first]] = RIGHT
    return status


def _first_of_each(ascending: Tensor) -> Tensor:
    """Where each run of equal numbers begins: [n] -> bool [n]."""
    begins = torch.ones(len(ascending), dtype=torch.bool)
    begins[1:] = ascending[1:] != ascending[:-1]
    return begins


def _voc_area(right: Tensor, wanted: int, points: Literal["eleven", "area"]) -> float:
    """The average precision of a class, of whether its detections are right, the surest first."""
    if wanted == 0:
        return float("nan")
    hits = right.double().cumsum(0)
    recall, precision = hits / wanted, hits / torch.arange(1, len(hits) + 1)
    highest = _highest_from(precision)
    if points == "area":
        steps = recall.diff(prepend=recall.new_zeros(1))
        return float((steps * highest).sum())
    # the recall at a detection is a ratio of whole numbers, so that 3 of 10 reach 0.3
    at = torch.searchsorted(hits * 10, torch.arange(11, dtype=torch.float64) * wanted)
    return float(torch.cat([highest, highest.new_zeros(1)])[at].mean())


def _highest_from(precision: Tensor) -> Tensor:
    """The largest from each place to the end of the last dimension."""
    return precision.flip(-1).cummax(-1).values.flip(-1) if precision.shape[-1] else precision


def coco_ap(found: Found, objects: Objects, classes: int) -> Tensor:
    """COCO's average precision of each class at the IoUs 0.5, 0.55, ..., 0.95: float64 [10, classes].

    The mean of the precisions at recalls 0, 0.01, ..., 1.
    """
    found = _surest(found, classes)
    status = coco_status(found, objects, classes)
    values = []
    for label in range(classes):
        wanted = int(((objects.label == label) & ~objects.ignored).sum())
        values.append(_coco_area(status[:, found.label == label], wanted))
    return torch.stack(values, dim=1)


def _surest(found: Found, classes: int) -> Found:
    """In falling order of scores, equal ones by image; of each image and class the 100 surest."""
    order = found.image.argsort(stable=True)
    order = order[found.scores[order].argsort(descending=True, stable=True)]
    by_group = order[(found.image * classes + found.label)[order].argsort(stable=True)]
    begins = _first_of_each((found.image * classes + found.label)[by_group])
    place = torch.arange(len(order))
    rank = place - torch.where(begins, place, 0).cummax(0).values if len(order) else place
    kept = torch.zeros(len(order), dtype=torch.bool)
    kept[by_group] = rank < COCO_MOST
    return Found(*(part[order[kept[order]]] for part in found))


def coco_status(found: Found, objects: Objects, classes: int) -> Tensor:
    """Whether each detection is right, wrong, or not counted at each IoU: int64 [10, n].

    Detections come in falling order of their scores. Those of one image and class and the objects there are
    a group; groups of like sizes are padded to one, and all their detections of one rank take their
    objects at once.
    """
    # objects that count come first, as COCO's loop needs to see them first
    first = objects.ignored.long().argsort(stable=True)
    pairs = pairs_of(found, Objects(*(part[first] for part in objects)), classes)
    crowd = objects.ignored[first]
    overlap = torch.where(crowd[pairs.objects], pairs.covered(), pairs.iou())
    status = torch.full((len(COCO_IOUS), len(found.label)), MISSED)
    for detections, targets, overlaps in _groups(found, pairs, overlap, classes):
        taken = _take(overlaps, crowd[targets])
        there = detections >= 0
        status[:, detections[there]] = taken[:, there]
    return status


def _groups(
    found: Found, pairs: Pairs, overlap: Tensor, classes: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Padded groups of like sizes, with -1 for padding, also as an overlap with it.

    Shapes: numbers of detections int64 [g, D], of objects int64 [g, G], overlaps [g, D, G].
    """
    if not len(pairs.found):
        return
    group = (found.image * classes + found.label)[pairs.found]
    _, group = group.unique(return_inverse=True)
    detection_rank, detections = _ranks(pairs.found, group)
    object_rank, targets = _ranks(pairs.objects, group)
    order = (detections * (targets.max() + 1) + targets).argsort()
    for some in _parts(order, detections, targets):
        most, widest = int(detections[some].max()), int(targets[some].max())
        row = torch.full((len(detections),), -1)
        row[some] = torch.arange(len(some))
        chosen = row[group] >= 0
        at = row[group[chosen]], detection_rank[chosen], object_rank[chosen]
        overlaps = overlap.new_full((len(some), most, widest), -1)
        overlaps[at] = overlap[chosen]
        padded = torch.full((len(some), most), -1)
        padded[at[:2]] = pairs.found[chosen]
        objects = torch.zeros(len(some), widest, dtype=torch.int64)
        objects[at[0], at[2]] = pairs.objects[chosen]
        yield padded, objects, overlaps


def _ranks(numbers: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """The rank of each number among the distinct ones of its group, [p], and how many each group has, [g]."""
    span = int(numbers.max()) + 1
    distinct, inverse = (group * span + numbers).unique(return_inverse=True)
    owner = distinct // span
    counts = owner.bincount(minlength=int(group.max()) + 1)
    start = counts.cumsum(0) - counts
    return (torch.arange(len(distinct)) - start[owner])[inverse], counts


def _parts(order: Tensor, detections: Tensor, targets: Tensor) -> Iterator[Tensor]:
    """Groups in the order of their sizes, at most `PART` numbers at once and of like depths."""
    while len(order):
        depth = int(detections[order[0]])
        near = int((detections[order] <= 2 * depth).sum())
        size = len(COCO_IOUS) * 2 * depth * int(targets[order[:near]].max())
        count = max(1, min(near, PART // size))
        yield order[:count]
        order = order[count:]


def _take(overlaps: Tensor, crowd: Tensor) -> Tensor:
    """Let detections take objects, one rank after the other: [g, D, G], bool [g, G] -> int64 [10, g, D].

    Of equal overlaps the last object is taken, as in COCO's loop.
    """
    groups, most, widest = overlaps.shape
    least = torch.tensor([min(iou, 1 - 1e-10) for iou in COCO_IOUS], dtype=torch.float64)[:, None, None]
    taken = torch.zeros(len(COCO_IOUS), groups, widest, dtype=torch.bool)
    status = torch.full((len(COCO_IOUS), groups, most), MISSED)
    for rank in range(most):
        own = overlaps[:, rank].expand_as(taken)
        open_ = (own >= least) & (~taken | crowd)
        counting = (open_ & ~crowd).any(2, keepdim=True)
        open_ &= ~(crowd & counting)
        place = widest - 1 - torch.where(open_, own, -1.0).flip(2).argmax(2, keepdim=True)
        some = open_.any(2)
        taken.scatter_(2, place, taken.gather(2, place) | some[..., None])
        kind = torch.where(crowd.expand_as(taken).gather(2, place).squeeze(2), UNCOUNTED, RIGHT)
        status[:, :, rank] = torch.where(some, kind, MISSED)
    return status


def _coco_area(status: Tensor, wanted: int) -> Tensor:
    """The average precisions of a class: int64 [10, n], in falling order of scores -> float64 [10]."""
    if wanted == 0:
        return torch.full((len(COCO_IOUS),), float("nan"), dtype=torch.float64)
    hits = (status == RIGHT).double().cumsum(1)
    made = (status != UNCOUNTED).double().cumsum(1)
    precision = _highest_from(hits / made.clamp_min(1))
    # numpy's, to the last bit: many recalls are hundredths themselves
    recalls = torch.from_numpy(np.linspace(0, 1, COCO_RECALLS)).expand(len(hits), -1).contiguous()
    at = torch.searchsorted((hits / wanted).contiguous(), recalls)
    padded = torch.cat([precision, precision.new_zeros(len(hits), 1)], dim=1)
    return padded.gather(1, at).mean(dim=1)


MEASURES = ("map", "map50", "map75", "voc_map", "voc_area_map")


class AveragePrecision:
    """Collects detections and objects, image by image, on the CPU.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.images = 0
        self._found: list[Found] = []
        self._objects: list[Objects] = []
        self._computed: dict[str, float] | None = None

    def update(self, found: Iterable[Any], objects: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Add images.

        Args:
            found: for each image boxes [n, 4], scores [n] and labels [n].
            objects: for each image boxes [m, 4] in the same unit, labels [m] and ignored bool [m].
        """
        self._computed = None
        for (boxes, scores, labels), (own, names, ignored) in zip(found, objects, strict=True):
            image = torch.tensor(self.images)
            self._found.append(
                Found(image.expand(len(labels)), labels.cpu(), boxes.cpu().double(), scores.cpu())
            )
            self._objects.append(
                Objects(image.expand(len(names)), names.cpu().long(), own.cpu().double(), ignored.cpu())
            )
            self.images += 1

    def collected(self) -> tuple[Found, Objects]:
        """All that was added."""
        found, objects = zip(*self._found, strict=True), zip(*self._objects, strict=True)
        return Found(*map(torch.cat, found)), Objects(*map(torch.cat, objects))

    def compute(self) -> dict[str, float]:
        """In percent, means over the classes that have objects; NaN where none has.

        Returns:
            map: COCO's, the mean over ten IoUs; map50, map75: COCO's at 0.5 and at 0.75; voc_map: VOC's by
            eleven points; voc_area_map: VOC's by the area.
        """
        if not self.images:
            return dict.fromkeys(MEASURES, float("nan"))
        if self._computed is None:
            self._computed = self._compute()
        return self._computed

    def _compute(self) -> dict[str, float]:
        found, objects = self.collected()
        coco = coco_ap(found, objects, self.classes)
        values = {"map": coco.mean(0), "map50": coco[0], "map75": coco[5]}
        values["voc_map"] = voc_ap(found, objects, self.classes, "eleven")
        values["voc_area_map"] = voc_ap(found, objects, self.classes, "area")
        return {name: 100 * float(values[name].nanmean()) for name in MEASURES}
