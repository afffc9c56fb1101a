"""SGD whose iterates are averaged once validation stands still (Merity, Keskar, Socher, ICLR 2018)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import SGD

from common.base.errors import UserError


class NonMonotoneASGD(SGD):
    """NT-ASGD: plain SGD, and from a trigger on also the mean of its iterates, at which one evaluates.

    The trigger: a validation loss is above the least of those that were seen more than `patience` before
    it. From then on x_t are the iterates of SGD and the mean is that of `torch.optim.ASGD` with t0 = 0 and
    lambd = 0: x_2 after the first two steps, then mean_t = mean_{t-1} + (x_t - mean_{t-1}) / (t - 1).

    Args:
        params: parameters.
        lr: the step size.
        weight_decay: added to gradients, times the parameter.
        patience: n of the paper, at least 0; None: averaging never begins.

    Raises:
        UserError: a patience below 0.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, weight_decay: float = 0.0, patience: int | None = 5
    ) -> None:
        if patience is not None and patience < 0:
            raise UserError(f"method.patience={patience}; valid: at least 0, or null for no averaging")
        super().__init__(params, lr=lr, weight_decay=weight_decay, foreach=True)
        # in the first group, as that is what a checkpoint keeps
        self.param_groups[0].update(patience=patience, losses=[], averaged_steps=None)

    @property
    def triggered(self) -> bool:
        """Whether iterates are averaged."""
        return self.param_groups[0]["averaged_steps"] is not None

    def judge(self, loss: float) -> None:
        """Take note of the validation loss of an epoch."""
        group = self.param_groups[0]
        losses, patience = group["losses"], group["patience"]
        if patience is not None and not self.triggered:
            before = losses[: len(losses) - patience]
            if len(losses) > patience and loss > min(before):
                group["averaged_steps"] = 0
        losses.append(loss)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        found = super().step(closure)
        if self.triggered:
            self._average()
        return found

    def _average(self) -> None:
        group = self.param_groups[0]
        group["averaged_steps"] += 1
        share = 1 / max(1, group["averaged_steps"] - 1)
        for parameter in self._parameters():
            state = self.state[parameter]
            if "mean" not in state:
                state["mean"] = parameter.detach().clone()
            state["mean"].lerp_(parameter, share)

    def _parameters(self) -> Iterator[torch.Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the parameters hold the mean, once there is one."""
        known = [p for p in self._parameters() if "mean" in self.state[p]]
        kept = [parameter.detach().clone() for parameter in known]
        with torch.no_grad():
            for parameter in known:
                parameter.copy_(self.state[parameter]["mean"])
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(known, kept, strict=True):
                    parameter.copy_(value)
