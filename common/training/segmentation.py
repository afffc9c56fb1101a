"""Training for a class for each pixel, and its measures: mean intersection over union, pixel accuracy."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.task import Metrics, Task, penalty
from common.data.segmentation.segmentation_data import IGNORE
from common.models.resizing import resized

# pixels of images that go through the network at once where it is judged: more only cost memory
PIXELS = 2**19


class Segmentation(Task):
    """Cross-entropy of pixels weighted by class: sum_i w(y_i) CE_i / sum_i w(y_i); void counts nowhere.

    Logits are [b, k, h, w] with k at least the number of classes; those beyond it stand for no class, and a
    pixel that is given to them is missed. Targets are int64 [b, H, W], 255 for void. Where the logits are
    coarser than the targets (the encoder of ERFNet alone), the targets are subsampled: of each cell the pixel
    in its middle, as in ERFNet's code; loss and measures are then those of the coarse image.

    Measures of a split, over all its pixels: `loss`; `mean_iou`, the mean over classes of (pixels of the
    class that were given to it) / (pixels of the class or given to it), classes that occur in neither left
    out; `pixel_accuracy`; both are fractions. `class_iou` is `mean_iou` in percent, as tables have it.

    Args:
        data: names the classes, and their weights come from its training split.
        class_weights: c > 1 of w = 1 / ln(c + p), p the class' share of all pixels, void among them (Paszke
            et al., "ENet", 2016); None weighs all classes alike.
        views: how images are looked at where the network is judged, see `Views`; training knows one.

    Raises:
        UserError: a c that is not above 1.
    """

    def __init__(self, data: DataSet, class_weights: float | None, views: "Views | None" = None) -> None:
        if class_weights is not None and class_weights <= 1:
            raise UserError(f"model.class_weights={class_weights}: give a number above 1, or null")
        assert data.classes is not None
        self.data, self.classes, self.class_weights = data, data.classes, class_weights
        self.views = Views() if views is None else views
        self._weights: Tensor | None = None
        self._told: set[str] = set()

    @classmethod
    def of(cls, model: object, data: DataSet) -> "Segmentation":
        """The task of a model, which may say its `class_weights`, `test_scales` and `test_flip`."""
        views = Views(getattr(model, "test_scales", (1.0,)), getattr(model, "test_flip", False))
        return cls(data, getattr(model, "class_weights", None), views)

    def weights(self) -> Tensor:
        """w by value of a target, float32 [256], 0 for what is no class; the first call reads the masks."""
        if self._weights is None:
            found = torch.zeros(IGNORE + 1)
            found[: self.classes] = 1.0
            if self.class_weights is not None:
                shares = class_shares(self.data, self.classes)
                found[: self.classes] = class_weights(shares, self.class_weights)
            self._weights = found
        self._weights = self._weights.to(self.data.device)
        return self._weights

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The weighted mean over the minibatch; 0 where all is void."""
        assert targets is not None
        total, mass = self._weighted_sum(outputs, nearest(targets, outputs.shape[2:]))
        return total / mass

    def _weighted_sum(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.weights()
        own = F.pad(weights[: self.classes], (0, logits.shape[1] - self.classes))
        total = F.cross_entropy(logits, targets, own, ignore_index=IGNORE, reduction="sum")
        return total, weights[targets].sum().clamp_min(torch.finfo(torch.float32).tiny)

    def metrics(self, device: torch.device) -> Metrics:
        """The loss, and two readings of one table of confusions."""
        confusion = self._confusion = Confusion(self.classes, device)
        return {
            "loss": MeanMetric().to(device),
            "mean_iou": Reading(confusion, mean_iou),
            "pixel_accuracy": Reading(confusion, pixel_accuracy),
        }

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        """Add a batch, a part at a time."""
        assert targets is not None
        images = max(1, PIXELS // targets[0].numel())
        for some, wanted in zip(inputs.split(images), targets.split(images), strict=True):
            logits = self.views.logits(model, some)
            wanted = nearest(wanted, logits.shape[2:])
            total, mass = self._weighted_sum(logits, wanted)
            metrics["loss"].update(total / mass + penalty(model), weight=mass)
            metrics["mean_iou"].confusion.update(logits.argmax(1), wanted)

    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """All measures of a split."""
        found = super().evaluate(model, data, split)
        self._tell_missing(split)
        return found | {f"{split}_class_iou": 100 * found[f"{split}_mean_iou"]}

    def _tell_missing(self, split: SplitName) -> None:
        """Say once which classes no pixel of a split has: they count in `mean_iou` only where they are
        given."""
        missing = (self._confusion.counts.sum(1) == 0).nonzero().flatten().tolist()
        if missing and split not in self._told:
            self._told.add(split)
            names = self.data.class_names() or [str(label) for label in range(self.classes)]
            print(
                f"[{self.data.NAME}] no pixel of the {split} split is {', '.join(names[k] for k in missing)}",
                file=sys.stderr,
            )

    def full_gradient_norm_sq(self, model: nn.Module, data: DataSet) -> float:
        """Not measured: the objective is a ratio within each minibatch, so the split's is no mean of theirs.

        Raises:
            UserError: always.
        """
        raise UserError(
            "paper.measure_gradient=true: there is no such measure for segmentation (valid: false)"
        )


def nearest(targets: Tensor, size: tuple[int, ...]) -> Tensor:
    """Targets [b, H, W] at the size (h, w): those in the middle of the cells, floor((i + 1/2) H / h)."""
    if targets.shape[1:] == size:
        return targets
    rows, columns = (
        (2 * torch.arange(fewer, device=targets.device) + 1) * all_ // (2 * fewer)
        for all_, fewer in zip(targets.shape[1:], size, strict=True)
    )
    return targets[:, rows[:, None], columns]


def class_weights(shares: Tensor, constant: float) -> Tensor:
    """1 / ln(constant + shares)."""
    return (1 / (constant + shares).log()).float()


def class_shares(data: DataSet, classes: int) -> Tensor:
    """The share of all pixels of the training split that each class has, float64 [classes]."""
    counts = torch.zeros(IGNORE + 1, dtype=torch.int64, device=data.device)
    for _, targets in data.batches("train", data.evaluation_batch):
        assert targets is not None
        counts += targets.flatten().bincount(minlength=IGNORE + 1)
    return (counts.double() / counts.sum())[:classes].cpu()


class Views:
    """Looking at an image at several scales, and at its mirror image: the mean of the probabilities.

    A scaled image has sides 1 + floor((side - 1) scale); images and logits are resized bilinearly with
    aligned corners (Chen et al., DeepLab's evaluation).

    Args:
        scales: positive; (1.0,) for the image as it is.
        flip: whether each is also seen mirrored.

    Raises:
        UserError: no scale, or one that is not positive and finite.
    """

    def __init__(self, scales: Sequence[float] = (1.0,), flip: bool = False) -> None:
        if not scales or any(not (0 < scale < math.inf) for scale in scales):
            raise UserError(f"model.test_scales={list(scales)}: give one or more positive numbers")
        self.scales, self.flip = tuple(scales), flip

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits [b, k, h, w] of images [b, c, H, W]: the model's own, or logarithms of mean
        probabilities."""
        if self.scales == (1.0,) and not self.flip:
            found: Tensor = model(images)
            return found
        views = [
            (scale, mirrored)
            for scale in self.scales
            for mirrored in ([False, True] if self.flip else [False])
        ]
        # so large are the logits of the image as it is
        size = model(images).shape[2:]
        total = sum(self._probabilities(model, images, size, *view) for view in views)
        assert isinstance(total, Tensor)
        return (total / len(views)).clamp_min(torch.finfo(total.dtype).tiny).log()

    @staticmethod
    def _probabilities(
        model: nn.Module, images: Tensor, size: Sequence[int], scale: float, mirrored: bool
    ) -> Tensor:
        sides = [1 + int((side - 1) * scale) for side in images.shape[2:]]
        seen = resized(images, sides)
        seen = model(seen.flip(3)).flip(3) if mirrored else model(seen)
        return resized(seen, size).softmax(1)


class Confusion:
    """Numbers of pixels by their class (rows) and by what they were given to (columns), by torchmetrics.

    The last column is for pixels that were given to no class. All stays on the device.

    Args:
        classes: how many.
        device: where the pixels are.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        self.table = MulticlassConfusionMatrix(classes + 1, ignore_index=IGNORE, validate_args=False).to(
            device
        )

    @property
    def counts(self) -> Tensor:
        """int64 [classes, classes + 1]."""
        found: Tensor = self.table.confmat
        return found[: self.classes]

    def update(self, given: Tensor, wanted: Tensor) -> None:
        """Add pixels: int64 tensors of one shape; void pixels (255) of `wanted` are left out."""
        self.table.update(given.clamp(max=self.classes), wanted)


def mean_iou(counts: Tensor) -> float:
    """The mean of intersection / union over the classes that occur or were given; NaN where none does."""
    hits = counts.diagonal()
    unions = counts.sum(1) + counts[:, :-1].sum(0) - hits
    there = unions > 0
    return float((hits[there].double() / unions[there]).mean()) if there.any() else math.nan


def pixel_accuracy(counts: Tensor) -> float:
    """The share of pixels that were given to their class; NaN where there is none."""
    total = counts.sum()
    return float(counts.diagonal().sum().double() / total) if total else math.nan


class Reading(NamedTuple):
    """A number that a table of confusions gives."""

    confusion: Confusion
    read: Callable[[Tensor], float]

    def compute(self) -> float:
        """The number."""
        return self.read(self.confusion.counts)
