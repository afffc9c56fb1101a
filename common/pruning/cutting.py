"""Channels taken out of the weights of a network: every parameter and buffer that has numbers for them."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from common.base.errors import UserError
from common.pruning.propagation import Shape, propagate
from common.pruning.tracker import Axis, Expected, Passed


@dataclass(frozen=True)
class Channels:
    """The channels of a network: labels that are tied are one, named by its root.

    Attributes:
        passed: what the blank pass found.
        roots: of every label.
        fixed: the roots that cannot be removed, and why.
    """

    passed: Passed
    roots: np.ndarray
    fixed: dict[int, str]

    def of(self, axis: Axis) -> np.ndarray:
        """The roots of the numbers along an axis."""
        return self.roots[self.passed.labels[axis].numpy()]

    def kept(self, removed: Set[int]) -> dict[Axis, np.ndarray]:
        """Of each axis that loses numbers, whether each one stays.

        Raises:
            UserError: an axis would lose all; the layer is named.
        """
        gone = np.zeros(len(self.roots), dtype=bool)
        gone[list(removed)] = True
        found = {}
        for axis in self.passed.labels:
            stays = ~gone[self.of(axis)]
            if not stays.any():
                raise UserError(f"{layer_of(axis)} would lose all its channels (valid: keep at least one)")
            if not stays.all():
                found[axis] = stays
        return found

    def expected(self, removed: Set[int]) -> Expected:
        """What a pass through the network without these channels has to find."""
        kept = self.kept(removed)
        gone = torch.zeros(len(self.roots), dtype=torch.bool)
        gone[list(removed)] = True
        every = {axis: self.of(axis) for axis in self.passed.labels}
        labels = {axis: roots[kept[axis]] if axis in kept else roots for axis, roots in every.items()}
        return Expected(
            whole=self.passed,
            inputs=[torch.from_numpy(self.roots[labels.numpy()]) for labels in self.passed.inputs],
            labels={axis: torch.from_numpy(roots) for axis, roots in labels.items()},
            fixed=frozenset(self.fixed),
            roots=torch.from_numpy(self.roots),
            gone=gone,
        )


def read_channels(network: nn.Module, shape: Shape) -> Channels:
    """The channels of a network, by a blank pass.

    Raises:
        UserError: see `propagate`.
    """
    passed = propagate(network, shape)
    size = 1 + max((int(labels.max()) for labels in [*passed.labels.values(), *passed.inputs]), default=0)
    left, right = np.concatenate([np.zeros((2, 0), dtype=np.int64), *passed.edges], axis=1)
    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(size, size))
    count, components = connected_components(graph, directed=False)
    first = np.full(count, size)
    np.minimum.at(first, components, np.arange(size))
    roots = first[components]
    fixed: dict[int, str] = {}
    for labels, reason in passed.fixed:
        for root in np.unique(roots[labels]):
            fixed.setdefault(int(root), reason)
    return Channels(passed, roots, fixed)


def layer_of(axis: Axis) -> str:
    """The layer of a parameter; the parameter itself where the network holds it."""
    return axis.parameter.rpartition(".")[0] or axis.parameter


def cut(network: nn.Module, shape: Shape, channels: Channels, removed: Set[int]) -> None:
    """Take channels out of a network, in place, and check that what is left is the same network without them.

    Args:
        network: whose weights become smaller.
        shape: of its inputs.
        channels: of the network as it was.
        removed: roots.

    Raises:
        UserError: a layer would lose all channels, or groups of a layer would keep unequal numbers.
        Refused: an operation of the network does not go with fewer channels.
    """
    kept = channels.kept(removed)
    for tensor, stays in _touched(network, kept):
        tensor.replace(_cut_tensor(tensor, stays, channels.passed.groups))
    _set_sizes(network, channels, kept)
    propagate(network, shape, channels.expected(removed))


def blank(network: nn.Module, channels: Channels, removed: Set[int]) -> None:
    """Make all numbers of channels zero in place, so that they have no part in what a network gives.

    Layers that normalise over channels leave them out of their statistics.

    Raises:
        UserError: as `cut`.
    """
    kept = channels.kept(removed)
    for tensor, stays in _touched(network, kept):
        weight = tensor.value.detach().clone()
        for axis, staying in stays.items():
            inner = channels.passed.groups.get(tensor.name)
            gone = torch.from_numpy(~staying).to(weight.device)
            if inner is not None and inner[1] == axis:
                _blank_in_groups(weight, gone, *inner)
            else:
                # a variance of 1 keeps what is 0 at 0, whatever the precision
                weight.movedim(axis, 0)[gone] = 1 if tensor.name.endswith("running_var") else 0
        tensor.replace(weight)
    for name, channel_axis in channels.passed.norms.items():
        if channel_axis in kept:
            _replace_module(network, name, KeptNorm(network.get_submodule(name), kept[channel_axis]))


def _blank_in_groups(weight: Tensor, gone: Tensor, groups: int, axis: int) -> None:
    """Zero what lies within groups: [outputs, inputs/groups, ...] seen as [groups, outputs/groups, ...]."""
    outer = 1 - axis
    by_group = weight.movedim(outer, 0).unflatten(0, (groups, -1)).movedim(2, 1)
    by_group[gone.view(groups, -1)] = 0


class KeptNorm(nn.Module):
    """A layer or group normalisation whose statistics leave out the channels that were removed.

    Args:
        norm: over dimension 1 (nn.GroupNorm) or the last one.
        stays: whether each channel does.
    """

    index: Tensor

    def __init__(self, norm: nn.Module, stays: np.ndarray) -> None:
        super().__init__()
        self.dim = 1 if isinstance(norm, nn.GroupNorm) else -1
        self.norm = norm
        weights = {name: value.detach()[torch.from_numpy(stays)] for name, value in norm.named_parameters()}
        for name, value in weights.items():
            setattr(norm, name, nn.Parameter(value))
        _set_norm_sizes("norm", norm, stays)
        self.register_buffer("index", torch.from_numpy(np.flatnonzero(stays)).to(value.device), False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Shapes as the normalisation's own; 0 where a channel was removed."""
        normalised = self.norm(inputs.index_select(self.dim, self.index))
        return torch.zeros_like(inputs).index_copy(self.dim, self.index, normalised)


@dataclass(frozen=True)
class _Held:
    """A parameter or buffer, with every module that holds it."""

    name: str
    value: Tensor
    holders: list[tuple[nn.Module, str]]

    def replace(self, value: Tensor) -> None:
        """Put another tensor in its place everywhere."""
        if isinstance(self.value, nn.Parameter):
            value = nn.Parameter(value, requires_grad=self.value.requires_grad)
        for module, key in self.holders:
            held: dict[str, Any] = module._parameters if key in module._parameters else module._buffers
            held[key] = value


def _touched(
    network: nn.Module, kept: Mapping[Axis, np.ndarray]
) -> Iterator[tuple[_Held, dict[int, np.ndarray]]]:
    """Each tensor that loses numbers, and what stays along its axes."""
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in network.modules():
        for key, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is not None:
                holders.setdefault(id(value), []).append((module, key))
    by_name: dict[str, dict[int, np.ndarray]] = {}
    for axis, mask in kept.items():
        by_name.setdefault(axis.parameter, {})[axis.axis] = mask
    for name, value in [*network.named_buffers(), *network.named_parameters()]:
        if name in by_name:
            yield _Held(name, value, holders[id(value)]), by_name[name]


def _cut_tensor(
    tensor: _Held, stays: Mapping[int, np.ndarray], in_groups: Mapping[str, tuple[int, int]]
) -> Tensor:
    weight = tensor.value.detach()
    if tensor.name in in_groups:
        return _cut_groups(tensor, stays, *in_groups[tensor.name])
    for axis, mask in stays.items():
        weight = weight.index_select(axis, torch.from_numpy(np.flatnonzero(mask)).to(weight.device))
    return weight.clone()


def _cut_groups(tensor: _Held, stays: Mapping[int, np.ndarray], groups: int, inner: int) -> Tensor:
    """The weight of a convolution in groups, of which each loses numbers of its own.

    Raises:
        UserError: the groups that are left would have unequal numbers of inputs or outputs.
    """
    weight = tensor.value.detach()
    outer = 1 - inner
    sizes = {outer: weight.shape[outer], inner: weight.shape[inner] * groups}
    masks = {
        axis: stays.get(axis, np.ones(size, dtype=bool)).reshape(groups, -1) for axis, size in sizes.items()
    }
    left = {axis: even_groups(layer_of(Axis(tensor.name, axis)), mask) for axis, mask in masks.items()}
    if not np.array_equal(left[outer], left[inner]):
        raise UserError(
            f"{layer_of(Axis(tensor.name, 0))}: a group would lose its inputs and keep outputs, or the "
            "reverse (valid: equally many channels in each of its groups, or whole groups on both sides)"
        )
    blocks = weight.movedim(outer, 0).unflatten(0, (groups, -1))
    parts = []
    for group in left[outer]:
        block = blocks[int(group)].movedim(0, outer)
        for axis, mask in masks.items():
            index = torch.from_numpy(np.flatnonzero(mask[group])).to(weight.device)
            block = block.index_select(axis, index)
        parts.append(block)
    return torch.cat(parts, outer)


def even_groups(layer: str, stays: np.ndarray) -> np.ndarray:
    """The groups that keep channels, which have to be equally many in each.

    Args:
        layer: for the error.
        stays: [groups, channels of each].

    Raises:
        UserError: they are not.
    """
    counts = stays.sum(axis=1)
    left = np.flatnonzero(counts)
    if len(set(counts[left].tolist())) > 1:
        raise UserError(
            f"{layer}: its {len(counts)} groups would keep unequal numbers of channels, "
            f"{counts.min()} to {counts.max()} (valid: equally many in each, or none)"
        )
    return left


def _set_sizes(network: nn.Module, channels: Channels, kept: Mapping[Axis, np.ndarray]) -> None:
    """Let the layers' own attributes say what their weights are now."""
    groups_of = channels.passed.groups
    cut_layers = {layer_of(axis) for axis in kept if layer_of(axis) != axis.parameter}
    gone = [channels.of(axis)[~stays] for axis, stays in kept.items()]
    gone_roots = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *gone]))
    for name, module in network.named_modules():
        is_cut = name in cut_layers
        if isinstance(module, _ConvNd) and is_cut:
            _set_convolution(module, name, kept, groups_of)
        elif isinstance(module, nn.Linear) and is_cut:
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.Bilinear) and is_cut:
            module.out_features, module.in1_features, module.in2_features = module.weight.shape
        elif isinstance(module, nn.Embedding | nn.EmbeddingBag) and is_cut:
            module.embedding_dim = module.weight.shape[1]
        elif isinstance(module, nn.PReLU) and is_cut:
            module.num_parameters = len(module.weight)
        elif isinstance(module, _NormBase) and name in channels.passed.features:
            roots = channels.roots[channels.passed.features[name].numpy()]
            module.num_features = int(module.num_features - np.isin(roots, gone_roots).sum())
        elif name in channels.passed.norms and channels.passed.norms[name] in kept:
            _set_norm_sizes(name, module, kept[channels.passed.norms[name]])


def _set_convolution(
    module: _ConvNd, name: str, kept: Mapping[Axis, np.ndarray], groups_of: Mapping[str, tuple[int, int]]
) -> None:
    transposed = isinstance(module, _ConvTransposeNd)
    outer, inner = (1, 0) if transposed else (0, 1)
    weight = f"{name}.weight" if name else "weight"
    if module.groups > 1 and weight in groups_of:
        groups, axis = groups_of[weight]
        mask = next(kept[Axis(weight, side)] for side in (axis, 1 - axis) if Axis(weight, side) in kept)
        module.groups = len(even_groups(name, mask.reshape(groups, -1)))
        module.in_channels = module.weight.shape[inner] * (module.groups if inner == axis else 1)
        module.out_channels = module.weight.shape[outer] * (module.groups if outer == axis else 1)
    elif module.groups > 1:
        multiplier = module.out_channels // module.groups
        first = module.weight.shape[0]
        module.groups = module.in_channels = first if transposed else first // multiplier
        module.out_channels = module.groups * multiplier
    else:
        module.in_channels, module.out_channels = module.weight.shape[inner], module.weight.shape[outer]


def _set_norm_sizes(name: str, module: nn.Module, stays: np.ndarray) -> None:
    """Sizes of a layer that normalises over channels.

    Raises:
        UserError: groups that would have unequal numbers of channels.
    """
    if isinstance(module, nn.GroupNorm):
        module.num_groups = len(even_groups(name, stays.reshape(module.num_groups, -1)))
        module.num_channels = int(stays.sum())
    elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
        module.normalized_shape = (int(stays.sum()),)


def _replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, key = name.rpartition(".")
    setattr(network.get_submodule(parent), key, module)
