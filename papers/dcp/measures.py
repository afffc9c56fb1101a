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
        group of channels that was pruned, in the order of execution.
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
    }


def error_gap(found: Mapping[str, Any], before: Any) -> dict[str, float]:
    """`err_gap`, test_error minus that before pruning, in points; nothing where one is not known."""
    after = found.get("test_error")
    if not isinstance(after, int | float) or not isinstance(before, int | float):
        return {}
    return {"err_gap": after - before}
