"""Which layers of a network have their input channels selected, by rule, whatever the network is.

Zhuang et al. leave what several layers share as it is. So the channels between two layers are selected where

- one layer alone gives them and one alone takes them, with normalisation, activation, pooling and depthwise
  convolutions between at most (`common.pruning.channels`): no residual sum, no concatenation that others
  read,
- the layer that takes them is a convolution without groups or a linear layer, takes nothing else (no
  concatenation with others' channels), and is not the network's last, unless that gives an embedding
  (SphereNet) and no logits.

So of a basic or pre-activation block the inputs of the second convolution are selected; of a bottleneck those
of the second and the third; of a VGG those of every convolution but the first; of MobileNet v1 those of every
pointwise convolution; of MobileNet v2 the hidden channels. What the paper's own runs keep beyond that are
patterns of names: the outputs of MobileNet v1's stem and last blocks, and the linear outputs of MobileNet
v2's blocks that have no shortcut.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from common.base.errors import UserError
from common.pruning.channels import ChannelGroup, channel_groups


def prunable(network: nn.Module, shape: tuple[int, ...], keep: Sequence[str] = ()) -> dict[str, ChannelGroup]:
    """The layers whose input channels are selected, with these channels, in the order of execution.

    Args:
        network: on any device, in any mode.
        shape: of one input, without the batch.
        keep: patterns (as "blocks.*.residual.6") of groups, by the name of the layer that gives the channels,
            which stay whole.

    Raises:
        UserError: a network that cannot be followed, a pattern that fits no group, or nothing to prune.
    """
    groups = channel_groups(network, shape)
    for pattern in keep:
        if not any(fnmatchcase(group.name, pattern) for group in groups):
            names = ", ".join(group.name for group in groups if group.fixed is None)
            raise UserError(f"method.keep: no layer fits {pattern} (valid: patterns of {names})")
    ends = {name for group in groups if not group.consumers for name in group.producers}
    last = ends if getattr(network, "task", "classification") != "own" else set()
    found = {
        group.consumers[0]: group
        for group in groups
        if _stands_alone(network, group)
        and group.consumers[0] not in last
        and not any(fnmatchcase(group.name, pattern) for pattern in keep)
    }
    if not found:
        raise UserError(
            f"{type(network).__name__}: no two layers have channels between them that are theirs alone; none "
            "can be selected (valid: a network with layers in a chain, or with residual blocks of two)"
        )
    return found


def _stands_alone(network: nn.Module, group: ChannelGroup) -> bool:
    """Whether one layer gives the channels and one takes them, each channel by itself."""
    if group.fixed is not None or group.channels < 2 or group.parts > 1:
        return False
    if len(group.producers) != 1 or len(group.consumers) != 1:
        return False
    consumer = network.get_submodule(group.consumers[0])
    if not isinstance(consumer, nn.Linear) and not (isinstance(consumer, nn.Conv2d) and consumer.groups == 1):
        return False
    return _takes_nothing_else(group)


def _takes_nothing_else(group: ChannelGroup) -> bool:
    """Whether the inputs of the layer that takes the channels are these, one after the other.

    Those of a concatenation are others' too, or the same twice; those of a map that is flattened positions
    first are not in runs of a channel each.
    """
    taken = [slot.numbers for slot in group.slots if slot.role == "consumer"]
    places = len(taken[0]) // group.channels
    return taken == [tuple(channel for channel in range(group.channels) for _ in range(places))]
