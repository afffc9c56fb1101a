"""What a network is trained for: the contract of a task."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.modes import evaluation_mode

Metrics = dict[str, Any]


class Task(ABC):
    """A loss for training and metrics for judging."""

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The training objective on a minibatch: a scalar."""
        return self.loss_of(model, model(inputs), inputs, targets)

    def loss_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The training objective where the model's outputs for the minibatch are known already."""
        return self.fit_of(model, outputs, inputs, targets) + penalty(model)

    @abstractmethod
    def fit_of(self, model: nn.Module, outputs: Any, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The part of `loss_of` that says how well the outputs fit: all but the model's own penalty."""

    @abstractmethod
    def metrics(self, device: torch.device) -> Metrics:
        """Fresh torchmetrics objects by name."""

    @abstractmethod
    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        """Add a batch to the metrics."""

    def watch(self, model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
        """Scalars to be averaged over an epoch's steps, each where the step takes its gradient; none here."""
        return {}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """All metrics of a split, in evaluation mode, without augmentation."""
        device = next(model.parameters()).device
        metrics = self.metrics(device)
        with evaluation_mode(model):
            for inputs, targets in data.batches(split, data.evaluation_batch):
                self.update(metrics, model, inputs, targets)
        return {f"{split}_{name}": float(metric.compute()) for name, metric in metrics.items()}

    def full_gradient_norm_sq(self, model: nn.Module, data: DataSet) -> float:
        """||grad f(x)||^2 of the training objective over the whole training split."""
        model.zero_grad(set_to_none=True)
        size = data.size("train")
        with evaluation_mode(model):
            for inputs, targets in data.batches("train", data.evaluation_batch):
                (self.loss(model, inputs, targets) * (len(inputs) / size)).backward()
        total = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
        model.zero_grad(set_to_none=True)
        return total


def penalty(model: nn.Module) -> Tensor | float:
    """The model's own regulariser, if it has one."""
    own = getattr(model, "penalty", None)
    return own() if own is not None else 0.0
