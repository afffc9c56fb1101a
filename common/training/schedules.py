"""Learning-rate schedules: torch's own schedulers, stepped where each belongs.

Each function is named by a file in `conf/schedule` and called with the optimizer and the run's length.
"""

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau


class Schedule:
    """A learning-rate schedule.

    Args:
        by_step: a scheduler stepped after every optimizer step.
        by_loss: a scheduler stepped after every epoch with the mean training loss.
    """

    def __init__(self, by_step: LRScheduler | None = None, by_loss: ReduceLROnPlateau | None = None) -> None:
        self.by_step, self.by_loss = by_step, by_loss

    def after_step(self) -> None:
        if self.by_step is not None:
            self.by_step.step()

    def after_epoch(self, train_loss: float) -> None:
        if self.by_loss is not None:
            self.by_loss.step(train_loss)

    def state_dict(self) -> dict[str, Any]:
        scheduler = self.by_step or self.by_loss
        if scheduler is None:
            return {}
        return {key: value for key, value in scheduler.state_dict().items() if key != "lr_lambdas"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        scheduler = self.by_step or self.by_loss
        if scheduler is not None:
            kept = {"lr_lambdas": [None]} if isinstance(scheduler, LambdaLR) else {}
            scheduler.load_state_dict(state | kept)


def constant(optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int) -> Schedule:
    """lr_t = lr."""
    return Schedule()


def cosine(optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int) -> Schedule:
    """lr_t = lr (1 + cos(pi t / T)) / 2 over the T steps of the run."""
    return Schedule(CosineAnnealingLR(optimizer, total_steps))


def cyclic_cosine(
    optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int, cycles: int
) -> Schedule:
    """lr_t = lr (1 + cos(pi s)) / 2, s in [0, 1) the part of the present cycle that is over.

    The run is cut into cycles of equal length, each from lr down to 0: Huang et al., "Snapshot Ensembles",
    ICLR 2017, equation 2, without its rounding of the length.
    """

    def factor(steps_made: int) -> float:
        return (1 + math.cos(math.pi * (steps_made * cycles % total_steps) / total_steps)) / 2

    return Schedule(LambdaLR(optimizer, factor))


def plateau(
    optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int, factor: float, patience: int
) -> Schedule:
    """lr is multiplied by `factor` when the training loss has not fallen for `patience` epochs."""
    return Schedule(by_loss=ReduceLROnPlateau(optimizer, factor=factor, patience=patience))


def multistep(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    milestones: list[float],
    factor: float,
) -> Schedule:
    """lr is multiplied by `factor` at each milestone, given as a fraction of the run."""
    steps = [round(fraction * total_steps) for fraction in milestones]
    return Schedule(MultiStepLR(optimizer, steps, gamma=factor))


def poly(optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int, power: float) -> Schedule:
    """lr_e = lr (1 - (e - 1) / E)^power in epoch e = 1, 2, ... of a run of E epochs."""

    def factor(steps_made: int) -> float:
        return (1 - steps_made // steps_per_epoch * steps_per_epoch / total_steps) ** power

    return Schedule(LambdaLR(optimizer, factor))


def noam(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    scale: float,
    width: int,
    warmup: int,
) -> Schedule:
    """lr_t = lr * scale * width^-0.5 * min(t^-0.5, t * warmup^-1.5), t = 1, 2, ...

    The Transformer's schedule (Vaswani et al. 2017); `scale` 2 and `warmup` 16000 are the values of the
    code of yogi's co-author. The optimizer's own lr is a factor, 1 by default.
    """

    def factor(steps_made: int) -> float:
        t = steps_made + 1
        return scale * width**-0.5 * min(t**-0.5, t * warmup**-1.5)

    return Schedule(LambdaLR(optimizer, factor))
