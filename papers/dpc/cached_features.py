"""The maps of a frozen backbone as a data set: memory-mapped files that any number of processes read at
once."""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import Batch, DataSet, SplitName
from common.base.errors import UserError
from common.base.loader import IndexLoader

What = Literal["features", "targets"]
WHAT: tuple[What, ...] = ("features", "targets")
Precision = Literal["float32", "bfloat16"]
# what a finished cache holds beside its arrays
FACTS = "cache.json"
# numbers are kept as these: numpy knows no bfloat16
STORED: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "bfloat16": np.dtype("<u2")}


class CacheFacts(NamedTuple):
    """What a cache is of.

    Attributes:
        name, classes: of the data set.
        image: (H, W) of the images.
        maps: (channels, h, w) of a map.
        sizes: numbers of examples by split, mirrored ones included.
        precision: of the maps.
        class_names: of the classes, or None.
    """

    name: str
    classes: int
    image: tuple[int, int]
    maps: tuple[int, int, int]
    sizes: dict[str, int]
    precision: Precision
    class_names: list[str] | None


def array_path(folder: Path, what: What, split: str) -> Path:
    """Where an array of a cache lies."""
    return folder / f"{what}_{split}.npy"


def write_facts(folder: Path, facts: CacheFacts) -> None:
    """Say that a cache is whole, atomically."""
    partial = folder / f"{FACTS}.partial"
    partial.write_text(json.dumps(facts._asdict(), indent=1))
    partial.replace(folder / FACTS)


def read_facts(folder: Path) -> CacheFacts:
    """What a finished cache is of.

    Raises:
        UserError: it is not there, or not whole.
    """
    try:
        found = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder.resolve()}: the cache of features is gone or not whole (make that run anew: force=true)"
        ) from error
    found["image"], found["maps"] = tuple(found["image"]), tuple(found["maps"])
    return CacheFacts(**found)


class CachedFeatures(DataSet):
    """Maps [b, channels, h, w] with the classes of the images' pixels, int64 [b, H, W].

    Pickled it is a path; each process maps the files by itself and shares the system's copy of them.

    Args:
        folder: of a finished cache.
        batch_size: of training.

    Raises:
        UserError: the cache is gone, or not whole.
    """

    NAME: ClassVar = "cached_features"
    KIND: ClassVar = "segmentation"
    CLASSES: ClassVar = None
    TRAIN_SIZE: ClassVar = 0
    TEST_SIZE: ClassVar = 0
    EVALUATION_BATCH: ClassVar = 100

    def __init__(self, folder: Path, batch_size: int) -> None:
        super().__init__()
        self.folder, self.batch_size, self.normalise = folder, batch_size, "none"
        self.stored = read_facts(folder)
        self.shape, self.classes = self.stored.maps, self.stored.classes
        self._arrays: dict[tuple[What, str], np.ndarray] = {}
        for split in self.stored.sizes:
            for what in WHAT:
                self._array(what, split)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedFeatures, (self.folder, self.batch_size)

    def _array(self, what: What, split: str) -> np.ndarray:
        if (what, split) not in self._arrays:
            path = array_path(self.folder, what, split)
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{path.resolve()} is missing or damaged (make the run of the cache anew: force=true)"
                ) from error
            facts = self.stored
            shape = (facts.sizes[split], *(facts.maps if what == "features" else facts.image))
            if array.shape != shape:
                raise UserError(f"{path.resolve()} is of shape {array.shape}, not {shape} (force=true)")
            self._arrays[what, split] = array
        return self._arrays[what, split]

    def setup(self, stage: str | None = None) -> None:
        """Nothing to read."""

    def move(self, device: torch.device | str) -> None:
        self.device = torch.device(device)

    @property
    def has_validation(self) -> bool:
        return "validation" in self.stored.sizes

    def size(self, split: SplitName) -> int:
        if split not in self.stored.sizes:
            raise UserError(
                f"paper.score_split={split}: the data have no such split "
                "(valid: test, or dataset.validation=0.25)"
            )
        return self.stored.sizes[split]

    def class_names(self) -> list[str] | None:
        return self.stored.class_names

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        self.size(split)
        rows: Any = index.cpu().numpy() if isinstance(index, Tensor) else index
        maps = torch.from_numpy(np.array(self._array("features", split)[rows]))
        if self.stored.precision == "bfloat16":
            maps = maps.view(torch.bfloat16)
        targets = torch.from_numpy(np.array(self._array("targets", split)[rows]))
        return maps.to(self.device, torch.float32), targets.to(self.device, torch.int64)

    def loader(self, seed: int) -> IndexLoader:
        return IndexLoader(self.size("train"), self.batch_size, seed)

    def ready(self, item: Tensor) -> Batch:
        return self.batch("train", item, augment=False)
