"""Data sets that live in memory as tensors on the training device.

A batch is a selection of rows; augmentation and normalisation are batched tensor code on the device.
To add a set: one file here (a subclass that states its facts and implements `read`) and one in
`conf/dataset`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from common.base.dataset import Batch, DataSet, Part, Source, SplitName, check, plain_numbers
from common.base.errors import UserError
from common.base.loader import IndexLoader
from common.base.preparation import Preparation, usual_preparation
from common.data.shared.augment import crop_flip
from common.data.shared.sparse import take_rows
from common.data.shared.subsets import complement, stratified_subset

Normalise = Literal["unit_interval", "standard", "unit_rows", "none"]

SYNTHETIC_SIZES = {"train": 512, "test": 256}


class Options(TypedDict):
    """The constructor arguments that all sets share, for subclasses that add their own to them."""

    kind: str
    data_dir: str
    seed: int
    source: Source
    limit: int | None
    validation: float
    normalise: Normalise
    verify: bool
    batch_size: int
    positive: list[int] | None


@dataclass(frozen=True)
class Split:
    """Examples as they are stored: neither augmented nor normalised.

    Shapes: inputs [n, C, H, W] uint8 for images, [n, d] float32 (dense or sparse CSR) for tables; targets
    [n] int64 for classes, float32 for regression, None for reconstruction.
    """

    inputs: Tensor
    targets: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Tensor | slice) -> "Split":
        """The rows that `index` names: int64 [k] on any device, or a slice (a view, nothing copied)."""
        return Split(_rows(self.inputs, index), None if self.targets is None else _rows(self.targets, index))

    def to(self, device: torch.device | str) -> "Split":
        """The same examples on `device`."""
        return Split(self.inputs.to(device), None if self.targets is None else self.targets.to(device))


def _rows(tensor: Tensor, index: Tensor | slice) -> Tensor:
    if tensor.layout == torch.sparse_csr:
        return take_rows(tensor, index)
    if isinstance(index, slice):
        return tensor[index]
    # index_select copies whole rows; tensor[index] copies element by element, 6 times slower for uint8
    return tensor.index_select(0, index.to(tensor.device))


class TensorData(DataSet):
    """A data set held in memory; tables as they are, images in the subclass `ImageData`.

    Subclasses state their facts as class attributes and implement `read`. `shape` and `classes` are
    known without reading anything, so that models can be built first.

    Attributes:
        target_offset, target_scale: `batch` gives regression targets as (y - offset) * scale.

    Args:
        kind: what the set is for; must be the set's own (`KIND`).
        data_dir: the folder of downloaded files; bundled and generated sets do not use it.
        seed: of `limit` and `validation`; test sets never depend on it.
        source: "real", or "synthetic" for random tensors of the same shapes, without any file: as many
            training examples as `limit` asks for, else at most 512; at most 256 for testing.
        limit: train on a stratified subset of this many examples; null for all.
        validation: the fraction of these that is split off, stratified, for validation; 0 for none.
            The test set is never touched by either.
        normalise: how `batch` gives its inputs, with statistics of the training split (tables) or of
            the official training set (images, pinned constants):
            "unit_interval": images x / peak; columns (x - min) / (max - min), constant ones 0;
            "standard": (x - mean) / std for each column or channel, constant columns 0;
            "unit_rows": each example divided by its Euclidean norm, zero ones stay zero;
            "none": the stored values (images 0..peak) as float32.
            Regression targets are standardised in all modes but "none".
        verify: compare checksums of files; what can be seen without (sizes, counts, ranges) is always
            checked.
        batch_size: of training.
        positive: turn classes into two: 1 for these labels, 0 for the others; null to keep them.

    Raises:
        UserError: a value out of range, here; a missing or damaged file or a `limit` above the size of
            the set, in `setup`.
    """

    SHAPE: ClassVar[tuple[int, ...]]
    # whether `setup` reads the test set too, or only the first use of it
    READS_TEST_IN_SETUP: ClassVar[bool] = True

    def __init__(
        self,
        *,
        kind: str,
        data_dir: str,
        seed: int,
        source: Source,
        limit: int | None,
        validation: float,
        normalise: Normalise,
        verify: bool,
        batch_size: int,
        positive: list[int] | None,
    ) -> None:
        super().__init__()
        check("kind", kind, kind == self.KIND, f"{self.NAME} is of kind {self.KIND}")
        check("limit", limit, limit is None or limit >= 1, "give at least 1, or null for all examples")
        check("validation", validation, 0 <= validation < 1, "give a fraction from 0 to below 1")
        check("batch_size", batch_size, batch_size >= 1, "give at least 1")
        self._check_positive(positive)
        self.data_dir = Path(data_dir).expanduser()
        self.seed, self.source, self.limit, self.validation_fraction = seed, source, limit, validation
        self.normalise, self.verify, self.batch_size, self.positive = normalise, verify, batch_size, positive
        self.shape = self.SHAPE
        self.classes = self.label_count if positive is None else 2
        self.target_offset, self.target_scale = 0.0, 1.0
        self._train: Split | None = None
        self._validation: Split | None = None
        self._test: Split | None = None

    def _check_positive(self, positive: list[int] | None) -> None:
        if positive is None:
            return
        count = self.label_count
        if count is None:
            raise UserError(f"dataset.positive={positive}: {self.NAME} has no classes; leave it null")
        valid = all(0 <= label < count for label in positive) and 0 < len(set(positive)) < count
        check("positive", positive, valid, f"give some, but not all, of {self.NAME}'s 0 to {count - 1}")

    @property
    def label_count(self) -> int | None:
        """How many labels the files hold; sets with several kinds of labels override it."""
        return self.CLASSES

    @property
    def train_size(self) -> int:
        """Examples of the official training set; sets with parts to choose from override it."""
        return self.TRAIN_SIZE

    @abstractmethod
    def read(self, part: Part) -> Split:
        """The official training or test set, whole, in a fixed order, on the CPU.

        Raises:
            UserError: a file is missing or damaged and cannot be fetched.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read the set (once), take the subset and the validation split, and fit the normalisation."""
        if self._train is not None:
            return
        generator = torch.Generator().manual_seed(self.seed)
        train = self.limited_train(generator)
        train, self._validation = self._split_validation(train, generator)
        self._offset, self._scale = self.statistics(train)
        if self.classes is None and train.targets is not None and self.normalise != "none":
            std, mean = torch.std_mean(train.targets, correction=0)
            self.target_offset, self.target_scale = float(mean), float(_inverse(std))
        if self.READS_TEST_IN_SETUP:
            self._test = self._read_test()
        self._train = train
        self.move(self.device)

    def limited_train(self, generator: torch.Generator) -> Split:
        """The training set, or the stratified subset of it that `limit` asks for."""
        train = self._load("train")
        self.check_limit(len(train))
        if self.limit is None or self.limit == len(train):
            return train
        return train.take(stratified_subset(self._labels(train), len(train), self.limit, generator))

    def check_limit(self, size: int) -> None:
        """Refuse a `limit` above the `size` of the training set, or (`limit_is_cap`) bring it down."""
        self.limit = self.within(self.limit, size)

    def statistics(self, train: Split) -> tuple[Tensor, Tensor]:
        """(offset, scale), each [d]: `batch` gives (x - offset) * scale."""
        inputs = train.inputs
        if self.normalise == "standard":
            std, mean = torch.std_mean(inputs.double(), dim=0, correction=0)
            return mean.float(), _inverse(std).float()
        if self.normalise == "unit_interval":
            low, high = inputs.aminmax(dim=0)
            return low, _inverse(high - low)
        return torch.zeros(inputs.shape[1:]), torch.ones(inputs.shape[1:])

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Synthetic inputs [count, d], standard normal."""
        return torch.randn(count, *self.shape, generator=generator)

    def augmented(self, inputs: Tensor) -> Tensor:
        """What `batch(augment=True)` does to stored inputs; nothing for tables."""
        return inputs

    def normalised(self, inputs: Tensor) -> Tensor:
        """Stored inputs as `batch` gives them: float32 [b, *shape], never the stored tensor itself."""
        inputs = inputs.to(torch.float32, copy=True).sub_(self._offset).mul_(self._scale)
        if self.normalise == "unit_rows":
            inputs /= inputs.flatten(1).norm(dim=1).clamp_min_(1e-12).view(-1, *[1] * len(self.shape))
        return inputs

    def class_names(self) -> list[str] | None:
        """The labels' names; of two classes made of them (`positive`), `not X` and `X`."""
        names = self.label_names()
        if names is None or self.positive is None:
            return names
        chosen = " or ".join(names[label] for label in sorted(set(self.positive)))
        return [f"not {chosen}", chosen]

    def label_names(self) -> list[str] | None:
        """The names of the labels that the files hold; sets with several kinds of labels override it."""
        return None if self.CLASS_NAMES is None else list(self.CLASS_NAMES)

    def normalisation(self) -> dict[str, Any]:
        """See `facts`; of regression, that of the targets too."""
        self.setup()
        found: dict[str, Any] = {
            "offset": plain_numbers(self._offset),
            "scale": plain_numbers(self._scale),
            "unit_rows": self.normalise == "unit_rows",
            "input_range": self.input_range(),
        }
        if self.KIND == "regression":
            found |= {"target_offset": self.target_offset, "target_scale": self.target_scale}
        return found

    def input_range(self) -> list[float] | None:
        """[lowest, highest] stored value; None for tables, which hold any."""
        return None

    def adopt(self, facts: dict[str, Any]) -> None:
        """Give inputs, and targets of regression, normalised as `facts` of another set of the kind say."""
        self.setup()
        self.normalise = facts["normalise"]
        self._offset, self._scale = (
            torch.tensor(facts[key], dtype=torch.float32, device=self.device) for key in ("offset", "scale")
        )
        self.target_offset, self.target_scale = (
            facts.get("target_offset", 0.0),
            facts.get("target_scale", 1.0),
        )

    def move(self, device: torch.device | str) -> None:
        """Put the splits, and those read later, on `device`."""
        self.device = torch.device(device)
        if self._train is None:
            return
        self._train = self._train.to(self.device)
        if self._validation is not None:
            self._validation = self._validation.to(self.device)
        if self._test is not None:
            self._test = self._test.to(self.device)
        self._offset, self._scale = self._offset.to(self.device), self._scale.to(self.device)

    @property
    def train(self) -> Split:
        """The training examples, without those of validation."""
        if self._train is None:
            raise RuntimeError("call setup() before using the data")
        return self._train

    @property
    def validation(self) -> Split | None:
        """The validation examples, or None where `validation` is 0."""
        return self._validation

    @property
    def test(self) -> Split | None:
        """The official test set (a fixed holdout where there is none)."""
        if self._test is None:
            self._test = self._read_test()
        return self._test

    @property
    def has_validation(self) -> bool:
        return self._validation is not None

    def size(self, split: SplitName) -> int:
        return len(self._split(split))

    def labels_of(self, split: SplitName) -> Tensor | None:
        targets = self._split(split).targets
        return None if targets is None or self.classes is None or targets.ndim != 1 else targets.cpu()

    def loader(self, seed: int) -> IndexLoader:
        return IndexLoader(self.size("train"), self.batch_size, seed)

    def ready(self, item: Tensor) -> Batch:
        return self.batch("train", item, augment=True)

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """Gather rows, augment them (if asked, and the set is configured so), normalise.

        Shapes: index int64 [b] on any device, or a slice -> inputs float32 [b, *shape], targets [b] or None.

        Raises:
            UserError: the split is `validation` and there is none.
        """
        rows = self._split(split).take(index)
        inputs = self.normalised(self.augmented(rows.inputs) if augment else rows.inputs)
        if rows.targets is None or self.classes is not None:
            return inputs, rows.targets
        return inputs, (rows.targets - self.target_offset) * self.target_scale

    def _split(self, name: SplitName) -> Split:
        chosen: Split | None = getattr(self, name)
        if chosen is None:
            raise UserError(
                f"dataset.validation={self.validation_fraction}: this run needs a validation split; "
                "give a fraction above 0 and below 1"
            )
        return chosen

    def _split_validation(self, train: Split, generator: torch.Generator) -> tuple[Split, Split | None]:
        if self.validation_fraction == 0:
            return train, None
        size = round(self.validation_fraction * len(train))
        check(
            "validation",
            self.validation_fraction,
            0 < size < len(train),
            f"of {len(train)} training examples that leaves one split empty",
        )
        held_out = stratified_subset(self._labels(train), len(train), size, generator)
        return train.take(complement(held_out, len(train))), self._judged_split(train.take(held_out))

    def _labels(self, split: Split) -> Tensor | None:
        return split.targets if self.classes is not None else None

    def _read_test(self) -> Split:
        return self._judged_split(self._load("test")).to(self.device)

    def _judged_split(self, split: Split) -> Split:
        chosen = self.judged(len(split))
        return split if chosen is None else split.take(chosen)

    def _load(self, part: Part) -> Split:
        split = self._synthetic(part) if self.source == "synthetic" else self.read(part)
        if self.positive is None or split.targets is None:
            return split
        return Split(split.inputs, torch.isin(split.targets, torch.tensor(self.positive)).long())

    def _synthetic(self, part: Part) -> Split:
        count = min(self.train_size if part == "train" else self.TEST_SIZE, SYNTHETIC_SIZES[part])
        if part == "train" and self.limit is not None:
            self.check_limit(self.train_size)
            count = self.limit
        generator = torch.Generator().manual_seed(list(SYNTHETIC_SIZES).index(part))
        inputs = self.random_inputs(count, generator)
        if self.label_count is not None:
            return Split(inputs, torch.arange(count) % self.label_count)
        if self.KIND == "regression":
            return Split(inputs, torch.randn(count, generator=generator))
        return Split(inputs, None)


class ImageData(TensorData):
    """Images as uint8 [n, C, H, W] in 0..`PEAK`; never held as floats beyond a batch.

    Args:
        augment: "crop_flip" for a random crop of the zero-padded image (4 pixels) and a random mirror
            image, wherever `batch` is asked to augment; or "none".
        The others as in `TensorData`.
    """

    PEAK: ClassVar[int] = 255
    # of the official training set, in units of PEAK, one a channel
    MEAN: ClassVar[tuple[float, ...]]
    STD: ClassVar[tuple[float, ...]]

    def __init__(
        self,
        *,
        augment: Literal["none", "crop_flip"],
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self.augment = augment

    def statistics(self, train: Split) -> tuple[Tensor, Tensor]:
        """(offset, scale), each [C, 1, 1]: `batch` gives (x - offset) * scale; constants of the class."""
        if self.normalise == "standard":
            offset, scale = torch.tensor(self.MEAN) * self.PEAK, 1 / (torch.tensor(self.STD) * self.PEAK)
        else:
            offset = torch.zeros(self.shape[0])
            scale = torch.full_like(offset, 1 / self.PEAK if self.normalise == "unit_interval" else 1.0)
        return offset.view(-1, 1, 1), scale.view(-1, 1, 1)

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Synthetic images, uint8 [count, C, H, W], uniform in 0..PEAK."""
        return torch.randint(0, self.PEAK + 1, (count, *self.shape), generator=generator, dtype=torch.uint8)

    def preparation(self) -> Preparation | None:
        """See `DataSet`: the images have one size, so pictures are brought to it in the usual way."""
        return usual_preparation(self.KIND, self.shape, self.PEAK)

    def input_range(self) -> list[float] | None:
        """[0, PEAK]."""
        return [0.0, float(self.PEAK)]

    def augmented(self, inputs: Tensor) -> Tensor:
        """Random crops and mirror images where the set is configured so (`augment`)."""
        return crop_flip(inputs) if self.augment == "crop_flip" else inputs


def _inverse(spread: Tensor) -> Tensor:
    """1 / spread; 0 where a column is constant."""
    return torch.where(spread > 0, 1 / spread, torch.zeros_like(spread))
