"""Functions that come one a step, as modules: the parameter is the point."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from common.base.errors import UserError


class OnlineFunction(nn.Module, ABC):
    """Functions f_t(x) that come one a step; the parameter `x` is the point.

    Args:
        shape: (d,).
        classes: None.

    Raises:
        UserError: classes, or inputs that are no vectors.
    """

    task: ClassVar[Literal["online"]] = "online"
    features: ClassVar[tuple[str, ...]] = ()
    x: nn.Parameter

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__()
        if classes is not None or len(shape) != 1:
            raise UserError(
                f"model: {type(self).__name__} is a function of a vector, without data; "
                "valid: dataset=online_counterexample, noisy_quadratic"
            )

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """What came at some steps, [b, d], to the f_t(x) of each: [b]."""

    @abstractmethod
    def watch(self, inputs: Tensor) -> dict[str, Tensor]:
        """Scalars at the current x, to be averaged over the steps of an epoch."""

    def final(self) -> dict[str, Tensor]:
        """Scalars of the last x."""
        return {}
