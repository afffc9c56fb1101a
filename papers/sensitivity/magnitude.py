"""Magnitude pruning: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural
Networks", NeurIPS 2015 (arXiv 1506.02626).
"""

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from torch import Tensor, nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from common.base.method import MethodParts
from papers.sensitivity.pruning import WeightPruning, cut, times
from papers.sensitivity.sparsity import labels


def quality_thresholds(
    parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor], quality: Mapping[str, float]
) -> dict[str, Tensor]:
    """T = q std(w) of each layer, over the weights that are left; 0 where fewer than two are.

    Args:
        parameters: w, by name.
        masks: which are left, by name.
        quality: q, by name.
    """
    left = {name: p.detach()[masks[name]] for name, p in parameters.items()}
    return {name: quality[name] * (w.std() if w.numel() > 1 else w.new_zeros(())) for name, w in left.items()}


class MagnitudePruning(WeightPruning):
    """In rounds: |w| < q std(layer) -> 0, and the survivors are trained on.

    The first round is at `begin`, and each of the `rounds` takes the same share of what follows, so that the
    last one is trained on too. L2 is the optimizer's weight decay. Only weights are pruned.

    Args:
        quality: q: one number, or one for each layer by the tables' names: {fc1: 1.0, fc2: 0.8}; those that
            are not named are left alone.
        rounds: at least 1; std is that of the survivors, so that each round prunes further.
        begin, parts: see `WeightPruning`.

    Raises:
        UserError: numbers out of range; in `attach` a layer that there is none of; a q that leaves a layer
            none.
    """

    def __init__(
        self, *, quality: float | dict[str, float], rounds: int, begin: float, **parts: Unpack[MethodParts]
    ) -> None:
        super().__init__(begin=begin, parameters="weights", **parts)
        named = {"quality": quality} if isinstance(quality, int | float) else {**quality}
        require(
            "at least 0",
            "method",
            **{name if name == "quality" else f"quality.{name}": q for name, q in named.items()},
        )
        require("at least 1", "method", rounds=rounds)
        self.quality, self.rounds = quality, rounds
        self.made = 0
        self.by_name: dict[str, float] = {}

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is."""
        student = super().attach(student, make_model, data)
        self.by_name = named_values(student, self.quality)
        return student

    def after_step(self, student: nn.Module, parameters: dict[str, nn.Parameter], done: float) -> None:
        """Prune where a round begins."""
        due = min(self.rounds, 1 + times(done, self.begin, (1 - self.begin) / self.rounds))
        if due > self.made:
            self.made = due
            thresholds = quality_thresholds(parameters, dict(self.masks.items()), self.by_name)
            self.masks.put(cut(parameters, self.masks, thresholds), f"method.quality={self.quality}")

    def get_extra_state(self) -> dict[str, Any]:
        return super().get_extra_state() | {"made": self.made}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.made = state["made"]


def named_values(network: nn.Module, quality: float | dict[str, float]) -> dict[str, float]:
    """One number for each weight of a network, by its name.

    Raises:
        UserError: a name of the tables that the network has not.
    """
    own = labels(network)
    if isinstance(quality, int | float):
        return dict.fromkeys(own, float(quality))
    unknown = [name for name in quality if name not in own.values()]
    if unknown:
        raise UserError(f"method.quality.{unknown[0]}: no such layer (valid: {', '.join(own.values())})")
    return {name: float(quality.get(label, 0.0)) for name, label in own.items()}
