"""What `predict.py` shares on files of all kinds: what is asked for, what folders hold, what comes of it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.errors import UserError

if TYPE_CHECKING:
    from torch import device


# what networks on data of these kinds take
TAKES = {
    "question_answering": "passages with questions, .json files",
    "translation": "texts, a sentence a line",
    "sequence_tagging": "texts, a sentence or a word a line",
    "point_cloud_classification": "clouds of points",
}


@dataclass(frozen=True)
class Asked:
    """What is to be answered, and how.

    Attributes:
        paths: files, and folders of clouds.
        to: the folder for what is written, of several files a folder in it for each, by its stem.
        top: the classes that are named for a cloud, at most.
        encoding: of texts, by a name that Python knows; a mark of UTF-8 or UTF-16 in a file goes before it.
    """

    paths: list[Path]
    to: Path
    top: int
    encoding: str


@dataclass(frozen=True)
class Answered:
    """What came of it.

    Attributes:
        written: the files of answers.
        count: how many were answered.
        what: one of them is called.
        faults: how many were not answered, each of which has been told.
    """

    written: list[Path]
    count: int
    what: str
    faults: int = 0


def folders_of(files: list[Path], to: Path, names: tuple[str, ...]) -> list[Path]:
    """The folder for the answers of each file, which is made by whoever writes there.

    Args:
        files: that are to be answered.
        to: see `Asked`.
        names: of the files that are written there.

    Raises:
        UserError: two files of one stem, a folder among them, or one that would be replaced.
    """
    if len({file.stem for file in files}) < len(files):
        raise UserError(
            "two files of one name would share a folder (valid: one after the other, each with to=)"
        )
    found = []
    for file in files:
        if file.is_dir():
            raise UserError(f"{file} is a folder (valid: the files in it, one by one)")
        folder = to / file.stem if len(files) > 1 else to
        if file.resolve() in {(folder / name).resolve() for name in names}:
            raise UserError(f"to={folder}: would replace the file {file} itself (valid: another folder)")
        found.append(folder)
    return found


def files_in(folder: Path, left_out: Path) -> list[Path]:
    """The files in a folder at any depth, in the order of their names; hidden ones do not count.

    Args:
        folder: that is gone into.
        left_out: a folder that is not, as what is written there is no input.
    """
    left_out, files = left_out.resolve(), []
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and (Path(at) / name).resolve() != left_out
        )
        files += [Path(at) / name for name in sorted(names) if name[0] != "."]
    return files


def as_line(content: dict[str, Any]) -> str:
    """An object of JSON in a line of its own; half a pair of UTF-16, which is no text, as its number."""
    line = json.dumps(content, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(content)
    return f"{line}\n"


def best_device() -> "device":
    """The first GPU, or else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
