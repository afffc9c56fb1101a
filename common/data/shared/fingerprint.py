"""What the files of a data set are, in a few numbers: so that other files under the same name are seen.

Names, sizes and contents count; times do not, as a copy changes them.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.base.dataset import DataSet

# files whose contents are read; of more, as many, evenly spread over their sorted names
SAMPLE = 16_384
# bytes that are read in all, and at least of each file of the sample
BUDGET, LEAST = 256 * 2**20, 16 * 2**10
# pieces, the first and the last bytes among them, of a file that is longer than its share
PIECES = 16
# folders that are told apart; where there are more, each source is one
FOLDERS = 64
# what systems and downloads leave beside data
FOREIGN = {"checksums.json", "thumbs.db", "desktop.ini"}
# of the changes that are named
NAMED = 3


class File(NamedTuple):
    """A file by its name below the source, its path and its size in bytes."""

    name: str
    path: str
    size: int


def fingerprint_of(data: DataSet) -> dict[str, Any] | None:
    """The fingerprint of the files that a data set reads; None where it reads none, or none is there."""
    if getattr(data, "source", "real") == "synthetic":
        return None
    return fingerprint(data.sources(), data.SUFFIXES)


def fingerprint(sources: dict[str, Path], suffixes: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """How many files and bytes, what is missing, and of each folder a summary.

    A summary is [files, bytes, hash of names and sizes, hash of contents].
    Of contents a sample is read: of up to 16,384 files, up to 256 MiB in all. A file that is longer than
    its share of that (at least 16 KiB) is read in 16 pieces, its head and its tail among them.

    Args:
        sources: files and folders by the names that stand for them; `missing` names those that are absent,
            as some are fetched only when they are used.
        suffixes: of the files in folders that count, in lower case; all where there are none. Hidden ones,
            and what systems and downloads leave behind, never do.
    """
    files = sorted(file for name, path in sources.items() for file in _files(name, path, suffixes))
    if not files:
        return None
    step = -(-len(files) // SAMPLE)
    share = max(LEAST, BUDGET // -(-len(files) // step))
    groups: dict[str, list[tuple[int, File]]] = defaultdict(list)
    by_folder = len({_folder(file.name) for file in files}) <= FOLDERS
    for number, file in enumerate(files):
        source = _source_of(file.name, sources)
        in_folder = by_folder and file.name != source
        groups[_folder(file.name) if in_folder else source].append((number, file))
    return {
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "missing": sorted(name for name, path in sources.items() if not path.exists()),
        "folders": {name: _summary(members, step, share) for name, members in groups.items()},
    }


def changes(old: dict[str, Any] | None, new: dict[str, Any] | None) -> str | None:
    """What of the files has changed, in a few words; None where nothing has, or one of both is not known."""
    if old is None or new is None or old == new:
        return None
    now = new["folders"]
    # what has been fetched since is no change
    fetched = [name for name in now if any(_is_below(name, source) for source in old["missing"])]
    before = {name: now[name] for name in fetched} | old["folders"]
    found = [
        text
        for name in sorted({*before, *now})
        if (text := _change(name, before.get(name), now.get(name), old["files"] == new["files"]))
    ]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return "; ".join(found[:NAMED]) + more if found else None


def _change(name: str, old: list[Any] | None, new: list[Any] | None, comparable: bool) -> str | None:
    """Of one folder; contents only where as many files, and so the same pieces, were read."""
    place = name or "its folder"
    if old is None or new is None:
        return f"{place} is {'new' if old is None else 'gone'}"
    if old[0] != new[0]:
        return f"{place} holds {new[0]:,} files instead of {old[0]:,}"
    if old[1:3] != new[1:3]:
        return f"{place} holds files of other names or sizes"
    return f"{place} holds files of other contents" if comparable and old != new else None


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _source_of(name: str, sources: dict[str, Path]) -> str:
    return next((source for source in sources if _is_below(name, source)), "")


def _is_below(name: str, source: str) -> bool:
    return name == source or name.startswith(f"{source}/")


def _summary(members: list[tuple[int, File]], step: int, share: int) -> list[Any]:
    names, contents = hashlib.sha256(), hashlib.sha256()
    for number, file in members:
        names.update(f"{file.name}\0{file.size}\0".encode(errors="surrogateescape"))
        if number % step == 0:
            contents.update(_content(file, share))
    total = sum(file.size for _, file in members)
    return [len(members), total, names.hexdigest()[:12], contents.hexdigest()[:12]]


def _content(file: File, share: int) -> bytes:
    """A hash of a file, or of pieces of it that are evenly spread from its head to its tail."""
    try:
        with Path(file.path).open("rb", buffering=0) as opened:
            if file.size <= share:
                return hashlib.sha256(opened.read()).digest()
            digest, length = hashlib.sha256(), share // PIECES
            for piece in range(PIECES):
                opened.seek((file.size - length) * piece // (PIECES - 1))
                digest.update(opened.read(length))
            return digest.digest()
    except OSError:
        # whoever needs it will say so
        return b"unreadable"


def _files(name: str, path: Path, suffixes: tuple[str, ...]) -> Iterator[File]:
    """The file, or all files below the folder that count; folders that are linked to are entered once."""
    if path.is_file():
        yield File(name, str(path), path.stat().st_size)
        return
    waiting, entered = [(name, str(path))], set[str]()
    while waiting:
        below, folder = waiting.pop()
        if (real := os.path.realpath(folder)) in entered:
            continue
        entered.add(real)
        for entry in _entries(folder):
            inner = f"{below}/{entry.name}"
            if entry.is_dir():
                waiting.append((inner, entry.path))
            elif entry.is_file() and (not suffixes or entry.name.lower().endswith(suffixes)):
                yield File(inner, entry.path, entry.stat().st_size)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What a folder holds but for hidden and foreign files; nothing of one that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [one for one in entries if one.name[0] != "." and one.name.lower() not in FOREIGN]
    except OSError:
        # whoever needs it will say so
        return []
