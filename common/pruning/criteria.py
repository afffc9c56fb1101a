"""Pruning of channels by what their weights say: the simple method, before a network is trained on.

Each group of channels (`common.pruning.channels`), those of residual sums included, loses the channels with
the lowest scores. With W_k the numbers of a layer that give channel k, the score of a channel is the mean
over the layers of its group of

    weight_l1          mean |W_k|, divided by the mean over the layer's channels (Li et al., "Pruning Filters
                       for Efficient ConvNets", ICLR 2017)
    weight_l2          the root of the mean W_k^2, divided likewise
    batch_norm_scale   |gamma_k| of the batch normalisations that follow (Liu et al., "Network Slimming",
                       ICCV 2017)
    random             a number from [0, 1), drawn once for the channel
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.method import MethodParts, TrainingMethod, beside
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.pruning.channels import ChannelGroup, Slot, channel_groups
from common.pruning.rates import removed_count, require_rate
from common.pruning.slicing import sliced

Criterion = Literal["weight_l1", "weight_l2", "batch_norm_scale", "random"]
Scope = Literal["group", "network"]


class ChannelPruning(TrainingMethod):
    """Prunes the network that a training begins with, and trains what is left.

    The network is the one that `start=` names; with none it has its first weights. An inner method helps
    the training of the smaller network, as distillation/kd from the whole one.

    Args:
        criterion: see above.
        rate: eta, the share of the channels that is removed, in [0, 1): of each group floor(eta c) of its c
            channels. One channel of each group stays.
        scope: "group" removes that share of each group, "network" the lowest scores of the whole network.
        seed: of the criterion "random".
        parts: optimizer and inner method, see `MethodParts`.

    Raises:
        UserError: a rate out of range.
    """

    REPLACES_STUDENT = True
    OUTERMOST = True

    def __init__(
        self, *, criterion: Criterion, rate: float, scope: Scope, seed: int, **parts: Unpack[MethodParts]
    ) -> None:
        super().__init__(**parts)
        require_rate(rate)
        self.criterion, self.rate, self.scope, self.seed = criterion, rate, scope, seed
        self.sizes: dict[str, float] = {}

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The smaller network; an inner method gets it, and others like it where it makes any."""
        shape = tuple(data.shape)
        keep = kept_channels(
            student, shape, criterion=self.criterion, rate=self.rate, scope=self.scope, seed=self.seed
        )
        smaller = sliced(student, shape, keep)
        self.sizes = sizes_of(student, smaller, shape)
        return super().attach(smaller, lambda: sliced(make_model(), shape, keep), data)

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """Beside the test metrics how large the network was and is."""
        return beside(super().evaluate(student, data, split), self.sizes if split == "test" else {})


def sizes_of(whole: nn.Module, smaller: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """Parameters and multiply-adds of a network and of what was made of it."""
    return {
        "parameters_before": count_parameters(whole),
        "parameters": count_parameters(smaller),
        "macs_before": count_macs(whole, shape),
        "macs": count_macs(smaller, shape),
    }


def kept_channels(
    network: nn.Module,
    shape: tuple[int, ...],
    *,
    criterion: Criterion,
    rate: float,
    scope: Scope,
    seed: int = 0,
) -> dict[str, list[int]]:
    """The channels of each group that stay, as `sliced` takes them.

    Args:
        network: with the weights that are judged.
        shape: of one input.
        criterion, rate, scope, seed: see `ChannelPruning`.

    Raises:
        UserError: a rate out of range; nothing that can be pruned, with why; a group without batch
            normalisation under "batch_norm_scale"; weights that are not finite.
    """
    require_rate(rate)
    groups = channel_groups(network, shape)
    free = [group for group in groups if group.fixed is None and group.channels > 1]
    if not free:
        reasons = "; ".join(f"{group.name}: {group.fixed}" for group in groups[:2] if group.fixed)
        raise UserError(f"{type(network).__name__} has no channels that can be pruned ({reasons})")
    generator = torch.Generator().manual_seed(seed)
    units = {group.name: _units(group, _scores(network, group, criterion, generator)) for group in free}
    if scope == "group":
        removed = {name: own[: removed_count(len(own), rate)] for name, own in units.items()}
    else:
        removed = _lowest(units, removed_count(sum(group.channels for group in free), rate))
    keep = {}
    for group in free:
        gone = {channel for unit in removed[group.name] for channel in unit.channels}
        if gone:
            keep[group.name] = [channel for channel in range(group.channels) if channel not in gone]
    return keep


@dataclass(frozen=True)
class _Unit:
    """Channels of a group that are removed at once, one of each of its parts, and their mean score."""

    score: float
    channels: tuple[int, ...]


def _units(group: ChannelGroup, scores: Tensor) -> list[_Unit]:
    """The units of a group from the lowest score to the highest: in each part its r-th lowest channel."""
    size = group.channels // group.parts
    by_part = scores.view(group.parts, size)
    order = by_part.mean(0).argsort(stable=True).expand_as(by_part)
    if not group.paired:
        order = by_part.argsort(dim=1, stable=True)
    units = [
        _Unit(
            float(by_part.gather(1, places.view(-1, 1)).mean()),
            tuple(part * size + int(place) for part, place in enumerate(places)),
        )
        for places in order.T
    ]
    return sorted(units, key=lambda unit: unit.score)


def _lowest(units: dict[str, list[_Unit]], count: int) -> dict[str, list[_Unit]]:
    """The units with the lowest scores of all, of at most `count` channels; one of each group stays."""
    ranked = sorted(
        ((unit, name) for name, own in units.items() for unit in own[:-1]), key=lambda pair: pair[0].score
    )
    removed: dict[str, list[_Unit]] = {name: [] for name in units}
    for unit, name in ranked:
        if len(unit.channels) <= count:
            removed[name].append(unit)
            count -= len(unit.channels)
    return removed


def _scores(
    network: nn.Module, group: ChannelGroup, criterion: Criterion, generator: torch.Generator
) -> Tensor:
    """The score of each channel of a group, float64 [channels].

    Raises:
        UserError: see `kept_channels`.
    """
    if criterion == "random":
        return torch.rand(group.channels, dtype=torch.float64, generator=generator)
    if criterion == "batch_norm_scale":
        slots = [slot for slot in group.slots if _is_scale(network, slot)]
        if not slots:
            raise UserError(
                f"method.criterion=batch_norm_scale: no batch normalisation follows {group.name} "
                "(valid: weight_l1, weight_l2, random)"
            )
        layers = [_by_channel(_tensor(network, slot).abs(), slot, group) for slot in slots]
    else:
        slots = [slot for slot in group.slots if slot.role == "producer"]
        layers = [_relative(_norms(_tensor(network, slot), slot, criterion), slot, group) for slot in slots]
    scores = torch.stack(layers).nanmean(0)
    if not scores.isfinite().all():
        raise UserError(f"the weights of {group.name} are not finite, so its channels cannot be compared")
    return scores


def _tensor(network: nn.Module, slot: Slot) -> Tensor:
    return network.get_parameter(slot.parameter).detach().double().cpu()


def _is_scale(network: nn.Module, slot: Slot) -> bool:
    layer, _, name = slot.parameter.rpartition(".")
    return name == "weight" and isinstance(network.get_submodule(layer), _BatchNorm)


def _norms(weight: Tensor, slot: Slot, criterion: Criterion) -> Tensor:
    """The mean absolute weight, or the root mean square, of each number along a slot's axis."""
    rows = weight.movedim(slot.axis, 0)
    if len(rows) != len(slot.numbers):
        # [inputs, outputs/groups, ...] of a transposed convolution in groups
        groups = len(slot.numbers) // len(rows)
        rows = weight.unflatten(0, (groups, -1)).movedim(2, 1).flatten(0, 1)
    rows = rows.flatten(1)
    return rows.abs().mean(1) if criterion == "weight_l1" else rows.square().mean(1).sqrt()


def _relative(norms: Tensor, slot: Slot, group: ChannelGroup) -> Tensor:
    """Norms by channel, beside the mean of their layer; of a layer of zeros 0."""
    scores = _by_channel(norms, slot, group)
    mean = scores.nanmean()
    return scores / mean if mean > 0 else scores


def _by_channel(values: Tensor, slot: Slot, group: ChannelGroup) -> Tensor:
    """The mean of the values that stand for each channel; NaN where none does."""
    numbers = torch.tensor(slot.numbers)
    own = numbers >= 0
    sums = torch.zeros(group.channels, dtype=torch.float64).index_add(0, numbers[own], values[own])
    counts = torch.zeros(group.channels, dtype=torch.float64)
    return sums / counts.index_add(0, numbers[own], torch.ones(int(own.sum()), dtype=torch.float64))
