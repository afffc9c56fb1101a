"""Faces: CASIA-WebFace (Yi et al. 2014) to train on, the pairs of LFW (Huang et al. 2007) to be judged by.

In `data_dir`: `casia_webface/IDENTITY/*.jpg`, `lfw/NAME/NAME_0001.jpg` and `lfw/pairs.txt`, LFW's list of the
pairs of its view 2: "FOLDS COUNT", then for each fold COUNT lines "NAME i j" of one person and COUNT lines
"NAME i OTHER j" of two. Images are aligned by the eyes, nose and mouth and 96x112, as SphereFace has them.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.data.images.image_folder import EXTENSIONS, Listing, listed
from common.data.shared.class_folders import class_folders, files_in
from common.data.shared.decode import Box, decode_rgb, mirrored
from common.data.shared.download import DamagedError, describe
from common.data.shared.streamed import Record, StreamedData, StreamedOptions, naming

CASIA, LFW, PAIRS = "casia_webface", "lfw", "pairs.txt"
PAIRS_URL = "http://vis-www.cs.umass.edu/lfw/pairs.txt"
SYNTHETIC_FOLDS = 10


class Pair(NamedTuple):
    """A line of the list of pairs: the fold, and twice a name and the number of the photograph."""

    fold: int
    first: tuple[str, int]
    second: tuple[str, int]

    @property
    def same(self) -> bool:
        """Whether both are of one person."""
        return self.first[0] == self.second[0]


class Pairs(NamedTuple):
    """The pairs of the test split.

    Attributes:
        first, second: numbers of the two images in the test split, int64 [p].
        same: whether they are of one person, bool [p].
        fold: 0, 1, ..., int64 [p].
    """

    first: Tensor
    second: Tensor
    same: Tensor
    fold: Tensor


class Faces(StreamedData):
    """494,414 faces of 10,575 people for training; for testing the 7,701 faces that LFW's 6,000 pairs show.

    Targets of training are the identities. Those of testing number other people, in the order of the list: no
    network can name them, `pairs` says who are one person. Images of another size are cut to the largest
    centred window of the right ratio, and stretched. "standard" is SphereFace's (x - 127.5) / 128.

    Args:
        classes: how many folders of identities there must be.
        size: (height, width) that images are given in.
        augment: of training: "flip" mirrors half of the images; or "none".
        The others as in `StreamedData`.
    """

    NAME: ClassVar = "faces"
    KIND: ClassVar = "face_verification"
    CLASSES: ClassVar = 10_575
    TRAIN_SIZE: ClassVar = 494_414
    TEST_SIZE: ClassVar = 7_701
    SUFFIXES: ClassVar = (*EXTENSIONS, ".txt")
    MEAN = (127.5 / 255,) * 3
    STD = (128 / 255,) * 3

    def __init__(
        self,
        *,
        classes: int,
        size: tuple[int, int],
        augment: Literal["none", "flip"],
        **options: Unpack[StreamedOptions],
    ) -> None:
        super().__init__(shape=(3, *size), **options)
        check("classes", classes, classes >= 2, "give at least 2")
        self.classes, self.augment = classes, augment

    def sources(self) -> dict[str, Path]:
        """The folders of both sets."""
        return {name: self.data_dir / name for name in (CASIA, LFW)}

    def records(self, part: SplitName) -> Sequence[Record]:
        """The images of CASIA-WebFace by identity and name; those of LFW in the order of its pairs."""
        return self._identities() if part == "train" else self._tested

    def labels(self, records: Sequence[Record]) -> Tensor | None:
        """The identity of each training image, int64 [n]."""
        assert isinstance(records, Listing)
        return records.labels

    @property
    def pairs(self) -> Pairs:
        """See `Pairs`; after `setup`."""
        return self._synthetic_pairs() if self.source == "synthetic" else self._numbered

    def example(self, record: Record, generator: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """The image, uint8 [3, height, width], and its identity, int64 []."""
        image = decode_rgb(record.path, self.image_size, self._window, self.note_repair)
        mirror = generator is not None and self.augment == "flip" and generator.random() < 0.5
        return mirrored(image) if mirror else image, torch.tensor(record.annotation)

    def synthetic_target(self, number: int, generator: np.random.Generator) -> Tensor:
        """Identities in turn, int64 []."""
        assert self.classes is not None
        return torch.tensor(number % self.classes)

    def _window(self, height: int, width: int) -> Box:
        """The largest window of the ratio of `image_size` around the centre."""
        scale = min(height / self.image_size[0], width / self.image_size[1])
        down, across = (max(1, round(scale * side)) for side in self.image_size)
        top, left = (height - down) // 2, (width - across) // 2
        return Box(left, top, left + across, top + down)

    def _identities(self) -> Listing:
        folder = self.data_dir / CASIA
        try:
            classes = class_folders(folder)
        except OSError as error:
            raise UserError(f"{describe(folder, error)}: {self._advice()}") from error
        if not classes:
            raise UserError(f"{folder.resolve()} holds no folders of identities: {self._advice()}")
        check(
            "classes",
            self.classes,
            len(classes) == self.classes,
            f"{folder.resolve()} has {len(classes)} folders; set dataset.classes={len(classes)}"
            " if it is whole",
        )
        names = [files_in(folder / name) for name in classes]
        for name, images in zip(classes, names, strict=True):
            if not images:
                raise UserError(
                    f"{(folder / name).resolve()} holds no image (valid: {', '.join(EXTENSIONS)})"
                )
        return listed(folder, classes, names)

    @cached_property
    def _listed_pairs(self) -> list[Pair]:
        path = self.data_dir / LFW / PAIRS
        try:
            with naming(path, self._advice()):
                return parse_pairs(path.read_text())
        except OSError as error:
            raise UserError(f"{describe(path, error)}: {self._advice()}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{describe(path, DamagedError('not a text file'))}: {self._advice()}") from error

    @cached_property
    def _shown(self) -> dict[tuple[str, int], int]:
        """The number in the test split of each photograph that a pair shows, in the order of the list."""
        shown = (photograph for pair in self._listed_pairs for photograph in (pair.first, pair.second))
        return {photograph: number for number, photograph in enumerate(dict.fromkeys(shown))}

    @cached_property
    def _tested(self) -> list[Record]:
        folder = self.data_dir / LFW
        people = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in self._shown))}
        present = {name: _image_names(folder / name) for name in people}
        records = []
        for name, number in self._shown:
            stem = f"{name}_{number:04}"
            if stem not in present[name]:
                raise UserError(
                    f"{(folder / name / stem).resolve()}.jpg is missing, though {PAIRS} lists it: "
                    f"{self._advice()}"
                )
            records.append(Record(f"{folder / name}/{present[name][stem]}", people[name]))
        return records

    @cached_property
    def _numbered(self) -> Pairs:
        pairs, shown = self._listed_pairs, self._shown
        return Pairs(
            first=torch.tensor([shown[pair.first] for pair in pairs]),
            second=torch.tensor([shown[pair.second] for pair in pairs]),
            same=torch.tensor([pair.same for pair in pairs]),
            fold=torch.tensor([pair.fold for pair in pairs]),
        )

    def _synthetic_pairs(self) -> Pairs:
        """Each image with the next one, every other pair of one "person", in ten folds in turn."""
        numbers = torch.arange(self.size("test"))
        return Pairs(
            first=numbers,
            second=numbers.roll(-1),
            same=numbers % 2 == 0,
            fold=numbers // 2 % SYNTHETIC_FOLDS,
        )

    def _advice(self) -> str:
        folder = self.data_dir.resolve()
        return (
            "faces are got by hand: put CASIA-WebFace's, aligned and 96x112, into "
            f"{folder / CASIA}/IDENTITY/*.jpg, LFW's, aligned likewise, into "
            f"{folder / LFW}/NAME/NAME_0001.jpg, and {PAIRS_URL} into {folder / LFW}; "
            "or take dataset.source=synthetic"
        )


def _image_names(folder: Path) -> dict[str, str]:
    """The image files of a folder by their names without the ending; none where it is missing."""
    if not folder.is_dir():
        return {}
    return {path.stem: path.name for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS}


def parse_pairs(text: str) -> list[Pair]:
    """The pairs of LFW's list.

    Raises:
        DamagedError: it does not start with two or more folds and a count, there are not as many lines as the
            start says, or a line is no pair of the kind that is due.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    start = lines[0] if lines else []
    if (
        len(start) != 2
        or not all(word.isdecimal() for word in start)
        or int(start[0]) < 2
        or int(start[1]) < 1
    ):
        raise DamagedError(
            f"it starts with {' '.join(start)[:40]!r} instead of two or more folds and a count"
        )
    folds, count = map(int, start)
    if len(lines) - 1 != 2 * folds * count:
        raise DamagedError(f"{len(lines) - 1} pairs; its first line says {folds} folds of {2 * count}")
    return [_pair(number, line, count) for number, line in enumerate(lines[1:])]


def _pair(number: int, line: list[str], count: int) -> Pair:
    """Pair `number` of the list, from 0: in each fold `count` of one person, then as many of two."""
    fold, place = divmod(number, 2 * count)
    name, first, *second = line if len(line) > 2 else ["", "", ""]
    other = [name, *second] if place < count else second
    fits = len(other) == 2 and first.isdecimal() and other[1].isdecimal()
    if not fits or (other[0] == name) != (place < count):
        kind = "NAME i j" if place < count else "NAME i OTHER j"
        raise DamagedError(f"line {number + 2} is {' '.join(line)[:60]!r} instead of {kind!r}")
    return Pair(fold, (name, int(first)), (other[0], int(other[1])))
