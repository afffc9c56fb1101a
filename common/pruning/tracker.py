"""What a blank pass through a network keeps: labels, ties, and what cannot be removed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.pruning.comparison import Move, loose_dims, makes_alike, moves_alike, plain, spread, without_gone
from common.pruning.labels import blank_labels, compact, few, together
from common.pruning.names import ELEMENTWISE, MOVING, REPEATING, is_in_place, name_of

Role = Literal["producer", "follower", "consumer"]


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


@dataclass(frozen=True)
class Given:
    """What an operation gave.

    Attributes:
        labels: of its elements; None where it carries none.
        shape: of the tensor.
        loose: dimensions along which its elements are alike, so that they may be any number.
    """

    labels: Tensor | None
    shape: tuple[int, ...]
    loose: frozenset[int]


@dataclass
class Step:
    """One operation of a pass.

    Attributes:
        layer: in which it is called.
        name: of the operation.
        numbers: what it takes beside tensors, see `comparison.plain`.
        wide: of a sum or product, for each input the dimensions along which it is repeated.
        read: sizes of inputs along the dimensions in which their elements are alike, where it reads them.
        taken: the labels that it takes.
        apart: of a sum or product, the inputs that are used with every channel of another.
        move: where it only moved elements.
        given: what it gave.
    """

    layer: str
    name: str
    numbers: list[str] = field(default_factory=list)
    wide: list[tuple[int, ...]] = field(default_factory=list)
    read: list[tuple[int, ...]] = field(default_factory=list)
    taken: list[Tensor] = field(default_factory=list)
    apart: tuple[int, ...] = ()
    move: Move | None = None
    given: list[Given] = field(default_factory=list)


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
        norm_groups: of the weight of each normalisation of groups their number.
        features: labels of the channels of layers that normalise each by itself.
        edges: pairs of labels that are tied, [2, n] each.
        fixed: labels that cannot be removed, and why.
        done: the operations in the order of execution.
    """

    inputs: list[Tensor] = field(default_factory=list)
    long: dict[str, tuple[int, ...]] = field(default_factory=dict)
    modes: bool = False
    labels: dict[Axis, Tensor] = field(default_factory=dict)
    roles: dict[tuple[Axis, Role], None] = field(default_factory=dict)
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)
    norms: dict[str, Axis] = field(default_factory=dict)
    norm_groups: dict[str, int] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    edges: list[np.ndarray] = field(default_factory=list)
    fixed: list[tuple[np.ndarray, str]] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Expected:
    """What a pass through a network whose channels were removed is held against.

    Attributes:
        inputs: roots of the labels of the network's inputs.
        whole: of the whole network.
        labels: of each axis, those of the channels that are left, each the root of its channel.
        fixed: roots that cannot be removed.
        roots: of every label of the whole network.
        gone: of each root whether it is removed.
    """

    whole: Passed
    inputs: Sequence[Tensor]
    labels: Mapping[Axis, Tensor]
    fixed: frozenset[int]
    roots: Tensor
    gone: Tensor

    def is_gone(self, labels: Tensor) -> Tensor:
        """Of labels of the whole network, which are of removed channels."""
        return self.gone[self.roots[labels]]


class Unseen(TorchDispatchMode):
    """Fixes the channels that an operation takes which went past the functions of torch."""

    def __init__(self, tracker: "Tracker") -> None:
        super().__init__()
        self.tracker = tracker

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.tracker.reading:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    self.tracker.refuse(leaf, func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Tracker(TorchFunctionMode):
    """Carries labels through every function of torch that is called within it."""

    def __init__(
        self, model: nn.Module, reader_of: "Callable[[str], Reader | None]", expected: Expected | None
    ) -> None:
        super().__init__()
        self.expected = expected
        self.reader_of = reader_of
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
        return bool(few(labels).max() <= sum(map(len, known)))

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
        tensor._channels = compact(labels)  # type: ignore[attr-defined]

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
        labels = few(labels)
        if self.expected is None:
            kept = labels[labels > 0].numpy()
            if len(kept):
                self.found.fixed.append((kept, reason))
        elif any(int(label) not in self.expected.fixed for label in labels[labels > 0].unique()):
            where, _, what = reason.rpartition(": ")
            raise Refused(where or self.running[-1], what)

    def refuse(self, value: Any, name: str) -> None:
        """Fix what a value carries, since an operation that takes it is not understood.

        A layer may say so itself, in `keeps_channels`: why its channels have to stay.
        """
        module = self.modules.get(self.running[-1])
        what = getattr(module, "keeps_channels", None) or f"{name} is not understood"
        reason = f"{self.running[-1]}: {what}"
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
        left, right = together(left, right)
        both = (left > 0) & (right > 0)
        if self.expected is None:
            pairs = torch.stack([left[both], right[both]])
            if pairs.shape[1]:
                self.found.edges.append(pairs.numpy())
        elif not torch.equal(left[both], right[both]):
            raise Refused(self.running[-1], f"{what} takes channels that do not belong together")
        alone = torch.where(both, 0, torch.maximum(left, right))
        self.fix(alone, f"{self.running[-1]}: {what} joins it with what cannot be removed")

    def begin(self, step: Step) -> None:
        """Remember an operation before it is read, or hold it against the whole network's."""
        if self.expected is not None:
            done = self.expected.whole.done
            known = done[self.position] if self.position < len(done) else None
            if known is None or (known.layer, known.name) != (step.layer, step.name):
                raise Refused(step.layer, f"{step.name} depends on the number of channels")
            numbers = step.name in MOVING or known.numbers == step.numbers
            if not numbers or known.read != step.read or known.wide != step.wide:
                raise Refused(step.layer, f"{step.name} depends on the number of channels")
            step.apart = known.apart
        self.found.done.append(step)

    def end(self, step: Step, outputs: Sequence[Tensor]) -> None:
        """Remember what an operation gave, or hold it against the whole network's."""
        for value in outputs:
            step.given.append(Given(getattr(value, "_channels", None), tuple(value.shape), loose_dims(value)))
        if self.expected is not None:
            self._compare(step, self.expected.whole.done[self.position], self.expected)
        self.position += 1

    def _compare(self, step: Step, known: Step, expected: Expected) -> None:
        """Hold what an operation gave against what the whole network's gave of the channels that stay."""
        sizes = Refused(step.layer, f"{step.name} depends on the number of channels")
        if len(step.given) != len(known.given) or (step.move is None) != (known.move is None):
            raise sizes
        for now, before in zip(step.given, known.given, strict=True):
            if before.labels is None or now.labels is None:
                if (before.labels is None) != (now.labels is None) or not _same_sizes(before, now):
                    raise sizes
            elif not without_gone(before.labels, now.labels, expected.roots, expected.gone, before.loose):
                raise Refused(step.layer, f"{step.name} takes other numbers once channels are removed")
        if known.move is not None and step.move is not None:
            loose = [before.loose for before in known.given]
            gone = any(expected.is_gone(few(labels)).any() for labels in known.taken)
            if (gone or known.numbers != step.numbers) and not moves_alike(
                known.move, step.move, lambda labels: ~expected.is_gone(labels), loose
            ):
                raise Refused(step.layer, f"{step.name} takes other numbers once channels are removed")
        elif (
            step.name in MOVING - REPEATING
            and known.numbers != step.numbers
            and any(len(before.loose) < len(before.shape) for before in known.given)
        ):
            raise sizes

    def finish(self, outputs: Any) -> None:
        """Channels of the outputs stay."""
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                step = Step(self.network, "output", read=[tuple(output.shape)])
                step.taken = [labels] if (labels := getattr(output, "_channels", None)) is not None else []
                self.begin(step)
                self.position += 1
                if (labels := self.labels(output)) is not None:
                    self.fix(labels, "it belongs to the network's output")

    # --- operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        self.last = (self.running[-1], name)
        self.reading, outer = True, self.reading
        try:
            if name == "embedding" and args[0].is_floating_point():
                args = (args[0].long(), *args[1:])
            # on the meta device its kernel takes longer than all else, for an output like its input
            result = torch.empty_like(args[0]) if name == "batch_norm" else func(*args, **kwargs)
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            if outputs or name == "setitem":
                call = Call(self, func, name, args, kwargs, inputs, result, outputs, is_in_place(func))
                # work on labels is nobody's to see
                with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
                    self._follow(call)
        finally:
            self.reading = outer
        return result

    def _carries(self, value: Tensor) -> bool:
        return hasattr(value, "_channels") or id(value) in self.names

    def _follow(self, call: "Call") -> None:
        """Carry the labels through an operation, and remember it."""
        call.step = self._step(call)
        self.begin(call.step)
        if any(self._carries(value) for value in call.inputs):
            self._read(call)
        for output, dims in zip(call.outputs, spread(call), strict=True):
            output._loose = dims  # type: ignore[attr-defined]
        changed = list(call.outputs)
        if call.in_place:
            target = call.argument(0, "input")
            base = target if call.name == "setitem" else target._base
            if base is not None:
                # a part of it is not like the rest any more
                base._loose = frozenset()
                changed.append(base)
        self.end(call.step, changed)

    def _step(self, call: "Call") -> Step:
        step = Step(self.running[-1], call.name, numbers=plain(call))
        carried = [getattr(value, "_channels", None) for value in call.inputs]
        step.taken = [labels for labels in carried if labels is not None]
        if call.name in ELEMENTWISE and call.outputs:
            step.wide = self._repeated(call)
        elif call.name not in MOVING:
            step.read = [
                tuple(value.shape[d] for d in sorted(loose_dims(value)))
                for value in call.inputs
                if loose_dims(value)
            ]
        return step

    def _repeated(self, call: "Call") -> list[tuple[int, ...]]:
        """Along which dimensions the inputs are repeated, in the words of the whole network."""
        wide = broadcast(call)
        if self.expected is None or self.position >= len(self.expected.whole.done):
            return wide
        sizes = call.outputs[0].shape
        known = self.expected.whole.done[self.position].wide
        if len(known) != len(wide):
            return wide
        # where one channel is left there is nothing to repeat any more
        return [
            before if set(now) == {d for d in before if d < len(sizes) and sizes[d] > 1} else now
            for before, now in zip(known, wide, strict=True)
        ]

    def _read(self, call: "Call") -> None:
        reader = self.reader_of(call.name)
        if makes_alike(call) and not call.in_place:
            return
        if reader is None or "out" in call.kwargs or (call.in_place and call.name not in ELEMENTWISE):
            call.unknown()
            return
        try:
            reader(call)
        except (RuntimeError, ValueError, TypeError, IndexError):
            # arguments of a kind that its reader does not know
            call.unknown()


def _same_sizes(before: Given, now: Given) -> bool:
    """Whether two shapes are the same but for dimensions along which elements are alike."""
    if len(before.shape) != len(now.shape):
        return False
    return all(
        d in before.loose or sizes[0] == sizes[1]
        for d, sizes in enumerate(zip(before.shape, now.shape, strict=True))
    )


@dataclass
class Call:
    """One call of a function of torch, with what it gave."""

    tracker: Tracker
    func: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    result: Any
    outputs: list[Tensor]
    in_place: bool
    step: Step = field(default_factory=lambda: Step("", ""))

    @property
    def module(self) -> nn.Module | None:
        return self.tracker.modules.get(self.tracker.running[-1])

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
        if self.tracker.matrix(value):
            # channels along one axis, and others along the next
            self.tracker.refuse(value, self.name)
        labels = self.tracker.labels(value)
        return blank_labels(value) if labels is None else labels.expand(value.shape)


def broadcast(call: Call) -> list[tuple[int, ...]]:
    """The dimensions of the output along which each input is repeated."""
    output = call.outputs[0]
    shapes = [[1] * (output.dim() - value.dim()) + list(value.shape) for value in call.inputs]
    return [tuple(d for d in range(output.dim()) if s[d] == 1 < output.shape[d]) for s in shapes]


# reads one call: gives labels to its outputs, ties those of its inputs
Reader = Callable[[Call], None]
