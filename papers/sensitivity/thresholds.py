"""When weights are cut, and below which value: a fixed one, or the largest that validation allows."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from common.base.task import Task
from papers.sensitivity.pruning import Masks, Named, Tensors, cut, times
from papers.sensitivity.sparsity import is_weight

# LOBSTER's: an epoch is no bad one while its loss is below 1.01 times the best
PLATEAU = 1.01
# the bisection ends where the losses of its ends differ by less than this part of the bound
CLOSE = 0.05
# or where its step is this part of the largest weight
FINEST = 1e-10


class Cutting(nn.Module):
    """A rule by which weights are cut while a network is trained; by itself it cuts nothing.

    What it keeps lies in the checkpoint: tensors as buffers, the rest in `state`.
    """

    def attach(self, student: nn.Module, data: DataSet, task: Task) -> None:
        """Take note of the network, before training."""

    def step(self, student: nn.Module, parameters: Named, masks: Masks, begin: float, done: float) -> None:
        """Cut what is due after a step of the optimizer.

        Args:
            student: the network.
            parameters: those that may be cut.
            masks: are changed.
            begin: the share of the run that was training alone.
            done: the share that is made; 1 after the last step.
        """

    def state(self) -> dict[str, Any]:
        """Numbers that must survive a kill."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""


class FixedThreshold(Cutting):
    """|w| < T -> 0 after each `every` share of the run, and after the last step.

    Args:
        threshold: T, at least 0.
        every: a share of the run, above 0.

    Raises:
        UserError: numbers out of range; in `step` a T above every weight of a layer, or weights that are not
            finite.
    """

    def __init__(self, threshold: float, every: float) -> None:
        super().__init__()
        require("at least 0", "method", threshold=threshold)
        _require_part(every=every)
        self.threshold, self.every = threshold, every
        self.made = 0

    def step(self, student: nn.Module, parameters: Named, masks: Masks, begin: float, done: float) -> None:
        due = times(done, begin, self.every)
        if due > self.made or done >= 1:
            self.made = due
            masks.put(cut(parameters, masks, self.threshold), f"method.threshold={self.threshold}")

    def state(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state(self, state: dict[str, Any]) -> None:
        self.made = state["made"]


class Plateau(Cutting):
    """Where the validation loss stands still, the largest T with loss(T) <= (1 + tolerance) loss(0).

    Each `check` share of the run the validation loss is measured. The best weights are kept; where the loss
    has not been below 1.01 times the best for `patience` of the run, they are put back, T is found by
    bisection, and |w| < T -> 0 for all tensors. Then the training goes on, with a new best. After the last
    step the same is done once more. No loss of the test split is ever looked at. The loop is that of LOBSTER
    (EIDOSLAB, 2020).

    Args:
        tolerance: by which part of the loss a cut may make it worse, at least 0 (LOBSTER's TWT).
        patience: the share of the run without a better loss after which is cut, above 0 (LOBSTER's PWE).
        check: the share of the run between two measurements, above 0.

    Raises:
        UserError: numbers out of range; in `attach` data without a validation split.
    """

    def __init__(self, tolerance: float, patience: float, check: float) -> None:
        super().__init__()
        require("at least 0", "method", tolerance=tolerance)
        _require_part(patience=patience, check=check)
        self.tolerance, self.patience, self.check = tolerance, patience, check
        self.made, self.bad, self.best = 0, 0, math.inf

    def attach(self, student: nn.Module, data: DataSet, task: Task) -> None:
        self.kept = Tensors(student.state_dict())
        self.data, self.task = data, task

    def step(self, student: nn.Module, parameters: Named, masks: Masks, begin: float, done: float) -> None:
        due = times(done, begin, self.check)
        if due == self.made and done < 1:
            return
        self.made = due
        masks.apply_to(parameters)
        self._look(student, self._loss(student))
        if done >= 1 or self.bad * self.check >= self.patience * (1 - 1e-9):
            self._cut(student, parameters, masks)

    def _look(self, student: nn.Module, loss: float) -> None:
        """Keep the best weights, and count the looks in a row that were no better."""
        # a NaN is never better, and what is kept is the last good state
        if not loss < PLATEAU * self.best:
            self.bad += 1
            return
        self.bad = 0
        if loss < self.best:
            self.best = loss
            self.kept.copy_(student.state_dict())

    def _cut(self, student: nn.Module, parameters: Named, masks: Masks) -> None:
        """Put the best weights back, cut them, begin anew; where no loss was finite, leave all as it is."""
        if not math.isfinite(self.best):
            self.bad = 0
            return
        state = student.state_dict()
        for name, tensor in self.kept.items():
            state[name].copy_(tensor)

        def loss(threshold: float) -> float:
            return self._loss_of_cut(student, parameters, masks, threshold)

        threshold = largest_threshold(
            loss,
            [p[m] for (_, m), p in zip(masks.items(), parameters.values(), strict=True) if is_weight(p)],
            (1 + self.tolerance) * self.best,
        )
        masks.put(cut(parameters, masks, threshold), f"method.tolerance={self.tolerance}")
        self.bad, self.best = 0, math.inf

    def _loss_of_cut(self, student: nn.Module, parameters: Named, masks: Masks, threshold: float) -> float:
        """The validation loss with |w| < threshold -> 0; infinite where a layer would lose all weights."""
        kept = cut(parameters, masks, threshold)
        if any(is_weight(mask) and not bool(mask.any()) for mask in kept.values()):
            return math.inf
        before = {name: p.detach().clone() for name, p in parameters.items()}
        for name, p in parameters.items():
            p.masked_fill_(~kept[name], 0)
        loss = self._loss(student)
        for name, p in parameters.items():
            p.copy_(before[name])
        return loss

    def _loss(self, student: nn.Module) -> float:
        if not self.data.has_validation:
            raise UserError(
                "method.pruning=plateau: there is no validation split "
                "(valid: dataset.validation=0.1, or method.pruning=fixed_threshold)"
            )
        return self.task.evaluate(student, self.data, "validation")["validation_loss"]

    def state(self) -> dict[str, Any]:
        return {"made": self.made, "bad": self.bad, "best": self.best}

    def load_state(self, state: dict[str, Any]) -> None:
        self.made, self.bad, self.best = state["made"], state["bad"], state["best"]


def largest_threshold(loss: Callable[[float], float], kept: list[Tensor], bound: float) -> float:
    """The largest T that is found by bisection with loss(T) <= bound.

    The first T is the mean over layers of the mean |w|; from there up to the largest |w|, or down to the
    smallest, which cuts nothing. It ends where the losses at both ends differ by less than 0.05 bound, or
    where the step is 1e-10 of the largest |w|. LOBSTER's code then takes the middle of both ends,
    whose loss may exceed the bound; here it is taken where it does not, else the lower end.

    Args:
        loss: of T; NaN is no loss within the bound.
        kept: the weights that are not cut, of each layer.
        bound: on the loss, at least that without a cut.
    """
    sizes = [weights.abs() for weights in kept if weights.numel()]
    smallest, largest = min(float(s.min()) for s in sizes), max(float(s.max()) for s in sizes)
    middle = sum(float(s.mean()) for s in sizes) / len(sizes)
    found = loss(middle)
    low, high = (middle, largest) if found <= bound else (smallest, middle)
    low_loss, high_loss = (found, math.inf) if found <= bound else (loss(smallest), found)
    while not abs(low_loss - high_loss) < CLOSE * bound and high - low > FINEST * largest:
        middle = (low + high) / 2
        found = loss(middle)
        if found <= bound:
            low, low_loss = middle, found
        else:
            high, high_loss = middle, found
    middle = (low + high) / 2
    return middle if loss(middle) <= bound else low


def _require_part(**values: float) -> None:
    """Refuse a share of the run that is not above 0 and at most 1.

    Raises:
        UserError: see above.
    """
    require("from 0 to 1", "method", **values)
    require("positive", "method", **values)
