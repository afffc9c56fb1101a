"""Proximal Adagrad (Duchi & Singer 2009; Duchi, Hazan & Singer 2011), as both towers are trained."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from common.base.limits import require


class ProximalAdagrad(Optimizer):
    """A step of Adagrad, and then the proximal operator of l1 |w| + (l2 / 2) w^2 at the same step size:

        s <- s + g^2,   r = lr / sqrt(s),   v = w - r g,   w <- sign(v) max(|v| - r l1, 0) / (1 + r l2)

    Args:
        params: parameters, or groups of them.
        lr: the step size.
        l1, l2: of the penalties.
        accumulator: s before the first step.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        l1: float = 0.0,
        l2: float = 0.0,
        accumulator: float = 0.1,
    ) -> None:
        require("positive", "optimizer", lr=lr, accumulator=accumulator)
        require("at least 0", "optimizer", l1=l1, l2=l2)
        super().__init__(params, {"lr": lr, "l1": l1, "l2": l2, "accumulator": accumulator})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._one(weight, weight.grad, group)
        return loss

    def _one(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["sum"] = torch.full_like(weight, group["accumulator"])
        state["sum"].addcmul_(gradient, gradient)
        rate = group["lr"] * state["sum"].rsqrt()
        weight.sub_(rate * gradient)
        if group["l1"]:
            weight.copy_(weight.sign() * (weight.abs() - rate * group["l1"]).clamp_min(0))
        if group["l2"]:
            weight.div_(1 + rate * group["l2"])
