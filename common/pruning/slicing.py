"""A network with some of its channels only: really smaller, or of the same size with the others at zero."""

import copy
import difflib
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from common.base.errors import UserError
from common.pruning.channels import ChannelGroup, Found, find_groups
from common.pruning.cutting import blank, cut
from common.pruning.propagation import Shape
from common.pruning.tracker import Refused

Keep = Mapping[str, Sequence[int]]


def sliced(network: nn.Module, shape: Shape, keep: Keep) -> nn.Module:
    """A copy of a network that has the kept channels only: its weights are smaller, and so is its work.

    In evaluation mode it gives what `masked` gives. Its plan stands in `pruning["keep"]`; the network is
    made again by `sliced(make_model(), shape, pruning["keep"])`, and then `load_state_dict`. Where the
    network has been sliced before, the plan counts the channels of the whole one.

    Args:
        network: left as it is; device, type of the numbers and training mode stay.
        shape: of one input, without the batch.
        keep: the channels of each group of `channel_groups` that stay, ascending; of a group that is not
            named all.

    Raises:
        UserError: no such group, a fixed one, channel numbers that are none, or that are not ascending; a
            layer would lose all its channels; groups of a layer would keep unequal numbers; an operation
            of the network that does not go with fewer channels; a network that cannot be copied.
    """
    found = find_groups(network, shape)
    removed = _removed(found, keep)
    smaller = _copy(network)
    try:
        cut(smaller, shape, found.channels, removed)
    except Refused as refused:
        raise UserError(
            f"keep: {type(network).__name__} cannot lose these channels: {refused} (valid: channels whose "
            "group is not fixed, of each of its parts equally many)"
        ) from refused
    smaller.pruning = {"keep": _composed(getattr(network, "pruning", None), keep)}  # type: ignore[assignment]
    return smaller


def masked(network: nn.Module, shape: Shape, keep: Keep) -> nn.Module:
    """A copy of a network whose removed channels are zero: what it gives in evaluation mode is `sliced`'s.

    All numbers of a removed channel are zero: those of the layers that give it, of what follows them, and
    those with which layers take it. Normalisations over channels leave it out of their statistics.

    Args:
        network, shape, keep: see `sliced`.

    Raises:
        UserError: see `sliced`.
    """
    found = find_groups(network, shape)
    removed = _removed(found, keep)
    same = _copy(network)
    blank(same, found.channels, removed)
    return same


def _copy(network: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        UserError: a layer keeps what cannot be copied, as `torch.nn.utils.weight_norm` makes it.
    """
    try:
        return copy.deepcopy(network)
    except (RuntimeError, TypeError) as error:
        for name, module in network.named_modules():
            for key, value in vars(module).items():
                if isinstance(value, Tensor) and not value.is_leaf:
                    raise UserError(
                        f"{type(network).__name__} cannot be copied: {name or 'it'} computes its {key} from "
                        "other parameters (valid: after torch.nn.utils.remove_weight_norm or "
                        "remove_spectral_norm, or those of torch.nn.utils.parametrizations)"
                    ) from error
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{type(network).__name__} cannot be copied ({reason}; valid: a network that copy.deepcopy takes)"
        ) from error


def _removed(found: Found, keep: Keep) -> set[int]:
    """The roots of the channels that a plan removes."""
    groups = {group.name: group for group in found.groups}
    removed: set[int] = set()
    for name, numbers in keep.items():
        if name not in groups:
            raise UserError(f"keep: no group of channels is called {name} ({_known(name, groups)})")
        staying = _checked(groups[name], numbers)
        removed |= {root for number, root in enumerate(found.roots[name].tolist()) if number not in staying}
    return removed


def _checked(group: ChannelGroup, numbers: Sequence[int]) -> set[int]:
    kept = [int(number) for number in numbers]
    every = f"0 to {group.channels - 1}"
    if not kept:
        raise UserError(f"keep: {group.name} would lose all its channels (valid: one or more of {every})")
    wrong = [number for number in kept if not 0 <= number < group.channels]
    if wrong:
        raise UserError(f"keep: {group.name} has no channel {wrong[0]} (valid: {every})")
    if any(after <= before for before, after in pairwise(kept)):
        raise UserError(f"keep: the channels of {group.name} are not ascending (valid: each once, in order)")
    if group.fixed is not None and len(kept) < group.channels:
        raise UserError(f"keep: {group.name} cannot lose channels: {group.fixed}")
    return set(kept)


def _known(name: str, groups: Mapping[str, ChannelGroup]) -> str:
    near = difflib.get_close_matches(name, groups, n=3)
    if near:
        return f"near: {', '.join(near)}"
    first = list(groups)[:5]
    return f"valid: {', '.join(first)}{', ...' if len(groups) > len(first) else ''}"


def _composed(before: dict[str, dict[str, list[int]]] | None, keep: Keep) -> dict[str, list[int]]:
    """The plan from the whole network to one that was sliced, and is again."""
    earlier = {} if before is None else before["keep"]
    now = {name: [int(number) for number in numbers] for name, numbers in keep.items()}
    later = {
        name: [earlier[name][k] for k in kept] if name in earlier else kept for name, kept in now.items()
    }
    return {**earlier, **later}
