"""CelebA (Liu et al. 2015): aligned faces and 40 attributes of each, in `data_dir/celeba`.

`list_eval_partition.txt` has a line "NAME PART" (0 train, 1 validation, 2 test) for each image,
`list_attr_celeba.txt` their number, the names of the attributes, and a line "NAME -1 1 ..." for each;
`img_align_celeba/NAME` are the images, 178x218, unpacked from `img_align_celeba.zip` if need be. Kaggle's
copy is read too: `list_eval_partition.csv` and `list_attr_celeba.csv`, and images in
`img_align_celeba/img_align_celeba/NAME`.
"""

import csv
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, TypeVar, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.base.task_spec import TaskSpec
from common.data.shared.decode import decode_rgb, mirrored
from common.data.shared.download import DamagedError, describe
from common.data.shared.prepare import Checksum, check_file
from common.data.shared.streamed import Record, StreamedData, StreamedOptions, unpack_folder

IMAGES, ARCHIVE = "img_align_celeba", "img_align_celeba.zip"
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
DRIVE = "https://drive.google.com/file/d"
# of Google Drive, which asks people, not programs
DRIVE_IDS = {
    ARCHIVE: "0B7EVK8r0v71pZjFTYXZWM3FlRnM",
    ATTRIBUTES: "0B7EVK8r0v71pblRyaVFSWGxPY0U",
    PARTITION: "0B7EVK8r0v71pY0NSMzRuSXJEVkk",
}
# nobody of this project has seen the files
MD5 = {
    ARCHIVE: Checksum("00d2c5bc6d35e252742224ab0c1e8fcb", confirmed=False),
    ATTRIBUTES: Checksum("75e246fa4810816ffd6ee81facbd244c", confirmed=False),
    PARTITION: Checksum("d32c9cbf5e040fd4025c592c306e6668", confirmed=False),
}
PARTS: dict[SplitName, int] = {"train": 0, "validation": 1, "test": 2}
LABELS = 40

Content = TypeVar("Content")


class CelebA(StreamedData):
    """Faces of celebrities, 40 binary attributes: 162,770 for training, 19,867 validation, 19,962 test.

    Targets are int64 [b, 40] of 0 and 1, in the file's order (0 is 5_o_Clock_Shadow, 39 Young).

    Images are stretched to size x size as MGDA (Sener and Koltun 2018) does, bilinearly. Its code differs in
    three things, none of which is done here: channels are BGR, each image is rescaled to its own darkest and
    lightest value, and only the mean (of 0..255) is subtracted before the division by 255.

    Args:
        size: images are given as 3 x size x size.
        augment: of training: "flip" mirrors half of the images; or "none".
        The others as in `StreamedData`.
    """

    NAME: ClassVar = "celeba"
    KIND: ClassVar = "multi_label"
    # of which an image may have any number
    CLASSES: ClassVar = LABELS
    TRAIN_SIZE: ClassVar = 162_770
    VALIDATION_SIZE: ClassVar = 19_867
    TEST_SIZE: ClassVar = 19_962
    OFFICIAL_VALIDATION: ClassVar = True
    TASKS: ClassVar = tuple(TaskSpec(f"attr{number}", "class", 2) for number in range(LABELS))

    def __init__(
        self, *, size: int, augment: Literal["none", "flip"], **options: Unpack[StreamedOptions]
    ) -> None:
        super().__init__(shape=(3, size, size), **options)
        self.augment = augment

    def records(self, part: SplitName) -> Sequence[Record]:
        """The images of a part in the order of the partition file, with their 40 attributes."""
        folder = self.data_dir / "celeba"
        images = unpack_folder(
            folder / IMAGES, folder / ARCHIVE, IMAGES, MD5[ARCHIVE], self.verify, self._advice()
        )
        if (images / IMAGES).is_dir():
            # a folder within a folder, as Kaggle packs it
            images = images / IMAGES
        present = {path.name for path in images.iterdir()}
        attributes, records = self._attributes, []
        for name, number in self._partition.items():
            if number != PARTS[part]:
                continue
            if name not in attributes:
                raise UserError(f"{(folder / ATTRIBUTES).resolve()} lacks {name}, which {PARTITION} lists")
            if name not in present:
                raise UserError(f"{(images / name).resolve()} is missing, though {PARTITION} lists it")
            records.append(Record(f"{images}/{name}", attributes[name]))
        if not records:
            raise UserError(f"{(folder / PARTITION).resolve()} lists no image of the {part} part")
        return records

    def sources(self) -> dict[str, Path]:
        """The images, and the lists of parts and attributes."""
        lists = {name: self._place(name) for name in (PARTITION, ATTRIBUTES)}
        return {IMAGES: self.data_dir / "celeba" / IMAGES, **lists}

    def _place(self, name: str) -> Path:
        """Where a list lies: as it was published, or else as CSV, where that is there."""
        path = self.data_dir / "celeba" / name
        table = path.with_suffix(".csv")
        return table if table.exists() and not path.exists() else path

    @cached_property
    def _partition(self) -> dict[str, int]:
        """The part, 0 to 2, of each image by name."""
        return self._list(PARTITION, parse_partition)

    @cached_property
    def _attributes(self) -> dict[str, np.ndarray]:
        """The attributes of each image by name, uint8 [40] of 0 and 1."""
        return self._list(ATTRIBUTES, parse_attributes)

    def _list(self, name: str, parse: Callable[[str], Content]) -> Content:
        path = self._place(name)
        try:
            if path.suffix == ".csv":
                return parse(published(path.read_text()))
            check_file(path, MD5[name], self.verify)
            return parse(path.read_text())
        except (OSError, DamagedError) as error:
            raise UserError(f"{describe(path, error)}: {self._advice()}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{describe(path, DamagedError('not a text file'))}: {self._advice()}") from error

    def _advice(self) -> str:
        folder = (self.data_dir / "celeba").resolve()
        files = ", ".join(f"{name} ({DRIVE}/{number})" for name, number in DRIVE_IDS.items())
        return (
            f"CelebA must be downloaded by hand from Google Drive: put {files} into {folder}; "
            "or take dataset.source=synthetic"
        )

    def example(self, record: Record, generator: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """The image, uint8 [3, size, size], and its attributes, uint8 [40]."""
        image = decode_rgb(record.path, self.image_size, None, self.note_repair)
        if generator is not None and self.augment == "flip" and generator.random() < 0.5:
            image = mirrored(image)
        return image, torch.from_numpy(record.annotation)

    def synthetic_target(self, number: int, generator: np.random.Generator) -> Tensor:
        """Random attributes, uint8 [40]."""
        return torch.from_numpy(generator.integers(0, 2, LABELS, dtype=np.uint8))


def published(table: str) -> str:
    """One of Kaggle's CSV files as the list that it was made from.

    Raises:
        DamagedError: its head does not begin with image_id, or a row is not as long as the head.
    """
    lines = [line for line in table.lstrip("\N{BOM}").splitlines() if line.strip()]
    head, *rows = csv.reader(lines or [""])
    if head[:1] != ["image_id"]:
        raise DamagedError(f"its first line begins with {''.join(head[:1])[:20]!r} instead of 'image_id'")
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise DamagedError(f"line {number} has {len(row)} columns, its first line {len(head)}")
    listed = [" ".join(row) for row in rows]
    return "\n".join(listed if len(head) == 2 else [str(len(rows)), " ".join(head[1:]), *listed])


def parse_partition(text: str) -> dict[str, int]:
    """{image: part} of a partition file.

    Raises:
        DamagedError: a line is not "NAME 0", "NAME 1" or "NAME 2".
    """
    parts = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, _, part = line.strip().partition(" ")
        if part.strip() not in ("0", "1", "2"):
            raise DamagedError(f"line {number} is {line[:60]!r}; it gives an image and its part, 0, 1 or 2")
        parts[name] = int(part)
    return parts


def parse_attributes(text: str) -> dict[str, np.ndarray]:
    """{image: attributes, uint8 [40] of 0 and 1} of an attribute file.

    Raises:
        DamagedError: it has not the rows that its first line promises, or not 40 values of -1 or 1 in each.
    """
    first, _, rest = text.partition("\n")
    names, _, rest = rest.partition("\n")
    rows = [line.split(maxsplit=1) for line in rest.splitlines() if line.strip()]
    if not rows or first.strip() != str(len(rows)):
        raise DamagedError(f"{len(rows)} images; its first line says {first[:20].strip()!r}")
    if len(names.split()) != LABELS:
        raise DamagedError(f"{len(names.split())} attributes are named in it instead of {LABELS}")
    try:
        values = np.loadtxt((row[-1] for row in rows), dtype=np.int8, ndmin=2, comments=None)
    except ValueError as error:
        raise DamagedError(f"not a table of numbers: {' '.join(str(error).split())}") from error
    if values.shape[1] != LABELS:
        raise DamagedError(f"{values.shape[1]} values an image instead of {LABELS}")
    wrong = np.abs(values) != 1
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DamagedError(f"{rows[row][0]} has a value {values[row, column]}; they are -1 and 1")
    return {row[0]: values for row, values in zip(rows, (values > 0).astype(np.uint8), strict=True)}
