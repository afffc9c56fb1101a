"""A folder of the user's own clouds, one folder a class: what must be known of it is found from the files."""

import sys
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import Origin, Part, check
from common.base.errors import UserError
from common.base.phases import counted
from common.data.clouds.cloud_data import SEED_OF_POINTS, Augment, PointClouds
from common.data.clouds.cloud_file import SUFFIXES, read_points
from common.data.shared.class_folders import beside_files, class_folders
from common.data.shared.in_memory import Options, Split
from common.data.shared.own_parts import (
    TEST,
    TRAIN,
    VALIDATION,
    as_trained,
    held_out,
    require_folder,
    trained_on,
)
from common.data.shared.subsets import complement
from common.data.shared.text_file import shown
from common.data.shared.unreadable import listed_faults

# the names of the folders of the part that is judged, the first that is there counts
JUDGED = (*TEST, *VALIDATION)
LEAVE_OUT, LEFT_OUT = "leave_out", "files that are no clouds, left out"
VALID = "PATH/train/CLASS/*.xyz or PATH/CLASS/*.xyz, and as .xyz " + ", ".join(SUFFIXES)


class CloudFile(NamedTuple):
    """A file of a cloud: its path, its name below the folder of its class, and its class."""

    path: Path
    name: str
    label: int


class Cloud(NamedTuple):
    """Points [p, 3] of a file, and how many it has to choose from."""

    points: Tensor
    available: int


class OwnClouds(PointClouds):
    """Clouds in `PATH/train/CLASS/*` and `PATH/test/CLASS/*`, in `PATH/CLASS/*`, or in `PATH/CLASS/train/*`.

    Files are .npy, .csv, .xyz, .pts or .txt (x, y and z first), or .off (a surface). `points` of each cloud
    are drawn once, the same for every run; a cloud of fewer stands with all its points, each equally often
    but for a rest. Clouds are moved to have mean 0 before they become float32, as coordinates of maps have
    large offsets. One line on stderr says what was found.

    Args:
        path: the folder.
        test: the fraction of each class that is held out for testing where no part is there for it.
        unreadable: "leave_out" goes without the files that are no clouds, and counts them; null names all of
            them.
        origin: of a network that is to be judged: the classes are then its own; some may be absent. All
            clouds are for testing where no part is there for it, but those that it was trained on.
        The others as in `PointClouds`.

    Raises:
        UserError: no such folder, fewer than two classes, classes that only one part has, a class without a
            cloud, files that are none; with `origin`, a class that it has not.
    """

    NAME: ClassVar = "cloud_folder"
    CLASSES: ClassVar = 0
    TRAIN_SIZE: ClassVar = 512
    TEST_SIZE: ClassVar = 256
    SUFFIXES: ClassVar = SUFFIXES

    def __init__(
        self,
        *,
        path: str,
        test: float,
        points: int,
        augment: Augment,
        unreadable: Literal["leave_out"] | None = None,
        origin: Origin | None = None,
        **options: Unpack[Options],
    ) -> None:
        check("path", path, bool(path), f"give the folder of your clouds (valid: {VALID})")
        check("test", test, 0 < test < 1, "give a fraction above 0 and below 1")
        check("unreadable", unreadable, unreadable in (None, LEAVE_OUT), f"give {LEAVE_OUT}, or null")
        self.unreadable = unreadable
        # all clouds by their path, and what is wrong with files that are none, once they have been read
        self._clouds: dict[Path, Cloud] | None = None
        self._faults: dict[str, str] = {}
        self.root, self.holdout, self.origin = Path(path).expanduser(), test, origin
        require_folder(self.root, VALID)
        self.names = self._class_list()
        super().__init__(points=points, augment=augment, **options)
        self.held_out = "test" not in self.folders and (
            origin is None or trained_on(origin, self.sources(), self.SUFFIXES)
        )
        if origin is not None:
            absent = [name for name in self.names if not (self._judged() / name).is_dir()]
            if absent:
                self.notes.append(f"no folder for {len(absent)} of the classes: {shown(absent)}")

    @property
    def label_count(self) -> int:
        return len(self.names)

    def label_names(self) -> list[str]:
        return list(self.names)

    def sources(self) -> dict[str, Path]:
        """The folder with all its parts."""
        return {"folder": self.root}

    def tested(self) -> str:
        """Which clouds of which folder are judged."""
        if self.source == "synthetic":
            return super().tested()
        return f"clouds held out of {self.root}" if self.held_out else f"the clouds of {self._judged()}"

    @cached_property
    def _within(self) -> dict[Part, Path]:
        """The folders of the parts right in the root, of those that are there."""
        found: dict[Part, Path] = {}
        for part, names in (("train", TRAIN), ("test", JUDGED)):
            path = next((self.root / name for name in names if (self.root / name).is_dir()), None)
            if path is not None:
                found["train" if part == "train" else "test"] = path
        return found

    @property
    def folders(self) -> dict[Part, Path]:
        """Where each part that is there lies: its own folder, or the root where classes have parts."""
        if self._within or self._folders("test") is None:
            return self._within
        return {"train": self.root, "test": self.root}

    def _judged(self) -> Path:
        return self._within.get("test", self._within.get("train", self.root))

    def _class_list(self) -> list[str]:
        """The classes, in the order of their labels: those of the training part, or of the network's."""
        folder = self._within.get("train", self.root) if self.origin is None else self._judged()
        found = class_folders(folder)
        least = 2 if self.origin is None else 1
        if len(found) < least or (
            self.origin is None and "train" not in self._within and "test" in self._within
        ):
            what = (
                f"there is a {self._within['test'].name} in it, but no train"
                if "test" in self._within
                else ""
            )
            raise UserError(
                f"dataset.path={self.root}: {what or f'{folder} has {len(found)} class folders'} (valid: "
                f"at least {least}, as {VALID})"
            )
        theirs = None if self.origin is None else self.origin.facts["class_names"]
        if theirs is None:
            return found
        return as_trained(found, theirs, self.root, "class folders are no classes of training")

    def _folders(self, part: Part) -> list[Path] | None:
        """The folder of each class of a part, by label; None where the folder has no such part."""
        if part in self._within:
            return [self._within[part] / name for name in self.names]
        if self._within:
            return None
        inner = {"train": TRAIN, "test": JUDGED}[part]
        for name in inner:
            found = [self.root / label / name for label in self.names]
            if any(folder.is_dir() for folder in found):
                return found
        return [self.root / name for name in self.names] if part == "train" else None

    def files(self, part: Part) -> list[CloudFile]:
        """The files of a part; where the test part is drawn, those of the training folder that are its."""
        if not self.held_out:
            return self._listed(part)
        everything = self._listed("train")
        labels = torch.tensor([file.label for file in everything])
        drawn = held_out(self.holdout, labels, len(everything))
        chosen = drawn if part == "test" else complement(drawn, len(everything))
        return [everything[n] for n in chosen.tolist()]

    def _listed(self, part: Part) -> list[CloudFile]:
        """The files of a part before any is held out, without those that are known to be no clouds.

        Raises:
            UserError: a class has no other files.
        """
        folders = self._folders(part) or self._folders("train")
        assert folders is not None
        files = listed(folders, self.names, whole=self.origin is None)
        kept = [file for file in files if str(file.path) not in self._faults]
        if lost := {file.label for file in files} - {file.label for file in kept}:
            folder = folders[min(lost)]
            raise UserError(f"{folder.resolve()} holds no cloud that can be read")
        return kept

    def _read_all(self) -> dict[Path, Cloud]:
        """The points of all clouds that count, once: all faults are found before anything is trained.

        Raises:
            UserError: files that are no clouds, and nobody has said to leave them out: all of them.
        """
        if self._clouds is not None:
            return self._clouds
        parts: tuple[Part, ...] = ("train",) if self.held_out else ("train", "test")
        if self.origin is not None and not self.held_out:
            parts = ("test",)
        files = [file for part in parts for file in self._listed(part)]
        found, faults = {}, {}
        for path, name, _ in counted(files, "reading the clouds", len(files), "files"):
            try:
                found[path] = read_centred(path, name, self.points)
            except UserError as error:
                faults[str(path)] = str(error).removeprefix(f"{path}: ")
        if faults and self.unreadable is None:
            raise UserError(
                f"dataset.path={self.root}: {len(faults)} of {len(files)} files are no clouds: "
                f"{listed_faults(faults, self.root)} (valid: mend them or take them away, or go on without "
                f"them: dataset.unreadable={LEAVE_OUT})"
            )
        self._faults, self._clouds = self._faults | faults, found
        if self._faults:
            self.repairs[LEFT_OUT] = len(self._faults)
        return found

    def facts(self) -> dict[str, Any]:
        """See `DataSet`; where files were left out, how many: `left_out`."""
        known = super().facts()
        return {**known, "left_out": len(self._faults)} if self._faults else known

    def setup(self, stage: str | None = None) -> None:
        """Read all files, once; of a set that is judged the test part alone."""
        if self._train is not None:
            return
        if self.origin is not None and self.source == "real":
            self._train = self._test = self._read_test()
            self._offset, self._scale = self.statistics(self._train)
            self.move(self.device)
            return
        super().setup(stage)
        if self.source == "real":
            # they are in the splits now
            self._clouds = None
            print(self._found(), file=sys.stderr)

    def read(self, part: Part) -> Split:
        """The clouds of a part, float32 [n, points, 3], each with mean 0."""
        self._check_parts()
        known = self._read_all()
        files = self.files(part)
        clouds = [known[file.path] for file in files]
        fewer = sum(cloud.available < self.points for cloud in clouds)
        if fewer:
            what = f"clouds of fewer than {self.points} points, which stand there several times"
            self.repairs[what] = self.repairs.get(what, 0) + fewer
        return Split(
            torch.stack([cloud.points for cloud in clouds]), torch.tensor([file.label for file in files])
        )

    def _check_parts(self) -> None:
        """Refuse classes that only one of the two parts has."""
        if self.origin is not None or len(self._within) < 2:
            return
        train, test = self._within["train"], self._within["test"]
        differing = sorted(set(class_folders(train)) ^ set(class_folders(test)))
        if differing:
            raise UserError(
                f"dataset.path={self.root}: the class folder {differing[0]} is in only one of {train.name} "
                f"and {test.name}; they must have the same classes"
            )

    def _found(self) -> str:
        """What was found in the folder, in one line."""
        tested = (
            f"{self.holdout:.0%} of the clouds, held out by class, as there is no part test"
            if self.held_out
            else "the part test"
        )
        parts: tuple[Part, ...] = ("train",) if self.held_out else ("train", "test")
        folders = [folder for part in parts for folder in self._folders(part) or () if folder.is_dir()]
        beside = beside_files(folders, SUFFIXES, "cloud")
        left_out = f"{len(self._faults)} files that are no clouds" if self._faults else ""
        others = " and ".join(filter(None, (beside, left_out)))
        held = 0 if self._validation is None else len(self._validation)
        return (
            f"dataset=cloud_folder: {len(self.names)} classes, {len(self.train)} train, {held} validation, "
            f"{self.size('test')} test; tested on {tested}{f'; left out: {others}' if others else ''}"
        )


def listed(folders: Sequence[Path], names: Sequence[str], whole: bool = True) -> list[CloudFile]:
    """The files of clouds in the folder of each class, by class and name; hidden ones do not count.

    Raises:
        UserError: `whole`, and a class without one.
    """
    files = []
    for label, (folder, name) in enumerate(zip(folders, names, strict=True)):
        found = sorted(
            path
            for path in (folder.iterdir() if folder.is_dir() else ())
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        if not found and whole:
            raise UserError(f"{folder.resolve()} holds no cloud (valid: files {', '.join(SUFFIXES)})")
        files += [CloudFile(path, f"{name}/{path.name}", label) for path in found]
    if not files:
        raise UserError(f"{folders[0].parent.resolve()} holds no cloud (valid: files {', '.join(SUFFIXES)})")
    return files


def read_centred(path: Path, name: str, count: int) -> Cloud:
    """The points of a file, moved as float64 so that their mean is 0; float32 [count, 3].

    Args:
        path: of the file.
        name: by which points are drawn, see `generator_of`.
        count: so many of them.

    Raises:
        UserError: it is no cloud; begins with its path.
    """
    found, available = read_points(path, count, generator_of(name))
    moved = torch.from_numpy(found - found.mean(0)).float()
    if not 0 < float(moved.abs().max()) < torch.inf:
        raise UserError(f"{path}: coordinates that float32 cannot tell apart (valid: 1e-30 to 1e30)")
    return Cloud(moved, available)


def generator_of(name: str) -> np.random.Generator:
    """What the points of a file are drawn by: its name alone, so that other files change nothing."""
    return np.random.default_rng((SEED_OF_POINTS, zlib.crc32(name.encode(errors="surrogateescape"))))
