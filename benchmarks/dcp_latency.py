"""What half of the channels is worth in time: pre-activation ResNet-56, whole and pruned, in turn.

    python -m benchmarks.dcp_latency [device=cuda]

Half of the channels between the two convolutions of every block are sliced away (Zhuang et al., NeurIPS 2018,
table 1: multiply-adds 1.99 times as few). Seconds are medians of a forward pass of 64 images of 32x32 in
evaluation mode; networks take turns in one process. Exits with 1 if the pruned one is less than FASTER times
as fast.
"""

import copy
import statistics
import time

import torch
from torch import nn

from benchmarks.figures import Figure, command
from common.metrics.macs import count_macs
from common.models.preact_resnet import PreactResNet
from common.pruning.slicing import sliced
from papers.dcp.layer_problem import kept_channels
from papers.dcp.policy import prunable

FASTER = {"contiguous": 1.3, "channels_last": 1.45}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ETA, TURNS = 0.5, 30


def pruned(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """The network without the last half of the channels that DCP selects from: which ones costs the same."""
    groups = prunable(network, shape).values()
    return sliced(
        network, shape, {group.name: list(range(kept_channels(group.channels, ETA))) for group in groups}
    )


@torch.inference_mode()
def seconds(network: nn.Module, images: torch.Tensor) -> float:
    """Of one forward pass."""
    start = _now(images.device.type)
    network(images)
    return _now(images.device.type) - start


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main(tiny: bool = False, device: str = "cpu") -> dict[str, Figure]:
    """Measure both layouts of memory."""
    depth, side, batch, turns = (8, 8, 2, 2) if tiny else (56, 32, 64, TURNS)
    shape = (3, side, side)
    torch.manual_seed(0)
    whole = PreactResNet(shape=shape, classes=10, depth=depth).eval()
    smaller = pruned(whole, shape).eval()
    ratio = count_macs(whole, shape) / count_macs(smaller, shape)
    figures = {}
    for name, layout in FORMATS.items():
        networks = [copy.deepcopy(each).to(device, memory_format=layout) for each in (whole, smaller)]
        images = torch.randn(batch, *shape, device=device).contiguous(memory_format=layout)
        times: list[list[float]] = [[], []]
        for turn in range(turns + 2):
            for each, network in enumerate(networks):
                spent = seconds(network, images)
                # the first two are warming up
                if turn >= 2:
                    times[each].append(spent)
        before, after = map(statistics.median, times)
        print(
            f"{name}: whole {1e3 * before:.1f} ms, pruned {1e3 * after:.1f} ms, MACs {ratio:.2f}x", flush=True
        )
        figures[f"{name} {device}"] = Figure(
            before / after,
            "x as fast",
            f"dcp: ResNet-{depth} with half of the channels, {batch} images, {name}, {device}",
            "the whole network",
            at_least=FASTER[name],
        )
    return figures


if __name__ == "__main__":
    command(main)
