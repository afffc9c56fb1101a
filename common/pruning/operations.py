"""What each function of torch does to the labels of channels; those that are not here are not understood."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from common.pruning.comparison import Move, loose_dims
from common.pruning.labels import blank_labels, both_labelled, few, labels_along, merged_labels, varies
from common.pruning.names import (
    ALONG,
    CONVOLUTIONS,
    ELEMENTWISE,
    JOINING,
    MOVING,
    REDUCTIONS,
    RESIZING,
    TRANSPOSED,
    WINDOWS,
)
from common.pruning.tracker import Axis, Call, broadcast


def _elementwise(call: Call) -> None:
    """Sums, products, activations: elements that meet are one channel."""
    tracker, output = call.tracker, call.outputs[0]
    ndim = output.dim()
    shapes = [[1] * (ndim - value.dim()) + list(value.shape) for value in call.inputs]
    wide = broadcast(call)
    carried = {
        i: labels.reshape([1] * (ndim - labels.dim()) + list(labels.shape)).expand(shapes[i])
        for i, value in enumerate(call.inputs)
        if (labels := tracker.labels(value)) is not None
    }
    in_place = call.in_place and 0 not in carried
    apart = list(call.step.apart)
    merged = blank_labels(output)
    for i, labels in carried.items():
        others = [other for j, other in carried.items() if j != i]
        if tracker.expected is None and (in_place or _is_apart(labels, wide[i], others)):
            apart.append(i)
        if i in apart:
            reason = f"{tracker.running[-1]}: {call.name} uses it with every channel of another tensor"
            tracker.fix(labels, reason)
            continue
        whole = labels.expand(output.shape)
        both = both_labelled(merged, whole)
        tracker.tie(*both, call.name)
        merged = merged_labels(merged, whole)
    call.step.apart = tuple(apart)
    for i, value in enumerate(call.inputs):
        matrix = tracker.matrix(value)
        if matrix is not None:
            _follow(call, matrix, value, merged)
        elif i not in carried:
            loose = {d + ndim - value.dim() for d in loose_dims(value)}
            if any(shapes[i][d] > 1 and d not in loose and varies(merged, d) for d in range(ndim)):
                tracker.fix(merged, f"{tracker.running[-1]}: {call.name} with numbers that have an order")
    call.give(merged)


def _is_apart(labels: Tensor, wide: Iterable[int], others: Sequence[Tensor]) -> bool:
    """Whether one channel meets many of another tensor: by broadcasting, or expanded before."""
    if any(varies(other, d) for d in wide for other in others):
        return True
    dims = range(labels.dim())
    alone = not any(varies(labels, d) for d in dims)
    return alone and any(varies(other, d) for d in dims for other in others)


def _follow(call: Call, name: str, value: Tensor, labels: Tensor) -> None:
    """A parameter of several axes beside a tensor: its axis along the channels follows them."""
    tracker = call.tracker
    tracker.seen.add(name)
    lead = labels.dim() - value.dim()
    varying = [d for d in range(labels.dim()) if varies(labels, d)]
    if not varying:
        return
    if len(varying) > 1 or varying[0] < lead or value.shape[varying[0] - lead] == 1:
        if any(d >= lead and value.shape[d - lead] > 1 for d in varying):
            tracker.refuse(value, call.name)
            tracker.fix(labels, f"{tracker.running[-1]}: {call.name} is not understood")
        return
    axis = varying[0] - lead
    vector = labels_along(labels, varying[0])
    tracker.tie(tracker.axis(name, axis, value.shape[axis], "follower"), vector, call.name)


def _moving(call: Call) -> None:
    """What only moves elements is done to the labels."""
    tracker = call.tracker
    if any(tracker.matrix(value) for value in call.inputs) or any(
        not value.is_floating_point() and tracker.labels(value) is None for value in call.inputs
    ):
        call.unknown()
        return

    def labels_of(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        labels = tracker.labels(leaf)
        return blank_labels(leaf) if labels is None else labels.expand(leaf.shape)

    args, kwargs = tree_map(labels_of, (call.args, call.kwargs))
    # labels that are expanded have no strides for a view
    move = Move(Tensor.reshape if call.name == "view" else call.func, args, kwargs)
    try:
        given = move.of(move.taken)
    except (RuntimeError, TypeError, NotImplementedError):
        call.unknown()
        return
    call.step.move = move
    for output, labels in zip(call.outputs, given, strict=True):
        tracker.mark(output, labels)


def _joining(call: Call) -> None:
    """Concatenation; along other dimensions than the joined one labels stay as small as they are."""
    tensors = list(call.argument(0, "tensors"))
    dim = call.argument(1, "dim", "axis", default=0)
    if not isinstance(dim, int) or any(call.tracker.matrix(value) for value in tensors):
        call.unknown()
        return
    # an empty vector may be joined to anything
    tensors = [value for value in tensors if value.shape != (0,)]
    dim %= tensors[0].dim()
    parts = []
    for value in tensors:
        labels = call.tracker.labels(value)
        parts.append(blank_labels(value) if labels is None else labels.expand(value.shape))
    for d in range(tensors[0].dim()):
        if d != dim and not any(varies(part, d) for part in parts):
            parts = [part.narrow(d, 0, 1) for part in parts]
    call.give(torch.cat(parts, dim))


def _reduction(call: Call) -> None:
    """Means, sums and maxima over positions keep channels; over channels they fix them."""
    if call.name in ("max", "min") and len(call.inputs) > 1:
        _elementwise(call)
        return
    labels = call.of_input()
    dim = call.argument(2 if call.name == "norm" else 1, "dim", "axis")
    if dim is None or isinstance(dim, bool):
        dims = list(range(labels.dim()))
    else:
        dims = [dim] if isinstance(dim, int) else list(dim)
    dims = [d % labels.dim() for d in dims] if labels.dim() else []
    if not _is_across(call, labels, dims):
        _fixing(call, f"{call.name} is over channels")
        return
    for d in dims:
        labels = labels.narrow(d, 0, 1)
    for output in call.outputs:
        call.tracker.mark(output, labels.reshape(output.shape))


def _along(call: Call) -> None:
    """Softmax and its like: along positions they are element by element."""
    labels = call.of_input()
    dim = call.argument(
        2 if call.name == "normalize" else 1, "dim", default=1 if call.name == "normalize" else None
    )
    if not isinstance(dim, int) or not _is_across(call, labels, [dim % labels.dim()]):
        _fixing(call, f"{call.name} is over channels")
    else:
        call.give(labels)


def _is_across(call: Call, labels: Tensor, dims: Sequence[int]) -> bool:
    """Whether dimensions hold positions, or branches that are stacked: those of a channel are tied.

    Where labels vary along these dimensions alone, they are the channels themselves.
    """
    along = [d for d in dims if varies(labels, d)]
    if along and not any(varies(labels, d) for d in range(labels.dim()) if d not in dims):
        return False
    for d in along:
        call.tracker.tie(labels, labels.narrow(d, 0, 1).expand(labels.shape), call.name)
    return True


def _fixing(call: Call, reason: str) -> None:
    for value in call.inputs:
        if (labels := call.tracker.labels(value)) is not None:
            call.tracker.fix(labels, f"{call.tracker.running[-1]}: {reason}")
    for output in call.outputs:
        call.tracker.mark(output, blank_labels(output))


def _window(call: Call) -> None:
    """Pooling and resizing work on each channel by itself, on its last dimensions."""
    labels = call.of_input()
    count = WINDOWS.get(call.name, labels.dim() - 2)
    spatial = range(labels.dim() - count, labels.dim())
    if any(varies(labels, d) for d in spatial):
        _fixing(call, f"{call.name} is over channels")
        return
    for d in spatial:
        labels = labels.narrow(d, 0, 1)
    call.give(labels)


def _padding(call: Call) -> None:
    """Padding in space belongs to each channel; along channels it adds what stays."""
    labels = call.of_input()
    pads = call.argument(1, "pad")
    mode = call.argument(2, "mode", default="constant")
    output = call.outputs[0]
    added = [0, 0] * labels.dim()
    for i in range(len(pads) // 2):
        d = labels.dim() - 1 - i
        if pads[2 * i] == pads[2 * i + 1] == 0:
            continue
        if not varies(labels, d) and labels.shape[d] > 1:
            labels = labels.narrow(d, 0, 1).expand(*labels.shape[:d], output.shape[d], *labels.shape[d + 1 :])
        elif mode == "constant":
            added[2 * i : 2 * i + 2] = pads[2 * i : 2 * i + 2]
        elif labels.shape[d] > 1:
            _fixing(call, "pad is over channels")
            return
        else:
            labels = labels.expand(*labels.shape[:d], output.shape[d], *labels.shape[d + 1 :])
    call.tracker.mark(output, F.pad(labels, added))


def _glu(call: Call) -> None:
    """a * sigmoid(b) of the two halves: they are one channel."""
    value = call.argument(0, "input")
    dim = call.argument(1, "dim", default=-1) % value.dim()
    if value.shape[dim] % 2:
        call.unknown()
        return
    half, gate = call.of_input().chunk(2, dim)
    call.tracker.tie(half, gate, "glu")
    call.give(half)


def _linear(call: Call) -> None:
    """[..., inputs] to [..., outputs] by a weight [outputs, inputs] of the network."""
    _weighted(call, call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias"), dim=-1)


def _bilinear(call: Call) -> None:
    """Two inputs to [..., outputs] by a weight [outputs, inputs1, inputs2]."""
    tracker = call.tracker
    weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
    name = tracker.names.get(id(weight))
    if name is None:
        call.unknown()
        return
    tracker.seen.add(name)
    for position, axis in ((0, 1), (1, 2)):
        value = call.argument(position, f"input{position + 1}")
        labels = tracker.labels(value)
        labels = blank_labels(value) if labels is None else labels.expand(value.shape)
        _take(call, labels, -1, tracker.axis(name, axis, value.shape[-1], "consumer"))
    _produce(call, tracker.axis(name, 0, weight.shape[0], "producer"), bias, -1)


def _convolution(call: Call) -> None:
    """[batch, inputs, ...] to [batch, outputs, ...] by a weight [outputs, inputs/groups, ...]."""
    groups = call.argument(6, "groups", default=1)
    dim = -1 - CONVOLUTIONS[call.name]
    arguments = (call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias"))
    _weighted(call, *arguments, dim=dim, groups=groups)


def _transposed(call: Call) -> None:
    """[batch, inputs, ...] to [batch, outputs, ...] by a weight [inputs, outputs/groups, ...]."""
    groups = call.argument(6, "groups", default=1)
    dim = -1 - TRANSPOSED[call.name]
    arguments = (call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias"))
    _weighted(call, *arguments, dim=dim, groups=groups, transposed=True)


def _weighted(
    call: Call,
    value: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    dim: int,
    groups: int = 1,
    transposed: bool = False,
) -> None:
    """A linear map of channels along `dim`; what it gives are channels of its own."""
    tracker = call.tracker
    name = tracker.names.get(id(weight))
    if name is None or weight.dim() < 2:
        call.unknown()
        return
    tracker.seen.add(name)
    labels = tracker.labels(value)
    labels = blank_labels(value) if labels is None else labels.expand(value.shape)
    inner, outer = (0, 1) if transposed else (1, 0)
    inputs, outputs = value.shape[dim], call.outputs[0].shape[dim]
    across = [d for d in range(labels.dim()) if d != dim % labels.dim() and varies(labels, d)]
    if across and tracker.is_input(labels):
        labels, across = blank_labels(value), []
    if across and not varies(labels, dim):
        # positions stand where channels should, and the channels where positions should
        produced = tracker.axis(name, outer, outputs, "producer")
        taken = tracker.axis(name, inner, inputs, "consumer")
        reason = f"{tracker.running[-1]}: {call.name} works across the channels of {name}"
        for part in (labels, produced, taken):
            tracker.fix(part, reason)
        if bias is not None:
            tracker.refuse(bias, call.name)
        call.give(blank_labels(call.outputs[0]))
        return
    if tracker.is_depthwise(name, inner, groups, inputs):
        produced = _depthwise(call, name, labels, dim, outputs // groups, transposed)
    else:
        if groups > 1:
            tracker.found.groups[name] = (groups, outer if transposed else inner)
        _take(call, labels, dim, tracker.axis(name, inner, inputs, "consumer"))
        produced = tracker.axis(name, outer, outputs, "producer")
    _produce(call, produced, bias, dim)


def _depthwise(call: Call, name: str, labels: Tensor, dim: int, multiplier: int, transposed: bool) -> Tensor:
    """Each input has its own outputs: they are one channel."""
    tracker = call.tracker
    inputs = labels.shape[dim]
    if transposed:
        own = tracker.axis(name, 0, inputs, "follower")
        _take(call, labels, dim, own)
        return own.repeat_interleave(multiplier)
    own = tracker.axis(name, 0, inputs * multiplier, "follower")
    for which in range(multiplier):
        _take(call, labels, dim, own[which::multiplier])
    return own


def _take(call: Call, labels: Tensor, dim: int, own: Tensor) -> None:
    """Tie the entries along a dimension, whatever the position, to those of a weight."""
    columns = few(labels, keep=dim).movedim(dim, 0)
    columns = columns.reshape(len(own), -1)
    call.tracker.tie(columns, own.view(-1, 1).expand(columns.shape), call.name)


def _produce(call: Call, labels: Tensor, bias: Tensor | None, dim: int) -> None:
    tracker, output = call.tracker, call.outputs[0]
    if bias is not None:
        _vector_follows(call, bias, labels)
    shape = [1] * output.dim()
    shape[dim] = -1
    tracker.mark(output, labels.view(shape).expand(output.shape))


def _vector_follows(call: Call, value: Tensor, labels: Tensor) -> None:
    """Tie a parameter [channels] to labels, or fix them where it is none of the network's."""
    tracker = call.tracker
    name = tracker.names.get(id(value))
    if name is None:
        own = tracker.labels(value)
        if own is not None:
            tracker.tie(own, labels, call.name)
        elif 0 not in loose_dims(value):
            tracker.fix(labels, f"{tracker.running[-1]}: {call.name} with numbers that are no parameter")
        return
    tracker.seen.add(name)
    tracker.tie(tracker.axis(name, 0, len(value), "follower"), labels, call.name)


def _embedding(call: Call) -> None:
    """Whole numbers [...] to [..., features] by a weight [words, features]."""
    tracker = call.tracker
    weight = next(value for value in call.inputs if value.dim() == 2 and id(value) in tracker.names)
    name = tracker.names[id(weight)]
    tracker.seen.add(name)
    words = tracker.axis(name, 0, weight.shape[0], "follower")
    tracker.fix(words, f"{tracker.running[-1]}: its numbers are words")
    _produce(call, tracker.axis(name, 1, weight.shape[1], "producer"), None, -1)


def _by_channel(call: Call) -> None:
    """Batch and instance normalisation: each channel, dimension 1, by itself."""
    labels = call.of_input()
    if any(varies(labels, d) for d in range(labels.dim()) if d != 1):
        call.unknown()
        return
    vector = labels_along(labels, 1)
    call.tracker.found.features[call.tracker.running[-1]] = vector
    for value in call.inputs:
        if value is not call.argument(0, "input") and value.dim() == 1:
            _vector_follows(call, value, vector)
    call.give(labels)


def _prelu(call: Call) -> None:
    labels, weight = call.of_input(), call.argument(1, "weight")
    dim = min(1, labels.dim() - 1)
    if weight.numel() == 1:
        call.give(labels)
    elif any(varies(labels, d) for d in range(labels.dim()) if d != dim):
        call.unknown()
    else:
        _vector_follows(call, weight, labels_along(labels, dim))
        call.give(labels)


def _across_channels(call: Call) -> None:
    """Layer and group normalisation: statistics over channels, so a mask must leave out what is removed."""
    tracker, labels = call.tracker, call.of_input()
    where = tracker.running[-1]
    module = tracker.modules.get(where)
    dim = 1 if call.name == "group_norm" else -1
    whole = call.name == "group_norm" or len(call.argument(1, "normalized_shape")) == 1
    weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
    plain = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm) and weight is not None
    others = [d for d in range(labels.dim()) if d != dim % labels.dim()]
    if not plain and not any(varies(labels, d) for d in range(labels.dim())):
        call.unknown()
        return
    if not plain or not whole or any(varies(labels, d) for d in others):
        call.unknown()
        return
    vector = labels_along(labels, dim)
    for value in (weight, bias):
        if isinstance(value, Tensor):
            _vector_follows(call, value, vector)
    name = tracker.names[id(weight)]
    tracker.found.norms[where] = Axis(name, 0)
    if isinstance(module, nn.GroupNorm):
        tracker.found.norm_groups[name] = module.num_groups
    call.give(labels)


def reader_of(name: str) -> Callable[[Call], None] | None:
    tables: list[tuple[Iterable[str], Callable[[Call], None]]] = [
        (ELEMENTWISE, _elementwise),
        (MOVING, _moving),
        (JOINING, _joining),
        (REDUCTIONS, _reduction),
        (ALONG, _along),
        (WINDOWS, _window),
        (RESIZING, _window),
        (CONVOLUTIONS, _convolution),
        (TRANSPOSED, _transposed),
    ]
    for names, reader in tables:
        if name in names:
            return reader
    return {
        "pad": _padding,
        "glu": _glu,
        "linear": _linear,
        "bilinear": _bilinear,
        "embedding": _embedding,
        "batch_norm": _by_channel,
        "instance_norm": _by_channel,
        "prelu": _prelu,
        "layer_norm": _across_channels,
        "rms_norm": _across_channels,
        "group_norm": _across_channels,
    }.get(name)
