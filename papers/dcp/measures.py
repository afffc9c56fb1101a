"""What pruning saves and what it costs, in numbers."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters


def size_of(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """`parameters`, and `macs`: multiply-adds of an example, with additions of biases as the paper counts."""
    return {
        "parameters": count_parameters(network),
        "macs": count_macs(network, shape, include=("bias",)),
    }


def saved(network: nn.Module, shape: tuple[int, ...], whole: Mapping[str, int]) -> dict[str, Any]:
    """How large a pruned network is, and how many times smaller than the whole one.

    Args:
        network: the pruned one.
        shape: of one input.
        whole: `size_of` the unpruned one.

    Returns:
        parameters, macs; params_reduction and flops_reduction, each whole / pruned; kept_channels: of each
        group of channels that was pruned, in the order of execution.
    """
    now = size_of(network, shape)
    plan = getattr(network, "pruning", {"keep": {}})["keep"]
    return {
        **now,
        "params_reduction": whole["parameters"] / now["parameters"],
        "flops_reduction": whole["macs"] / now["macs"],
        "kept_channels": [len(kept) for kept in plan.values()],
    }


def error_gap(found: Mapping[str, Any], before: Any) -> dict[str, float]:
    """`err_gap`, test_error minus that before pruning, in points; nothing where one is not known."""
    after = found.get("test_error")
    if not isinstance(after, int | float) or not isinstance(before, int | float):
        return {}
    return {"err_gap": after - before}
