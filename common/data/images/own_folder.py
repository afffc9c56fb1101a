"""A folder of the user's own images, one folder a class: what must be known of it is found from the files."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from common.base.dataset import Origin, SplitName, check
from common.base.errors import UserError
from common.data.images.decoding import SUFFIXES
from common.data.images.image_folder import ImageFolder, Listing, images_of, listed
from common.data.shared.class_folders import beside_files, class_folders, files_in
from common.data.shared.decode import OWN_FORMATS, image_size
from common.data.shared.download import DamagedError, describe
from common.data.shared.fingerprint import fingerprint
from common.data.shared.own_parts import (
    FolderOfImages,
    as_trained,
    folders_of_parts,
    held_out,
    trained_on,
    usual_validation,
)
from common.data.shared.streamed import Record, Rows, StreamedOptions
from common.data.shared.streamed import Request as Wanted
from common.data.shared.subsets import complement
from common.data.shared.text_file import shown
from common.data.shared.unreadable import known_unreadable, listed_faults

# images that sizes and the mean colour are taken from, evenly spaced over all
SAMPLE = 1000
LARGEST_SIZE = 224
LAYOUT = "PATH/train/CLASS/*.jpg"
# the shorter side of an image before its centre is cut out, against the size: 256 for 224
MARGIN = 8 / 7
LEAVE_OUT = "leave_out"
LEFT_OUT = "pictures left out, which cannot be read"


class OwnFolder(FolderOfImages, ImageFolder):
    """Images in `PATH/train/CLASS/*.jpg`, with `PATH/val` and `PATH/test` alike; or in `PATH/CLASS/*.jpg`.

    The test part is `test`; without one it is `val`; without both, a part of the training images, the same
    for every run. With both, `val` is the validation part. One line on stderr says what was found.

    Args:
        path: the folder.
        size: images are given as 3 x size x size; null for the median of their shorter sides, 224 at most.
        validation: "official" for `val` where there is a `test` beside it, or the fraction of the training
            images that is split off; null for the former where it can be had, else none.
        test: the fraction of each class that is held out for testing where no part is there for it.
        augment: as in `ImageFolder`.
        unreadable: "leave_out" goes without the pictures that cannot be decoded, and counts them; null names
            them all, and refuses the folder.
        origin: of a network that is to be judged: classes, by the names of their folders, and normalisation
            are then those that it was trained with; some classes may be absent. All images are for testing
            where no part is there for it, but those that it was trained on.
        normalise: "standard" takes mean and standard deviation of each channel from the training split.
        The others as in `StreamedData`.

    Raises:
        UserError: no such folder, fewer than two classes, classes that only one part has, or no image; with
            `origin`, a class that it has not.
    """

    NAME: ClassVar = "folder"
    CLASSES: ClassVar = 0
    TRAIN_SIZE: ClassVar = 512
    TEST_SIZE: ClassVar = 256
    UPRIGHT: ClassVar = True
    SUFFIXES: ClassVar = SUFFIXES
    FORMATS: ClassVar = OWN_FORMATS
    # of all three parts, where the folder has them
    OFFICIAL_VALIDATION: ClassVar = True

    def __init__(
        self,
        *,
        path: str,
        size: int | None,
        test: float,
        augment: Literal["none", "flip", "resized_crop"],
        unreadable: Literal["leave_out"] | None = None,
        origin: Origin | None = None,
        **options: Unpack[StreamedOptions],
    ) -> None:
        check("path", path, bool(path), f"give the folder of your images (valid: {LAYOUT})")
        check("test", test, 0 < test < 1, "give a fraction above 0 and below 1")
        check("unreadable", unreadable, unreadable in (None, LEAVE_OUT), "give leave_out, or null")
        self.unreadable = unreadable
        # pictures that cannot be decoded, by path, once they have been looked for
        self._faults: dict[str, str] = {}
        self.root, self.holdout, self.origin = Path(path).expanduser(), test, origin
        self.folders = folders_of_parts(self.root, LAYOUT, origin is not None)
        self.class_list = self._class_list()
        size = size or self._usual_size()
        options["validation"] = usual_validation(
            options["validation"], self.root, "validation" in self.folders, origin is not None
        )
        resize = max(size, round(size * MARGIN))
        classes = len(self.class_list)
        super().__init__(folder=path, classes=classes, size=size, resize=resize, augment=augment, **options)
        self.held_out = "test" not in self.folders and (
            origin is None or trained_on(origin, self.sources(), self.SUFFIXES)
        )
        if origin is not None:
            found = self._class_names(self.judged_folder())
            absent = [name for name in self.class_list if name not in found]
            if absent:
                self.notes.append(f"no folder for {len(absent)} of the classes: {shown(absent)}")

    def facts(self) -> dict[str, Any]:
        """See `DataSet`; where pictures were left out, how many: `left_out`."""
        known = super().facts()
        return {**known, "left_out": len(self._faults)} if self._faults else known

    def normalisation(self) -> dict[str, Any]:
        """See `facts`; the colours are measured for it, if they have not been."""
        self.setup()
        return super().normalisation()

    def _class_names(self, folder: Path) -> list[str]:
        try:
            names = class_folders(folder)
        except OSError as error:
            raise UserError(f"dataset.path: {describe(folder, error)}") from error
        least = 2 if self.origin is None else 1
        if len(names) < least:
            loose, found = len(files_in(folder, SUFFIXES)), beside_files([folder], SUFFIXES)
            images = f"{loose} image{'s' * (loose != 1)} and " if loose else ""
            raise UserError(
                f"dataset.path={self.root}: {folder.resolve()} has {len(names)} class folder"
                f"{'s' * (len(names) != 1)}; found: "
                f"{images}{found or 'nothing else'} (valid: at least {least}, with images "
                f"right in them, as PATH/train/CLASS/*.jpg{self._deeper(folder, names)})"
            )
        return names

    def _deeper(self, folder: Path, names: list[str]) -> str:
        """The advice to name the one folder within, where that is laid out as it should be."""
        inside = folder / names[0] if len(names) == 1 else None
        if inside is None or len(class_folders(inside)) < 2 or files_in(inside, SUFFIXES):
            return ""
        return f"; the folders in it: dataset.path={self.root / folder.relative_to(self.root) / names[0]}"

    def _class_list(self) -> list[str]:
        """The classes, in the order of their labels: those of the training part, or of the network's.

        Raises:
            UserError: a folder that is none of the network's classes.
        """
        if self.origin is None:
            return self._class_names(self.folders["train"])
        found, theirs = self._class_names(self.judged_folder()), self.origin.facts["class_names"]
        if theirs is None:
            return found
        return as_trained(found, theirs, self.root, "class folders are no classes of training")

    def judged_folder(self) -> Path:
        return self.folders.get("test", self.folders["train"])

    def _listing(self, folder: Path) -> Listing:
        """All images of a part, by class and name.

        Raises:
            UserError: the part has other classes than the training part, or a class without an image.
        """
        found = self._class_names(folder)
        differing = sorted(set(self.class_list) ^ set(found))
        if differing and self.origin is None:
            train = self.folders["train"].name
            raise UserError(
                f"{self.root.resolve()}: the class folder {differing[0]} is in only one of {train} and "
                f"{folder.name}; they must have the same classes"
            )
        images = dict(zip(found, images_of(folder, found, SUFFIXES), strict=True))
        if self._faults:
            images = {name: self._readable(folder / name, files) for name, files in images.items()}
        return listed(folder, self.class_list, [images.get(name, []) for name in self.class_list])

    def _readable(self, folder: Path, names: list[bytes]) -> list[bytes]:
        """Of the pictures of a class those that can be decoded.

        Raises:
            UserError: there is none.
        """
        kept = [name for name in names if f"{folder}/{os.fsdecode(name)}" not in self._faults]
        if not kept:
            raise UserError(f"{folder.resolve()} holds no image that can be read, of {len(names)}")
        return kept

    def _look_through(self) -> None:
        """Find all pictures that cannot be decoded, once for the same files.

        Raises:
            UserError: there are some, and nobody has said to leave them out: all of them.
        """
        folders = self.folders.values() if self.origin is None else [self.judged_folder()]
        listings = [self._listing(folder) for folder in dict.fromkeys(folders)]
        paths = {record.path: None for listing in listings for record in listing}
        files = fingerprint(self.sources(), self.SUFFIXES)
        threads = max(1, self.workers)
        found = known_unreadable(self.root, list(paths), files, "dataset=folder", threads, self.FORMATS)
        found = {path: fault for path, fault in found.items() if path in paths}
        if found and self.unreadable is None:
            raise UserError(
                f"dataset.path={self.root}: {_pictures(len(found))} of {len(paths)} cannot be read: "
                f"{listed_faults(found, self.root)} (valid: take them away, or go on without them: "
                f"dataset.unreadable={LEAVE_OUT})"
            )
        self._faults = found
        if found:
            self.repairs[LEFT_OUT] = len(found)

    def _usual_size(self) -> int:
        """The median of the shorter sides of a sample of the training images, `LARGEST_SIZE` at most.

        Those that cannot be read have none: `_look_through` names them.
        """
        records = self._listing(self.folders["train"] if self.origin is None else self.judged_folder())
        known = (_size(records[i].path) for i in _spaced(len(records)))
        sides = sorted(min(size) for size in known if size is not None)
        return min(LARGEST_SIZE, sides[len(sides) // 2]) if sides else LARGEST_SIZE

    def records(self, part: SplitName) -> Sequence[Record]:
        """All images of a part; where the test part is drawn, those of the training folder that are its."""
        if part == "test" and not self.held_out:
            return self._listing(self.judged_folder())
        if part in self.folders and not self.held_out:
            return self._listing(self.folders[part])
        everything = self._listing(self.folders["train"])
        drawn = held_out(self.holdout, everything.labels, len(everything))
        return everything.chosen(drawn if part == "test" else complement(drawn, len(everything)))

    def setup(self, stage: str | None = None) -> None:
        """List the files (once), take the splits, and measure the colours of the training split."""
        if self._splits:
            return
        if self.source == "real":
            self._look_through()
        if self.origin is not None:
            self._splits = {"test": self._whole("test")}
            return
        super().setup(stage)
        if self.source == "real":
            if self.normalise == "standard":
                self.MEAN, self.STD = self._colours(self._splits["train"])
                self.move(self.device)
            print(self._found(), file=sys.stderr)

    def _colours(self, rows: Rows) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of each channel in units of 255, over a sample of a split's pixels."""
        count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        chosen = torch.tensor(_spaced(len(rows.numbers))).split(self.EVALUATION_BATCH)
        for fetched in self.stream("train", [Wanted(positions, None) for positions in chosen]):
            pixels = fetched.images.double().div(255)
            count += pixels[:, 0].numel()
            total += pixels.sum((0, 2, 3))
            squares += pixels.square().sum((0, 2, 3))
        mean = total / count
        # a channel without any contrast is only shifted
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        std[std < 1e-4] = 1.0
        return _triple(mean), _triple(std)

    def _found(self) -> str:
        """What was found in the folder, in one line."""
        sizes = ", ".join(f"{len(rows.numbers)} {split}" for split, rows in self._splits.items())
        folders = (part / name for part in self.folders.values() for name in self.class_list)
        beside, count = beside_files(folders, SUFFIXES), len(self._faults)
        faults = f"{_pictures(count)} that cannot be read" if count else ""
        others = " and ".join(filter(None, (beside, faults)))
        tested = (
            f"the part {self.folders['test'].name}"
            if "test" in self.folders
            else (f"{self.holdout:.0%} of the images, held out by class, as there is no part test or val")
        )
        return (
            f"dataset=folder: {len(self.class_list)} classes, images of {self.image_size[0]} px; {sizes}; "
            f"tested on {tested}{f'; left out: {others}' if others else ''}"
        )


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def _triple(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue


def _spaced(count: int) -> list[int]:
    """At most `SAMPLE` of the numbers 0, ..., count - 1, evenly spaced."""
    size = min(count, SAMPLE)
    return [i * count // size for i in range(size)]


def _size(path: str) -> tuple[int, int] | None:
    """(height, width) of an image, from its first bytes; None where these are none of an image's."""
    try:
        return image_size(path, OWN_FORMATS)
    except (OSError, DamagedError):
        return None
