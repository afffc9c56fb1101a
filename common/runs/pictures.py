"""The user's pictures: files, folders, animations and videos, decoded one after the other.

A file that cannot be read is handed on with what is wrong with it, so that the others are done.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from common.base.errors import UserError
from common.base.files import names_beside
from common.data.images.decoding import SUFFIXES, Picture, decode_frames, decode_picture, frame_count
from common.data.shared.download import DamagedError, reason
from common.runs.predict_files import files_in

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv", ".3gp")
# of pictures that may be several in one file
SEVERAL = (".gif", ".webp", ".png", ".apng", ".tif", ".tiff")
# what reads videos, the first that is installed
READERS = {"av": "av", "cv2": "opencv-python-headless"}
# pictures that are decoded at once
AHEAD = 8


@dataclass(frozen=True)
class Source:
    """A file: its path, and where it stands in what was asked for (`photos/a/b.jpg` is `a/b.jpg` of it)."""

    path: Path
    place: Path


@dataclass(frozen=True)
class Item:
    """A picture, or why there is none.

    Attributes:
        source: of which file.
        frame: its number from 0 in an animation or a video; None for a file of one picture.
        picture: uint8 [H, W, 3]; None where there is none.
        fault: then what is wrong, in a few words.
    """

    source: Source
    frame: int | None
    picture: Picture | None
    fault: str = ""


def listed(paths: list[Path], left_out: Path) -> tuple[list[Source], Counter[str]]:
    """The files of paths: those named, and those in folders at any depth, in the order of their names.

    Args:
        paths: files, of any suffix, and folders.
        left_out: a folder that is not gone into, as what is written there is no input.

    Returns:
        The files, each once, and how many others lie in the folders, by their suffix. Hidden ones do not
        count.

    Raises:
        UserError: a path that is not there, or a folder without a picture.
    """
    found: dict[Path, Source] = {}
    others: Counter[str] = Counter()
    for path in paths:
        if path.is_dir():
            files = files_in(path, left_out)
            inside = [file for file in files if is_picture(file)]
            others.update(file.suffix.lower() or "without a suffix" for file in files if not is_picture(file))
            if not inside:
                raise UserError(
                    f"{path} holds no picture (valid: {', '.join((*SUFFIXES, *VIDEOS))}, at any depth)"
                )
            for file in inside:
                found.setdefault(file.resolve(), Source(file, file.relative_to(path)))
        elif path.exists():
            found.setdefault(path.resolve(), Source(path, Path(path.name)))
        else:
            there = names_beside(path, (*SUFFIXES, *VIDEOS))
            raise UserError(
                f"{path}: no such file or folder; there is {there} (valid: pictures, or a folder of them)"
            )
    return list(found.values()), others


def is_picture(file: Path) -> bool:
    """Whether a file is a picture or a video, by its suffix."""
    return file.suffix.lower() in (*SUFFIXES, *VIDEOS)


def items(sources: list[Source], every: int, executor: Executor) -> Iterator[Item]:
    """All pictures in order, single ones decoded `AHEAD` at a time.

    Args:
        every: of an animation or a video only the frames 0, `every`, 2 `every`, ... are given.
        executor: decodes.
    """
    waiting: list[Source] = []
    for source in sources:
        if _is_single(source):
            waiting.append(source)
            if len(waiting) < AHEAD:
                continue
        yield from executor.map(_single, waiting)
        waiting = []
        if not _is_single(source):
            yield from _frames(source, every)
    yield from executor.map(_single, waiting)


def _is_single(source: Source) -> bool:
    """Whether a file holds one picture, as far as can be told; one that cannot be read counts as one."""
    suffix = source.path.suffix.lower()
    if suffix in VIDEOS:
        return False
    if suffix not in SEVERAL:
        return True
    try:
        return frame_count(source.path) == 1
    except (OSError, DamagedError):
        return True


def _single(source: Source) -> Item:
    try:
        return Item(source, None, decode_picture(source.path))
    except (OSError, DamagedError) as error:
        return Item(source, None, None, _fault(error))


def _frames(source: Source, every: int) -> Iterator[Item]:
    """The frames of an animation or a video; after a fault there are no more."""
    number = -1
    read = _video_frames if source.path.suffix.lower() in VIDEOS else decode_frames
    try:
        for number, picture in enumerate(read(source.path)):
            if number % every == 0:
                yield Item(source, number, picture)
    except (OSError, DamagedError, UserError) as error:
        where = f"after {number + 1} frames: " if number >= 0 else ""
        yield Item(source, None, None, where + _fault(error))


def _fault(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read ({reason(error)})"
    return f"damaged ({error})" if isinstance(error, DamagedError) else str(error)


def _video_frames(path: Path) -> Iterator[Picture]:
    """The frames of a video by PyAV or OpenCV, whichever is installed.

    Raises:
        UserError: neither is.
        DamagedError: it cannot be decoded.
    """
    if find_spec("av"):
        yield from _by_av(path)
    elif find_spec("cv2"):
        yield from _by_opencv(path)
    else:
        packages = " or ".join(READERS.values())
        raise UserError(
            f"videos need the package {packages} (pip install {READERS['av']}); an animated GIF or WebP, "
            "or a folder of frames, needs none"
        )


def _by_av(path: Path) -> Iterator[Picture]:
    import av

    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                quarters = round(getattr(frame, "rotation", 0) / 90)
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), quarters))
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise DamagedError(f"not a video that can be decoded ({' '.join(str(error).split())})") from error


def _by_opencv(path: Path) -> Iterator[Picture]:
    import cv2

    capture: Any = cv2.VideoCapture(str(path))
    try:
        found, frame = capture.read()
        if not found:
            raise DamagedError("not a video that can be decoded")
        while found:
            yield np.ascontiguousarray(frame[..., ::-1])
            found, frame = capture.read()
    finally:
        capture.release()
