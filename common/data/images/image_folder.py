"""ImageNet (ILSVRC-2012), or any folder of classes, in `data_dir/FOLDER/{train,val}/CLASS/*.JPEG`.

Where train or val is absent and ILSVRC2012's archives lie in that folder, it is made from them.
"""

import os
import re
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack, overload

import numpy as np
import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.base.files import names_beside
from common.base.preparation import Preparation
from common.data.shared.class_folders import beside_files, class_folders, files_in
from common.data.shared.decode import EXTENSIONS, centre_window, decode_rgb, mirrored, random_window
from common.data.shared.download import DamagedError, describe
from common.data.shared.prepare import Checksum, bar, check_file, prepare, unpack
from common.data.shared.streamed import Record, StreamedData, StreamedOptions, naming

# the folder in `data_dir` of ImageNet itself
IMAGENET = "imagenet"
FOLDERS: dict[SplitName, str] = {"train": "train", "test": "val"}
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
# of the official files; nobody of this project has seen them
MD5 = {
    TRAIN: Checksum("1d675b47d978889d74fa0da5fadfb00e", confirmed=False),
    VAL: Checksum("29b22e2961454d5413ddabcf34fc5622", confirmed=False),
    DEVKIT: Checksum("fa75699e90414af021442c21a62c3abf", confirmed=False),
}
CLASS_ARCHIVE = re.compile(r"(n\d{8})\.tar")


class Listing(Sequence[Record]):
    """The images of class folders, as compact as a million of them need: two arrays.

    Args:
        folder: holds one folder a class.
        classes: their names, in the order of their labels.
        names: file names as bytes, [n].
        labels: int64 [n].
    """

    def __init__(self, folder: Path, classes: list[str], names: np.ndarray, labels: Tensor) -> None:
        self.folder, self.classes, self.names, self.labels = str(folder), classes, names, labels

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, number: int) -> Record: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Record]: ...
    def __getitem__(self, number: int | slice) -> Record | Sequence[Record]:
        if isinstance(number, slice):
            return Listing(Path(self.folder), self.classes, self.names[number], self.labels[number])
        label = int(self.labels[number])
        return Record(f"{self.folder}/{self.classes[label]}/{os.fsdecode(self.names[number])}", label)

    def chosen(self, index: Tensor) -> "Listing":
        """The images that `index` names, int64 [k], in that order."""
        return Listing(Path(self.folder), self.classes, self.names[index.numpy()], self.labels[index])


def listed(folder: Path, classes: list[str], names: list[list[bytes]]) -> Listing:
    """The images of class folders, by the file names of each class."""
    labels = torch.repeat_interleave(torch.tensor([len(images) for images in names]))
    return Listing(folder, classes, np.array([name for images in names for name in images]), labels)


def images_of(
    folder: Path, classes: Sequence[str], suffixes: tuple[str, ...] = EXTENSIONS
) -> list[list[bytes]]:
    """The file names of each class's images.

    Raises:
        UserError: a class without an image, with what its folder holds instead.
    """
    names = [files_in(folder / name, suffixes) for name in classes]
    for name, images in zip(classes, names, strict=True):
        if not images:
            raise UserError(
                f"{(folder / name).resolve()} holds no image; found: "
                f"{beside_files([folder / name], suffixes) or 'nothing'} "
                f"(valid: images right in each class folder, {folder.name}/CLASS/*.jpg, as "
                f"{', '.join(suffixes)})"
            )
    return names


class ImageFolder(StreamedData):
    """Photographs of 1,000 kinds of things: 1,281,167 for training, 50,000 (the "val" folder) for testing.

    Args:
        folder: its name in `data_dir`; other folders of the same layout may be given, with their `classes`.
        classes: how many class folders there must be.
        size: images are given as 3 x size x size.
        resize: without augmentation, the shorter side is made this long before the centre is cut out;
            images that are size x size already are taken as they are.
        augment: of training: "resized_crop" for a random part of the image (8 to 100% of its area, aspect
            ratio 3/4 to 4/3) stretched to size x size, and mirrored at random; "flip" for the centre,
            mirrored at random; or "none".
        The others as in `StreamedData`.
    """

    NAME: ClassVar = "imagenet"
    KIND: ClassVar = "image_classification"
    CLASSES: ClassVar = 1000
    TRAIN_SIZE: ClassVar = 1_281_167
    TEST_SIZE: ClassVar = 50_000
    SUFFIXES: ClassVar[tuple[str, ...]] = EXTENSIONS
    # whether images are turned as their orientation marks say; networks for ImageNet are trained without
    UPRIGHT: ClassVar = False

    def __init__(
        self,
        *,
        folder: str,
        classes: int,
        size: int,
        resize: int,
        augment: Literal["none", "flip", "resized_crop"],
        **options: Unpack[StreamedOptions],
    ) -> None:
        super().__init__(shape=(3, size, size), **options)
        check("classes", classes, classes >= 2, "give at least 2")
        check("resize", resize, resize >= size, f"give at least dataset.size={size}")
        self.folder, self.classes, self.augment = self.data_dir / folder, classes, augment
        self.resize = resize

    def records(self, part: SplitName) -> Sequence[Record]:
        """All images of a part by class and name; labels follow from the sorted class folders."""
        folder = self.folder / FOLDERS[part]
        self._prepare(part)
        try:
            classes = class_folders(folder)
        except OSError as error:
            raise UserError(f"{describe(folder, error)}: {self._advice()}") from error
        self._check_classes(folder, classes)
        names = images_of(folder, classes)
        if others := beside_files(folder / name for name in classes):
            print(f"{self.NAME}: left out of {folder}: {others}", file=sys.stderr)
        return listed(folder, classes, names)

    def sources(self) -> dict[str, Path]:
        """The folders of both parts."""
        return {name: self.folder / name for name in FOLDERS.values()}

    def _check_classes(self, folder: Path, classes: list[str]) -> None:
        if not classes:
            raise UserError(f"{folder.resolve()} holds no class folders: {self._advice()}")
        check(
            "classes",
            self.classes,
            len(classes) == self.classes,
            f"{folder.resolve()} has {len(classes)} class folders; set dataset.classes={len(classes)}"
            " if it is whole",
        )
        training = class_folders(self.folder / FOLDERS["train"])
        differing = sorted(set(training) ^ set(classes))
        if differing:
            raise UserError(
                f"{self.folder.resolve()}: the class folder {differing[0]} is in only one of train and val; "
                "they must have the same classes"
            )

    def class_names(self) -> list[str] | None:
        """The names of the class folders; None for synthetic images."""
        self.setup()
        records = self._rows("train").records
        return records.classes if isinstance(records, Listing) else None

    def encoding(self) -> dict[str, Any]:
        """How an image file becomes an input, in words."""
        height, width = self.image_size
        size, part = f"{width} x {height}", f"{height}/{self.resize} of its shorter side"
        marks = "turned upright by its orientation mark" if self.UPRIGHT else "without orientation marks"
        return {
            "preparation": f"the image as RGB, {marks}, what is transparent on white; if it is not "
            f"{size} already, its centre, {part} wide and high, scaled to {size} (bilinear, antialiased)"
        }

    def preparation(self) -> Preparation | None:
        """See `DataSet`: the evaluation's centre, cut out."""
        return Preparation("centre", self.image_size, resize=self.resize)

    def labels(self, records: Sequence[Record]) -> Tensor | None:
        """The class of each image, int64 [n]."""
        assert isinstance(records, Listing)
        return records.labels

    def example(self, record: Record, generator: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """The image, uint8 [3, size, size], and its class, int64 []."""
        mirror = generator is not None and self.augment != "none" and generator.random() < 0.5
        window = centre_window(self.image_size, self.resize)
        if generator is not None and self.augment == "resized_crop":
            window = random_window(generator)
        image = decode_rgb(record.path, self.image_size, window, self.note_repair, self.UPRIGHT, self.FORMATS)
        return mirrored(image) if mirror else image, torch.tensor(record.annotation)

    def synthetic_target(self, number: int, generator: np.random.Generator) -> Tensor:
        """Classes in turn, int64 []."""
        assert self.classes is not None
        return torch.tensor(number % self.classes)

    def _advice(self) -> str:
        folder = self.folder.resolve()
        if self.folder.name != IMAGENET:
            there = "" if self.folder.is_dir() else f"there is {names_beside(self.folder)}; "
            return (
                f"{there}lay out {folder}/train/CLASS/*.jpg and {folder}/val/CLASS/*.jpg, or say "
                "dataset=folder dataset.path=FOLDER, which finds out by itself what there is"
            )
        return (
            f"ImageNet needs a login: download {TRAIN}, {VAL} and {DEVKIT} from "
            f"https://image-net.org/download-images and put them into {folder} to have them unpacked; or lay "
            f"out {folder}/train/CLASS/*.JPEG and {folder}/val/CLASS/*.JPEG; or take dataset.source=synthetic"
        )

    def _prepare(self, part: SplitName) -> None:
        """Make the part's folder from its archives, if it is absent and they are there."""
        folder = self.folder / FOLDERS[part]
        archives = [TRAIN] if part == "train" else [VAL, DEVKIT]
        if folder.exists() or not all((self.folder / name).is_file() for name in archives):
            return

        def make(scratch: Path) -> None:
            for name in archives:
                with naming(self.folder / name, self._advice()):
                    check_file(self.folder / name, MD5[name], self.verify)
            if part == "train":
                self._unpack_train(scratch)
            else:
                self._unpack_val(scratch)

        prepare(folder, make)

    def _unpack_train(self, target: Path) -> None:
        """One folder a class, out of an archive that holds one archive a class."""
        path = self.folder / TRAIN
        with naming(path, self._advice()):
            try:
                with tarfile.open(path) as outer:
                    found = [self._unpack_class(outer, member, target) for member in self._bar(outer)]
            except (tarfile.TarError, EOFError) as error:
                raise DamagedError(f"it cannot be unpacked: {' '.join(str(error).split())}") from error
            if len(found) != self.classes:
                raise DamagedError(
                    f"{len(found)} class archives in it instead of dataset.classes={self.classes}"
                )

    def _bar(self, outer: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        return bar(outer, f"unpacking {TRAIN}", self.classes)

    def _unpack_class(self, outer: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> str:
        name, file = CLASS_ARCHIVE.fullmatch(member.name), outer.extractfile(member)
        if name is None or file is None:
            raise DamagedError(f"its member {member.name!r} is not the archive of a class")
        with tarfile.open(fileobj=file) as inner:
            inner.extractall(target / name[1], filter="data")
        return name[1]

    def _unpack_val(self, target: Path) -> None:
        """One folder a class, out of an archive of images in the order of the devkit's list of classes."""
        images, devkit = target / ".images", target / ".devkit"
        with naming(self.folder / DEVKIT, self._advice()):
            unpack(self.folder / DEVKIT, devkit, f"unpacking {DEVKIT}")
            classes = validation_classes(devkit / DEVKIT.removesuffix(".tar.gz") / "data")
        with naming(self.folder / VAL, self._advice()):
            unpack(self.folder / VAL, images, f"unpacking {VAL}")
            names = files_in(images)
            if len(names) != len(classes):
                raise DamagedError(f"{len(names)} images in it; the devkit lists {len(classes)}")
        for wnid in set(classes):
            (target / wnid).mkdir()
        for name, wnid in zip(map(os.fsdecode, names), classes, strict=True):
            (images / name).rename(target / wnid / name)
        shutil.rmtree(images)
        shutil.rmtree(devkit)


def validation_classes(folder: Path) -> list[str]:
    """The class (WordNet id, as "n01440764") of each validation image, from the devkit's `data` folder.

    Raises:
        DamagedError: the files are not the devkit's.
    """
    try:
        synsets = loadmat(folder / "meta.mat", squeeze_me=True)["synsets"]
        # the others are groups of classes
        leaves = synsets[synsets["num_children"] == 0]
        wnid_of = {int(leaf["ILSVRC2012_ID"]): str(leaf["WNID"]) for leaf in leaves}
        numbers = (folder / "ILSVRC2012_validation_ground_truth.txt").read_text().split()
        return [wnid_of[int(number)] for number in numbers]
    except (OSError, MatReadError, zlib.error, ValueError, TypeError, KeyError, IndexError) as error:
        raise DamagedError(
            f"its meta.mat and validation_ground_truth.txt cannot be read: {error!r}"
        ) from error
