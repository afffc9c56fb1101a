"""Forward and backward pass of cheap networks beside the standard one: seconds, and seconds a multiply-add.

    python -m benchmarks.moonshine_blocks [device=cuda]

Grouped convolutions save multiply-adds, not as much time: the last column says how many times dearer a
multiply-add of each network is than one of S. Networks take turns in one process; times are medians, CPU
seconds on one core, or seconds on the GPU.
"""

import statistics
import time

import torch
from torch import nn
from torch.nn import functional

from benchmarks.figures import Figure, command
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from papers.moonshine.networks import MoonshineWideResNet

BLOCKS = [
    "S",
    "S-2x2",
    "G(2)",
    "G(8)",
    "G(N/16)",
    "G(N/4)",
    "G(N)",
    "B(2)",
    "BG(2,2)",
    "BG(2,M/4)",
    "BG(2,M)",
]
SHAPE = (3, 32, 32)
DEPTH, WIDTH = 16, 2
TURNS = 5


def network(block: str, device: str) -> nn.Module:
    """WRN-16-2 with a block, in training mode."""
    torch.manual_seed(0)
    return MoonshineWideResNet(shape=SHAPE, classes=10, depth=DEPTH, width=WIDTH, block=block).to(device)


def step_seconds(model: nn.Module, images: torch.Tensor) -> float:
    """Seconds of one forward and backward pass."""
    labels = torch.arange(len(images), device=images.device) % 10
    start = _now(images.device.type)
    functional.cross_entropy(model(images), labels).backward()
    return _now(images.device.type) - start


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def main(tiny: bool = False, device: str = "cpu") -> dict[str, Figure]:
    """Measure every block; the figures are of what a multiply-add costs."""
    torch.set_num_threads(1)
    batch = 1 if tiny else 512 if device == "cuda" else 8
    images = torch.randn(batch, *SHAPE, device=device)
    if device == "cuda":
        images = images.to(memory_format=torch.channels_last)
    models = {block: network(block, device) for block in BLOCKS}
    seconds: dict[str, list[float]] = {block: [] for block in BLOCKS}
    for _ in range(3 if tiny else TURNS + 2):
        for block, model in models.items():
            seconds[block].append(step_seconds(model, images))
    medians = {block: statistics.median(times[2:]) for block, times in seconds.items()}
    macs = {block: count_macs(model, SHAPE) for block, model in models.items()}
    print(f"WRN-{DEPTH}-{WIDTH}, forward and backward, {len(images)} images, {device}")
    print(f"{'block':10} {'params':>9} {'MACs':>12} {'ms':>8} {'time / S':>9} {'time a MAC / S':>15}")
    figures = {}
    for block in BLOCKS:
        ratio = medians[block] / medians["S"]
        print(
            f"{block:10} {count_parameters(models[block]):>9,} {macs[block]:>12,} "
            f"{1e3 * medians[block]:>8.1f} {ratio:>9.2f} {ratio * macs['S'] / macs[block]:>15.2f}"
        )
        figures[f"{block} {device}"] = Figure(
            ratio * macs["S"] / macs[block],
            "x its time",
            f"moonshine: a multiply-add of block {block}, WRN-{DEPTH}-{WIDTH}, {device}",
            "a multiply-add of block S",
        )
    return figures


if __name__ == "__main__":
    command(main)
