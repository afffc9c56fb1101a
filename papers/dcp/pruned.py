"""Training of a network that has lost channels, by any method: after a selection, or from new weights."""

from collections.abc import Callable
from typing import Any, NotRequired, Unpack

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.method import MethodParts, TrainingMethod, beside
from common.base.stages import Stage, require_stage
from common.pruning.rates import require_rate
from common.pruning.slicing import Keep, sliced
from papers.dcp.complexity import Complexity, complexity
from papers.dcp.layer_problem import kept_channels
from papers.dcp.measures import error_gaps, saved
from papers.dcp.selectors import layers_within


class SelectionKeys(MethodParts):
    """Settings of the selection, which the words in `selection` refer to; without a meaning here.

    They are those of `papers.dcp.selectors`, by the same names.
    """

    rate: NotRequired[float]
    losses: NotRequired[int | None]
    layers: NotRequired[list[str] | None]
    epsilon: NotRequired[float | None]
    reconstruction: NotRequired[float]
    discrimination: NotRequired[float]
    score: NotRequired[str]
    direction: NotRequired[str]
    picks_per_pass: NotRequired[int]
    samples: NotRequired[int | None]
    step: NotRequired[str]
    steps: NotRequired[int]
    lr: NotRequired[float]
    finetune: NotRequired[str]
    strength: NotRequired[float]
    outputs: NotRequired[int]


class Pruned(TrainingMethod):
    """The training of a pruned network, in the student's place, by the inner method or the task alone.

    Args:
        selection: the run that chose the channels and left the smaller network.
        keys: see `SelectionKeys`.

    Raises:
        UserError: no selection; one that was made at another rate than these words say.
    """

    STAGES = ("selection",)
    REPLACES_STUDENT = True

    def __init__(self, *, selection: Stage | str | None, **keys: Unpack[SelectionKeys]) -> None:
        super().__init__(optimizer=keys["optimizer"], inner=keys.get("inner"))
        self.selection = require_stage(selection, "method.selection")
        made, asked = self.selection.metrics.get("rate"), keys.get("rate")
        if made is not None and asked is not None and made != asked:
            raise UserError(f"method.rate={asked}: the selection was made with {made} (valid: the same)")
        self.whole: Complexity

    @classmethod
    def check_settings(cls, **settings: Any) -> None:
        """Refuse a rate out of range before the selection is made, which has more to say.

        Raises:
            UserError: see above.
        """
        if "rate" in settings:
            require_rate(settings["rate"])

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The pruned network; the student says what was trained in the whole one, and how large that is."""
        pruned = self.selection.model
        frozen = {name for name, parameter in student.named_parameters() if not parameter.requires_grad}
        for name, parameter in pruned.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self.whole = complexity(student, data.shape)
        keep: Keep = pruned.pruning["keep"]  # type: ignore[index,assignment]
        # others like it have its widths
        return super().attach(pruned, lambda: sliced(make_model(), data.shape, keep), data)

    def results(self, student: nn.Module, data: DataSet, found: dict[str, Any]) -> dict[str, Any]:
        """What pruning has saved and cost, see `saved` and `error_gaps`."""
        inner = super().results(student, data, found)
        own = saved(self.deployed(student), data.shape, self.whole)
        metrics = self.selection.metrics
        before = {name.removeprefix("start_"): metrics[name] for name in metrics if name.startswith("start_")}
        return beside(inner, own | error_gaps(found, before))


class WidthMultiplier(TrainingMethod):
    """A network with fewer channels in each prunable layer, c - floor(rate c), from new weights.

    The baseline WM; with `pruning/auxiliary_losses` as its inner method WM+. Which channels of a new network
    stay does not matter: the first. What takes them is multiplied by sqrt(c / kept), so that its outputs have
    the size that the network's own initial weights give them.

    Args:
        rate: the part of the channels that goes, in [0, 1).
        layers: see `papers.dcp.selectors.SelectorSettings`.
        losses: P of the inner method's words in WM+; without a meaning here.
        parts: see `MethodParts`.

    Raises:
        UserError: in `attach` a rate outside [0, 1), or a network without a layer that can be pruned.
    """

    REPLACES_STUDENT = True

    def __init__(
        self,
        *,
        rate: float,
        layers: list[str] | None,
        losses: int | None = None,
        **parts: Unpack[MethodParts],
    ) -> None:
        super().__init__(**parts)
        require_rate(rate)
        self.rate, self.layers = rate, layers
        self.whole: Complexity

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The narrow network, whatever the student has learned."""
        wide = make_model()
        layers = layers_within(wide, data.shape, self.layers)
        self.whole = complexity(wide, data.shape)
        keep = {}
        for layer, group in layers.items():
            kept = kept_channels(group.channels, self.rate, layer)
            keep[group.name] = list(range(kept))
            with torch.no_grad():
                weight: Tensor = wide.get_submodule(layer).weight  # type: ignore[assignment]
                weight.mul_((group.channels / kept) ** 0.5)
        return super().attach(sliced(wide, data.shape, keep), make_model, data)

    def results(self, student: nn.Module, data: DataSet, found: dict[str, Any]) -> dict[str, Any]:
        """What the smaller width saves, see `saved`."""
        inner = super().results(student, data, found)
        return beside(inner, saved(self.deployed(student), data.shape, self.whole))
