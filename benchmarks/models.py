"""Our models against plain PyTorch definitions of the same nets: forward and training step, on one core.

    python -m benchmarks.models

Every net has a peer that torch.fx makes from it: straight-line code over the same torch.nn layers, without
the containers between them. Three families have one that is written out by hand too, as one would for this
net alone. All have the same weights and must give the same logits, before and after the measured steps.
They take turns in one process, in changing order; a ratio is the median over the turns. Times are CPU
seconds, which other work on the machine stretches least. As long as a ratio is above the limit, more turns
are added to it, up to ROUNDS times as many; exits with 1 if one stays above.
"""

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import get_object
from torch import Tensor, fx, nn
from torch.nn import functional

from benchmarks.figures import Figure, command

CONF = Path(__file__).parents[1] / "conf" / "model"
LIMIT = 1.05
BATCH = 2
SECONDS, TURNS, ROUNDS = 0.5, 9, 4  # a round is half a CPU second for each net, or nine turns
CLASSES = 10


class PlainBasicBlock(nn.Module):
    """A basic block with the shortcut of option A."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.stride != 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.extra))
        return functional.relu(out + x, inplace=True)


class PlainResNet20(nn.Module):
    """ResNet-20 for CIFAR."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(PlainBasicBlock(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(
            PlainBasicBlock(16, 32, 2), *(PlainBasicBlock(32, 32, 1) for _ in range(2))
        )
        self.layer3 = nn.Sequential(
            PlainBasicBlock(32, 64, 2), *(PlainBasicBlock(64, 64, 1) for _ in range(2))
        )
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def plain_vgg16() -> nn.Module:
    """VGG-16 with batch normalisation for CIFAR."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if outputs == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, CLASSES))


class SpatialMean(nn.Module):
    """[b, c, h, w] to [b, c]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def plain_mobilenet_v1() -> nn.Module:
    """MobileNet v1 for CIFAR."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)]
    layers.append(nn.ReLU(inplace=True))
    inputs = 32
    for block, outputs in enumerate([64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024], 1):
        stride = 2 if block in (3, 7, 13) else 1
        layers += [nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)]
        layers += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*layers, SpatialMean(), nn.Linear(1024, CLASSES))


@dataclass(frozen=True)
class Case:
    """A model of conf/model, the pixels of a side of its images, keys to change, and a peer by hand."""

    name: str
    pixels: int
    keys: dict[str, Any]
    by_hand: Callable[[], nn.Module] | None


CASES = [
    Case("resnet20", 32, {}, PlainResNet20),
    Case("preact_resnet56", 32, {}, None),
    Case("wrn_16_1", 32, {}, None),
    Case("resnext29_8x64d", 32, {"group_width": 8}, None),
    Case("densenet_40_12", 32, {}, None),
    Case("vgg16", 32, {}, plain_vgg16),
    Case("mobilenet_v1", 32, {}, plain_mobilenet_v1),
    Case("mobilenet_v2", 32, {}, None),
    Case("resnet18_imagenet", 64, {}, None),
    Case("se_resnet18_imagenet", 64, {}, None),
]


def build_nets(case: Case) -> dict[str, nn.Module]:
    """Ours and its peers, with equal weights."""
    config = yaml.safe_load((CONF / f"{case.name}.yaml").read_text()) | case.keys
    shape = (3, case.pixels, case.pixels)
    ours = get_object(config.pop("_target_"))(shape=shape, classes=CLASSES, **config)
    nets = {"ours": ours, "traced": fx.symbolic_trace(deepcopy(ours))}
    if case.by_hand is not None:
        nets["by hand"] = case.by_hand()
        weights = zip(nets["by hand"].state_dict().values(), ours.state_dict().values(), strict=True)
        for plain, weight in weights:
            plain.copy_(weight)
    return nets


def require_equal(nets: dict[str, nn.Module], images: Tensor) -> None:
    """All nets must give the same logits, as in training."""
    outputs = {name: net.train()(images) for name, net in nets.items()}
    for name, output in outputs.items():
        torch.testing.assert_close(output, outputs["ours"], msg=f"ours and {name} do different work")


def forward_pass(net: nn.Module, images: Tensor) -> Callable[[], None]:
    """One forward pass as in evaluation."""

    def work() -> None:
        net.eval()
        with torch.inference_mode():
            net(images)

    return work


def training_step(net: nn.Module, images: Tensor) -> Callable[[], None]:
    """Forward, backward and a step of SGD."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, foreach=True)
    labels = torch.arange(len(images)) % CLASSES

    def work() -> None:
        net.train()
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return work


def take_turns(works: dict[str, Callable[[], None]], seconds: dict[str, list[float]], tiny: bool) -> None:
    """Add one round of turns, the CPU seconds of each work; each goes first equally often."""
    least, turns = (0.0, 1) if tiny else (SECONDS, TURNS)
    names = list(works)
    began, enough = time.process_time(), len(seconds[names[0]]) + turns
    while time.process_time() - began < least * len(works) or len(seconds[names[0]]) < enough:
        for name in names:
            start = time.process_time()
            works[name]()
            seconds[name].append(time.process_time() - start)
        names.append(names.pop(0))


def measure(works: dict[str, Callable[[], None]], tiny: bool) -> tuple[list[float], dict[str, float]]:
    """Our seconds in every turn, and the ratio of ours to each peer's."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 if tiny else ROUNDS):
        take_turns(works, seconds, tiny)
        ratios = {name: ratio(seconds["ours"], times) for name, times in seconds.items() if name != "ours"}
        if max(ratios.values()) <= LIMIT:
            break
    return seconds["ours"], ratios


def ratio(ours: list[float], others: list[float]) -> float:
    """The median over the turns."""
    return statistics.median(one / other for one, other in zip(ours, others, strict=True))


def ratios_of(case: Case, tiny: bool) -> dict[str, dict[str, float]]:
    """The ratio of ours to each peer, of the forward pass and of the training step."""
    torch.manual_seed(0)
    nets = build_nets(case)
    images = torch.randn(1 if tiny else BATCH, 3, case.pixels, case.pixels)
    require_equal(nets, images)
    found = {}
    for what, prepare in (("forward", forward_pass), ("step", training_step)):
        ours, ratios = measure({name: prepare(net, images) for name, net in nets.items()}, tiny)
        found[what] = ratios
        shown = "  ".join(f"{name} {value:.3f}" for name, value in ratios.items())
        milliseconds = 1e3 * statistics.median(ours)
        print(
            f"{case.name:20} {what:8} {milliseconds:7.2f} ms, {len(ours):3} turns; ours / {shown}", flush=True
        )
    require_equal(nets, images)
    return found


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure every case; the figures are the extremes over all of them."""
    torch.set_num_threads(1)
    found = [ratios_of(case, tiny) for case in CASES]
    every = [value for case in found for ratios in case.values() for value in ratios.values()]
    what = f"models, {len(CASES)} of them, forward and training step, batch {BATCH}"
    peer = "the same layers as straight-line PyTorch code"
    return {
        "least": Figure(min(every), "x its time", f"{what}: the least", peer),
        "largest": Figure(max(every), "x its time", f"{what}: the largest", peer, at_most=LIMIT),
    }


if __name__ == "__main__":
    command(main)
