"""A neural network on a data set, as a problem: the point is the flat vector of all parameters."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.numerics.sampling import ReplicateSampler
from papers.spider.problems.protocol import Batch, Problem

CHUNK = 500


@dataclass(frozen=True)
class IndexBatch(Batch):
    """All components, named by index [n]: gathered chunk by chunk when used."""

    augment: bool


class NetworkProblem(Problem):
    """f(x) = mean loss of the network over the training split (+ `model.penalty()` if it has one).

    Losses: cross-entropy for classes, the binary one summed over pixels for reconstruction, half the
    squared error for regression. One replicate only: the parameters are views of one
    flat buffer, so setting a point is one copy, and gradients are views of another, so reading one is none.

    Recursive estimators need the same function at both points. So an augmentation is drawn once a
    sample, and batch normalisation runs on frozen statistics, renewed at each checkpoint from up to
    `CHUNK` x 2 of its samples (a forward pass, no gradient call). Dropout is off.

    L, sigma and rho are unknown: methods must be given their constants.

    Args:
        data: after `setup`.
        model: built, on the device of the data.
    """

    def __init__(self, data: DataSet, model: nn.Module) -> None:
        self.data, self.model = data, model
        self.n = self.pass_size = data.size("train")
        self.smoothness = self.sigma = self.hessian_lipschitz = None
        self.lower_bound = 0.0
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.device, self.dtype = parameters[0].device, parameters[0].dtype
        self.point = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.slope = torch.zeros_like(self.point)
        self.dim = self.point.numel()
        sizes = [p.numel() for p in parameters]
        for parameter, value in zip(parameters, self.point.split(sizes), strict=True):
            parameter.data = value.view_as(parameter)
        slopes = zip(parameters, self.slope.split(sizes), strict=True)
        self.slopes = [(parameter, slope.view_as(parameter)) for parameter, slope in slopes]
        self._recent: Tensor | None = None
        self.norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        model.eval()

    @property
    def recent_loss(self) -> float:
        """The loss of the last minibatch that a gradient was taken of; NaN before the first."""
        return float("nan") if self._recent is None else float(self._recent)

    def start(self, replicates: int) -> Tensor:
        """The model's initial parameters."""
        if replicates != 1:
            raise UserError(f"paper.repeats={replicates}: a network runs one replicate at a time (valid: 1)")
        return self.point.clone().unsqueeze(0)

    def draw(self, sampler: ReplicateSampler, size: int, rows: list[int] | None) -> Batch:
        inputs, targets = self.data.batch("train", sampler.indices(size, rows)[0], augment=True)
        return Batch(inputs, targets, size)

    def everything(self) -> Batch:
        """The training split, augmented as `draw` does."""
        return self._all(augment=True)

    def _all(self, augment: bool) -> IndexBatch:
        size = self.pass_size
        return IndexBatch(torch.arange(size, device=self.device), None, size, augment)

    def true_gradient(self, x: Tensor) -> Tensor:
        """grad f(x) of the training split, not augmented."""
        return self.gradient(x, self._all(augment=False)).clone()

    def true_value(self, x: Tensor) -> Tensor:
        """f(x) of the training split, not augmented."""
        return self.value(x, self._all(augment=False))

    def _chunks(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor | None]]:
        for start in range(0, batch.size, CHUNK):
            part = slice(start, start + CHUNK)
            if isinstance(batch, IndexBatch):
                yield self.data.batch("train", batch.inputs[part], augment=batch.augment)
            else:
                yield batch.inputs[part], None if batch.targets is None else batch.targets[part]

    def _place(self, x: Tensor) -> None:
        self.point.copy_(x[0])

    def _loss(self, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """Summed over the samples."""
        outputs = self.model(inputs)
        if targets is None or self.model.task == "reconstruction":
            return nn.functional.binary_cross_entropy_with_logits(outputs, inputs.flatten(1), reduction="sum")
        if self.model.task == "classification":
            return nn.functional.cross_entropy(outputs, targets, reduction="sum")
        return nn.functional.mse_loss(outputs, targets, reduction="sum") / 2

    def _penalty(self) -> Tensor | None:
        penalty = getattr(self.model, "penalty", None)
        return None if penalty is None else penalty()

    def _clear(self) -> None:
        """Zero the gradient buffer, and let backward passes write into it (Lightning drops `.grad`)."""
        self.slope.zero_()
        for parameter, slope in self.slopes:
            parameter.grad = slope

    def _accumulate(self, x: Tensor, batch: Batch) -> None:
        """Add the mean gradient at x to the gradient buffer."""
        self._place(x)
        total = torch.zeros((), device=self.device)
        for inputs, targets in self._chunks(batch):
            loss = self._loss(inputs, targets) / batch.size
            loss.backward()
            total += loss.detach()
        self._recent = total
        penalty = self._penalty()
        if penalty is not None and penalty.requires_grad:
            penalty.backward()

    @torch.enable_grad()
    def gradient(self, x: Tensor, batch: Batch) -> Tensor:
        self._clear()
        self._accumulate(x, batch)
        return self.slope.unsqueeze(0)

    def minibatch_gradient(self, x: Tensor, batch: Batch) -> Tensor:
        """The gradient in training mode: with the batch's own statistics, and dropout."""
        self.model.train()
        gradient = self.gradient(x, batch)
        self.model.eval()
        return gradient

    @torch.enable_grad()
    def gradient_difference(self, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        self._clear()
        self._accumulate(y, batch)
        self.slope.neg_()
        self._accumulate(x, batch)
        return self.slope.unsqueeze(0)

    @torch.no_grad()
    def value(self, x: Tensor, batch: Batch) -> Tensor:
        self._place(x)
        losses = [self._loss(inputs, targets) for inputs, targets in self._chunks(batch)]
        total = torch.stack(losses).sum() / batch.size
        penalty = self._penalty()
        return (total if penalty is None else total + penalty).reshape(1)

    @torch.enable_grad()
    def hvp(self, x: Tensor, v: Tensor, batch: Batch) -> Tensor:
        self._place(x)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        sizes = [p.numel() for p in parameters]
        directions = [d.view_as(p) for d, p in zip(v[0].split(sizes), parameters, strict=True)]
        product = torch.zeros_like(self.point)
        for inputs, targets in self._chunks(batch):
            loss = self._loss(inputs, targets) / batch.size
            product += self._double_backward(loss, parameters, directions)
        penalty = self._penalty()
        if penalty is not None and penalty.requires_grad:
            product += self._double_backward(penalty, parameters, directions)
        return product.unsqueeze(0)

    @staticmethod
    def _double_backward(loss: Tensor, parameters: list[nn.Parameter], directions: list[Tensor]) -> Tensor:
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        products = torch.autograd.grad(slopes, parameters, grad_outputs=directions, materialize_grads=True)
        return torch.cat([p.reshape(-1) for p in products])

    @torch.no_grad()
    def checkpoint(self, x: Tensor, batch: Batch) -> None:
        """Renew the statistics of batch normalisation at x, from the first samples of the batch."""
        if not self.norms:
            return
        self._place(x)
        momenta = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        for _, (inputs, _) in zip(range(2), self._chunks(batch), strict=False):
            self.model(inputs)
        for norm, momentum in zip(self.norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> dict[str, Tensor]:
        """Loss, and the accuracy for classes, of the validation (if any) and test splits."""
        self._place(x)
        found: dict[str, Tensor] = {}
        splits: list[SplitName] = ["validation", "test"] if self.data.has_validation else ["test"]
        for split in splits:
            found |= {f"{split}_{key}": value for key, value in self._score(split).items()}
        return found

    def _score(self, split: SplitName) -> dict[str, Tensor]:
        loss, correct, size = 0.0, 0, self.data.size(split)
        for inputs, targets in self.data.batches(split, self.data.evaluation_batch):
            loss += float(self._loss(inputs, targets))
            if self.data.classes is not None and targets is not None:
                correct += int((self.model(inputs).argmax(1) == targets).sum())
        scores = {"loss": torch.tensor([loss / size])}
        if self.data.classes is not None:
            scores["accuracy"] = torch.tensor([correct / size])
        return scores

    def state_dict(self) -> dict[str, Any]:
        return {
            "statistics": [
                {name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)}
                for norm in self.norms
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for norm, saved in zip(self.norms, state["statistics"], strict=True):
            norm.load_state_dict(saved, strict=False)
