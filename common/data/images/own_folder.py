"""A folder of the user's own images, one folder a class: what must be known of it is found from the files."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from common.base.dataset import Origin, SplitName, check
from common.base.errors import UserError
from common.data.images.image_folder import (
    ImageFolder,
    Listing,
    beside_images,
    class_folders,
    images_in,
    images_of,
    listed,
)
from common.data.shared.decode import image_size
from common.data.shared.download import DamagedError, describe
from common.data.shared.own_parts import folders_of_parts, held_out, trained_on, usual_validation
from common.data.shared.streamed import Record, Rows, StreamedOptions
from common.data.shared.streamed import Request as Wanted
from common.data.shared.subsets import complement
from common.data.shared.text_file import shown

# images that sizes and the mean colour are taken from, evenly spaced over all
SAMPLE = 1000
LARGEST_SIZE = 224
LAYOUT = "PATH/train/CLASS/*.jpg"
# the shorter side of an image before its centre is cut out, against the size: 256 for 224
MARGIN = 8 / 7


class OwnFolder(ImageFolder):
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
    # of all three parts, where the folder has them
    OFFICIAL_VALIDATION: ClassVar = True

    def __init__(
        self,
        *,
        path: str,
        size: int | None,
        test: float,
        augment: Literal["none", "flip", "resized_crop"],
        origin: Origin | None = None,
        **options: Unpack[StreamedOptions],
    ) -> None:
        check("path", path, bool(path), f"give the folder of your images (valid: {LAYOUT})")
        check("test", test, 0 < test < 1, "give a fraction above 0 and below 1")
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
        # whether a part is held out for testing
        self.held_out = "test" not in self.folders and (
            origin is None or trained_on(origin, self.sources(), self.SUFFIXES)
        )
        if origin is not None:
            found = self._class_names(self._judged())
            absent = [name for name in self.class_list if name not in found]
            if absent:
                self.notes.append(f"no folder for {len(absent)} of the classes: {shown(absent)}")

    def class_names(self) -> list[str] | None:
        """The names of the class folders."""
        return list(self.class_list)

    def sources(self) -> dict[str, Path]:
        """The folder with all its parts."""
        return {"folder": self.root}

    def tested(self) -> str:
        """Which images of which folder are judged."""
        if self.source == "synthetic":
            return super().tested()
        which = "images held out of" if self.held_out else "all images of"
        return f"{which} {self.root if self.held_out else self._judged()}"

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
            loose = len(images_in(folder))
            images = f"{loose} image{'s' * (loose != 1)} and " if loose else ""
            raise UserError(
                f"dataset.path={self.root}: {folder.resolve()} has {len(names)} class folders; found: "
                f"{images}{beside_images([folder]) or 'nothing else'} (valid: at least {least}, with images "
                f"right in them, as PATH/train/CLASS/*.jpg{self._deeper(folder, names)})"
            )
        return names

    def _deeper(self, folder: Path, names: list[str]) -> str:
        """The advice to name the one folder within, where that is laid out as it should be."""
        if len(names) != 1 or len(class_folders(folder / names[0])) < 2 or images_in(folder / names[0]):
            return ""
        return f"; the folders in it: dataset.path={self.root / folder.relative_to(self.root) / names[0]}"

    def _class_list(self) -> list[str]:
        """The classes, in the order of their labels: those of the training part, or of the network's.

        Raises:
            UserError: a folder that is none of the network's classes.
        """
        if self.origin is None:
            return self._class_names(self.folders["train"])
        found, theirs = self._class_names(self._judged()), self.origin.facts["class_names"]
        if theirs is None:
            return found
        unknown = [name for name in found if name not in theirs]
        if unknown:
            raise UserError(
                f"dataset.path={self.root}: {len(unknown)} of its class folders are no classes of training: "
                f"{shown(unknown)} (valid: {shown(theirs)})"
            )
        return list(theirs)

    def _judged(self) -> Path:
        """The folder of the part that a network is judged on."""
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
        images = dict(zip(found, images_of(folder, found), strict=True))
        return listed(folder, self.class_list, [images.get(name, []) for name in self.class_list])

    def _usual_size(self) -> int:
        """The median of the shorter sides of a sample of the training images, `LARGEST_SIZE` at most."""
        records = self._listing(self.folders["train"] if self.origin is None else self._judged())
        sides = sorted(min(_size(records[i].path)) for i in _spaced(len(records)))
        return min(LARGEST_SIZE, sides[len(sides) // 2])

    def records(self, part: SplitName) -> Sequence[Record]:
        """All images of a part; where the test part is drawn, those of the training folder that are its."""
        if part == "test" and not self.held_out:
            return self._listing(self._judged())
        if part in self.folders and not self.held_out:
            return self._listing(self.folders[part])
        everything = self._listing(self.folders["train"])
        drawn = held_out(self.holdout, everything.labels, len(everything))
        return everything.chosen(drawn if part == "test" else complement(drawn, len(everything)))

    def setup(self, stage: str | None = None) -> None:
        """List the files (once), take the splits, and measure the colours of the training split."""
        if self._splits:
            return
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
        others = beside_images(part / name for part in self.folders.values() for name in self.class_list)
        tested = (
            f"the part {self.folders['test'].name}"
            if "test" in self.folders
            else (f"{self.holdout:.0%} of the images, held out by class, as there is no part test or val")
        )
        return (
            f"dataset=folder: {len(self.class_list)} classes, images of {self.image_size[0]} px; {sizes}; "
            f"tested on {tested}{f'; left out: {others}' if others else ''}"
        )


def _triple(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue


def _spaced(count: int) -> list[int]:
    """At most `SAMPLE` of the numbers 0, ..., count - 1, evenly spaced."""
    size = min(count, SAMPLE)
    return [i * count // size for i in range(size)]


def _size(path: str) -> tuple[int, int]:
    """(height, width) of an image, from its first bytes.

    Raises:
        UserError: it is none.
    """
    try:
        return image_size(path)
    except (OSError, DamagedError) as error:
        raise UserError(describe(Path(path), error)) from error
