"""Methods that add terms to the loss, all from one forward pass of the student."""

from abc import abstractmethod
from typing import Unpack

from torch import Tensor, nn

from common.base.errors import UserError
from common.base.method import MethodParts, Pass, TrainingMethod
from common.base.task import penalty
from common.models.features import forward_features


class LossTerms(TrainingMethod):
    """A method whose objective is `inner_fit_of`, the inner method's or the task's, and its own terms.

    loss = fit_of(pass) + the student's own penalty, which is added once, as it is. A chain of such methods
    makes one forward pass: where the inner method's is fit_of = 0.1 CE + 0.9 KD and the outer's
    w fit + beta AT, the loss is w (0.1 CE + 0.9 KD) + beta AT + penalty.

    Args:
        optimizer, inner: see `MethodParts`.

    Raises:
        UserError: an inner method that makes forward passes of its own (branches, peers, attacks).
    """

    def __init__(self, **parts: Unpack[MethodParts]) -> None:
        super().__init__(**parts)
        require_one_pass(self)

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """All terms of the chain, and the student's own penalty."""
        return self.fit_of(forward(self, student, inputs, targets)) + penalty(student)

    @abstractmethod
    def fit_of(self, seen: Pass) -> Tensor:
        """`inner_fit_of` with its weight, and the method's own terms."""


def forward(method: TrainingMethod, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Pass:
    """A forward pass of the student with what a method and its inner ones read of it.

    Raises:
        UserError: features are needed, and the student names none.
    """
    if any(each.NEEDS_FEATURES for each in method.chain()):
        return Pass(student, inputs, targets, *forward_features(student, inputs))
    return Pass(student, inputs, targets, student(inputs), {})


def require_one_pass(method: TrainingMethod) -> None:
    """Refuse an inner method whose loss is more than one forward pass of the student.

    Raises:
        UserError: names both methods.
    """
    for inner in method.chain()[1:]:
        if not inner.ONE_PASS:
            raise UserError(
                f"method.inner: {type(inner).__name__} makes forward passes of its own, and "
                f"{type(method).__name__} adds to the loss of one (valid: distillation/kd, "
                "attention_transfer, factor_transfer, snapshot, none)"
            )
