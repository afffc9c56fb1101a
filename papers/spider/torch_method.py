"""Any torch optimizer as a method: minibatch gradients, counted like all others."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn
from torch.optim import Optimizer

from common.training.made_optimizer import made_optimizer, stepping
from papers.spider.method import Method


class TorchMethod(Method):
    """An optimizer of `torch.optim` on minibatch gradients.

    The points [R, d] are one parameter, so an elementwise optimizer treats replicates apart.

    Args:
        build: makes the optimizer from a list of parameters.
        batch_size: samples a step.
    """

    def __init__(self, build: Callable[[list[nn.Parameter]], Optimizer], batch_size: int) -> None:
        self.build, self.batch_size = build, batch_size

    def prepare(self) -> None:
        self.parameter = nn.Parameter(self.x.clone())
        self.optimizer = made_optimizer(self.build, [self.parameter])

    def step(self) -> None:
        self.parameter.grad = self.oracle.minibatch_gradient(self.x, self.batch_size)
        with stepping(self.optimizer, self.build):
            self.optimizer.step()
        self.move(self.parameter.detach().clone())
        self.k += 1

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"optimizer": deepcopy(self.optimizer.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.parameter.data.copy_(self.x)
        self.optimizer.load_state_dict(state["optimizer"])
