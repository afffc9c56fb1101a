"""Pausing a run at a share of its length: `pause=0.33`, a word that its key does not know.

The run is started at its full length, so that schedules and budgets are those of the whole; it pauses between
two steps with a checkpoint, and the same words without `pause`, or with a later one, go on from there.
"""

import math
from typing import Any

import pytorch_lightning as pl

from common.base.errors import UserError
from common.base.module import PaperModule
from common.runs.callbacks import Checkpoints


class Paused(UserError):
    """A run has come as far as it was asked to, and can go on.

    Attributes:
        share: how far.
        last: the last value of each curve.
    """

    def __init__(self, share: float, last: dict[str, float]) -> None:
        self.share, self.last = share, last
        super().__init__(f"paused at {share:.3g} of its length; without pause= the same command goes on")


class Pause(pl.Callback):
    """Ends a run for now at the first point of a curve that lies at a share of its length or behind it.

    A run that is at its end by then goes on to it, and so does one that never measures `metric` on its way.

    Args:
        share: of its length, between 0 and 1.
        metric: the curve; None: any.
        checkpoints: what saves it.

    Raises:
        UserError: a share out of range.
    """

    def __init__(self, share: float, metric: str | None, checkpoints: Checkpoints) -> None:
        if not (math.isfinite(share) and 0 < share < 1):
            raise UserError(f"pause={share}; valid: a share of the run's length between 0 and 1, or null")
        self.share, self.metric, self.checkpoints = share, metric, checkpoints
        self.points = 0
        self.paused_at: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"paused_at": self.paused_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.paused_at = state_dict["paused_at"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, PaperModule)
        self.points = len(pl_module.history.get("step", []))
        if self.paused_at is not None and self.paused_at >= self.share and not trainer.should_stop:
            # asked again for what it had done
            raise Paused(self.paused_at, last_of(pl_module.history))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, PaperModule)
        before, self.points = self.points, len(pl_module.history.get("step", []))
        if trainer.should_stop or self.points == before or not _measured(pl_module.history, self.metric):
            return
        progress = pl_module.progress()
        # what rounding puts just before the share counts as at it
        if progress.done < self.share * progress.total * (1 - 1e-9):
            return
        self.paused_at = self.share
        self.checkpoints.save(trainer)
        raise Paused(self.share, last_of(pl_module.history))


def last_of(history: dict[str, list[float | None]]) -> dict[str, float]:
    """The last value of each curve that has any."""
    found = {}
    for name, curve in history.items():
        values = [value for value in curve if value is not None]
        if values:
            found[name] = values[-1]
    return found


def _measured(history: dict[str, list[float | None]], metric: str | None) -> bool:
    """Whether the newest point of the curves has the metric."""
    return metric is None or (metric in history and history[metric][-1] is not None)
