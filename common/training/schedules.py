"""Learning-rate schedules: torch's own schedulers, stepped where each belongs.

Each function is named by a file in `conf/schedule` and called with the optimizer and the run's length. Its
settings are shares of that length, so that a schedule has the same form in a run of any length.
"""

import math
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

from common.base.errors import UserError
from common.base.limits import require
from common.metrics.direction import direction


class Schedule:
    """A learning-rate schedule.

    Args:
        by_step: a scheduler stepped after every optimizer step.
        by_loss: a scheduler stepped after every epoch with the mean training loss, or with `metric`.
        metric: a metric of the validation split, as "validation_bleu".
        last_decay: the number of steps, of those that `by_step` counts, after which the optimizer's weight
            decay is 0; None: it stays.
    """

    def __init__(
        self,
        by_step: LRScheduler | None = None,
        by_loss: ReduceLROnPlateau | None = None,
        last_decay: int | None = None,
        metric: str | None = None,
    ) -> None:
        self.by_step, self.by_loss, self.last_decay = by_step, by_loss, last_decay
        self.metric = metric

    def after_step(self) -> None:
        if self.by_step is not None:
            self.by_step.step()
            if self.last_decay is not None and self.by_step.last_epoch >= self.last_decay:
                _end_weight_decay(self.by_step.optimizer)

    def after_epoch(self, train_loss: float) -> None:
        if self.by_loss is not None and self.metric is None:
            self.by_loss.step(train_loss)

    def after_validation(self, values: dict[str, float]) -> None:
        """Take note of what an epoch has measured.

        Raises:
            UserError: the schedule's metric is not among them.
        """
        if self.by_loss is None or self.metric is None:
            return
        if self.metric not in values:
            raise UserError(
                f"schedule.metric={self.metric}: not measured after an epoch (valid: {', '.join(values)})"
            )
        self.by_loss.step(values[self.metric])

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


def _end_weight_decay(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = 0.0


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

    Raises:
        UserError: no cycle.
    """

    require("at least 1", "schedule", cycles=cycles)

    def factor(steps_made: int) -> float:
        return (1 + math.cos(math.pi * (steps_made * cycles % total_steps) / total_steps)) / 2

    return Schedule(LambdaLR(optimizer, factor))


def plateau(
    optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int, factor: float, patience: float
) -> Schedule:
    """lr is multiplied by `factor` when the training loss has not fallen for a share `patience` of the run.

    That share is rounded up to whole epochs; 0 is patience with none.

    Raises:
        UserError: a factor outside (0, 1), or a patience outside [0, 1].
    """
    require("above 0 and below 1", "schedule", factor=factor)
    require("from 0 to 1", "schedule", patience=patience)
    # what rounding leaves of a whole number of epochs is none more
    epochs = math.ceil(patience * total_steps / steps_per_epoch - 1e-9)
    return Schedule(by_loss=ReduceLROnPlateau(optimizer, factor=factor, patience=epochs))


def plateau_of(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    factor: float,
    patience: float,
    metric: str,
) -> Schedule:
    """`plateau` of a metric of the validation split in place of the training loss.

    Whether it is better higher or lower, its name says.

    Raises:
        UserError: as `plateau`; a metric whose name does not say which way it is better.
    """
    found = plateau(optimizer, total_steps, steps_per_epoch, factor, patience).by_loss
    better = direction(metric)
    if better is None:
        raise UserError(
            f"schedule.metric={metric}: is it better higher or lower? (valid: validation_loss, ...)"
        )
    assert found is not None
    mode: Literal["max", "min"] = "max" if better == "higher" else "min"
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=found.patience)
    return Schedule(by_loss=scheduler, metric=metric)


def multistep(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    milestones: list[float],
    factor: float,
) -> Schedule:
    """lr is multiplied by `factor` at each milestone, given as a fraction of the run.

    Raises:
        UserError: a milestone outside [0, 1], or a factor that is not above 0.
    """
    for milestone in milestones:
        require("from 0 to 1", "schedule", milestones=milestone)
    require("positive", "schedule", factor=factor)
    steps = [round(fraction * total_steps) for fraction in milestones]
    return Schedule(MultiStepLR(optimizer, steps, gamma=factor))


def warm_multistep(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    milestones: list[float],
    factor: float,
    warmup: float,
    decay_until: float,
) -> Schedule:
    """`multistep` with a linear warm-up and an end of weight decay, all as shares of the run.

    lr_t = lr min(1, t / W) factor^(milestones passed), t = 0, 1, ... steps made: with a warm-up of W steps
    the first step has a rate of 0, as in the code of Banner et al. (NeurIPS 2018).

    Args:
        milestones, factor: see `multistep`.
        warmup: W as a share of the run's steps; 0: none.
        decay_until: the share of the run after which the optimizer's weight decay is 0; 1: it stays.

    Raises:
        UserError: a share outside [0, 1], or a factor that is not above 0.
    """
    for milestone in milestones:
        require("from 0 to 1", "schedule", milestones=milestone)
    require("positive", "schedule", factor=factor)
    require("from 0 to 1", "schedule", warmup=warmup, decay_until=decay_until)
    steps = [round(fraction * total_steps) for fraction in milestones]
    rise = round(warmup * total_steps)

    def rate(steps_made: int) -> float:
        passed = sum(step <= steps_made for step in steps)
        return (min(1.0, steps_made / rise) if rise else 1.0) * factor**passed

    scheduler = LambdaLR(optimizer, rate)
    last = None if decay_until == 1 else round(decay_until * total_steps)
    if last == 0:
        _end_weight_decay(optimizer)
    return Schedule(scheduler, last_decay=last)


def poly(optimizer: torch.optim.Optimizer, total_steps: int, steps_per_epoch: int, power: float) -> Schedule:
    """lr_e = lr (1 - (e - 1) / E)^power in epoch e = 1, 2, ... of a run of E epochs.

    Raises:
        UserError: a power below 0.
    """
    require("at least 0", "schedule", power=power)

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

    The Transformer's schedule as it is printed (Vaswani et al. 2017), `warmup` in steps: with a warm-up of
    one step lr / sqrt(t), which no length of a run changes. `noam_of_run` has the warm-up as a share.

    Raises:
        UserError: a number out of range.
    """
    require("positive", "schedule", scale=scale, width=width, warmup=warmup)

    def factor(steps_made: int) -> float:
        t = steps_made + 1
        return scale * width**-0.5 * min(t**-0.5, t * warmup**-1.5)

    return Schedule(LambdaLR(optimizer, factor))


def noam_of_run(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    scale: float,
    width: int,
    printed_warmup: int,
    warmup: float,
) -> Schedule:
    """lr_t = lr * P * min(t / W, sqrt(W / t)), t = 1, 2, ..., P = scale * (width * printed_warmup)^-0.5.

    It is `noam` where W = printed_warmup, and rises over the same share of a run of any length to the same
    peak P. The optimizer's own lr is a factor, 1 by default.

    Args:
        scale, width, printed_warmup: of the peak; 2, 512 and 16,000 steps in the code of yogi's co-author.
        warmup: W as a share of the run's steps, from 0 to 1; W is at least one step.

    Raises:
        UserError: a number out of range.
    """
    require("positive", "schedule", scale=scale, width=width, printed_warmup=printed_warmup)
    require("from 0 to 1", "schedule", warmup=warmup)
    peak, last = scale * (width * printed_warmup) ** -0.5, max(1, round(warmup * total_steps))

    def factor(steps_made: int) -> float:
        t = steps_made + 1
        return peak * min(t / last, (last / t) ** 0.5)

    return Schedule(LambdaLR(optimizer, factor))


def warm_restarts(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    cycles: int,
    factor: int,
    lowest: float,
) -> Schedule:
    """Cosine decay in cycles, each `factor` times as long as the last: SGDR (Loshchilov, Hutter 2017).

    lr_t = lr (lowest + (1 - lowest) (1 + cos(pi s)) / 2), s in [0, 1) the part of the present cycle that is
    over. With 6 cycles and factor 2 they make 1, 2, 4, ..., 32 parts of 63 of the run.

    Raises:
        UserError: no cycle, a factor below 1, a share `lowest` outside [0, 1].
    """
    require("at least 1", "schedule", cycles=cycles, factor=factor)
    require("from 0 to 1", "schedule", lowest=lowest)
    lengths = [factor**number for number in range(cycles)]
    ends = [total_steps * sum(lengths[: number + 1]) / sum(lengths) for number in range(cycles)]

    def rate(steps_made: int) -> float:
        number = next((k for k, end in enumerate(ends) if steps_made < end), cycles - 1)
        start = ends[number] - total_steps * lengths[number] / sum(lengths)
        done = min(1.0, (steps_made - start) / (ends[number] - start))
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * done)) / 2

    return Schedule(LambdaLR(optimizer, rate))
