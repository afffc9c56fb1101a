"""Which numbers of a network are one channel: a blank pass in which every channel carries a label.

Every axis of a parameter that counts channels gets a label for each of its entries, and every tensor of the
pass carries, for each of its elements, the label of the channel to which the element belongs (0: none, it
stays whatever is removed). What only moves elements (reshape, transpose, chunk, concatenation, ...) is done
to the labels by the very operation; layers give new labels and tie those of their weights to those of what
they take; sums and products tie the labels of their sides. Labels that are tied, directly or over others,
are one channel: it is removed as a whole or not at all.

The pass runs on the `meta` device, so nothing is computed. It sees every function of torch that `forward`
calls (`TorchFunctionMode`), so layers and their functional forms, sizes as Python numbers, loops and
branches over settings are all seen as they are; what depends on the values of tensors fails. An operation
that is not listed here fixes the channels that it takes: they cannot be removed, and the reason names it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from common.base.errors import UserError
from common.metrics.macs import meta_copy

Role = Literal["producer", "follower", "consumer"]
Shape = Sequence[int] | Sequence[Sequence[int]]

# examples of the blank pass
BATCH = 2


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# functions by name, without the underscores of their in-place and reflected forms
ACTIVATIONS = _words(
    "relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish sigmoid hardsigmoid logsigmoid hardswish "
    "tanh softplus softsign threshold rrelu tanhshrink softshrink hardshrink"
)
UNARY = _words(
    "exp expm1 log log1p log2 sqrt rsqrt abs absolute neg negative square sin cos tan atan erf clamp "
    "clamp_min clamp_max clip sign reciprocal nan_to_num round floor ceil logical_not isnan dropout "
    "dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout native_dropout float "
    "double half bfloat16 to type type_as clone detach contiguous data requires_grad cpu cuda positive"
)
BINARY = _words(
    "add sub subtract mul multiply div divide true_divide floor_divide rsub rdiv rtruediv rpow pow maximum "
    "minimum where addcmul addcdiv lerp fmod remainder eq ne gt ge lt le logical_and logical_or masked_fill "
    "iadd isub imul idiv itruediv"
)
ELEMENTWISE = ACTIVATIONS | UNARY | BINARY
MOVING = _words(
    "view reshape flatten unflatten ravel permute transpose swapaxes swapdims movedim moveaxis T mT t chunk "
    "split split_with_sizes tensor_split unbind narrow select getitem squeeze unsqueeze expand expand_as "
    "view_as reshape_as repeat tile flip roll stack channel_shuffle native_channel_shuffle pixel_shuffle "
    "pixel_unshuffle repeat_interleave broadcast_to hsplit vsplit dsplit hstack vstack"
)
JOINING = {"cat", "concat", "concatenate"}
REDUCTIONS = _words("mean sum amax amin max min std var norm prod logsumexp any all std_mean var_mean")
ALONG = {"softmax", "log_softmax", "softmin", "cumsum", "normalize"}
# spatial dimensions of what works on windows or positions of each channel
WINDOWS = {
    f"{kind}_pool{n}d": n for n in (1, 2, 3) for kind in ("max", "avg", "lp", "adaptive_avg", "adaptive_max")
}
WINDOWS |= {f"{kind}_pool{n}d_with_indices": n for n in (1, 2, 3) for kind in ("max", "adaptive_max")}
CONVOLUTIONS = {f"conv{n}d": n for n in (1, 2, 3)}
TRANSPOSED = {f"conv_transpose{n}d": n for n in (1, 2, 3)}
RESIZING = {"interpolate", "upsample"}
# give tensors whose numbers are alike, or drawn alike, so that any of them may be removed
ALIKE = _words(
    "zeros ones full empty rand randn zeros_like ones_like full_like empty_like rand_like randn_like "
    "new_zeros new_ones new_full new_empty bernoulli uniform normal fill zero"
)
# make tensors of numbers, which may be sizes
NUMBERS = frozenset(
    {"tensor", "as_tensor", "asarray", "scalar_tensor", "new_tensor", "full", "new_full", "full_like"}
)


class Refused(Exception):
    """The pass cannot go on with these channels.

    Args:
        where: the layer.
        what: the operation, and why.

    Attributes:
        position: of the operation in `Passed.done`, where it is known.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.position: int | None = None


class Axis(NamedTuple):
    """An axis of a parameter or buffer, by its name in the network.

    Of a convolution in groups the axis that lies within a group counts over all groups: axis 1 of the
    weight [outputs, inputs/groups, ...] has as many labels as the convolution has inputs.
    """

    parameter: str
    axis: int


@dataclass
class Passed:
    """What a blank pass found.

    Attributes:
        inputs: labels of the network's inputs along their first dimensions.
        long: of each parameter and buffer the axes with more than one number.
        modes: whether the network was passed through in training mode too.
        labels: of each axis that counts channels, one int a number.
        roles: for each axis what it is to its channels, in the order of execution.
        groups: of each weight of a convolution in groups (but depthwise): (groups, axis within a group).
        norms: layers that normalise over channels, and the axis of their channels.
        features: labels of the channels of layers that normalise each by itself.
        edges: pairs of labels that are tied, [2, n] each.
        fixed: labels that cannot be removed, and why.
        done: for each operation on channels its layer, its name, and what of its form must not change with
            their number.
        involved: for each of them the labels that it takes.
        apart: of sums and products, by position, the inputs that are used with every channel of another.
    """

    inputs: list[Tensor] = field(default_factory=list)
    long: dict[str, tuple[int, ...]] = field(default_factory=dict)
    modes: bool = False
    labels: dict[Axis, Tensor] = field(default_factory=dict)
    roles: dict[tuple[Axis, Role], None] = field(default_factory=dict)
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)
    norms: dict[str, Axis] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    edges: list[np.ndarray] = field(default_factory=list)
    fixed: list[tuple[np.ndarray, str]] = field(default_factory=list)
    done: list[tuple[Any, ...]] = field(default_factory=list)
    involved: list[list[Tensor]] = field(default_factory=list)
    apart: dict[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """What a pass through a network whose channels were removed is held against.

    Attributes:
        inputs: roots of the labels of the network's inputs.
        whole: of the whole network.
        labels: of each axis, those of the channels that are left, each the root of its channel.
        fixed: roots that cannot be removed.
    """

    whole: Passed
    inputs: Sequence[Tensor]
    labels: Mapping[Axis, Tensor]
    fixed: frozenset[int]


def propagate(network: nn.Module, shape: Shape, expected: Expected | None = None) -> Passed:
    """Pass blank inputs through a network on the `meta` device.

    Args:
        network: left as it is.
        shape: of one input, or of each input of a network with several.
        expected: hold the pass against it.

    Raises:
        UserError: the forward pass fails, or depends on the values of tensors.
        Refused: the pass is not what is expected.
    """
    _require_plain(network)
    model = meta_copy(network)
    tracker = _Tracker(model, expected)
    _run(model.eval(), shape, tracker)
    unseen = any(name not in tracker.seen for name, _ in model.named_parameters())
    if unseen if expected is None else expected.whole.modes:
        tracker.second, tracker.found.modes = True, True
        # heads that help the training alone take channels too
        _run(model.train(), shape, tracker)
    return tracker.found


def _require_plain(network: nn.Module) -> None:
    """Refuse what cannot be passed through in Python.

    Raises:
        UserError: a scripted layer, or one whose sizes are not known yet.
    """
    for name, module in network.named_modules():
        what = f"{type(network).__name__}: its channels cannot be traced: {name or 'it'}"
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"{what} is a ScriptModule (valid: the network before torch.jit.script)")
        if any(map(is_lazy, module.parameters(recurse=False))):
            raise UserError(f"{what} does not know its sizes yet (valid: a network that has run once)")


def _run(model: nn.Module, shape: Shape, tracker: "_Tracker") -> None:
    """One pass; in training mode, where not every network can take blank inputs, a failure ends it."""
    try:
        with torch.no_grad(), torch.device("meta"), _Unseen(tracker):
            inputs = [_blank(model, one, which, tracker) for which, one in enumerate(_shapes(shape))]
            with tracker:
                outputs = model(*inputs)
        tracker.finish(outputs)
    except UserError:
        raise
    except Refused as error:
        error.position = tracker.position
        raise
    except Exception as error:
        if tracker.second and tracker.expected is None:
            return
        reason = " ".join(str(error).split())[:160]
        where, name = tracker.last
        if tracker.expected is not None:
            why = "joins numbers of channels that differ" if name in ELEMENTWISE else f"fails ({reason})"
            refused = Refused(where, f"{name} {why} once channels are removed")
            refused.position = tracker.position
            raise refused from error
        raise UserError(
            f"{type(model).__name__}: its channels cannot be traced: {where}: {type(error).__name__}: "
            f"{reason} (valid: a forward without branches or loops over the values of tensors, which "
            f"takes inputs of shape {tuple(shape)})"
        ) from error


def _shapes(shape: Shape) -> list[tuple[int, ...]]:
    several = [tuple(one) for one in shape if not isinstance(one, int)]
    return several or [tuple(one for one in shape if isinstance(one, int))]


def _blank(model: nn.Module, shape: tuple[int, ...], which: int, tracker: "_Tracker") -> Tensor:
    """A blank input, whose entries along its first dimension are channels that stay."""
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    blank = torch.empty(BATCH, *shape, device="meta", dtype=next(floating, torch.get_default_dtype()))
    if shape:
        labels = tracker.input_labels(which, shape[0])
        tracker.mark(blank, labels.view(1, -1, *[1] * (len(shape) - 1)).expand(blank.shape))
    return blank


class _Unseen(TorchDispatchMode):
    """Fixes the channels that an operation takes which went past the functions of torch."""

    def __init__(self, tracker: "_Tracker") -> None:
        super().__init__()
        self.tracker = tracker

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.tracker.reading:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    self.tracker.refuse(leaf, func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _Tracker(TorchFunctionMode):
    """Carries labels through every function of torch that is called within it."""

    def __init__(self, model: nn.Module, expected: Expected | None) -> None:
        super().__init__()
        self.expected = expected
        self.found = Passed()
        self.count = 1
        self.position = 0
        self.second = False
        self.reading = False
        self.seen: set[str] = set()
        self.axes: set[Axis] = set()
        self.names = {
            id(tensor): name
            for tensors in (model.named_buffers(), model.named_parameters())
            for name, tensor in tensors
        }
        for tensors in (model.named_buffers(), model.named_parameters()):
            for name, tensor in tensors:
                self.found.long[name] = tuple(axis for axis, size in enumerate(tensor.shape) if size > 1)
        self.modules = dict(model.named_modules())
        self.network = type(model).__name__
        self.running = [self.network]
        self.last = (self.network, "forward")
        for name, module in model.named_modules():
            module.register_forward_pre_hook(self._enter(name or self.network), prepend=True)
            module.register_forward_hook(self._leave)

    def _enter(self, name: str) -> Any:
        return lambda module, inputs: self.running.append(name)

    def _leave(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self.running.pop()

    # --- labels

    def new_labels(self, count: int) -> Tensor:
        labels = torch.arange(self.count, self.count + count, device="cpu")
        self.count += count
        return labels

    def input_labels(self, which: int, count: int) -> Tensor:
        """Labels of one of the network's inputs, which stay."""
        if self.expected is not None:
            return self.expected.inputs[which]
        if which == len(self.found.inputs):
            labels = self.new_labels(count)
            self.found.inputs.append(labels)
            self.fix(labels, "it belongs to the network's input")
        return self.found.inputs[which]

    def is_input(self, labels: Tensor) -> bool:
        """Whether all labels are of inputs, which have the lowest."""
        known = self.found.inputs if self.expected is None else self.expected.inputs
        return bool(_few(labels).max() <= sum(map(len, known)))

    def axis(self, name: str, axis: int, size: int, role: Role) -> Tensor:
        """The labels of an axis of a parameter, made when it is first seen."""
        key = Axis(name, axis)
        if key not in self.found.labels:
            if self.expected is None:
                self.found.labels[key] = self.new_labels(size)
            elif key in self.expected.labels:
                self.found.labels[key] = self.expected.labels[key]
            else:
                raise Refused(self.running[-1], "it does another operation once channels are removed")
        if not self.second or key not in self.axes:
            self.found.roles[key, role] = None
            self.axes.add(key)
        labels = self.found.labels[key]
        if len(labels) == size:
            return labels
        reason = f"{self.running[-1]}: {name} is used in two ways"
        self.fix(labels, reason)
        return torch.zeros(size, dtype=torch.int64, device="cpu")

    def is_depthwise(self, name: str, inner: int, groups: int, inputs: int) -> bool:
        """Whether each input has its own outputs; one of which one channel is left still is."""
        if self.expected is not None:
            return (Axis(name, inner), "consumer") not in self.expected.whole.roles
        return groups > 1 and inputs == groups

    def mark(self, tensor: Tensor, labels: Tensor) -> None:
        tensor._channels = _compact(labels)  # type: ignore[attr-defined]

    def labels(self, value: Any) -> Tensor | None:
        """The labels of the elements of a tensor; None if it has none."""
        found: Tensor | None = getattr(value, "_channels", None)
        if found is None and id(value) in self.names:
            name = self.names[id(value)]
            axes = self.long(name)
            if len(axes) == 1:
                vector = self.axis(name, axes[0], value.shape[axes[0]], "follower")
                self.seen.add(name)
                return vector.view([-1 if axis == axes[0] else 1 for axis in range(value.dim())])
        return found

    def matrix(self, value: Any) -> str | None:
        """The name of a parameter with two axes or more."""
        name = self.names.get(id(value))
        return name if name is not None and len(self.long(name)) > 1 else None

    def long(self, name: str) -> tuple[int, ...]:
        """The axes of a parameter that have more than one number in the whole network."""
        return (self.found if self.expected is None else self.expected.whole).long[name]

    def fix(self, labels: Tensor, reason: str) -> None:
        labels = _few(labels)
        if self.expected is None:
            kept = labels[labels > 0].numpy()
            if len(kept):
                self.found.fixed.append((kept, reason))
        elif any(int(label) not in self.expected.fixed for label in labels[labels > 0].unique()):
            raise Refused(self.running[-1], reason)

    def refuse(self, value: Any, name: str) -> None:
        """Fix what a value carries, since an operation that takes it is not understood."""
        reason = f"{self.running[-1]}: {name} is not understood"
        matrix = self.matrix(value)
        if matrix is not None:
            self.seen.add(matrix)
            for axis, size in enumerate(value.shape):
                self.fix(self.axis(matrix, axis, self._whole(matrix, axis, size), "follower"), reason)
        elif (labels := self.labels(value)) is not None:
            self.fix(labels, reason)

    def _whole(self, name: str, axis: int, size: int) -> int:
        known = self.found.labels.get(Axis(name, axis))
        return size if known is None else len(known)

    def tie(self, left: Tensor, right: Tensor, what: str) -> None:
        """Make labels one by one the same channel; beside 0, which stays, a label is fixed."""
        left, right = _together(left, right)
        both = (left > 0) & (right > 0)
        if self.expected is None:
            pairs = torch.stack([left[both], right[both]])
            if pairs.shape[1]:
                self.found.edges.append(pairs.numpy())
        elif not torch.equal(left[both], right[both]):
            raise Refused(self.running[-1], f"{what} takes channels that do not belong together")
        alone = torch.where(both, 0, torch.maximum(left, right))
        self.fix(alone, f"{self.running[-1]}: {what} joins it with what cannot be removed")

    def note(self, inputs: Iterable[Tensor], *form: Any) -> None:
        """Remember an operation, or hold it against the whole network's."""
        entry = (self.running[-1], *form)
        if self.expected is None:
            self.found.done.append(entry)
            carried = [getattr(value, "_channels", None) for value in inputs]
            self.found.involved.append([labels for labels in carried if labels is not None])
            return
        known = self.expected.whole.done
        if self.position >= len(known) or known[self.position] != entry:
            raise Refused(self.running[-1], f"{form[0]} depends on the number of channels")
        self.position += 1

    def note_elementwise(self, call: "_Call") -> None:
        """As `note`: numbers beside tensors stay the same, and so do the dimensions that are repeated."""
        leaves = tree_leaves((call.args, call.kwargs))
        wide = _broadcast(call)
        if self.expected is not None and self.position < len(self.expected.whole.done):
            known = self.expected.whole.done[self.position][2:3]
            sizes = call.outputs[0].shape
            # where one channel is left there is nothing to repeat any more
            wide = [
                before if set(now) == {d for d in before if sizes[d] > 1} else now
                for before, now in zip(known[0] if known else wide, wide, strict=False)
            ]
        self.note(call.inputs, call.name, wide, [leaf for leaf in leaves if isinstance(leaf, int | float)])

    def apart(self) -> tuple[int, ...]:
        """Of the operation that was noted last, what `Passed.apart` says of the whole network."""
        return () if self.expected is None else self.expected.whole.apart.get(self.position - 1, ())

    def finish(self, outputs: Any) -> None:
        """Channels of the outputs stay."""
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                self.note([output], "output", tuple(output.shape))
                if (labels := self.labels(output)) is not None:
                    self.fix(labels, "it belongs to the network's output")

    # --- operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        self.last = (self.running[-1], name)
        self.reading, outer = True, self.reading
        try:
            if name == "embedding" and args[0].is_floating_point():
                args = (args[0].long(), *args[1:])
            # on the meta device its kernel takes longer than all else, for an output like its input
            result = torch.empty_like(args[0]) if name == "batch_norm" else func(*args, **kwargs)
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            if name in NUMBERS:
                # a size of the channels among them would be another one once channels are removed
                values = args[1:] if "full" in name else (args, kwargs)
                leaves = tree_leaves((values, kwargs.get("fill_value")))
                self.note([], name, [leaf for leaf in leaves if isinstance(leaf, int | float)])
            if outputs or name == "setitem":
                if any(self._carries(value) for value in inputs):
                    # work on labels is nobody's to see
                    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
                        self._read(func, name, args, kwargs, inputs, result, outputs)
                elif name in ALIKE or (inputs and all(hasattr(value, "_alike") for value in inputs)):
                    for output in outputs:
                        output._alike = True  # type: ignore[attr-defined]
        finally:
            self.reading = outer
        return result

    def _carries(self, value: Tensor) -> bool:
        return hasattr(value, "_channels") or id(value) in self.names

    def _read(
        self, func: Any, name: str, args: Any, kwargs: Any, inputs: list[Tensor], result: Any, outputs: Any
    ) -> None:
        in_place = _is_in_place(func)
        call = _Call(self, func, name, args, kwargs, inputs, result, outputs, in_place)
        reader = _reader(name)
        if name in ALIKE and not in_place:
            for output in outputs:
                output._alike = True
        elif reader is None or "out" in kwargs or (in_place and name not in ELEMENTWISE):
            self.note(inputs, name)
            call.unknown()
        else:
            if name in ELEMENTWISE:
                self.note_elementwise(call)
            elif name in REDUCTIONS or name in ALONG or name in WINDOWS:
                leaves = tree_leaves((args, kwargs))
                self.note(inputs, name, [leaf for leaf in leaves if isinstance(leaf, int | float)])
            else:
                self.note(inputs, name)
            try:
                reader(call)
            except (RuntimeError, ValueError, TypeError, IndexError):
                # arguments of a kind that its reader does not know
                call.unknown()


@dataclass
class _Call:
    """One call of a function of torch, with what it gave."""

    tracker: _Tracker
    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    result: Any
    outputs: list[Tensor]
    in_place: bool

    def argument(self, position: int, *names: str, default: Any = None) -> Any:
        if len(self.args) > position:
            return self.args[position]
        return next((self.kwargs[name] for name in names if name in self.kwargs), default)

    def unknown(self) -> None:
        """Fix all that it takes; what it gives stays."""
        for value in self.inputs:
            self.tracker.refuse(value, self.name)
        for output in self.outputs:
            if hasattr(output, "_channels"):
                del output._channels

    def give(self, labels: Tensor) -> None:
        for output in self.outputs:
            self.tracker.mark(output, labels.expand(output.shape))

    def of_input(self) -> Tensor:
        """The labels of the first argument, 0 without any; of its own shape."""
        value = self.argument(0, "input")
        labels = self.tracker.labels(value)
        return _blank_labels(value) if labels is None else labels.expand(value.shape)


def _elementwise(call: _Call) -> None:
    """Sums, products, activations: elements that meet are one channel."""
    tracker, output = call.tracker, call.outputs[0]
    ndim = output.dim()
    shapes = [[1] * (ndim - value.dim()) + list(value.shape) for value in call.inputs]
    wide = _broadcast(call)
    carried = {
        i: labels.reshape([1] * (ndim - labels.dim()) + list(labels.shape)).expand(shapes[i])
        for i, value in enumerate(call.inputs)
        if (labels := tracker.labels(value)) is not None
    }
    in_place = call.in_place and 0 not in carried
    apart = list(tracker.apart())
    merged = _blank_labels(output)
    for i, labels in carried.items():
        others = [other for j, other in carried.items() if j != i]
        if tracker.expected is None and (in_place or _is_apart(labels, wide[i], others)):
            apart.append(i)
        if i in apart:
            reason = f"{tracker.running[-1]}: {call.name} uses it with every channel of another tensor"
            tracker.fix(labels, reason)
            continue
        whole = labels.expand(output.shape)
        both = _both(merged, whole)
        tracker.tie(*both, call.name)
        merged = _merge(merged, whole)
    tracker.found.apart[len(tracker.found.done) - 1] = tuple(apart)
    for i, value in enumerate(call.inputs):
        matrix = tracker.matrix(value)
        if matrix is not None:
            _follow(call, matrix, value, merged)
        elif i not in carried and not hasattr(value, "_alike"):
            varying = [d for d in range(ndim) if shapes[i][d] > 1 and _varies(merged, d)]
            if varying:
                tracker.fix(merged, f"{tracker.running[-1]}: {call.name} with numbers that have an order")
    call.give(merged)


def _is_apart(labels: Tensor, wide: Iterable[int], others: Sequence[Tensor]) -> bool:
    """Whether one channel meets many of another tensor: by broadcasting, or expanded before."""
    if any(_varies(other, d) for d in wide for other in others):
        return True
    dims = range(labels.dim())
    alone = not any(_varies(labels, d) for d in dims)
    return alone and any(_varies(other, d) for d in dims for other in others)


def _broadcast(call: _Call) -> list[tuple[int, ...]]:
    """The dimensions of the output along which each input is repeated."""
    output = call.outputs[0]
    shapes = [[1] * (output.dim() - value.dim()) + list(value.shape) for value in call.inputs]
    return [tuple(d for d in range(output.dim()) if s[d] == 1 < output.shape[d]) for s in shapes]


def _follow(call: _Call, name: str, value: Tensor, labels: Tensor) -> None:
    """A parameter of several axes beside a tensor: its axis along the channels follows them."""
    tracker = call.tracker
    tracker.seen.add(name)
    lead = labels.dim() - value.dim()
    varying = [d for d in range(labels.dim()) if _varies(labels, d)]
    if not varying:
        return
    if len(varying) > 1 or varying[0] < lead or value.shape[varying[0] - lead] == 1:
        if any(d >= lead and value.shape[d - lead] > 1 for d in varying):
            tracker.refuse(value, call.name)
            tracker.fix(labels, f"{tracker.running[-1]}: {call.name} is not understood")
        return
    axis = varying[0] - lead
    vector = _vector(labels, varying[0])
    tracker.tie(tracker.axis(name, axis, value.shape[axis], "follower"), vector, call.name)


def _moving(call: _Call) -> None:
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
        return _blank_labels(leaf) if labels is None else labels.expand(leaf.shape)

    args, kwargs = tree_map(labels_of, (call.args, call.kwargs))
    try:
        # labels that are expanded have no strides for a view
        moved = args[0].reshape(*args[1:], **kwargs) if call.name == "view" else call.func(*args, **kwargs)
    except (RuntimeError, TypeError, NotImplementedError):
        call.unknown()
        return
    given = [leaf for leaf in tree_leaves(moved) if isinstance(leaf, Tensor)]
    for output, labels in zip(call.outputs, given, strict=True):
        tracker.mark(output, labels)


def _joining(call: _Call) -> None:
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
        parts.append(_blank_labels(value) if labels is None else labels.expand(value.shape))
    for d in range(tensors[0].dim()):
        if d != dim and not any(_varies(part, d) for part in parts):
            parts = [part.narrow(d, 0, 1) for part in parts]
    call.give(torch.cat(parts, dim))


def _reduction(call: _Call) -> None:
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
    if any(_varies(labels, d) for d in dims):
        _fixing(call, f"{call.name} is over channels")
        return
    for d in dims:
        labels = labels.narrow(d, 0, 1)
    for output in call.outputs:
        call.tracker.mark(output, labels.reshape(output.shape))


def _along(call: _Call) -> None:
    """Softmax and its like: along positions they are element by element."""
    labels = call.of_input()
    dim = call.argument(
        2 if call.name == "normalize" else 1, "dim", default=1 if call.name == "normalize" else None
    )
    if not isinstance(dim, int) or _varies(labels, dim % labels.dim()):
        _fixing(call, f"{call.name} is over channels")
    else:
        call.give(labels)


def _fixing(call: _Call, reason: str) -> None:
    for value in call.inputs:
        if (labels := call.tracker.labels(value)) is not None:
            call.tracker.fix(labels, f"{call.tracker.running[-1]}: {reason}")
    for output in call.outputs:
        call.tracker.mark(output, _blank_labels(output))


def _window(call: _Call) -> None:
    """Pooling and resizing work on each channel by itself, on its last dimensions."""
    labels = call.of_input()
    count = WINDOWS.get(call.name, labels.dim() - 2)
    spatial = range(labels.dim() - count, labels.dim())
    if any(_varies(labels, d) for d in spatial):
        _fixing(call, f"{call.name} is over channels")
        return
    for d in spatial:
        labels = labels.narrow(d, 0, 1)
    call.give(labels)


def _padding(call: _Call) -> None:
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
        if not _varies(labels, d) and labels.shape[d] > 1:
            labels = labels.narrow(d, 0, 1).expand(*labels.shape[:d], output.shape[d], *labels.shape[d + 1 :])
        elif mode == "constant":
            added[2 * i : 2 * i + 2] = pads[2 * i : 2 * i + 2]
        elif labels.shape[d] > 1:
            _fixing(call, "pad is over channels")
            return
        else:
            labels = labels.expand(*labels.shape[:d], output.shape[d], *labels.shape[d + 1 :])
    call.tracker.mark(output, F.pad(labels, added))


def _glu(call: _Call) -> None:
    """a * sigmoid(b) of the two halves: they are one channel."""
    value = call.argument(0, "input")
    dim = call.argument(1, "dim", default=-1) % value.dim()
    if value.shape[dim] % 2:
        call.unknown()
        return
    half, gate = call.of_input().chunk(2, dim)
    call.tracker.tie(half, gate, "glu")
    call.give(half)


def _linear(call: _Call) -> None:
    """[..., inputs] to [..., outputs] by a weight [outputs, inputs] of the network."""
    _weighted(call, call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias"), dim=-1)


def _bilinear(call: _Call) -> None:
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
        labels = _blank_labels(value) if labels is None else labels.expand(value.shape)
        _take(call, labels, -1, tracker.axis(name, axis, value.shape[-1], "consumer"))
    _produce(call, tracker.axis(name, 0, weight.shape[0], "producer"), bias, -1)


def _convolution(call: _Call) -> None:
    """[batch, inputs, ...] to [batch, outputs, ...] by a weight [outputs, inputs/groups, ...]."""
    groups = call.argument(6, "groups", default=1)
    dim = -1 - CONVOLUTIONS[call.name]
    arguments = (call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias"))
    _weighted(call, *arguments, dim=dim, groups=groups)


def _transposed(call: _Call) -> None:
    """[batch, inputs, ...] to [batch, outputs, ...] by a weight [inputs, outputs/groups, ...]."""
    groups = call.argument(6, "groups", default=1)
    dim = -1 - TRANSPOSED[call.name]
    arguments = (call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias"))
    _weighted(call, *arguments, dim=dim, groups=groups, transposed=True)


def _weighted(
    call: _Call,
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
    labels = _blank_labels(value) if labels is None else labels.expand(value.shape)
    inner, outer = (0, 1) if transposed else (1, 0)
    inputs, outputs = value.shape[dim], call.outputs[0].shape[dim]
    across = [d for d in range(labels.dim()) if d != dim % labels.dim() and _varies(labels, d)]
    if across and tracker.is_input(labels):
        labels, across = _blank_labels(value), []
    if across and not _varies(labels, dim):
        # positions stand where channels should, and the channels where positions should
        produced = tracker.axis(name, outer, outputs, "producer")
        taken = tracker.axis(name, inner, inputs, "consumer")
        reason = f"{tracker.running[-1]}: {call.name} works across the channels of {name}"
        for part in (labels, produced, taken):
            tracker.fix(part, reason)
        if bias is not None:
            tracker.refuse(bias, call.name)
        call.give(_blank_labels(call.outputs[0]))
        return
    if tracker.is_depthwise(name, inner, groups, inputs):
        produced = _depthwise(call, name, labels, dim, outputs // groups, transposed)
    else:
        if groups > 1:
            tracker.found.groups[name] = (groups, outer if transposed else inner)
        _take(call, labels, dim, tracker.axis(name, inner, inputs, "consumer"))
        produced = tracker.axis(name, outer, outputs, "producer")
    _produce(call, produced, bias, dim)


def _depthwise(call: _Call, name: str, labels: Tensor, dim: int, multiplier: int, transposed: bool) -> Tensor:
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


def _take(call: _Call, labels: Tensor, dim: int, own: Tensor) -> None:
    """Tie the entries along a dimension, whatever the position, to those of a weight."""
    columns = _few(labels, keep=dim).movedim(dim, 0)
    columns = columns.reshape(len(own), -1)
    call.tracker.tie(columns, own.view(-1, 1).expand(columns.shape), call.name)


def _produce(call: _Call, labels: Tensor, bias: Tensor | None, dim: int) -> None:
    tracker, output = call.tracker, call.outputs[0]
    if bias is not None:
        _vector_follows(call, bias, labels)
    shape = [1] * output.dim()
    shape[dim] = -1
    tracker.mark(output, labels.view(shape).expand(output.shape))


def _vector_follows(call: _Call, value: Tensor, labels: Tensor) -> None:
    """Tie a parameter [channels] to labels, or fix them where it is none of the network's."""
    tracker = call.tracker
    name = tracker.names.get(id(value))
    if name is None:
        own = tracker.labels(value)
        if own is not None:
            tracker.tie(own, labels, call.name)
        elif not hasattr(value, "_alike"):
            tracker.fix(labels, f"{tracker.running[-1]}: {call.name} with numbers that are no parameter")
        return
    tracker.seen.add(name)
    tracker.tie(tracker.axis(name, 0, len(value), "follower"), labels, call.name)


def _embedding(call: _Call) -> None:
    """Whole numbers [...] to [..., features] by a weight [words, features]."""
    tracker = call.tracker
    weight = next(value for value in call.inputs if value.dim() == 2 and id(value) in tracker.names)
    name = tracker.names[id(weight)]
    tracker.seen.add(name)
    words = tracker.axis(name, 0, weight.shape[0], "follower")
    tracker.fix(words, f"{tracker.running[-1]}: its numbers are words")
    _produce(call, tracker.axis(name, 1, weight.shape[1], "producer"), None, -1)


def _by_channel(call: _Call) -> None:
    """Batch and instance normalisation: each channel, dimension 1, by itself."""
    labels = call.of_input()
    if any(_varies(labels, d) for d in range(labels.dim()) if d != 1):
        call.unknown()
        return
    vector = _vector(labels, 1)
    call.tracker.found.features[call.tracker.running[-1]] = vector
    for value in call.inputs:
        if value is not call.argument(0, "input") and value.dim() == 1:
            _vector_follows(call, value, vector)
    call.give(labels)


def _prelu(call: _Call) -> None:
    labels, weight = call.of_input(), call.argument(1, "weight")
    dim = min(1, labels.dim() - 1)
    if weight.numel() == 1:
        call.give(labels)
    elif any(_varies(labels, d) for d in range(labels.dim()) if d != dim):
        call.unknown()
    else:
        _vector_follows(call, weight, _vector(labels, dim))
        call.give(labels)


def _across_channels(call: _Call) -> None:
    """Layer and group normalisation: statistics over channels, so a mask must leave out what is removed."""
    tracker, labels = call.tracker, call.of_input()
    where = tracker.running[-1]
    module = tracker.modules.get(where)
    dim = 1 if call.name == "group_norm" else -1
    whole = call.name == "group_norm" or len(call.argument(1, "normalized_shape")) == 1
    weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
    plain = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm) and weight is not None
    others = [d for d in range(labels.dim()) if d != dim % labels.dim()]
    if not plain and not any(_varies(labels, d) for d in range(labels.dim())):
        call.unknown()
        return
    if not plain or not whole or any(_varies(labels, d) for d in others):
        call.unknown()
        return
    vector = _vector(labels, dim)
    for value in (weight, bias):
        if isinstance(value, Tensor):
            _vector_follows(call, value, vector)
    tracker.found.norms[where] = Axis(tracker.names[id(weight)], 0)
    call.give(labels)


def _reader(name: str) -> Callable[[_Call], None] | None:
    tables: list[tuple[Iterable[str], Callable[[_Call], None]]] = [
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


def _name(func: Any) -> str:
    """Of a function of torch, without the underscores of its other forms: `add` for `add_`, `__radd__`."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = getattr(func.__self__, "__name__", name)
    return str(name).strip("_")


def _is_in_place(func: Any) -> bool:
    name = str(getattr(func, "__name__", ""))
    return (
        name.startswith("__i") or (name.endswith("_") and not name.startswith("__")) or name == "__setitem__"
    )


# --- labels as tensors, expanded along the dimensions where they do not vary


def _blank_labels(value: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.int64, device="cpu").expand(value.shape)


def _varies(labels: Tensor, dim: int) -> bool:
    """Whether labels differ along a dimension."""
    if labels.shape[dim] < 2 or labels.stride(dim) == 0:
        return False
    return not torch.equal(labels, labels.narrow(dim, 0, 1).expand(labels.shape))


def _compact(labels: Tensor) -> Tensor:
    """The same labels without memory for dimensions along which they do not vary."""
    for d in range(labels.dim()):
        if labels.shape[d] > 1 and labels.stride(d) != 0 and not _varies(labels, d):
            labels = labels.narrow(d, 0, 1).expand(labels.shape)
    return labels


def _few(labels: Tensor, keep: int | None = None) -> Tensor:
    """The labels, each dimension that is expanded cut to one entry, but for `keep`."""
    for d in range(labels.dim()):
        if labels.stride(d) == 0 and labels.shape[d] > 1 and (keep is None or d != keep % labels.dim()):
            labels = labels.narrow(d, 0, 1)
    return labels


def _together(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Two label tensors of one shape, cut where both are expanded."""
    for d in range(left.dim()):
        if left.shape[d] > 1 and left.stride(d) == 0 and right.stride(d) == 0:
            left, right = left.narrow(d, 0, 1), right.narrow(d, 0, 1)
    return left, right


def _both(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Where both have a label their labels, elsewhere 0 on both sides."""
    left, right = _together(left, right)
    met = (left > 0) & (right > 0)
    return torch.where(met, left, 0), torch.where(met, right, 0)


def _merge(left: Tensor, right: Tensor) -> Tensor:
    """Where the first has no label the second's; of the first's shape."""
    shape = left.shape
    left, right = _together(left, right)
    return torch.where(left > 0, left, right).expand(shape)


def _vector(labels: Tensor, dim: int) -> Tensor:
    """The labels along a dimension, which vary along no other one."""
    for d in range(labels.dim()):
        if d != dim % labels.dim():
            labels = labels.narrow(d, 0, 1)
    return labels.reshape(-1)
