"""Seconds of a student's step with factor transfer beside those of bare PyTorch, in turn.

Run: python -m benchmarks.factor_transfer_step [batch=128]. ResNet-56 teaches ResNet-20, on random images of
CIFAR's size, on the GPU where there is one. Bare PyTorch makes the student's step by cross-entropy and one
forward pass of the teacher; the step of factor transfer (encoder, translator and their loss included) is to
take at most 1.1 times as long. On the CPU it is processor time, which other programs do not change.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.figures import Figure, command, seconds
from common.base.stages import Stage
from common.data.images.digits import Digits
from common.models.resnet import CifarResNet
from common.training.tasks import Classification
from papers.factor_transfer.factor_transfer import FactorTransfer, ParaphraserModel

ROUNDS = 15
SHAPE = (3, 32, 32)


class Images(Digits):
    """The shape of CIFAR-10's images, and no image."""

    SHAPE = SHAPE


def network(depth: int) -> CifarResNet:
    """A ResNet for CIFAR-10 with the shortcuts of the authors' code."""
    return CifarResNet(shape=SHAPE, classes=10, depth=depth, block="basic", shortcut="B")


def factor_transfer(teacher: nn.Module, student: nn.Module) -> FactorTransfer:
    """The method with the authors' settings, attached to a student."""
    stage = partial(Stage, words="", key="", metrics={})
    paraphraser = ParaphraserModel(
        shape=SHAPE,
        classes=10,
        teacher=stage(model=teacher),
        rate=0.5,
        reconstruction="l1",
        feature=None,
        batch_norm=False,
    )
    method = FactorTransfer(
        optimizer=torch.optim.SGD,
        teacher=stage(model=teacher),
        paraphraser=stage(model=paraphraser),
        rate=0.5,
        feature=None,
        translator=True,
        batch_norm=False,
        p=1,
        reduction="mean",
        beta=500.0,
        beta_decay="none",
        reference_size=None,
        ce_weight=1.0,
        kd_weight=0.0,
        temperature=4.0,
        kd_reduction="sample",
    )
    method.task = Classification(10)
    data = Images(
        kind="image_classification",
        data_dir=".",
        seed=0,
        source="synthetic",
        limit=None,
        validation=0.0,
        normalise="standard",
        verify=True,
        batch_size=128,
        positive=None,
        augment="none",
    )
    method.attach(student, lambda: student, data)
    return method


def step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """Gradients of a fresh loss, and the optimizer's step."""
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    optimizer.step()


def main(tiny: bool = False, batch: int = 128) -> dict[str, Figure]:
    """Measure both steps in turn."""
    batch, rounds = (2, 1) if tiny else (batch, ROUNDS)
    cuda = torch.cuda.is_available()
    torch.backends.cudnn.benchmark = cuda
    torch.manual_seed(0)
    teacher, bare, student = network(56).eval(), network(20), network(20)
    method = factor_transfer(teacher, student)
    for module in (teacher, bare, student, method):
        if cuda:
            module.to("cuda").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch, *SHAPE, device="cuda" if cuda else "cpu")
    labels = torch.randint(0, 10, (batch,), device=images.device)
    make = partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=5e-4)
    bare_optimizer = make(bare.parameters())
    optimizer = make([*student.parameters(), *method.parameters()])

    def bare_loss() -> Tensor:
        with torch.no_grad():
            teacher(images)
        return functional.cross_entropy(bare(images), labels)

    found = seconds(
        {
            "bare": lambda: step(bare_optimizer, bare_loss),
            "factor transfer": lambda: step(optimizer, lambda: method.loss(student, images, labels)),
        },
        cuda,
        rounds,
        discarded=2,
    )
    for name, times in found.items():
        print(f"{name:16} {1e3 * statistics.median(times):8.1f} ms a step")
    ratios = [ours / plain for ours, plain in zip(found["factor transfer"], found["bare"], strict=True)]
    what = f"factor transfer's step, ResNet-56 to ResNet-20, batch {batch}"
    peer = "the student's step by cross-entropy, and a pass of the teacher"
    ratio = statistics.median(ratios)
    return {"cuda" if cuda else "cpu": Figure(ratio, "x its time", what, peer, at_most=1.1)}


if __name__ == "__main__":
    command(main)
