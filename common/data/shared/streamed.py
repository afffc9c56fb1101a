"""Data sets that stay in files: folders of images, decoded batch by batch in worker processes.

To add a set: one file here (a subclass of `StreamedData` that states its facts and implements `records`
and `example`) and one in `conf/dataset`.

What a batch holds follows from (seed, epoch, position) alone, so neither the number of workers nor a
restart changes it.
"""

import ctypes
import gc
import math
import shutil
import signal
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from common.base.dataset import JUDGING, Batch, DataSet, Source, SplitName, check, plain_numbers
from common.base.errors import UserError
from common.base.loader import BlockLoader, ends_of, minibatches, shuffled, steps_of
from common.base.phases import counted
from common.base.preparation import Preparation, usual_preparation
from common.data.shared.decode import FORMATS
from common.data.shared.download import DamagedError, describe
from common.data.shared.prepare import Checksum, check_file, prepare, unpack
from common.data.shared.subsets import complement, stratified_subset
from common.data.shared.unreadable import fault_of, listed_faults, unreadable

# of the ImageNet training set, in units of 255, one a channel: what its networks are trained with
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PEAK = 255
SYNTHETIC_SIZES = {"train": 512, "validation": 256, "test": 256}
# pictures that are looked through for others where one cannot be read
MOST_LOOKED_THROUGH = 50_000
# stored images that one block of the training loader may hold, in bytes
BLOCK_BYTES = 64 * 2**20
# Batches that each worker is asked for ahead. It writes them in turn into one more places in shared memory
# than that: the DataLoader asks for a further batch only as it hands one over, so that a place is written to
# again only after two later batches of that worker were asked for, when this one has long been copied.
PREFETCH = 2
PLACES = PREFETCH + 1

# of malloc.h, and the largest value that the second one takes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 32 * 2**20


class StreamedOptions(TypedDict):
    """The constructor arguments that all streamed sets share, for subclasses that add their own."""

    kind: str
    data_dir: str
    seed: int
    source: Source
    limit: int | None
    validation: float | Literal["official"] | None
    normalise: Literal["standard", "unit_interval", "none"]
    verify: bool
    batch_size: int
    workers: int


class Record(NamedTuple):
    """One example as it is listed: the path of its image, and what its target is made from."""

    path: str
    annotation: Any


class Request(NamedTuple):
    """A batch to decode: positions in a split, int64 [b], and (seed, epoch) of its augmentation or None."""

    positions: Tensor
    draw: tuple[int, int] | None


class Fetched(NamedTuple):
    """A decoded batch, or why there is none.

    Shapes: images uint8 [b, 3, H, W], of any layout; targets as `StreamedData.collate_targets` gives them.
    `repaired` has (what, number of the record in its part) for every repaired image; `damaged` is the path
    of the file that the failure is of.
    """

    images: Tensor
    targets: Tensor
    repaired: list[tuple[str, int]]
    failure: str | None
    damaged: str | None = None


class Rows(NamedTuple):
    """A split: the records of an official part, and the numbers of those that belong to it, int64 [n]."""

    part: SplitName
    records: Sequence[Record]
    numbers: Tensor


@contextmanager
def naming(path: Path, advice: str) -> Iterator[None]:
    """Turn a fault in the content of a file into one line: the file, what is wrong, and what to do."""
    try:
        yield
    except DamagedError as error:
        raise UserError(f"{describe(path, error)}: {advice}") from error


def unpack_folder(
    folder: Path, archive: Path, inside: str, checksum: Checksum | None, verify: bool, advice: str
) -> Path:
    """`folder`; where it is absent, made from what lies `inside` an archive, atomically.

    Raises:
        UserError: folder and archive are missing, the archive is damaged, or the folder cannot be written.
    """

    def make(scratch: Path) -> None:
        space = scratch / ".unpacked"
        with naming(archive, advice):
            check_file(archive, checksum, verify)
            unpack(archive, space, f"unpacking {archive.name}")
            if not (space / inside).is_dir():
                raise DamagedError(f"no folder {inside} in it")
        for item in (space / inside).iterdir():
            item.rename(scratch / item.name)
        shutil.rmtree(space)

    if not folder.exists() and not archive.exists():
        raise UserError(f"{folder.resolve()} is missing, and so is {archive.resolve()}: {advice}")
    return prepare(folder, make)


class StreamedData(DataSet):
    """A data set of image files.

    Subclasses implement `records` (in the main process, once) and `example` (in the workers, for each
    image). An image that `example` repairs is told to `note_repair`; `repairs` counts the distinct images.

    Attributes:
        image_size: (H, W) of the images that `example` gives.
        augment: how `example` augments; "none" for not at all. Subclasses set it.

    Args:
        shape: (3, H, W) of them.
        kind: what the set is for; must be the set's own (`KIND`).
        data_dir: the folder of downloaded files.
        seed: of `limit` and `validation`; test sets never depend on it.
        source: "real", or "synthetic" for random images and targets without any file: as many training
            examples as `limit` asks for, else at most 512; at most 256 for validation and for testing.
        limit: train on a subset of this many examples, stratified by class where examples have one class
            each; null for all.
        validation: "official" for the set's own validation part (where `OFFICIAL_VALIDATION`); or the
            fraction of the training examples that is split off, stratified likewise; 0 or null for none.
        normalise: how inputs are given: "standard" (x / 255 - MEAN) / STD for each channel;
            "unit_interval" x / 255; "none" 0..255; all as float32.
        verify: compare checksums of archives.
        batch_size: of training.
        workers: processes that decode images; 0 to decode in the main process.

    Raises:
        UserError: a value out of range, here; missing or damaged files or a `limit` above the size of the
            set, in `setup`; a damaged image, when its batch is asked for.
    """

    # whether the set has a validation part of its own, and its size
    OFFICIAL_VALIDATION: ClassVar[bool] = False
    VALIDATION_SIZE: ClassVar[int] = 0
    # of the class, or found from the files
    MEAN: tuple[float, float, float] = IMAGENET_MEAN
    STD: tuple[float, float, float] = IMAGENET_STD
    # of the targets that `ready` gives; `example` may give a smaller type, which is cheaper to hand over
    TARGET_DTYPE: ClassVar[torch.dtype] = torch.int64
    EVALUATION_BATCH: ClassVar[int] = 100
    # of pictures that are read, by Pillow's names
    FORMATS: ClassVar[tuple[str, ...]] = FORMATS

    augment: str

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        kind: str,
        data_dir: str,
        seed: int,
        source: Source,
        limit: int | None,
        validation: float | Literal["official"] | None,
        normalise: Literal["standard", "unit_interval", "none"],
        verify: bool,
        batch_size: int,
        workers: int,
    ) -> None:
        super().__init__()
        check("kind", kind, kind == self.KIND, f"{self.NAME} is of kind {self.KIND}")
        check("size", "x".join(map(str, shape[1:])), min(shape) >= 1, "give at least 1")
        check("limit", limit, limit is None or limit >= 1, "give at least 1, or null for all examples")
        validation = 0.0 if validation is None else validation
        self._check_validation(validation)
        check("batch_size", batch_size, batch_size >= 1, "give at least 1")
        check("workers", workers, workers >= 0, "give 0 (decode in the main process) or more")
        self.data_dir = Path(data_dir).expanduser()
        self.seed, self.source, self.limit, self.validation_part = seed, source, limit, validation
        self.normalise, self.verify, self.batch_size, self.workers = normalise, verify, batch_size, workers
        self.shape, self.classes = shape, self.CLASSES
        self.image_size = shape[1:]
        self._splits: dict[SplitName, Rows] = {}
        # the normalisation of another set, once it is taken
        self._adopted: tuple[Tensor, Tensor] | None = None
        self._repaired: set[tuple[str, str, int]] = set()
        self._notes: list[str] = []
        self.move("cpu")

    def _check_validation(self, validation: float | Literal["official"]) -> None:
        official = '"official", or ' if self.OFFICIAL_VALIDATION else ""
        valid = self.OFFICIAL_VALIDATION if isinstance(validation, str) else 0 <= validation < 1
        check("validation", validation, valid, f"give {official}a fraction from 0 to below 1")

    @abstractmethod
    def records(self, part: SplitName) -> Sequence[Record]:
        """All examples of an official part, in a fixed order; "validation" where it is official.

        Raises:
            UserError: files are missing or damaged, and what to do.
        """

    @abstractmethod
    def example(self, record: Record, generator: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Decode one example and bring it to `shape`, augmented if there is a generator to draw from.

        Returns: the image, uint8 [3, H, W] (any strides), and its target.

        Raises:
            DamagedError, OSError: of the file `record.path`; the message says in what it is wrong.
            UserError: of another file; one line that names it.
        """

    @abstractmethod
    def synthetic_target(self, number: int, generator: np.random.Generator) -> Tensor:
        """The target of synthetic example `number`, of the type and shape that `example` gives."""

    def labels(self, records: Sequence[Record]) -> Tensor | None:
        """The classes to stratify by, int64 [n]; None where examples have not one class each."""
        return None

    def collate_targets(self, targets: list[Tensor]) -> Tensor:
        """The targets of a batch as one tensor."""
        return torch.stack(targets)

    def note_repair(self, what: str) -> None:
        """To be called by `example`: the image at hand was repaired, in what."""
        self._notes.append(what)

    def setup(self, stage: str | None = None) -> None:
        """List the files (once), take the subset and the validation split."""
        if self._splits:
            return
        generator = torch.Generator().manual_seed(self.seed)
        splits = self._train_splits(generator)
        if self.validation_part == "official":
            splits["validation"] = self._whole("validation")
        splits["test"] = self._whole("test")
        self._splits = {split: self._judged_rows(split, rows) for split, rows in splits.items()}

    def _judged_rows(self, split: SplitName, rows: Rows) -> Rows:
        chosen = None if split == "train" else self.judged(len(rows.numbers))
        return rows if chosen is None else rows._replace(numbers=rows.numbers[chosen])

    def _train_splits(self, generator: torch.Generator) -> dict[SplitName, Rows]:
        """The training split and, where it is a fraction of it, the validation split."""
        if self.source == "synthetic":
            self._check_limit(self.TRAIN_SIZE)
        train = self._whole("train")
        labels, total = self.labels(train.records) if self.source == "real" else None, len(train.records)
        if self.limit is not None:
            self._check_limit(total)
            train = train._replace(numbers=stratified_subset(labels, total, self.limit, generator))
        if isinstance(self.validation_part, str) or self.validation_part == 0:
            return {"train": train}
        count = len(train.numbers)
        size = round(self.validation_part * count)
        advice = f"of {count} training examples that leaves one split empty"
        check("validation", self.validation_part, 0 < size < count, advice)
        kept = None if labels is None else labels[train.numbers]
        held_out = stratified_subset(kept, count, size, generator)
        return {
            "train": train._replace(numbers=train.numbers[complement(held_out, count)]),
            "validation": train._replace(numbers=train.numbers[held_out]),
        }

    def _check_limit(self, known: int) -> None:
        self.limit = self.within(self.limit, known)

    def _whole(self, part: SplitName) -> Rows:
        records = self._synthetic_records(part) if self.source == "synthetic" else self.records(part)
        return Rows(part, records, torch.arange(len(records)))

    def _synthetic_records(self, part: SplitName) -> Sequence[Record]:
        count = min(self.official_size(part), SYNTHETIC_SIZES[part])
        if part == "train" and self.limit is not None:
            count = self.limit
        return [Record(f"synthetic {part}", number) for number in range(count)]

    def official_size(self, part: SplitName) -> int:
        """How many examples the whole part has, as published."""
        return {"train": self.TRAIN_SIZE, "validation": self.VALIDATION_SIZE, "test": self.TEST_SIZE}[part]

    def move(self, device: torch.device | str) -> None:
        """Give batches on `device` from now on."""
        self.device = torch.device(device)
        mean, std = {
            "standard": (self.MEAN, self.STD),
            "unit_interval": ((0.0,) * 3, (1.0,) * 3),
            "none": ((0.0,) * 3, (1.0 / PEAK,) * 3),
        }[self.normalise]
        own = (torch.tensor(mean) * PEAK).view(-1, 1, 1), (1 / (torch.tensor(std) * PEAK)).view(-1, 1, 1)
        self._offset, self._scale = (part.to(self.device) for part in self._adopted or own)

    def normalisation(self) -> dict[str, Any]:
        """See `facts`."""
        return {
            "offset": plain_numbers(self._offset),
            "scale": plain_numbers(self._scale),
            "unit_rows": False,
            "input_range": [0.0, float(PEAK)],
        }

    def preparation(self) -> Preparation | None:
        """See `DataSet`; sets whose `example` does otherwise override it."""
        return usual_preparation(self.KIND, self.shape, PEAK)

    def adopt(self, facts: dict[str, Any]) -> None:
        """Give images normalised as `facts` of another set say."""
        self.setup()
        self.normalise = facts["normalise"]
        offset, scale = (torch.tensor(facts[key], dtype=torch.float32) for key in ("offset", "scale"))
        self._adopted = offset, scale
        self.move(self.device)

    @property
    def has_validation(self) -> bool:
        return self.validation_part != 0

    def size(self, split: SplitName) -> int:
        """How many examples a split has."""
        return len(self._rows(split).numbers)

    def labels_of(self, split: SplitName) -> Tensor | None:
        rows = self._rows(split)
        labels = self.labels(rows.records) if self.source == "real" else None
        return None if labels is None else labels[rows.numbers]

    def _rows(self, split: SplitName) -> Rows:
        if not self._splits:
            raise RuntimeError("call setup() before using the data")
        if split not in self._splits:
            raise UserError(
                f"dataset.validation={self.validation_part}: this run needs a validation split; "
                "give a fraction above 0 and below 1" + (' or "official"' if self.OFFICIAL_VALIDATION else "")
            )
        return self._splits[split]

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """Decode here and now; augmentation is drawn anew, from torch's global generator."""
        rows = self._rows(split)
        positions = torch.arange(len(rows.numbers))[index.cpu() if isinstance(index, Tensor) else index]
        draw = (int(torch.randint(2**62, ())), 0) if augment else None
        return self.ready(self._accepted(rows, self.decode(rows, Request(positions, draw), _fresh)))

    def batches(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """The whole split in order, without augmentation, decoded by the workers."""
        positions = torch.arange(self.size(split)).split(batch_size)
        stream = self.stream(split, (Request(chosen, None) for chosen in positions))
        for fetched in counted(stream, JUDGING[split], len(positions), "batches"):
            yield self.ready(fetched)

    def loader(self, seed: int) -> "StreamLoader":
        """An endless loader of `Fetched` minibatches of the training split."""
        batch_bytes = self.batch_size * math.prod(self.shape)
        return StreamLoader(
            lambda requests: self.stream("train", requests),
            size=self.size("train"),
            batch_size=self.batch_size,
            seed=seed,
            largest_block=max(1, BLOCK_BYTES // batch_bytes),
        )

    def ready(self, item: Any) -> Batch:
        """A fetched batch on the device: images normalised float32 [b, 3, H, W], targets `TARGET_DTYPE`."""
        images = item.images.to(self.device, non_blocking=True)
        inputs = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        inputs = inputs.sub_(self._offset).mul_(self._scale)
        return inputs, item.targets.to(self.device, non_blocking=True).to(self.TARGET_DTYPE)

    def stream(self, split: SplitName, requests: Iterable[Request]) -> Iterator[Fetched]:
        """The batches asked for, in that order, decoded ahead by the workers.

        Raises:
            UserError: a damaged image, by name; or a worker that was killed.
        """
        rows = self._rows(split)
        workers = 0 if self.source == "synthetic" else self.workers
        pinned = self.device.type == "cuda"
        loader: DataLoader[Fetched] = DataLoader(
            _Batches(self, rows),
            # not indices, but requests: they are handed to `_Batches` as they are
            batch_sampler=requests,  # type: ignore[arg-type]
            num_workers=workers,
            prefetch_factor=PREFETCH if workers else None,
            collate_fn=_as_it_is,
            pin_memory=pinned,
            worker_init_fn=_start_worker,
            # else it draws from the global one, which would make a restarted run differ
            generator=torch.Generator(),
        )
        batches = iter(loader)
        try:
            for fetched in batches:
                self._accepted(rows, fetched)
                # pinning has copied them already
                yield fetched._replace(images=_copied(fetched.images)) if workers and not pinned else fetched
        except (RuntimeError, ConnectionError, EOFError) as error:
            # the latter two where a worker went while it was handing over
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"dataset.workers={self.workers}: a worker process was killed, as happens when memory or "
                "shared memory (/dev/shm) is short; give fewer workers, a smaller batch_size, or workers=0"
            ) from error
        finally:
            # ends the workers at once, also where a traceback keeps this frame
            del batches

    def _accepted(self, rows: Rows, fetched: Fetched) -> Fetched:
        """Count what was repaired; raise the failure, if it is one."""
        for what, number in fetched.repaired:
            if (what, rows.part, number) not in self._repaired:
                self._repaired.add((what, rows.part, number))
                self.repairs[what] = self.repairs.get(what, 0) + 1
        if fetched.failure is not None:
            raise UserError(fetched.failure + self._others_damaged(fetched.damaged))
        return fetched

    def _others_damaged(self, path: str | None) -> str:
        """The other pictures of all splits that cannot be read, where one was met: so that all are known."""
        if path is None or fault_of(path, self.FORMATS) is None:
            return ""
        used = (rows.records[i].path for rows in self._splits.values() for i in rows.numbers.tolist())
        paths = [other for other in dict.fromkeys(used) if other != path]
        looked = paths[:MOST_LOOKED_THROUGH]
        found = unreadable(looked, f"dataset={self.NAME}", max(1, self.workers), self.FORMATS)
        of_how_many = f"{len(looked):,}" + (" others" if len(looked) == len(paths) else f" of {len(paths):,}")
        return f"; of {of_how_many}, {len(found)} cannot be read either" + (
            f": {listed_faults(found)}" if found else ""
        )

    def decode(self, rows: Rows, request: Request, space: Callable[[int], Tensor]) -> Fetched:
        """The examples of a request, written into one tensor; a failure is returned, not raised.

        An exception would reach the main process as a text of many lines. `space` gives uint8 [n] for the
        tensor, which takes the layout of the first image: to rearrange pixels costs more than to copy them.
        """
        images = torch.empty(0)
        targets: list[Tensor] = []
        repaired: list[tuple[str, int]] = []
        for place, number in enumerate(rows.numbers[request.positions].tolist()):
            record = rows.records[number]
            try:
                image, target = self._example(rows.part, number, record, request.draw)
            except UserError as error:
                return _failed(str(error))
            except (OSError, DamagedError) as error:
                return _failed(describe(Path(record.path), error), record.path)
            finally:
                repaired += [(what, number) for what in self._notes]
                self._notes.clear()
            if place == 0:
                images = _like(image, len(request.positions), space)
            images[place].copy_(image)
            targets.append(target)
        return Fetched(images, self.collate_targets(targets), repaired, None)

    def _example(
        self, part: SplitName, number: int, record: Record, draw: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor]:
        if self.source == "synthetic":
            generator = np.random.default_rng((list(SYNTHETIC_SIZES).index(part), number))
            image = generator.integers(0, PEAK + 1, self.shape, dtype=np.uint8)
            return torch.from_numpy(image), self.synthetic_target(number, generator)
        if draw is None or self.augment == "none":
            return self.example(record, None)
        seed, epoch = draw
        # seeds of numpy are not negative
        return self.example(record, np.random.default_rng((seed % 2**64, epoch, number)))

    def __getstate__(self) -> dict[str, Any]:
        """What workers that do not start as a copy of this process get: everything but the trainer."""
        return {**self.__dict__, "trainer": None}


class StreamLoader(BlockLoader):
    """Shuffled minibatches of a streamed training split, decoded ahead; a state counts the yielded ones.

    Workers go on into the next epoch without a pause.

    Args:
        stream: gives the batches that it is asked for, in order.
        size: number of training examples.
        batch_size: examples a step, see `minibatches`.
        seed: of the permutations and of the augmentation.
        largest_block: `block` never exceeds this, so that a block stays small in memory.
    """

    def __init__(
        self,
        stream: Callable[[Iterator[Request]], Iterator[Fetched]],
        *,
        size: int,
        batch_size: int,
        seed: int,
        largest_block: int,
    ) -> None:
        self._largest_block = largest_block
        super().__init__(steps_of(size, batch_size), seed)
        self._stream, self._size, self._batch_size = stream, size, batch_size
        self._running: Iterator[Fetched] = iter(())
        # the step that `_running` gives next
        self._next: tuple[int, int] | None = None

    @property
    def block(self) -> int:
        """How many steps one `training_step` makes, at most."""
        return self._block

    @block.setter
    def block(self, steps: int) -> None:
        self._block = min(steps, self._largest_block)

    def batch_sizes(self) -> tuple[int, int]:
        return ends_of(self._size, self._batch_size)

    def items(self) -> Iterator[Fetched]:
        """The batches of epoch `epoch` from step `position` on."""
        if self._next != (self.epoch, self.position):
            requests = _requests(self._size, self._batch_size, self.seed, self.epoch, self.position)
            self._running = self._stream(requests)
        epoch = self.epoch
        for step in range(self.position, self.steps_per_epoch):
            self._next = (epoch, step + 1) if step + 1 < self.steps_per_epoch else (epoch + 1, 0)
            yield next(self._running)


def _requests(size: int, batch_size: int, seed: int, epoch: int, position: int) -> Iterator[Request]:
    """All batches from step `position` of `epoch` on, without end.

    No method: a loader must not hold itself in a cycle, or its workers live until garbage is collected.
    """
    while True:
        for positions in minibatches(shuffled(size, seed, epoch), batch_size)[position:]:
            yield Request(positions, (seed, epoch))
        epoch, position = epoch + 1, 0


class _Batches(Dataset[Fetched]):
    """What a DataLoader asks for batches; each worker has its own."""

    def __init__(self, data: StreamedData, rows: Rows) -> None:
        self.data, self.rows = data, rows
        self._places: list[Tensor] = []

    def __getitems__(self, request: Request) -> Fetched:
        space = _fresh if get_worker_info() is None else self._next_place
        return self.data.decode(self.rows, request, space)

    def _next_place(self, size: int) -> Tensor:
        """uint8 [size] in shared memory that was used before, if it is large enough.

        Fresh memory would cost a quarter of the time that decoding takes: the system clears it by pages.
        """
        place = self._places.pop(0) if len(self._places) == PLACES else torch.empty(0, dtype=torch.uint8)
        if len(place) < size:
            storage = torch.UntypedStorage._new_shared(size, device="cpu")
            place = torch.empty(0, dtype=torch.uint8).set_(storage)
        self._places.append(place)
        return place[:size]


def _as_it_is(fetched: Any) -> Any:
    return fetched


def _start_worker(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal: the main one ends its workers, without their tracebacks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # what was garbage in the main process, perhaps an older loader, is not this one's to collect
    gc.freeze()
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what decoding one image frees for the next one, where this is glibc.

    Else it hands it back to the system, image by image, and getting it again, cleared, page by page, takes a
    third of the time that decoding takes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)


def _fresh(size: int) -> Tensor:
    """uint8 [size] of fresh memory."""
    # numpy asks for large pages, which the system clears at once, torch does not
    return torch.from_numpy(np.empty(size, np.uint8))


def _like(image: Tensor, count: int, space: Callable[[int], Tensor]) -> Tensor:
    """uint8 [count, 3, H, W] in planes, or with the channels of a pixel side by side, as `image` has them."""
    channels, height, width = image.shape
    flat = space(count * image.numel())
    if image.is_contiguous():
        return flat.view(count, channels, height, width)
    return flat.view(count, height, width, channels).permute(0, 3, 1, 2)


def _copied(images: Tensor) -> Tensor:
    return _fresh(images.numel()).as_strided(images.shape, images.stride()).copy_(images)


def _failed(why: str, damaged: str | None = None) -> Fetched:
    return Fetched(torch.empty(0), torch.empty(0), [], why, damaged)
