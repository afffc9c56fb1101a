"""Seconds of one optimizer step on ResNet-50's parameters: AcceleGrad and torch's SGD with momentum, in turn.

Run: python -m benchmarks.accelegrad_step [device=cuda]. Prints medians of the times and of each
round's ratio, and exits with 1 if AcceleGrad takes more than 1.3 times as long as
`torch.optim.SGD(foreach=True)`.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.optim import Optimizer

from benchmarks.figures import Figure, command
from common.models.resnet import ResNet
from papers.accelegrad.accelegrad import AcceleGrad
from papers.accelegrad.baselines import ScalarAdaGrad

ROUNDS = 31
LIMIT = 1.3


def resnet50_parameters(device: str, width: int) -> list[torch.nn.Parameter]:
    """The 161 parameter tensors of ResNet-50 with 1000 classes, each with a gradient; its width is 64."""
    torch.manual_seed(0)
    model = ResNet(
        shape=(3, 32, 32), classes=1000, blocks=[3, 4, 6, 3], width=width, block="bottleneck", shortcut="B"
    ).to(device)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 0.01
    return parameters


def seconds(optimizer: Optimizer, device: str, steps: int) -> float:
    """Of one step, the mean of some in a row."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
    _wait(device)
    return (time.perf_counter() - start) / steps


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def measure(
    build: Callable[[list[torch.nn.Parameter]], Optimizer], device: str, width: int, rounds: int
) -> tuple[float, float, float]:
    """Medians of the seconds of SGD and of another, and of their ratios, round by round."""
    sgd = torch.optim.SGD(resnet50_parameters(device, width), lr=1e-3, momentum=0.9, foreach=True)
    other = build(resnet50_parameters(device, width))
    steps = 1 if device == "cpu" else 20
    pairs = [(seconds(sgd, device, steps), seconds(other, device, steps)) for _ in range(rounds + 5)][5:]
    theirs, ours = zip(*pairs, strict=True)
    return statistics.median(theirs), statistics.median(ours), statistics.median(b / a for a, b in pairs)


def main(tiny: bool = False, device: str = "cpu") -> dict[str, Figure]:
    """Measure each optimizer."""
    builders: dict[str, Callable[[list[torch.nn.Parameter]], Optimizer]] = {
        "AcceleGrad": AcceleGrad,
        "AcceleGrad, ball": partial(AcceleGrad, radius=1.0),
        "ScalarAdaGrad": ScalarAdaGrad,
    }
    width, rounds = (1, 1) if tiny else (64, ROUNDS)
    ratios = {}
    for name, build in builders.items():
        sgd, ours, ratios[name] = measure(build, device, width, rounds)
        print(f"{name:18} {1e3 * ours:7.2f} ms a step, SGD {1e3 * sgd:7.2f} ms: {ratios[name]:.2f}")
    what = f"AcceleGrad's step, ResNet-50's parameters, {device}"
    return {
        device: Figure(
            ratios["AcceleGrad"], "x its time", what, "`torch.optim.SGD(foreach=True)`", at_most=LIMIT
        )
    }


if __name__ == "__main__":
    command(main)
