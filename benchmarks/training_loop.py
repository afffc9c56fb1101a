"""Our training loop against a hand-written PyTorch loop, on one core.

    python -m benchmarks.training_loop

Ours is `Trainer.fit` with the settings and callbacks of the runner; the other is the loop that one would
write for this model alone. Both train from the same weights on the same images and minibatches with the
same optimizer, and must end with equal weights. They take turns in one process: after each of our blocks
of steps, with all that Lightning does around it, the other makes the same steps. A ratio is the median
over the turns. Times are CPU seconds, which other work on the machine stretches least. Exits with 1 if a
ratio is above its limit.
"""

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.figures import Figure, command
from common.data.images.cifar import Cifar10
from common.data.images.mnist import Mnist
from common.data.shared.in_memory import ImageData
from common.models.mlp import MLP
from common.models.resnet import CifarResNet
from common.runs.callbacks import Checkpoints
from common.runs.processes import Processes
from common.runs.progress import ProgressReport
from common.training.schedules import constant
from common.training.supervised import SupervisedModule

BATCH, SEED, CHECKPOINT_EVERY = 128, 0, 10.0
OPTIMIZER = partial(torch.optim.SGD, lr=0.01, momentum=0.9, foreach=True)


@dataclass(frozen=True)
class Case:
    """A model on data of one shape, how long to train, and the largest ratio that is allowed.

    The first `warm_up` turns do not count.
    """

    name: str
    data: type[ImageData]
    model: Callable[..., nn.Module]
    epoch_steps: int
    epochs: int
    warm_up: int
    limit: float


RESNET = partial(CifarResNet, depth=20, block="basic", shortcut="A")
LENET = partial(MLP, hidden=[300, 100], activation="relu")
CASES = [
    Case("ResNet-20, CIFAR-10 shape", Cifar10, RESNET, epoch_steps=10, epochs=4, warm_up=2, limit=1.05),
    Case("LeNet-300-100, MNIST shape", Mnist, LENET, epoch_steps=400, epochs=3, warm_up=6, limit=1.3),
]


class HandWritten:
    """A plain loop: index ready-made float images, forward, backward, step; no bookkeeping."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.model, self.images, self.labels = model.train(), images, labels
        self.optimizer = OPTIMIZER(model.parameters())

    def train(self, batches: list[Tensor]) -> None:
        for index in batches:
            self.optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(self.model(self.images[index]), self.labels[index])
            loss.backward()
            self.optimizer.step()


class Turns(pl.Callback):
    """Lets the other loop make the steps that ours has just made; notes the seconds a step of both."""

    def __init__(self, other: HandWritten) -> None:
        self.other = other
        self.ours: list[float] = []
        self.others: list[float] = []
        self.began = 0.0

    def on_train_start(self, *_: Any) -> None:
        self.began = time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        ended = time.process_time()
        self.other.train(batch)
        self.ours.append((ended - self.began) / len(batch))
        self.others.append((time.process_time() - ended) / len(batch))
        self.began = time.process_time()


def synthetic(case: Case, batch: int) -> ImageData:
    """Random images for one epoch, not augmented."""
    data = case.data(
        kind="image_classification",
        data_dir="data",
        seed=SEED,
        source="synthetic",
        limit=batch * case.epoch_steps,
        validation=0.0,
        normalise="standard",
        verify=True,
        batch_size=batch,
        positive=None,
        augment="none",
    )
    data.setup()
    return data


def take_turns(case: Case, data: ImageData, folder: Path) -> Turns:
    """Train with both loops, ours as `common.runs.runner` would."""
    torch.manual_seed(SEED)
    model = case.model(shape=data.shape, classes=data.classes)
    images, labels = data.batch("train", slice(None), augment=False)
    assert labels is not None
    turns = Turns(HandWritten(deepcopy(model), images, labels))
    module = SupervisedModule(
        data=data,
        model=model,
        make_model=partial(case.model, shape=data.shape, classes=data.classes),
        method=OPTIMIZER,
        schedule=constant,
        seed=SEED,
        epochs=float(case.epochs),
        pixels="mean",
        test_every=None,
        measure_gradient=False,
    )
    checkpoints = Checkpoints(folder / "last.ckpt", CHECKPOINT_EVERY, Processes(0, 1))
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        precision="32-true",
        callbacks=[checkpoints, ProgressReport(case.name, False), turns],
        logger=False,
        max_epochs=-1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
    )
    with checkpoints:
        trainer.fit(module, weights_only=True)
    pairs = zip(model.parameters(), turns.other.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs), "the loops did different work"
    return turns


def figure(case: Case, batch: int, folder: Path) -> Figure:
    """Measure a case and print the times of both."""
    turns = take_turns(case, synthetic(case, batch), folder)
    ours, others = turns.ours[case.warm_up :], turns.others[case.warm_up :]
    print(f"{case.name:28} Trainer.fit  {1e3 * statistics.median(ours):8.2f} ms a step, {len(ours)} turns")
    print(f"{case.name:28} hand-written {1e3 * statistics.median(others):8.2f} ms a step", flush=True)
    ratio = statistics.median(one / other for one, other in zip(ours, others, strict=True))
    what = f"training loop, {case.name}, batch {batch}"
    return Figure(ratio, "x its time", what, "hand-written PyTorch loop", at_most=case.limit)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure every case."""
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    batch = 4 if tiny else BATCH
    cases = [replace(case, epoch_steps=2, epochs=2, warm_up=0) for case in CASES] if tiny else CASES
    with tempfile.TemporaryDirectory() as folder:
        return {case.name.split(",")[0]: figure(case, batch, Path(folder)) for case in cases}


if __name__ == "__main__":
    command(main)
