"""Linear classifiers with large margins: the support vector machine and its smoothed form."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.shapes import require_classes


class LinearSvm(nn.Module):
    """min (1/n) sum_i l(y_i w'x_i) + alpha/2 ||w||^2 for two classes, y in {-1, +1}, from 0, without a bias.

    With smoothing s > 0 the hinge l(u) = max(0, 1 - u) is replaced by l(u) = 0 for u >= 1,
    (1 - u)^2 / (2 s) for 1 - s <= u < 1, and 1 - u - s/2 below: smooth with constant 1/s.

    Args:
        shape: of one input, flattened to d numbers.
        classes: 2.
        smoothing: s; 0 is the hinge.
        alpha: strength of the regulariser, > 0.

    Raises:
        UserError: not two classes, or a value out of range.
    """

    task: ClassVar[Literal["own"]] = "own"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, *, shape: tuple[int, ...], classes: int | None, smoothing: float, alpha: float
    ) -> None:
        super().__init__()
        if require_classes("svm", classes) != 2:
            raise UserError(
                f"model: svm tells 2 classes apart, the data set has {classes} (dataset.positive)"
            )
        if not 0 <= smoothing < math.inf:
            raise UserError(f"model.smoothing={smoothing}; valid: a finite number >= 0")
        if not 0 < alpha < math.inf:
            raise UserError(f"model.alpha={alpha}; valid: a finite number > 0")
        self.smoothing, self.alpha = smoothing, alpha
        self.w = nn.Parameter(torch.zeros(math.prod(shape)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, *shape] to scores w'x: [b]."""
        return inputs.flatten(1) @ self.w

    def losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """l(y w'x) of each example; targets 0 or 1: [b]."""
        short = (1 - (2 * targets - 1) * scores).clamp_min(0)
        if self.smoothing == 0:
            return short
        inside = short.clamp_max(self.smoothing)
        return inside.square() / (2 * self.smoothing) + (short - inside)

    def penalty(self) -> Tensor:
        """alpha/2 ||w||^2, a scalar."""
        return self.alpha / 2 * self.w.square().sum()

    def loss_of(self, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The mean loss of a minibatch, without the penalty."""
        assert targets is not None
        return self.losses(outputs, targets).mean()

    def metrics_of(self, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        """`loss`, the objective with its penalty; `accuracy` as a fraction, `error` in percent."""
        assert targets is not None
        accuracy = ((outputs > 0) == (targets == 1)).float().mean()
        loss = self.losses(outputs, targets).mean() + self.penalty()
        return {"loss": loss, "accuracy": accuracy, "error": 100 * (1 - accuracy)}
