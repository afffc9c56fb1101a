"""When training ends before its budget is spent: a metric of the validation split gets no better."""

import math
from typing import Any, Literal

from common.base.errors import UserError


class EarlyStopping:
    """Ends training once a metric has not improved on its best value for `patience` epochs in a row.

    A value improves where it is better than the best by more than `min_delta`; a NaN never does. The network
    is left as it is at the end, not as it was at its best. What is trained and when depends on nothing but
    the run's own numbers, so a killed and resumed run stops where an unbroken one would.

    Args:
        metric: of the validation split, by its name in the history, as `validation_loss`.
        mode: whether it is to become small ("min") or large ("max").
        patience: epochs without improvement, at least 1.
        min_delta: by how much a value must be better, at least 0, in the metric's own unit.

    Attributes:
        best: the best value so far; None before the first.
        best_epoch: in epochs, the last of which may be a fraction.
        waited: epochs in a row without improvement.
        stopped: the epoch at which it has ended the training; None where it has not.

    Raises:
        UserError: a value out of range, or a metric that is not of the validation split.
    """

    def __init__(self, *, metric: str, mode: Literal["min", "max"], patience: int, min_delta: float) -> None:
        if not metric.startswith("validation_"):
            raise UserError(f"stop.metric={metric}; valid: one of the validation split, as validation_loss")
        if patience < 1:
            raise UserError(f"stop.patience={patience}; valid: at least 1 epoch")
        if not 0 <= min_delta < math.inf:
            raise UserError(f"stop.min_delta={min_delta}; valid: at least 0, finite")
        self.metric, self.sign = metric, 1.0 if mode == "min" else -1.0
        self.patience, self.min_delta = patience, min_delta
        self.best: float | None = None
        self.best_epoch: float | None = None
        self.waited = 0
        self.stopped: float | None = None

    def after_epoch(self, epoch: float, values: dict[str, float], last: bool) -> None:
        """Look at an epoch's metrics, and note in `stopped` if the training is to end with it.

        Args:
            epoch: passes made.
            values: the metrics of the validation split.
            last: whether the training ends with it anyway.

        Raises:
            UserError: the metric is none of them.
        """
        if self.metric not in values:
            valid = ", ".join(name for name in values if name.startswith("validation_"))
            raise UserError(f"stop.metric={self.metric}: is not measured; valid: {valid}")
        value = values[self.metric]
        if not math.isnan(value) and (self.best is None or self.sign * (self.best - value) > self.min_delta):
            self.best, self.best_epoch, self.waited = value, epoch, 0
            return
        self.waited += 1
        if self.waited >= self.patience and not last:
            self.stopped = epoch

    def results(self) -> dict[str, Any]:
        """What a result says: whether and at which epoch it stopped, and where the metric was best."""
        return {
            "stopped_early": self.stopped is not None,
            "stopped_epoch": self.stopped,
            "best_epoch": self.best_epoch,
            f"best_{self.metric}": self.best,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs."""
        return {name: getattr(self, name) for name in ("best", "best_epoch", "waited", "stopped")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)
