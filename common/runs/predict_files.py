"""`predict.py` on files that are no pictures: which runs take them, and what their answers share."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.errors import UserError

if TYPE_CHECKING:
    from torch import device

    from common.runs.trained import Finished


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


Answerer = Callable[["Finished", Asked], Answered]


def answerer(kind: str) -> Answerer | None:
    """What answers by the network of a run on data of a kind; None where it takes pictures or rows."""
    if kind == "question_answering":
        from common.runs.predict_answers import predict_answers

        return predict_answers
    if kind == "translation":
        from common.runs.predict_translations import predict_translations

        return predict_translations
    if kind == "sequence_tagging":
        from common.runs.predict_tags import predict_tags

        return predict_tags
    if kind == "point_cloud_classification":
        from common.runs.predict_clouds import predict_clouds

        return predict_clouds
    return None


def run_on_files(words: list[str], paths: list[Path]) -> "Finished | None":
    """The run that words name, where its network takes files that are no pictures and these may be some.

    Raises:
        UserError: words of a run that is not there.
    """
    from common.runs.result import read_result
    from common.runs.trained import find

    if any(map(_has_pictures, paths)):
        return None
    if not any(word.startswith(("paper=", "entry=")) for word in words):
        path = Path(words[0]).expanduser()
        result = read_result((path if path.is_dir() else path.parent) / "result.json")
        if result is None or answerer(result["config"]["dataset"].get("kind")) is None:
            return None
    run = find(words)
    return run if answerer(run.config.dataset.get("kind")) is not None else None


def _has_pictures(path: Path) -> bool:
    """Whether a file is a picture by its name, or a folder holds one."""
    from common.runs.pictures import is_picture

    if path.is_dir():
        return any(is_picture(Path(name)) for _, _, names in os.walk(path) for name in names)
    return is_picture(path)


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
