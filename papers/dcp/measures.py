"""What pruning saves and what it costs, in numbers."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from papers.dcp.complexity import Complexity, complexity


def saved(network: nn.Module, shape: tuple[int, ...], whole: Complexity) -> dict[str, Any]:
    """How large a pruned network is, and how many times smaller than the whole one.

    Args:
        network: the pruned one.
        shape: of one input.
        whole: of the unpruned one.

    Returns:
        parameters, macs; params_reduction and flops_reduction, each whole / pruned; kept_channels: of each
        group of channels that was pruned, in the order of execution; and the same as kept_1, kept_2, ..., for
        tables with a row a layer, after kept_0, the channels of the network's inputs.
    """
    now = complexity(network, shape)
    params_reduction, flops_reduction = whole.reduction(now)
    plan = getattr(network, "pruning", {"keep": {}})["keep"]
    kept = [len(channels) for channels in plan.values()]
    return {
        "parameters": now.parameters,
        "macs": now.macs,
        "params_reduction": params_reduction,
        "flops_reduction": flops_reduction,
        "kept_channels": kept,
        **{f"kept_{number}": count for number, count in enumerate([shape[0], *kept])},
    }


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
