"""What a supervised model is trained for: its loss, and the metrics of a split."""

from collections import defaultdict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy

from common.base.dataset import DataSet, SplitName
from common.base.task import Metrics, Task, penalty
from common.models.online_function import OnlineFunction


@torch.no_grad()
def project(model: nn.Module) -> None:
    """Put the parameters back into the model's own feasible set, if it has one."""
    own = getattr(model, "project", None)
    if own is not None:
        own()


# with so many classes, whether the true one is among the five best is measured too
MANY_CLASSES = 100


class Classification(Task):
    """Cross-entropy; accuracy as a fraction, error in percent, and with many classes the top-5 error."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        return F.cross_entropy(outputs, targets)

    def metrics(self, device: torch.device) -> Metrics:
        found: Metrics = {"loss": MeanMetric(), "accuracy": MulticlassAccuracy(self.classes, average="micro")}
        if self.classes >= MANY_CLASSES:
            found["top5_accuracy"] = MulticlassAccuracy(self.classes, average="micro", top_k=5)
        return {name: metric.to(device) for name, metric in found.items()}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        assert targets is not None
        logits = model(inputs)
        metrics["loss"].update(F.cross_entropy(logits, targets) + penalty(model), weight=len(inputs))
        for name in metrics.keys() - {"loss"}:
            metrics[name].update(logits, targets)

    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """All metrics of a split; an error is what is left of an accuracy, in percent."""
        found = super().evaluate(model, data, split)
        errors = {
            name.replace("accuracy", "error"): 100 * (1 - v)
            for name, v in found.items()
            if "accuracy" in name
        }
        return found | errors


class Reconstruction(Task):
    """Pixel-wise cross-entropy between an image and its reconstruction; squared error summed over pixels.

    Args:
        pixels: whether the loss is the `sum` over an image's pixels (the autoencoder benchmark's) or the
            `mean`. Both are averaged over images. With an absolute eps in the optimizer they differ.
    """

    def __init__(self, pixels: Literal["sum", "mean"]) -> None:
        self.pixels = pixels

    def _cross_entropy(self, logits: Tensor, inputs: Tensor) -> Tensor:
        total = F.binary_cross_entropy_with_logits(logits, inputs.flatten(1), reduction="sum")
        return total / (len(inputs) if self.pixels == "sum" else inputs.numel())

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        return self._cross_entropy(outputs, inputs)

    def metrics(self, device: torch.device) -> Metrics:
        return {"loss": MeanMetric().to(device), "squared_error": MeanMetric().to(device)}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        logits = model(inputs)
        metrics["loss"].update(self._cross_entropy(logits, inputs) + penalty(model), weight=len(inputs))
        metrics["squared_error"].update((logits.sigmoid() - inputs.flatten(1)).square().sum(1))


class Regression(Task):
    """The model's own loss (mean squared error without one); root mean squared error."""

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        own = getattr(model, "loss", F.mse_loss)
        return own(outputs, targets)

    def metrics(self, device: torch.device) -> Metrics:
        return {"loss": MeanMetric().to(device), "rmse": MeanSquaredError(squared=False).to(device)}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        assert targets is not None
        predictions = model(inputs)
        metrics["loss"].update(self.loss_of(model, predictions, inputs, targets), weight=len(inputs))
        metrics["rmse"].update(predictions, targets)


class Online(Task):
    """Functions that come one a step (`OnlineFunction`); `train_loss` is their mean at the last point."""

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        return outputs.mean()

    def watch(self, model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
        assert isinstance(model, OnlineFunction)
        return model.watch(inputs)

    def metrics(self, device: torch.device) -> Metrics:
        return {"loss": MeanMetric().to(device)}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        metrics["loss"].update(model(inputs) + penalty(model))

    @torch.no_grad()
    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """`train_loss` and what the model says of its last point; there is no other split."""
        assert isinstance(model, OnlineFunction)
        if split != "train":
            return {}
        return super().evaluate(model, data, split) | {name: float(v) for name, v in model.final().items()}


class Own(Task):
    """A model that says itself what it is trained for and judged by, as one that learns from a teacher.

    It has `loss_of(outputs, inputs, targets)`, and `metrics_of(outputs, inputs, targets)`, which gives means
    over the batch by name.

    Args:
        model: the model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        return self.model.loss_of(outputs, inputs, targets)

    def metrics(self, device: torch.device) -> Metrics:
        return defaultdict(lambda: MeanMetric().to(device))

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        for name, value in self.model.metrics_of(model(inputs), inputs, targets).items():
            metrics[name].update(value, weight=len(inputs))
