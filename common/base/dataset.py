"""What training code asks of a data set, whether it lives in memory or streams from folders."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.loader import BlockLoader
from common.base.phases import counted
from common.base.preparation import Preparation
from common.base.task_spec import TaskSpec

Part = Literal["train", "test"]
SplitName = Literal["train", "validation", "test"]
Source = Literal["real", "synthetic"]
Batch = tuple[Tensor, Tensor | None]
# what goes through a split without learning does, as it is told to whoever waits
JUDGING = {"train": "going through the training set", "validation": "validating", "test": "testing"}


@dataclass(frozen=True)
class Origin:
    """What a network was trained on, for a set of the user's own that it is to be judged on.

    Attributes:
        facts: of that set, see `DataSet.facts`: its columns, classes and words are matched by their names.
        files: the fingerprint of its files, so that those are known again; None where it has none.
    """

    facts: dict[str, Any]
    files: dict[str, Any] | None


class DataSet(pl.LightningDataModule, ABC):
    """A data set: facts known without reading anything, and batches on the training device.

    Attributes:
        shape: of one input, (d,), (C, H, W) or (T,) for text.
        classes: how many, or None for regression and reconstruction.
        batch_size: of training.
        normalise: how inputs are given.
        device: where batches are.
        repairs: what was repaired in the files, by kind, with how often.
        notes: of a set that is judged: what of it does not stand in the set that the network was trained on.
        limit_is_cap: whether a `limit` above the size of the set takes all of it, as one that a scale brings
            does, and is not refused, as one that the user has asked for is.
        judged_on: validate and test on at most so many examples, spread over the split (of running text on
            its first so many tokens); None: on all. It is set before `setup`.
    """

    NAME: ClassVar[str]
    KIND: ClassVar[str]
    CLASSES: ClassVar[int | None]
    # in the order of their labels; None where nothing names them
    CLASS_NAMES: ClassVar[tuple[str, ...] | None] = None
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
        self.notes: list[str] = []
        self.limit_is_cap = False
        self.judged_on: int | None = None

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

    def labels_of(self, split: SplitName) -> Tensor | None:
        """The classes of a split's examples, int64 [n], where they are known without reading; else None."""
        return None

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

    def encoding(self) -> dict[str, Any]:
        """How what stands in files becomes numbers, as a part of `facts`; nothing where code says it.

        Reads no more than the constructor has.
        """
        return {}

    def preparation(self) -> Preparation | None:
        """How a decoded picture of any size becomes an input, as stored; None for sets of no pictures."""
        return None

    def judged(self, size: int) -> Tensor | None:
        """Which examples of a split of `size` are judged, int64 [judged_on], in order; None: all of them."""
        if self.judged_on is None or size <= self.judged_on:
            return None
        return torch.arange(self.judged_on) * size // self.judged_on

    def tested(self) -> str:
        """What the test split is, in a few words."""
        return f"the test part of {self.NAME}"

    def within(self, limit: int | None, size: int, what: str = "examples", least: int = 1) -> int | None:
        """A `limit` on the training examples (or what there is else), of which there are `size`.

        Raises:
            UserError: it is above that, and asked for by the user.
        """
        if limit is None or limit <= size:
            return limit
        advice = f"{self.NAME} has {size} training {what}; give {least} to {size}, or null for all"
        check("limit", limit, self.limit_is_cap, advice)
        return size

    def class_names(self) -> list[str] | None:
        """What the classes are called, in the order of their labels; None where nothing names them."""
        return None if self.CLASS_NAMES is None else list(self.CLASS_NAMES)

    def normalisation(self) -> dict[str, Any]:
        """How stored inputs become those of `batch`, see `facts`; as they are, where a set says nothing."""
        return {"offset": 0.0, "scale": 1.0, "unit_rows": False, "input_range": None}

    def facts(self) -> dict[str, Any]:
        """What must be known to use a network that was trained on the set, as plain JSON data.

        Reads what is needed for it, if `setup` has not yet.

        Returns:
            name, kind, shape, classes, normalise: as the attributes. class_names: see there. tasks: the names
            of the tasks of sets that have several. input_range: [lowest, highest] stored value; None for any.
            offset, scale: a network's input is (stored - offset) * scale, each one number, or nested lists
            that are broadcast to `shape`; unit_rows: and then each example is divided by its Euclidean
            norm. target_offset, target_scale: of regression, whose network predicts
            (target - target_offset) * target_scale. Of files what `encoding` says: of a folder of images
            preparation (how a file becomes an input, in words) and left_out (how many pictures could not be
            read, where some could not); of tables of the user's own
            target (its column), columns (name, words or null, and fill in place of a missing number, each in
            the order of the inputs), label_names and positive (what classes are made of), sparse (whether a
            column that is absent is 0); of text vocabulary (the words by their numbers).
        """
        regression = {"target_offset": 0.0, "target_scale": 1.0} if self.KIND == "regression" else {}
        return {
            "name": self.NAME,
            "kind": self.KIND,
            "shape": list(self.shape),
            "classes": self.classes,
            "class_names": self.class_names(),
            "tasks": [task.name for task in self.TASKS],
            "normalise": self.normalise,
            **regression,
            **self.normalisation(),
            **self.encoding(),
        }

    def adopt(self, facts: dict[str, Any]) -> None:
        """Give inputs and targets from now on as another set's `facts` say; reads the set first.

        Args:
            facts: of a set of this kind and shape.

        Raises:
            UserError: a set that has no normalisation of its own.
        """
        raise UserError(f"{self.NAME} (kind {self.KIND}) gives its inputs in one way only")

    @property
    def evaluation_batch(self) -> int:
        """Examples at once where no gradient is needed."""
        if self.device.type != "cpu":
            return self.EVALUATION_BATCH
        return max(1, min(self.EVALUATION_BATCH, self.EVALUATION_NUMBERS // math.prod(self.shape)))

    def batches(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """The whole split in order, without augmentation; the last batch holds the rest."""
        size = self.size(split)
        starts = range(0, size, batch_size)
        for start in counted(starts, JUDGING[split], len(starts), "batches"):
            yield self.batch(split, slice(start, min(start + batch_size, size)), augment=False)


def plain_numbers(values: Tensor) -> Any:
    """A tensor as nested lists, or as one number where all are equal; float32 survives exactly."""
    first = values.flatten()[0]
    return float(first) if bool((values == first).all()) else values.tolist()


def check(key: str, value: object, valid: bool, advice: str) -> None:
    """Raise UserError "dataset.KEY=VALUE: ADVICE" unless `valid`."""
    if not valid:
        raise UserError(f"dataset.{key}={value}: {advice}")
