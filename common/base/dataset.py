"""What training code asks of a data set, whether it lives in memory or streams from folders."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.loader import BlockLoader
from common.base.task_spec import TaskSpec

Part = Literal["train", "test"]
SplitName = Literal["train", "validation", "test"]
Source = Literal["real", "synthetic"]
Batch = tuple[Tensor, Tensor | None]


class DataSet(pl.LightningDataModule, ABC):
    """A data set: facts known without reading anything, and batches on the training device.

    Attributes:
        shape: of one input, (d,), (C, H, W) or (T,) for text.
        classes: how many, or None for regression and reconstruction.
        batch_size: of training.
        normalise: how inputs are given.
        device: where batches are.
        repairs: what was repaired in the files, by kind, with how often.
    """

    NAME: ClassVar[str]
    KIND: ClassVar[str]
    CLASSES: ClassVar[int | None]
    TRAIN_SIZE: ClassVar[int]
    TEST_SIZE: ClassVar[int]
    # of sets that ask several things of an input, in the order of the targets' columns
    TASKS: ClassVar[tuple[TaskSpec, ...]] = ()
    # of the files in the folders of `sources` that the set reads, in lower case; none: all
    SUFFIXES: ClassVar[tuple[str, ...]] = ()
    # examples at once where no gradient is needed, and numbers of them on the CPU: more leave its caches
    EVALUATION_BATCH: ClassVar[int] = 1000
    EVALUATION_NUMBERS: ClassVar[int] = 2**18

    shape: tuple[int, ...]
    classes: int | None
    batch_size: int
    normalise: str

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.repairs: dict[str, int] = {}

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read what is needed before training, once.

        Raises:
            UserError: a file is missing or damaged and cannot be fetched.
        """

    @abstractmethod
    def move(self, device: torch.device | str) -> None:
        """Give batches on `device` from now on."""

    @property
    @abstractmethod
    def has_validation(self) -> bool:
        """Whether there is a validation split."""

    @abstractmethod
    def size(self, split: SplitName) -> int:
        """How many examples a split has; reads the split if that has not been done.

        Raises:
            UserError: there is no such split, or its files are missing or damaged.
        """

    @abstractmethod
    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """The examples that `index` names (int64 [b], or a slice), normalised, on the device."""

    @abstractmethod
    def loader(self, seed: int) -> BlockLoader:
        """An endless loader of shuffled minibatches of the training split, for `ready`."""

    @abstractmethod
    def ready(self, item: Any) -> Batch:
        """What a loader's item stands for: inputs and targets on the device, augmented and normalised."""

    def sources(self) -> dict[str, Path]:
        """The files and folders that the set reads, by names that are the same on every machine.

        Results and checkpoints carry a fingerprint of them, so that other files under the same words are
        seen. Nothing for sets that are bundled or generated, which is the default. Reads nothing.
        """
        return {}

    @property
    def evaluation_batch(self) -> int:
        """Examples at once where no gradient is needed."""
        if self.device.type != "cpu":
            return self.EVALUATION_BATCH
        return max(1, min(self.EVALUATION_BATCH, self.EVALUATION_NUMBERS // math.prod(self.shape)))

    def batches(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """The whole split in order, without augmentation; the last batch holds the rest."""
        size = self.size(split)
        for start in range(0, size, batch_size):
            yield self.batch(split, slice(start, min(start + batch_size, size)), augment=False)


def check(key: str, value: object, valid: bool, advice: str) -> None:
    """Raise UserError "dataset.KEY=VALUE: ADVICE" unless `valid`."""
    if not valid:
        raise UserError(f"dataset.{key}={value}: {advice}")
