"""What pruning saves and what it costs, in numbers."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from papers.dcp.complexity import Complexity, complexity

# convolutions of which the result has a number each
LISTED = 16


def saved(network: nn.Module, shape: tuple[int, ...], whole: Complexity) -> dict[str, Any]:
    """How large a pruned network is, and how many times smaller than the whole one.

    Args:
        network: the pruned one.
        shape: of one input.
        whole: of the unpruned one.

    Returns:
        parameters, macs; params_reduction and flops_reduction, each whole / pruned; kept_channels: of each
        group of channels that was pruned, in the order of execution; kept_0, kept_1, ...: input channels of
        each convolution, of networks with up to `LISTED` of them (table S6).
    """
    now = complexity(network, shape)
    params_reduction, flops_reduction = whole.reduction(now)
    plan = getattr(network, "pruning", {"keep": {}})["keep"]
    return {
        "parameters": now.parameters,
        "macs": now.macs,
        "params_reduction": params_reduction,
        "flops_reduction": flops_reduction,
        "kept_channels": [len(kept) for kept in plan.values()],
        **_inputs(network),
    }


def _inputs(network: nn.Module) -> dict[str, int]:
    layers = [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    if len(layers) > LISTED:
        return {}
    return {f"kept_{number}": layer.in_channels for number, layer in enumerate(layers)}


def error_gaps(found: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    """`err_gap`, test_error minus that before pruning, in points, and `top5_err_gap` likewise.

    Args:
        found: metrics of the pruned network.
        before: of the unpruned one, by the same names; what it lacks has no gap.
    """
    names = {"test_error": "err_gap", "test_top5_error": "top5_err_gap"}
    return {
        gap: found[name] - before[name]
        for name, gap in names.items()
        if all(isinstance(metrics.get(name), int | float) for metrics in (found, before))
    }
