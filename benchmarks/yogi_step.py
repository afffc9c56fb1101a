"""Seconds of one optimizer step on ResNet-50's parameters: Yogi beside its peers, in turn.

Run: python -m benchmarks.yogi_step. Prints medians and the two ratios that are bounded: to
pytorch_optimizer's Yogi (at most 1) and to torch.optim.Adam (at most 1.3), both with foreach.
"""

import statistics
import time

import pytorch_optimizer
import torch
from torch.optim import Optimizer

from benchmarks.figures import Figure, command
from common.models.resnet import ResNet
from papers.yogi.yogi import Yogi

ROUNDS = 15


def resnet50_parameters(width: int) -> list[torch.nn.Parameter]:
    """The 161 parameter tensors of ResNet-50 with 1000 classes, each with a gradient; its width is 64."""
    torch.manual_seed(0)
    model = ResNet(
        shape=(3, 32, 32), classes=1000, blocks=[3, 4, 6, 3], width=width, block="bottleneck", shortcut="B"
    )
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 0.01
    return parameters


def step_seconds(optimizers: dict[str, Optimizer], rounds: int) -> dict[str, float]:
    """The median time of a step of each, every round in turn; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(rounds + 1):
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure all three in turn."""
    width, rounds = (1, 1) if tiny else (64, ROUNDS)
    peers = {"pytorch_optimizer.Yogi": pytorch_optimizer.Yogi, "torch.optim.Adam": torch.optim.Adam}
    optimizers: dict[str, Optimizer] = {"yogi": Yogi(resnet50_parameters(width))}
    optimizers |= {name: peer(resnet50_parameters(width), foreach=True) for name, peer in peers.items()}
    seconds = step_seconds(optimizers, rounds)
    for name, value in seconds.items():
        print(f"{name:24} {1e3 * value:7.1f} ms a step")
    limits = {"pytorch_optimizer.Yogi": 1.0, "torch.optim.Adam": 1.3}
    return {
        name: Figure(
            seconds["yogi"] / seconds[name],
            "x its time",
            "Yogi's step, ResNet-50's parameters",
            f"`{name}(foreach=True)`",
            at_most=limit,
        )
        for name, limit in limits.items()
    }


if __name__ == "__main__":
    command(main)
