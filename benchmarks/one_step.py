"""A training step of ONE against the plain network's, as a multiple of what multiply-adds say, on one core.

    python -m benchmarks.one_step

Forward, loss and backward of three branches, in three forms: a loop over the branches, which is ours; their
high layers as one pass by torch.func.vmap over stacked weights; and as one pass of grouped convolutions. All
give the same logits. The loop is kept, as the others save nothing that lasts: grouped, the wide stages of
ImageNet's ResNet-18 cost 1.3 times what they do apart; vmap does not run under autocast. The plain network
and the three forms take turns in one process; a ratio is the median over the turns, of CPU seconds, divided
by the ratio of multiply-adds. Exits with 1 if the loop's is above LIMIT. With a GPU the loop alone is
measured there too.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from benchmarks.figures import Figure, command
from common.metrics.macs import count_macs
from common.models.imagenet_resnet import ImageNetResNet
from common.models.resnet import CifarResNet, ResidualBlock
from common.models.resnext import CifarResNeXt
from common.models.split import SpatialMean, split
from common.training.tasks import Classification
from papers.one.costs import WholePass
from papers.one.one import ONE, one_loss

LIMIT, TURNS, CLASSES = 1.25, 7, 100


@dataclass(frozen=True)
class Case:
    """A network, its images, and how many of its stages are a branch's own."""

    name: str
    model: Callable[..., nn.Module]
    pixels: int
    batch: int
    unshared: int


CASES = [
    Case("ResNet-32", partial(CifarResNet, depth=32, block="basic", shortcut="B"), 32, 32, 1),
    Case(
        "ResNet-110 (bottlenecks)",
        partial(CifarResNet, depth=164, block="bottleneck", shortcut="B"),
        32,
        8,
        1,
    ),
    Case("ResNeXt-29 8x16d", partial(CifarResNeXt, depth=29, cardinality=8, group_width=16), 32, 4, 1),
    Case(
        "ResNet-18, 64 pixels",
        partial(ImageNetResNet, blocks=[2, 2, 2, 2], widths=[64, 128, 256, 512], block="basic"),
        64,
        8,
        2,
    ),
]


def stacked_pass(highs: Sequence[nn.Module], shared: Tensor) -> Tensor:
    """The branches' logits [b, branches, classes] by vmap over their stacked weights and statistics."""
    weights = [dict(high.named_parameters()) for high in highs]
    statistics_ = [dict(high.named_buffers()) for high in highs]
    stacked = {name: torch.stack([one[name] for one in weights]) for name in weights[0]}
    buffers = {name: torch.stack([one[name] for one in statistics_]) for name in statistics_[0]}

    def branch(own: dict[str, Tensor], seen: dict[str, Tensor]) -> Tensor:
        return functional_call(highs[0], (own, seen), (shared,))

    logits = vmap(branch, out_dims=1)(stacked, buffers)
    with torch.no_grad():
        for i, one in enumerate(statistics_):
            for name, buffer in one.items():
                buffer.copy_(buffers[name][i])
    return logits


def grouped_pass(highs: Sequence[nn.Module], shared: Tensor) -> Tensor:
    """The same by convolutions in groups, one for each branch, over weights put side by side."""
    return grouped(highs, shared.repeat(1, len(highs), 1, 1)).unflatten(1, (len(highs), -1))


def grouped(modules: Sequence[Any], inputs: Tensor) -> Tensor:
    """Modules of one kind, each on its own part of the channels."""
    first, count = modules[0], len(modules)

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(module, name) for module in modules])

    if isinstance(first, nn.Sequential):
        for layers in zip(*modules, strict=True):
            inputs = grouped(layers, inputs)
        return inputs
    if isinstance(first, nn.Conv2d):
        groups = first.groups * count
        return functional.conv2d(inputs, joined("weight"), None, first.stride, first.padding, 1, groups)
    if isinstance(first, nn.BatchNorm2d):
        mean, var = joined("running_mean"), joined("running_var")
        outputs = functional.batch_norm(inputs, mean, var, joined("weight"), joined("bias"), True)
        for module, own_mean, own_var in zip(modules, mean.chunk(count), var.chunk(count), strict=True):
            module.running_mean.copy_(own_mean)
            module.running_var.copy_(own_var)
        return outputs
    if isinstance(first, ResidualBlock):
        residual = grouped([module.residual for module in modules], inputs)
        return functional.relu_(residual + grouped([module.shortcut for module in modules], inputs))
    if isinstance(first, nn.Linear):
        parts = zip(modules, inputs.chunk(count, 1), strict=True)
        return torch.cat([module(part) for module, part in parts], dim=1)
    assert isinstance(first, nn.ReLU | nn.Identity | SpatialMean)
    return first(inputs)


Pass = Callable[[Sequence[nn.Module], Tensor], Tensor]


class Steps:
    """The works of a case: the plain network's step, and ONE's in each form."""

    def __init__(self, case: Case, device: str, batch: int) -> None:
        torch.manual_seed(0)
        shape = (3, case.pixels, case.pixels)
        make_model = partial(case.model, shape=shape, classes=CLASSES)
        self.one = ONE(
            optimizer=torch.optim.SGD,
            branches=3,
            unshared=case.unshared,
            temperature=3.0,
            kl_rampup=0.0,
            distill=True,
            share=True,
            gate=True,
            gate_source="mean",
        )
        self.one.task = Classification(CLASSES)
        data: Any = SimpleNamespace(shape=shape)
        self.student = self.one.attach(make_model(), make_model, data)
        self.macs = count_macs(WholePass(self.student, self.one), shape) / count_macs(self.student, shape)
        self.student.to(device)
        self.one.to(device)
        self.images = torch.randn(batch, *shape, device=device)
        self.labels = torch.arange(batch, device=device) % CLASSES

    def clear(self) -> None:
        self.student.zero_grad(set_to_none=True)
        self.one.zero_grad(set_to_none=True)

    def plain(self) -> None:
        self.clear()
        functional.cross_entropy(self.student(self.images), self.labels).backward()

    def loop(self) -> None:
        self.clear()
        self.one.loss(self.student, self.images, self.labels).backward()

    def logits(self, form: Pass) -> tuple[Tensor, Tensor]:
        low, high = split(self.student, self.one.unshared)
        shared = low(self.images)
        assert self.one.gate is not None
        return form([high, *self.one.highs], shared), self.one.gate(shared.mean(dim=(2, 3)))

    def by(self, form: Pass) -> None:
        self.clear()
        one_loss(*self.logits(form), self.labels, 3.0, 1.0).backward()

    def require_equal(self) -> None:
        with torch.no_grad():
            expected, _ = self.one.run(self.student, self.images)
            for form in (stacked_pass, grouped_pass):
                torch.testing.assert_close(self.logits(form)[0], expected, rtol=1e-3, atol=1e-3)


def measure(
    works: dict[str, Callable[[], None]], clock: Callable[[], float], turns: int
) -> dict[str, list[float]]:
    """Seconds of each work in every turn; each goes first equally often."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    names = list(works)
    for _ in range(turns):
        for name in names:
            start = clock()
            works[name]()
            seconds[name].append(clock() - start)
        names.append(names.pop(0))
    return seconds


def gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def figure(case: Case, device: str, tiny: bool) -> Figure:
    """Measure a case and print what came out; the figure is the loop's."""
    batch, turns = (2, 1) if tiny else (case.batch, TURNS)
    steps = Steps(case, device, batch)
    works = {"plain": steps.plain, "loop": steps.loop}
    if device == "cpu":
        steps.require_equal()
        works |= {"vmap": partial(steps.by, stacked_pass), "grouped": partial(steps.by, grouped_pass)}
    seconds = measure(works, time.process_time if device == "cpu" else gpu_clock, turns)
    plain = seconds.pop("plain")
    ratios = {
        name: statistics.median(own / other for own, other in zip(times, plain, strict=True)) / steps.macs
        for name, times in seconds.items()
    }
    shown = "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    print(
        f"{device:4} {case.name:25} batch {batch:3}: plain {1e3 * statistics.median(plain):7.1f} ms, "
        f"multiply-adds x {steps.macs:.2f}; time over that: {shown}",
        flush=True,
    )
    what = f"one: a step of three branches by what its multiply-adds say, {case.name}, {device}"
    return Figure(ratios["loop"], "x its time", what, "the plain network's step", at_most=LIMIT)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure every case on every device; the smallest alone if tiny."""
    torch.set_num_threads(1)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    cases = CASES[:1] if tiny else CASES
    return {f"{case.name} {device}": figure(case, device, tiny) for device in devices for case in cases}


if __name__ == "__main__":
    command(main)
