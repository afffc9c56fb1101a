"""Which channels of a network go together, found by a blank pass, whatever the network is.

A residual sum ties the outputs of all layers that are added, a depthwise convolution its outputs to its
inputs, and so on (`common.pruning.propagation`). What is tied is one `ChannelGroup`: its channels are kept or
removed in all its layers at once.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from common.base.errors import UserError
from common.metrics.macs import meta_copy
from common.pruning.cutting import Channels, cut, layer_of, read_channels
from common.pruning.propagation import Shape
from common.pruning.tracker import Axis, Refused, Role


@dataclass(frozen=True)
class Slot:
    """Where a group's channels stand in a parameter or buffer.

    Attributes:
        parameter: its name.
        axis: of the tensor; of a convolution in groups the axis within a group counts over all groups.
        role: whether the axis gives the channels, follows them or takes them.
        numbers: for each number along the axis the channel, -1 where it is none of the group's.
    """

    parameter: str
    axis: int
    role: Role
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are kept or removed in several layers at once.

    Attributes:
        name: of the first layer whose outputs they are; with the range of those outputs where other
            outputs of that layer are another group: "conv[16:32]".
        channels: how many; a channel may stand for several outputs of a layer, where these are tied
            to each other.
        producers: layers whose outputs they are, in the order of execution.
        followers: layers and parameters that have numbers for each channel (normalisations, depthwise
            convolutions, PReLU).
        consumers: layers whose inputs they are.
        fixed: why they cannot be pruned; None where they can.
        parts: the channels are so many runs of equal length, each of which keeps equally many.
        paired: whether each of the parts keeps the channels at the same places.
        slots: where the channels stand in each tensor.
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    followers: tuple[str, ...]
    consumers: tuple[str, ...]
    fixed: str | None = None
    parts: int = 1
    paired: bool = False
    slots: tuple[Slot, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Found:
    """The groups of a network with the roots of their channels, by name."""

    channels: Channels
    groups: list[ChannelGroup]
    roots: dict[str, np.ndarray]


def channel_groups(network: nn.Module, shape: Shape) -> list[ChannelGroup]:
    """The groups of a network's channels in the order of execution.

    Whether channels of a group can really be removed is tried out: one that leads to an operation that
    does not go with fewer channels (a view to a number written in the code) is fixed.

    Args:
        network: on any device, in any mode; left as it is.
        shape: of one input, without the batch; of a network with several inputs the shape of each.

    Raises:
        UserError: the forward pass fails or depends on the values of tensors.
    """
    found = find_groups(network, shape)
    blank = meta_copy(network)
    groups = {group.name: replace(group, parts=_declared_parts(group, found)) for group in found.groups}
    trying = [group for group in groups.values() if group.fixed is None and group.channels > 1]
    suspects: list[ChannelGroup] = []
    while trying and (refused := _refusal(blank, shape, found, trying)) is not None:
        blamed = _blamed(refused, found, trying)
        suspects += blamed
        trying = [group for group in trying if group not in blamed]
    for group in suspects:
        groups[group.name] = _tried(blank, shape, found, group)
    return list(groups.values())


def _blamed(refused: Exception, found: Found, groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """Those of the groups whose channels the operation takes that failed; all of them where it is unknown."""
    position = getattr(refused, "position", None)
    done = found.channels.passed.done
    if position is None or position >= len(done):
        return groups
    taken = [np.unique(found.channels.roots[labels.numpy()]) for labels in done[position].taken]
    blamed = [group for group in groups if any(np.isin(found.roots[group.name], one).any() for one in taken)]
    return blamed or groups


def _tried(blank: nn.Module, shape: Shape, found: Found, group: ChannelGroup) -> ChannelGroup:
    """A group with the least number of parts with which it can be pruned, or fixed."""
    first = _refusal(blank, shape, found, [group])
    if first is None:
        return group
    for parts in range(group.parts, group.channels // 2 + 1):
        if group.channels % parts == 0 and parts % group.parts == 0 and parts > 1:
            for paired in (False, True):
                candidate = replace(group, parts=parts, paired=paired)
                if _refusal(blank, shape, found, [candidate]) is None:
                    return candidate
    return replace(group, fixed=str(first))


def _refusal(
    blank: nn.Module, shape: Shape, found: Found, groups: Iterable[ChannelGroup]
) -> Refused | UserError | None:
    """Why some channels of each part of the groups cannot be removed; None where they can."""
    # what takes channels by fixed numbers may go with some of them by chance
    for from_end in (False, True):
        removed: set[int] = set()
        for group in groups:
            removed |= set(found.roots[group.name][_some(group, from_end)].tolist())
        smaller = copy.deepcopy(blank)
        try:
            cut(smaller, shape, found.channels, removed)
        except (Refused, UserError) as error:
            return error
    return None


def _some(group: ChannelGroup, from_end: bool) -> list[int]:
    """Channels to be removed on trial: of each part as many, at the same places if they are paired."""
    size = group.channels // group.parts
    # neither pairs of neighbours nor equally many of two halves; from the end about half of them
    places = sorted({0, 1, 3} | set(range(size // 2 if from_end else 0)) - {2}) if size > 3 else [0]
    shifts = [0 if group.paired else part * (part + 1) // 2 for part in range(group.parts)]
    some = [part * size + (place + shift) % size for part, shift in enumerate(shifts) for place in places]
    return [group.channels - 1 - channel for channel in some] if from_end else some


def _declared_parts(group: ChannelGroup, found: Found) -> int:
    """Into how many runs the convolutions in groups, and normalisations of groups, divide the channels."""
    parts = 1
    for slot in group.slots:
        passed = found.channels.passed
        groups = passed.groups.get(slot.parameter, (passed.norm_groups.get(slot.parameter, 1), 0))[0]
        in_order = slot.numbers == tuple(range(group.channels))
        if in_order and parts % groups and groups % parts == 0 and group.channels % groups == 0:
            parts = groups
    # a group of one channel cannot lose a part of it
    return parts if 2 * parts <= group.channels else 1


def find_groups(network: nn.Module, shape: Shape) -> Found:
    """The groups as they are tied, without trying whether their channels can be removed."""
    channels = read_channels(network, shape)
    producers: dict[int, list[str]] = defaultdict(list)
    first: dict[int, tuple[int, int]] = {}
    for order, (axis, role) in enumerate(channels.passed.roles):
        if role != "producer":
            continue
        for number, root in enumerate(channels.of(axis).tolist()):
            first.setdefault(root, (order, number))
            if layer_of(axis) not in producers[root]:
                producers[root].append(layer_of(axis))
    members: dict[tuple[tuple[str, ...], str | None], list[int]] = defaultdict(list)
    for root in sorted(first, key=first.__getitem__):
        members[tuple(producers[root]), channels.fixed.get(root)].append(root)
    counts: dict[str, int] = defaultdict(int)
    for made, _ in members:
        counts[made[0]] += 1
    roots: dict[str, np.ndarray] = {}
    kinds: list[tuple[tuple[str, ...], str | None]] = []
    for (made, fixed), own in members.items():
        name = made[0]
        if counts[name] > 1:
            numbers = [first[root][1] for root in own]
            name = f"{name}[{min(numbers)}:{max(numbers) + 1}]"
        while name in roots:
            name += "'"
        roots[name] = np.array(own)
        kinds.append((made, fixed))
    slots = _slots(channels, list(roots.values()))
    groups = [
        _group(name, len(own), *kind, own_slots)
        for (name, own), kind, own_slots in zip(roots.items(), kinds, slots, strict=True)
    ]
    return Found(channels, groups, roots)


def _slots(channels: Channels, groups: Sequence[np.ndarray]) -> list[list[Slot]]:
    """Where the channels of each group, given by their roots, stand."""
    group_of = np.full(len(channels.roots), -1)
    number_of = np.full(len(channels.roots), -1)
    for which, roots in enumerate(groups):
        group_of[roots] = which
        number_of[roots] = np.arange(len(roots))
    slots: list[list[Slot]] = [[] for _ in groups]
    for axis, role in channels.passed.roles:
        roots = channels.of(axis)
        for which in np.unique(group_of[roots]):
            if which >= 0:
                numbers = np.where(group_of[roots] == which, number_of[roots], -1)
                slots[which].append(Slot(*axis, role, tuple(numbers.tolist())))
    return slots


def _group(
    name: str, size: int, producers: tuple[str, ...], fixed: str | None, slots: Sequence[Slot]
) -> ChannelGroup:
    layers: dict[Role, dict[str, None]] = {"producer": {}, "follower": {}, "consumer": {}}
    for slot in slots:
        layers[slot.role][layer_of(Axis(slot.parameter, slot.axis))] = None
    return ChannelGroup(
        name=name,
        channels=size,
        producers=producers,
        followers=tuple(layer for layer in layers["follower"] if layer not in layers["producer"]),
        consumers=tuple(layers["consumer"]),
        fixed=fixed,
        slots=tuple(slots),
    )
