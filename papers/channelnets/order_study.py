"""Classification layers on fixed features, one for each of several orders of the classes."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from common.base.dataset import DataSet, SplitName
from common.base.task import Metrics, Task
from common.models.shapes import require_classes, require_positive
from papers.channelnets.classifier import ConvolutionalClassifier, UnsharedClassifier, random_order
from papers.channelnets.layers import require_choice
from papers.channelnets.network import Head


class OrderStudy(nn.Module):
    """Fixed random features, ReLU(B x) normalised by batch normalisation, and R classifiers side by side.

    Each classifier has an order of the classes and initial weights of its own, and is trained for itself: the
    loss is the sum of theirs. A linear layer has no order; its R forms differ in their initial weights alone.
    So the spread of the linear layers' errors is that of training, and what a convolutional layer's has more
    is that of the order.

    Args:
        shape: of one input, any.
        classes: n.
        features: m, at least n.
        classifier: "fc" (linear with bias), "ccl" or "ccl_unshared".
        orders: R.
        order_seed: of the orders and of B, so that they are the same in runs of any seed.

    Raises:
        UserError: no classes, numbers out of range; what a layer refuses.
    """

    task: ClassVar[Literal["own"]] = "own"
    projection: Tensor

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        features: int,
        classifier: Head,
        orders: int,
        order_seed: int,
    ) -> None:
        super().__init__()
        require_positive("features", features)
        require_positive("orders", orders)
        require_choice("model", "classifier", classifier, ("fc", "ccl", "ccl_unshared"))
        count = require_classes("order_study", classes)
        inputs = torch.Size(shape).numel()
        generator = torch.Generator().manual_seed(order_seed)
        drawn = torch.randn(features, inputs, generator=generator, device="cpu") / inputs**0.5
        self.register_buffer("projection", drawn)
        self.norm = nn.BatchNorm1d(features, affine=False)
        self.heads = nn.ModuleList(
            _head(classifier, features, count, random_order(count, order_seed + 1 + which))
            for which in range(orders)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, ...] to the logits of all classifiers, [b, orders, classes]."""
        features = self.norm(F.relu(F.linear(inputs.flatten(1), self.projection)))
        maps = features[:, :, None, None]
        return torch.stack([head(maps) for head in self.heads], 1)

    def own_task(self, data: DataSet) -> "OrderTask":
        """What the classifiers are trained for and judged by."""
        assert data.classes is not None
        return OrderTask(data.classes, len(self.heads))


class OrderTask(Task):
    """The sum of the classifiers' cross-entropies; their mean error, in percent, its spread and extremes.

    Args:
        classes: n.
        orders: R.
    """

    def __init__(self, classes: int, orders: int) -> None:
        self.classes, self.orders = classes, orders

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        return self._cross_entropy(outputs, targets)

    def _cross_entropy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.repeat_interleave(self.orders)) * self.orders

    def metrics(self, device: torch.device) -> Metrics:
        found: Metrics = {"loss": MeanMetric()}
        for which in range(self.orders):
            found[f"accuracy_{which}"] = MulticlassAccuracy(self.classes, average="micro")
        return {name: metric.to(device) for name, metric in found.items()}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        assert targets is not None
        logits = model(inputs)
        metrics["loss"].update(self._cross_entropy(logits, targets), weight=len(inputs))
        for which in range(self.orders):
            metrics[f"accuracy_{which}"].update(logits[:, which], targets)

    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """The loss; `error`, the mean over the classifiers, and its `_std`, `_lowest` and `_highest`."""
        found = super().evaluate(model, data, split)
        accuracies = [found[f"{split}_accuracy_{which}"] for which in range(self.orders)]
        errors = 100 * (1 - torch.tensor(accuracies, dtype=torch.float64))
        spread = float(errors.std()) if self.orders > 1 else 0.0
        return {
            f"{split}_loss": found[f"{split}_loss"],
            f"{split}_error": float(errors.mean()),
            f"{split}_error_std": spread,
            f"{split}_error_lowest": float(errors.min()),
            f"{split}_error_highest": float(errors.max()),
        }


def _head(kind: Head, features: int, classes: int, order: list[int]) -> nn.Module:
    if kind == "fc":
        return nn.Sequential(nn.Flatten(), nn.Linear(features, classes))
    if kind == "ccl":
        return ConvolutionalClassifier(features, classes, (1, 1), order=order)
    return UnsharedClassifier(features, classes, order=order)
