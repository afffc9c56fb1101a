"""Averages of a training's iterates, at which one evaluates.

SGD whose iterates are averaged once validation stands still (Merity, Keskar, Socher, ICLR 2018), and an
exponential moving average beside any optimizer.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

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
        for parameter in _parameters(self):
            state = self.state[parameter]
            if "mean" not in state:
                state["mean"] = parameter.detach().clone()
            state["mean"].lerp_(parameter, share)

    def averaged(self) -> AbstractContextManager[None]:
        """Within it the parameters hold the mean, once there is one."""
        return _holding([(p, self.state[p]["mean"]) for p in _parameters(self) if "mean" in self.state[p]])


class MovingAverage:
    """The exponential moving average of the iterates of any optimizer, one step for each of its steps.

    mean_1 = x_1 and mean_t = d_t mean_{t-1} + (1 - d_t) x_t with d_t = min(decay, (1 + t) / (10 + t)), as
    TensorFlow's `ExponentialMovingAverage` with `num_updates`: the first steps, of which a short run has a
    larger share, are forgotten sooner. Buffers, as of batch normalisation, are not averaged. It has a state
    of its own: that of some optimizers takes nothing that is not theirs.

    Args:
        optimizer: of the parameters.
        decay: d, at least 0 and below 1.

    Raises:
        UserError: an optimizer that averages its iterates by itself.
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        if hasattr(optimizer, "averaged"):
            name = type(optimizer).__name__
            raise UserError(f"ema={decay}: {name} averages its iterates by itself (valid: null)")
        self.parameters = list(_parameters(optimizer))
        self.decay, self.steps = decay, 0
        self.means: list[Tensor] = []

    @torch.no_grad()
    def step(self) -> None:
        """Take in the parameters as they are after a step of the optimizer."""
        iterates = [parameter.detach() for parameter in self.parameters]
        self.steps += 1
        if self.steps == 1:
            self.means = [iterate.clone() for iterate in iterates]
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.means, iterates, share)

    def averaged(self) -> AbstractContextManager[None]:
        """Within it the parameters hold the mean, once there is one."""
        return _holding(list(zip(self.parameters, self.means, strict=False)))

    def state_dict(self) -> dict[str, Any]:
        """What it must know to go on."""
        return {"steps": self.steps, "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one was."""
        self.steps = state["steps"]
        means = zip(state["means"], self.parameters, strict=False)
        self.means = [mean.to(parameter.device, copy=True) for mean, parameter in means]


def check_decay(decay: float) -> None:
    """Refuse a decay that is no share.

    Raises:
        UserError: see above.
    """
    if not 0 <= decay < 1:
        raise UserError(f"ema={decay}: must be at least 0 and below 1 (valid: null, or as 0.999)")


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


@contextmanager
def _holding(means: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Within it each parameter holds the mean beside it."""
    kept = [parameter.detach().clone() for parameter, _ in means]
    with torch.no_grad():
        for parameter, mean in means:
            parameter.copy_(mean)
    try:
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), value in zip(means, kept, strict=True):
                parameter.copy_(value)
