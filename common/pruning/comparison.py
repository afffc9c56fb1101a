"""Whether what a pass computes on fewer channels is what the whole network computes, on those that stay.

Every tensor of the smaller network's pass has to be the whole network's without the elements of the removed
channels. By induction over the operations that holds if each one

- gives tensors whose labels are the whole network's without those that are gone, and whose sizes along all
  other dimensions are the same;
- takes the same numbers beside its tensors (`plain`): a kernel, a pad, a factor that is computed from the
  number of channels is another one once channels are removed;
- where it only moves elements, and may be told by sizes how to, moves the same ones to the same places
  (`Move`).

A tensor whose elements are alike along a dimension, such as `torch.ones(C)` or one that is expanded, may have
any size along it (`_loose`) until an operation reads how many they are.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from common.pruning.labels import few
from common.pruning.names import (
    ALIKE,
    CONVOLUTIONS,
    ELEMENTWISE,
    JOINED,
    MOVING,
    REPEATING,
    SIZED,
    TRANSPOSED,
)

# arguments that follow from the shapes of weights: position and name
PLAIN = (int, float, complex, str, slice, torch.Size, type(None))
GROUPS, NORMALISED = (6, "groups"), (1, "normalized_shape")


class Called(Protocol):
    """What is asked of a call of a function of torch.

    Attributes:
        name: of the function, as `name_of` gives it.
        args, kwargs: what it was called with.
        inputs, outputs: the tensors that it took and gave.
        in_place: whether it changed its first one.
        module: the layer within which it was called.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    in_place: bool

    @property
    def module(self) -> nn.Module | None: ...

    def argument(self, position: int, *names: str, default: Any = None) -> Any: ...


@dataclass(frozen=True)
class Move:
    """An operation that only moves elements, which can be done to other numbers than the network's.

    Attributes:
        run: the operation.
        args, kwargs: what it was called with, labels in place of tensors.
    """

    run: Callable[..., Any]
    args: Any
    kwargs: Any

    @property
    def taken(self) -> list[Tensor]:
        """The labels of all elements of each tensor that it takes."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def of(self, values: Iterable[Tensor]) -> list[Tensor]:
        """What the operation gives of other tensors of the same shapes, in the order of `taken`."""
        left = iter(values)
        args, kwargs = tree_map_only(Tensor, lambda _: next(left), (self.args, self.kwargs))
        return [leaf for leaf in tree_leaves(self.run(*args, **kwargs)) if isinstance(leaf, Tensor)]


def moves_alike(
    whole: Move, small: Move, stays: Callable[[Tensor], Tensor], loose: Sequence[Collection[int]]
) -> bool:
    """Whether two moves put the same elements, of those that stay, in the same order.

    Args:
        whole: of the whole network.
        small: of the one with fewer channels.
        stays: of labels of the whole network, which of them are not removed.
        loose: of each tensor that they give the dimensions along which its elements are alike.
    """
    numbers, rest, count = [], [], 0
    if len(whole.taken) != len(small.taken):
        return False
    for before, now in zip(whole.taken, small.taken, strict=True):
        own = torch.arange(count, count + before.numel(), device="cpu").view(before.shape)
        left = own[stays(before).expand(before.shape)]
        if left.numel() != now.numel():
            return False
        numbers.append(own)
        rest.append(left.view(now.shape))
        count += before.numel()
    given, labels = whole.of(numbers), whole.of(whole.taken)
    for before, of, now, dims in zip(given, labels, small.of(rest), loose, strict=True):
        for d in dims:
            before, of, now = before.narrow(d, 0, 1), of.narrow(d, 0, 1), now.narrow(d, 0, 1)
        left = before[stays(of).expand(before.shape)]
        if left.numel() != now.numel() or not torch.equal(left, now.flatten()):
            return False
    return True


def without_gone(whole: Tensor, small: Tensor, roots: Tensor, gone: Tensor, loose: Collection[int]) -> bool:
    """Whether labels, which are roots, are the whole network's without the removed ones.

    Args:
        whole: labels of a tensor of the whole network, as `compact` gives them.
        small: of the same tensor once channels are removed.
        roots: of every label of the whole network.
        gone: of each root whether it is removed.
        loose: dimensions that may have any size, since labels do not vary along them.
    """
    if whole.dim() != small.dim():
        return False
    for d in range(whole.dim()):
        if whole.shape[d] > 1 and whole.stride(d) == 0:
            if whole.shape[d] != small.shape[d] and d not in loose:
                return False
            small = small.narrow(d, 0, 1)
    expected = roots[few(whole)]
    expected = expected[~gone[expected]]
    return expected.numel() == small.numel() and torch.equal(expected, small.flatten())


def plain(call: Called) -> list[Any]:
    """What an operation takes beside tensors, without what follows from the shapes of its tensors."""
    args, kwargs = list(call.args), dict(call.kwargs)
    if call.name in SIZED:
        return []
    if call.name in ("full", "new_full"):
        args = args[1:] if call.name == "full" else args[2:]
        kwargs.pop("size", None)
    elif call.name in CONVOLUTIONS or call.name in TRANSPOSED:
        # they are as many as the inputs of the weight say
        args, kwargs = args[: GROUPS[0]] + args[GROUPS[0] + 1 :], _without(kwargs, GROUPS[1])
    elif call.name in ("layer_norm", "rms_norm"):
        args, kwargs = args[: NORMALISED[0]] + args[NORMALISED[0] + 1 :], _without(kwargs, NORMALISED[1])
    elif call.name == "group_norm" and call.argument(1, "num_groups") == getattr(
        call.module, "num_groups", None
    ):
        args, kwargs = args[:1] + args[2:], _without(kwargs, "num_groups")
    leaves = tree_leaves((args, list(kwargs.values())))
    # by their words, since NaN is not itself
    return [repr(leaf) for leaf in leaves if isinstance(leaf, PLAIN)]


def _without(kwargs: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key != name}


def loose_dims(value: Tensor) -> frozenset[int]:
    """The dimensions along which the elements of a tensor are known to be alike."""
    return getattr(value, "_loose", frozenset())


def makes_alike(call: Called) -> bool:
    """Whether an operation makes tensors whose elements are alike, or drawn alike."""
    drawn = call.name in ("bernoulli", "normal") and not call.in_place
    return call.name in ALIKE and not (drawn and any(loose_dims(v) < _long(v) for v in call.inputs))


def spread(call: Called) -> list[frozenset[int]]:
    """Along which dimensions the elements of each output are alike."""
    if makes_alike(call):
        return [frozenset(range(output.dim())) for output in call.outputs]
    if call.name in ELEMENTWISE and call.inputs:
        return [_met(output, call.inputs) for output in call.outputs]
    if call.name in MOVING - JOINED and call.inputs:
        if all(loose_dims(value) >= _long(value) for value in call.inputs):
            return [frozenset(range(output.dim())) for output in call.outputs]
        if call.name in REPEATING:
            return [_met(output, call.inputs[:1]) for output in call.outputs]
    return [frozenset() for _ in call.outputs]


def _long(value: Tensor) -> frozenset[int]:
    return frozenset(d for d, size in enumerate(value.shape) if size > 1)


def _met(output: Tensor, inputs: Sequence[Tensor]) -> frozenset[int]:
    """The dimensions of what is broadcast from inputs along which all of them are alike, or one number."""
    found = set(range(output.dim()))
    for value in inputs:
        lead = output.dim() - value.dim()
        own = loose_dims(value)
        found -= {d + lead for d in range(value.dim()) if value.shape[d] > 1 and d not in own}
    return frozenset(d for d in found if output.shape[d] > 1)
