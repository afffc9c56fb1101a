"""Linear models: logistic regression, convex or with a nonconvex regulariser, and robust regression."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.shapes import require_classes, require_no_classes


class LogisticRegression(nn.Module):
    """Logistic regression; with two classes one weight vector w and logits (0, w'x + b).

    So for two classes the cross-entropy is the logistic loss log(1 + exp(-y (w'x + b))), y in {-1, +1}.
    All weights start at 0.

    Args:
        shape: of one input, flattened to d numbers.
        classes: 2, or more for softmax regression with a weight vector for each.
        regulariser: what `penalty` adds to the loss, over the weights w without the bias:
            "none": 0;
            "l2": alpha/2 sum w²;
            "nonconvex": alpha sum w²/(1 + w²) (Reddi et al. 2016; Wang et al. 2018, SpiderBoost).
        alpha: strength of the regulariser, >= 0.
        bias: whether there is a b.

    Raises:
        UserError: no classes, or alpha < 0.
    """

    task: ClassVar[Literal["classification"]] = "classification"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        regulariser: Literal["none", "l2", "nonconvex"],
        alpha: float,
        bias: bool,
    ) -> None:
        super().__init__()
        if not alpha >= 0:
            raise UserError(f"model.alpha={alpha}; valid: a number >= 0")
        self.classes = require_classes("logistic", classes)
        self.regulariser, self.alpha, self.bias = regulariser, alpha, bias
        self.linear = _zero_linear(math.prod(shape), 1 if self.classes == 2 else self.classes, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, *shape] to logits [b, classes]."""
        scores = self.linear(inputs.flatten(1))
        if self.classes == 2:
            return torch.cat([torch.zeros_like(scores), scores], dim=1)
        return scores

    def penalty(self) -> Tensor:
        """The regulariser's value, a scalar."""
        squares = self.linear.weight.square()
        if self.regulariser == "l2":
            return self.alpha / 2 * squares.sum()
        if self.regulariser == "nonconvex":
            return self.alpha * (squares / (1 + squares)).sum()
        return squares.new_zeros(())


class RobustRegression(nn.Module):
    """Linear regression with the nonconvex robust loss log(1 + r²/2) of the residual r.

    Weights start at 0.

    Args:
        shape: of one input, flattened.
        classes: None.
        bias: whether there is an intercept.

    Raises:
        UserError: the data set has classes.
    """

    task: ClassVar[Literal["regression"]] = "regression"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, bias: bool) -> None:
        super().__init__()
        require_no_classes("robust_regression", classes)
        self.bias = bias
        self.linear = _zero_linear(math.prod(shape), 1, bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, *shape] to predictions [b]."""
        return self.linear(inputs.flatten(1)).squeeze(1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean of log(1 + r²/2) with r = prediction - target, both [b]; a scalar."""
        return torch.log1p((prediction - target).square() / 2).mean()


def _zero_linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=bias)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    return linear
