"""The parts of a folder of the user's own: `train`, `val` and `test` in it, or one that is held out."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from common.base.dataset import DataSet, Origin, Source, SplitName, check
from common.base.errors import UserError
from common.base.files import names_beside
from common.data.shared.fingerprint import fingerprint
from common.data.shared.subsets import stratified_subset
from common.data.shared.text_file import from_here, shown

# the names of the folders of the parts, the first that is there counts
TRAIN, VALIDATION, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
# the seed of the test part that is drawn where there is none: it belongs to the data, and not to a run
HOLDOUT_SEED = 0


class FolderOfImages(DataSet):
    """What sets of images in a folder of the user's own say of themselves.

    Attributes:
        source: "real", or "synthetic" where no file is read.
        root: the folder.
        class_list: the names of the classes, in the order of their labels.
        held_out: whether a part is held out for testing.
    """

    source: Source
    root: Path
    class_list: list[str]
    held_out: bool

    @abstractmethod
    def judged_folder(self) -> Path:
        """The folder of the part that a network is judged on."""

    def class_names(self) -> list[str] | None:
        """The names of the classes, as the folder has them."""
        return list(self.class_list)

    def sources(self) -> dict[str, Path]:
        """The folder with all its parts."""
        return {"folder": self.root}

    def tested(self) -> str:
        """Which images of which folder are judged."""
        if self.source == "synthetic":
            return super().tested()
        if self.held_out:
            return f"images held out of {self.root}"
        return f"all images of {self.judged_folder()}"


def require_folder(root: Path, layout: str) -> None:
    """Refuse a `dataset.path` that is no folder, and say what lies beside it.

    Args:
        root: `dataset.path`.
        layout: what is valid.

    Raises:
        UserError: see above.
    """
    if not root.is_dir():
        raise UserError(
            f"dataset.path={root}: no such folder{from_here(root)}; there is {names_beside(root)} "
            f"(valid: {layout})"
        )


def require_path(path: Path, valid: str) -> None:
    """Refuse a `dataset.path` that leads nowhere.

    Args:
        path: `dataset.path`, of a file or a folder.
        valid: what is valid.

    Raises:
        UserError: see above.
    """
    if not path.exists():
        raise UserError(f"dataset.path={path}: no such file or folder{from_here(path)} (valid: {valid})")


def file_of_part(folder: Path, names: Sequence[str], endings: Sequence[str]) -> Path:
    """The file of a part in a folder: of these names with these endings the first that is there.

    Where none is there it is the first of all, so that a line can say which one is missing.
    """
    paths = [folder / f"{name}{ending}" for name in names for ending in endings]
    return next((path for path in paths if path.is_file()), paths[0])


def require_part(folder: Path, names: Sequence[str], endings: Sequence[str]) -> Path:
    """The file of a part in a folder, see `file_of_part`.

    Raises:
        UserError: none is there.
    """
    found = file_of_part(folder, names, endings)
    if not found.is_file():
        raise UserError(
            f"dataset.path={folder}: No such file as {found.name} in it; there is {names_beside(found, ())} "
            f"(valid: {' or '.join(names)} with {', '.join(endings)})"
        )
    return found


def folders_of_parts(root: Path, layout: str, judged: bool) -> dict[SplitName, Path]:
    """The folder of each part that is there.

    The test part is `test`; without one it is `val`. With both, `val` is the validation part. Without a
    training part the folder itself is that.

    Args:
        root: `dataset.path`.
        layout: what is valid, for messages.
        judged: whether a network is to be judged on it, which needs no training part.

    Raises:
        UserError: no such folder, or a part for testing and none for training.
    """
    require_folder(root, layout)
    train, val, test = (_part(root, names) for names in (TRAIN, VALIDATION, TEST))
    tested = test or val
    found: dict[SplitName, Path] = {"train": train or root}
    if train is None and tested and not judged:
        raise UserError(f"dataset.path={root}: there is a {tested.name} in it, but no train")
    if test and val:
        found["validation"] = val
    if tested:
        found["test"] = tested
    return found


def _part(root: Path, names: Sequence[str]) -> Path | None:
    """The folder of a part; with capitals in its name only where no other folders lie beside the parts.

    Train may be a class beside Car.
    """
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    parts = {path.name.lower() for path in folders} <= {*TRAIN, *VALIDATION, *TEST}
    known = {path.name.lower() if parts else path.name: path for path in sorted(folders)}
    return next((known[name] for name in names if name in known), None)


def usual_validation(
    given: float | Literal["official"] | None, root: Path, there: bool, judged: bool
) -> float | Literal["official"]:
    """`dataset.validation`: where it is null, the folder's own part if there is one.

    Args:
        given: as it is asked for.
        root: `dataset.path`.
        there: whether there is a part for validation.
        judged: whether a network is to be judged, for which there is none.

    Raises:
        UserError: a part is asked for that is not there.
    """
    if given is None or judged:
        return "official" if there and not judged else 0.0
    if given == "official" and not there:
        raise UserError(f"dataset.validation=official: {root.resolve()} has not both val and test")
    return given


def trained_on(origin: Origin, sources: dict[str, Path], suffixes: tuple[str, ...] = ()) -> bool:
    """Whether these are the files that a network was trained on a part of; `suffixes`: of `fingerprint`."""
    found = fingerprint(sources, suffixes)
    return found is not None and found["folders"] == (origin.files or {}).get("folders")


def as_trained(found: Sequence[str], theirs: Sequence[str], path: Path, what: str) -> list[str]:
    """The classes of a network that is judged, in the order of its labels.

    Args:
        found: the classes of the files.
        theirs: of the network.
        path: `dataset.path`.
        what: classes are in the files, and that some are not the network's.

    Raises:
        UserError: files of a class that is none of the network's.
    """
    unknown = [name for name in found if name not in theirs]
    if unknown:
        raise UserError(
            f"dataset.path={path}: {len(unknown)} of its {what}: {shown(unknown)} (valid: {shown(theirs)})"
        )
    return list(theirs)


def held_out(fraction: float, labels: Tensor | None, total: int) -> Tensor:
    """The rows that are for testing where no part is there for it, int64 [n], the same in every run.

    Args:
        fraction: `dataset.test`.
        labels: to stratify by, int64 [total]; None for none.
        total: how many examples there are.

    Raises:
        UserError: that leaves one part empty.
    """
    size = round(fraction * total)
    check("test", fraction, 0 < size < total, f"of {total} examples that leaves one part empty")
    return stratified_subset(labels, total, size, torch.Generator().manual_seed(HOLDOUT_SEED))
