"""Seconds of one optimizer step on ResNet-50's parameters: Yogi beside its peers, in turn.

Run: python -m benchmarks.yogi_step. Prints medians and the two ratios that are bounded: to
pytorch_optimizer's Yogi (at most 1) and to torch.optim.Adam (at most 1.3), both with foreach.
"""

import statistics
import time

import pytorch_optimizer
import torch
from torch.optim import Optimizer

from common.models.resnet import ResNet
from papers.yogi.yogi import Yogi

ROUNDS = 15


def resnet50_parameters() -> list[torch.nn.Parameter]:
    """The 161 parameter tensors of ResNet-50 with 1000 classes, each with a gradient."""
    torch.manual_seed(0)
    model = ResNet(
        shape=(3, 32, 32), classes=1000, blocks=[3, 4, 6, 3], width=64, block="bottleneck", shortcut="B"
    )
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 0.01
    return parameters


def step_seconds(optimizers: dict[str, Optimizer]) -> dict[str, float]:
    """The median time of a step of each, every round in turn; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(ROUNDS + 1):
        for name, optimizer in optimizers.items():
            start = time.perf_counter()
            optimizer.step()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def main() -> None:
    """Measure and print."""
    seconds = step_seconds(
        {
            "yogi": Yogi(resnet50_parameters()),
            "pytorch_optimizer.Yogi": pytorch_optimizer.Yogi(resnet50_parameters(), foreach=True),
            "torch.optim.Adam": torch.optim.Adam(resnet50_parameters(), foreach=True),
        }
    )
    for name, value in seconds.items():
        print(f"{name:24} {1e3 * value:7.1f} ms a step")
    print(f"yogi / pytorch_optimizer.Yogi: {seconds['yogi'] / seconds['pytorch_optimizer.Yogi']:.2f} (<= 1)")
    print(f"yogi / torch.optim.Adam:       {seconds['yogi'] / seconds['torch.optim.Adam']:.2f} (<= 1.3)")


if __name__ == "__main__":
    main()
