"""Training a detector: SSD's loss, and average precision by VOC's and by COCO's definition."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.task import Metrics, Task, penalty
from common.detection.boxes import counted, labels_of, relative
from common.detection.loss import multibox_sums
from common.detection.nms import STANDARD, detections
from common.metrics.average_precision import MEASURES, AveragePrecision


class Detection(Task):
    """SSD's loss for a network that gives (offsets [b, P, 4], logits [b, P, classes + 1]) from its `priors`.

    Targets are those of `common.data.detection.boxes`, in pixels. Boxes without an area are left out, in
    training and where it is judged.

    Measures of a split, over all its images: `loss`, per matched prior as `multibox_loss`; in percent, means
    over classes, `map`, `map50` and `map75` as COCO has them, and VOC's `voc_map` (eleven points) and
    `voc_area_map`. Boxes are found as SSD does (`common.detection.nms.STANDARD`). Difficult objects and
    crowds need not be found.

    Args:
        data: says the size of images and the number of classes, and, with `LEARNS_DIFFICULT`, whether objects
            marked as difficult are trained on (VOC's are, COCO's crowds are not); without it they are.
    """

    def __init__(self, data: DataSet) -> None:
        assert data.classes is not None
        self.classes = data.classes
        self.size = data.shape[1], data.shape[2]
        self.difficult: bool = getattr(data, "LEARNS_DIFFICULT", True)

    @classmethod
    def of(cls, model: object, data: DataSet) -> "Detection":
        """The task of a detector."""
        return cls(data)

    def fit_of(self, model: nn.Module, outputs: Any, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """SSD's loss on the minibatch."""
        total, matched = self._sums(model, outputs, targets)
        return total / matched

    def _sums(
        self, model: nn.Module, outputs: tuple[Tensor, Tensor], targets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert targets is not None
        check_labels(targets, self.classes)
        offsets, logits = outputs
        return multibox_sums(offsets, logits, _priors(model), targets, self.size, self.difficult)

    def metrics(self, device: torch.device) -> Metrics:
        """The loss, and the readings of one collection of what was found."""
        collected = AveragePrecision(self.classes)
        return {"loss": MeanMetric().to(device), **{name: Reading(collected, name) for name in MEASURES}}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        """Add a batch."""
        assert targets is not None
        outputs: tuple[Tensor, Tensor] = model(inputs)
        total, matched = self._sums(model, outputs, targets)
        metrics["loss"].update(total / matched + penalty(model), weight=matched)
        offsets, logits = outputs
        found = detections(offsets, logits, _priors(model), **STANDARD)
        metrics[MEASURES[0]].collected.update(found, self._objects(targets))

    def _objects(self, targets: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each image its boxes in parts of it, their labels, and whether they need not be found."""
        boxes, labels, there = relative(targets, *self.size), labels_of(targets), counted(targets, True)
        ignored = there & ~counted(targets, False)
        images = zip(boxes, labels, ignored, there, strict=True)
        return [(box[kept], names[kept], some[kept]) for box, names, some, kept in images]

    def full_gradient_norm_sq(self, model: nn.Module, data: DataSet) -> float:
        """Not measured: the objective is a ratio within each minibatch, so the split's is no mean of theirs.

        Raises:
            UserError: always.
        """
        raise UserError("paper.measure_gradient=true: there is no such measure for detection (valid: false)")


def _priors(model: nn.Module) -> Tensor:
    priors: Tensor = model.priors  # type: ignore[assignment]
    return priors


class Reading(NamedTuple):
    """A measure of what was collected."""

    collected: AveragePrecision
    name: str

    def compute(self) -> float:
        """The number."""
        return self.collected.compute()[self.name]


def check_labels(targets: Tensor, classes: int) -> None:
    """Refuse targets whose labels are not 0 to classes - 1, and -1 for padding alone: [b, k, 6].

    Raises:
        UserError: see above; labels that begin at 1 are the usual case.
    """
    labels = labels_of(targets)
    if not labels.numel():
        return
    lowest, highest = labels.aminmax()
    # a box that is labelled as padding, where labels were shifted the other way
    shifted = ((labels == -1) & (targets[..., :4] != 0).any(-1)).any()
    if highest >= classes or lowest < -1 or shifted:
        wrong = int(highest if highest >= classes else lowest)
        raise UserError(
            f"a box has the label {wrong}, and there are {classes} classes (valid: 0 to {classes - 1}; "
            "labels begin at 0, the background has none; rows of padding are all 0 but for their label, -1)"
        )
