"""Several tasks on the same inputs: a loss for each, and the measures of each."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.model import Model
from common.base.task import Metrics, Task
from common.base.task_spec import TaskSpec
from common.data.segmentation.segmentation_data import IGNORE
from common.training.segmentation import Confusion, Reading, mean_iou

Regression = Literal["l1", "mse"]


class MultiTask(Task):
    """The tasks of a data set, by their `TaskSpec`s; a model gives their outputs side by side, [b, sum, ...].

    Losses are means over the batch: `class` cross-entropy; `pixel_class` cross-entropy over the pixels that
    are not 255; `pixel_number` |error| or error^2 over the pixels whose target is no NaN (0, with a graph,
    where there is none); `quadratic` sum_i d_i (z_i - c_i)^2 / 2.

    Measures: `loss` (the mean over tasks) and `loss_NAME`; of classes `acc_NAME` and `error_NAME` in percent
    and their mean `avg_error`; of pixels' classes `miou` in percent; of pixels' numbers `NAME_error`, the
    mean absolute error in the task's unit.

    Args:
        specs: the tasks; their targets are the columns (or channels) of the targets, in this order.
        regression: the loss of pixels' numbers.
    """

    def __init__(self, specs: Sequence[TaskSpec], regression: Regression) -> None:
        self.specs, self.regression = tuple(specs), regression
        self.outputs = [spec.outputs for spec in self.specs]
        self.columns = [spec.outputs if spec.kind == "pixel_number" else 1 for spec in self.specs]

    @classmethod
    def of(cls, model: Model, data: DataSet) -> "MultiTask":
        """The tasks of a data set, for a model that has an output for each.

        Raises:
            UserError: the model has other outputs.
        """
        specs = data.TASKS
        wanted, given = (
            [spec.outputs for spec in specs],
            [int(n) for n in getattr(model, "outputs_of_tasks", [])],
        )
        if wanted != given:
            raise UserError(
                f"dataset={data.NAME} has {len(wanted)} tasks with {_short(wanted)} outputs, "
                f"the model {len(given)} with {_short(given)}"
            )
        return cls(specs, getattr(model, "regression", "l1"))

    def losses(self, outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """The loss of each task, [T]."""
        parts = targets.split(self.columns, dim=1)
        each = zip(self.specs, outputs, parts, strict=True)
        return torch.stack([self._loss(spec, output, part) for spec, output, part in each])

    def _loss(self, spec: TaskSpec, output: Tensor, target: Tensor) -> Tensor:
        if spec.kind == "class":
            return F.cross_entropy(output, target[:, 0].long())
        if spec.kind == "pixel_class":
            labels = target[:, 0].long()
            total = F.cross_entropy(output, labels, ignore_index=IGNORE, reduction="sum")
            return total / (labels != IGNORE).sum().clamp_min(1)
        if spec.kind == "pixel_number":
            known = target.isfinite()
            error = torch.where(known, output - target.nan_to_num(), 0.0)
            total = error.abs().sum() if self.regression == "l1" else error.square().sum()
            return total / known.sum().clamp_min(1)
        curvatures, centres = target[:, 0].unbind(1)
        return (curvatures * (output - centres).square()).sum(1).mean() / 2

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """What a model gives, task by task."""
        return outputs.split(self.outputs, dim=1)

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The mean of the tasks' losses."""
        assert targets is not None
        return self.losses(self.split(outputs), targets).mean()

    def metrics(self, device: torch.device) -> Metrics:
        """Means, and for pixels' classes a reading of a table of confusions."""
        names = ["loss", *(f"loss_{spec.name}" for spec in self.specs)]
        found: Metrics = {name: MeanMetric().to(device) for name in names}
        for spec in self.specs:
            if spec.kind == "class":
                found[f"acc_{spec.name}"] = MeanMetric().to(device)
            elif spec.kind == "pixel_class":
                found["miou"] = Reading(Confusion(spec.outputs, device), mean_iou)
            elif spec.kind == "pixel_number":
                found[f"{spec.name}_error"] = MeanMetric(nan_strategy="disable").to(device)
        return found

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        """Add a batch."""
        assert targets is not None
        outputs = self.split(model(inputs))
        losses = self.losses(outputs, targets)
        metrics["loss"].update(losses.mean(), weight=len(inputs))
        parts = targets.split(self.columns, dim=1)
        for spec, loss, output, part in zip(self.specs, losses, outputs, parts, strict=True):
            metrics[f"loss_{spec.name}"].update(loss, weight=len(inputs))
            _measure(metrics, spec, output, part)

    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """All measures of a split."""
        found: dict[str, Any] = super().evaluate(model, data, split)
        percent = {name: 100 * value for name, value in found.items() if f"{split}_acc_" in name}
        errors = {name.replace("_acc_", "_error_"): 100 - value for name, value in percent.items()}
        if errors:
            errors[f"{split}_avg_error"] = sum(errors.values()) / len(errors)
        if f"{split}_miou" in found:
            percent[f"{split}_miou"] = 100 * found[f"{split}_miou"]
        return found | percent | errors


def _measure(metrics: Metrics, spec: TaskSpec, output: Tensor, target: Tensor) -> None:
    if spec.kind == "class":
        metrics[f"acc_{spec.name}"].update((output.argmax(1) == target[:, 0]).float())
    elif spec.kind == "pixel_class":
        metrics["miou"].confusion.update(output.argmax(1), target[:, 0].long())
    elif spec.kind == "pixel_number":
        known = target.isfinite()
        error = torch.where(known, output - target.nan_to_num(), 0.0).abs().sum() * spec.unit
        metrics[f"{spec.name}_error"].update(error / known.sum().clamp_min(1), weight=known.sum())


def _short(numbers: list[int]) -> str:
    """`10, 10`, or `2 each` where there are many alike."""
    return (
        f"{numbers[0]} each" if len(numbers) > 4 and len(set(numbers)) == 1 else ", ".join(map(str, numbers))
    )
