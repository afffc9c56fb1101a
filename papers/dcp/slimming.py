"""Network slimming: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV
2017.

A network is trained with  loss + l sum |gamma|  over the scales gamma of its batch normalisations (equation
1, l = 1e-4), and the channels of the smallest |gamma| of all layers together are removed: a global fraction.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.pruning.channels import ChannelGroup
from common.pruning.rates import removed_count, require_rate

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def scale_penalty(network: nn.Module) -> Tensor:
    """sum |gamma| over all batch normalisations of a network that have scales: [].

    Raises:
        UserError: a network without any.
    """
    found = [scales.abs().sum() for scales in map(_scales, network.modules()) if scales is not None]
    if not found:
        raise UserError(
            f"{type(network).__name__} has no batch normalisation with scales, which slimming needs"
        )
    return torch.stack(found).sum()


def norm_scales(network: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """|gamma| of each group's channels, by the group's name: [c]; of several normalisations their product.

    Raises:
        UserError: a group that no batch normalisation follows, by name.
    """
    modules = dict(network.named_modules())
    found = {}
    for group in groups:
        followers = [modules[name] for name in group.followers if name in modules]
        scales = [each.detach().abs() for each in map(_scales, followers) if each is not None]
        if not scales:
            raise UserError(
                f"layer {group.name}: no batch normalisation follows it, whose scales slimming needs"
            )
        found[group.name] = torch.stack(scales).prod(0)
    return found


def slim(scales: Mapping[str, Tensor], fraction: float) -> dict[str, list[int]]:
    """The channels of each group that stay, ascending: all but the floor(fraction x all) smallest |gamma|.

    Of equal ones the first group's, and there the lowest number, goes first.

    Args:
        scales: `norm_scales`.
        fraction: of the channels of all groups together, in [0, 1).

    Raises:
        UserError: a fraction out of range, scales that are not finite, or a layer that would lose all its
            channels, by name.
    """
    require_rate(fraction, "method.fraction")
    for name, each in scales.items():
        if not each.isfinite().all():
            raise UserError(f"layer {name}: the scales of its batch normalisation are not finite")
    every = torch.cat([each.double().cpu() for each in scales.values()])
    stays = torch.ones(len(every), dtype=torch.bool)
    stays[every.argsort(stable=True)[: removed_count(len(every), fraction)]] = False
    parts = stays.split([len(each) for each in scales.values()])
    kept = {name: part.nonzero().flatten().tolist() for name, part in zip(scales, parts, strict=True)}
    for name, channels in kept.items():
        if not channels:
            raise UserError(
                f"layer {name}: would lose all its {len(scales[name])} channels at fraction={fraction} "
                "(valid: a smaller fraction)"
            )
    return kept


def _scales(module: nn.Module) -> Tensor | None:
    """gamma of a batch normalisation that has one; None for any other module."""
    return module.weight if isinstance(module, NORMS) else None
