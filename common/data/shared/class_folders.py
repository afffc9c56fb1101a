"""A folder of folders, one a class: what lies in them, and what lies there beside it."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from common.data.shared.decode import EXTENSIONS

# kinds of other files that a line tells apart
SUFFIXES_SHOWN = 3


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted: class k is the k-th; hidden ones do not count.

    Raises:
        OSError: it is missing or cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def files_in(folder: Path, suffixes: tuple[str, ...] = EXTENSIONS) -> list[bytes]:
    """The names of the files in `folder` with these suffixes, sorted; hidden ones do not count."""
    with os.scandir(folder) as entries:
        return sorted(
            os.fsencode(entry.name)
            for entry in entries
            if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".") and entry.is_file()
        )


def beside_files(folders: Iterable[Path], suffixes: tuple[str, ...] = EXTENSIONS, what: str = "image") -> str:
    """What lies in folders beside files of their own, in a few words; empty where nothing does.

    That is folders within them, with the files of these suffixes that they hold at any depth, other files by
    their suffix, and links that lead nowhere; hidden ones do not count. `what`: what one file of these
    suffixes is called.
    """
    within, others, dangling = [], Counter[str](), 0
    for folder in folders:
        within += [folder / name for name in class_folders(folder)]
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
        dangling += sum(entry.is_symlink() and not Path(entry.path).exists() for entry in seen)
        others.update(
            Path(entry.name).suffix.lower() or "without a suffix"
            for entry in seen
            if entry.is_file() and not entry.name.lower().endswith(suffixes)
        )
    found = [_counted(count, f"file{{}} {suffix}") for suffix, count in others.most_common(SUFFIXES_SHOWN)]
    if rest := sum(count for _, count in others.most_common()[SUFFIXES_SHOWN:]):
        found.append(_counted(rest, "other file{}"))
    if dangling:
        found.append(_counted(dangling, "link{} to nothing"))
    if within:
        below = sum(len(files_in(Path(at), suffixes)) for folder in within for at, _, _ in os.walk(folder))
        shown = ", ".join([folder.name for folder in within[:3]] + ["..."] * (len(within) > 3))
        inside = f"{_counted(below, f'{what}{{}}')} in {'them' if len(within) > 1 else 'it'}"
        found.insert(0, f"{_counted(len(within), 'folder{}')} ({shown}) with {inside}")
    return " and ".join(found)


def _counted(count: int, what: str) -> str:
    """`2 files .txt` of "file{} .txt"."""
    return f"{count} {what.format('' if count == 1 else 's')}"
