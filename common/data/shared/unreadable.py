"""Pictures that cannot be decoded, all of a set at once: so that a run does not stop at one after another.

A folder that was looked through once is known by the fingerprint of its files, and not looked through again.
"""

import hashlib
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import simplejpeg
from PIL import Image

from common.base.files import whole
from common.data.shared.decode import FORMATS, Formats, colour_jpeg_size, names_of, reading
from common.data.shared.download import DamagedError, reason
from common.data.shared.prepare import bar

# of what is remembered: another one where pictures are read otherwise
VERSION = 1
# where what is known of folders lies, if the environment does not say
CACHE, USUAL = "REPRISE_CACHE", "~/.cache/reprise"
# pictures that one line names
NAMED = 30
# as many pictures take more than a moment, which is said
MANY = 2000
# pictures that one thread takes at once
SHARE = 16


def fault_of(path: str, formats: Formats = FORMATS) -> str | None:
    """What is wrong with a picture, in a few words; None where it can be decoded.

    All of it is decoded, as training would, a JPEG at an eighth of its size: what is stored is read to its
    end, and the rest of the work is left.
    """
    try:
        with reading(names_of(formats)):
            content = Path(path).read_bytes()
            if not content:
                raise DamagedError("empty")
            if not _is_whole_jpeg(content):
                with Image.open(io.BytesIO(content), formats=formats) as image:
                    image.draft(None, (1, 1))
                    image.load()
    except DamagedError as error:
        return str(error)
    except OSError as error:
        return "missing" if isinstance(error, FileNotFoundError) else reason(error)
    return None


def _is_whole_jpeg(content: bytes) -> bool:
    """Whether this is a faultless JPEG in colour; of others Pillow tells, or makes, more."""
    if colour_jpeg_size(content) is None:
        return False
    try:
        simplejpeg.decode_jpeg(content, min_height=1, min_width=1, min_factor=8)
    except ValueError:
        return False
    return True


def unreadable(paths: Sequence[str], what: str, threads: int, formats: Formats = FORMATS) -> dict[str, str]:
    """The pictures that cannot be decoded, and what is wrong with each; a progress bar on terminals.

    Args:
        paths: of all.
        what: the set, for the bar.
        threads: that decode; Pillow and libjpeg-turbo let others work meanwhile.
    """
    found: dict[str, str] = {}
    shares = [paths[start : start + SHARE] for start in range(0, len(paths), SHARE)]

    def faults(share: Sequence[str]) -> list[tuple[str, str]]:
        return [(path, fault) for path in share if (fault := fault_of(path, formats)) is not None]

    # filters of warnings belong to all threads: what each of them sets back to is no matter inside this
    with warnings.catch_warnings(), ThreadPoolExecutor(max(1, threads)) as pool:
        results: Iterator[list[tuple[str, str]]] = pool.map(faults, shares)
        for part in bar(results, f"looking through {len(paths):,} pictures of {what}", len(shares)):
            found |= dict(part)
    return found


def known_unreadable(
    root: Path,
    paths: Sequence[str],
    files: dict[str, Any] | None,
    what: str,
    threads: int,
    formats: Formats = FORMATS,
) -> dict[str, str]:
    """As `unreadable`; where these very files were looked through before, what was found then.

    Args:
        root: a folder that holds all of them.
        files: their fingerprint (`common.data.shared.fingerprint`); without one nothing is remembered.
    """
    note = None if files is None else _note_of(files, formats)
    known = None if note is None else _read(note)
    if known is not None:
        return {str(root / name): fault for name, fault in known.items()}
    if len(paths) > MANY:
        print(f"{what}: looking through {len(paths):,} pictures, once for the same files", file=sys.stderr)
    found = unreadable(paths, what, threads, formats)
    if note is not None:
        _keep(note, {os.path.relpath(path, root): fault for path, fault in found.items()})
    return found


def _note_of(files: dict[str, Any], formats: Formats) -> Path:
    """The file that says what is known of a folder; its name follows from what the folder holds."""
    text = json.dumps([VERSION, list(formats), files], sort_keys=True)
    folder = Path(os.environ.get(CACHE) or USUAL).expanduser()
    return (
        folder / "pictures" / f"{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:24]}.json"
    )


def _read(note: Path) -> dict[str, str] | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    good = isinstance(known, dict) and all(isinstance(fault, str) for fault in known.values())
    return known if good else None


def _keep(note: Path, found: dict[str, str]) -> None:
    try:
        with whole(note) as partial:
            partial.write_text(json.dumps(found), encoding="utf-8")
    except OSError as error:
        # it costs another look next time, and no more
        print(
            f"{note} cannot be written ({reason(error)}): pictures are looked through anew", file=sys.stderr
        )


def listed_faults(found: dict[str, str], root: Path | None = None) -> str:
    """All of them in one line, each with what is wrong; of many the first ones, and how many more."""
    items = sorted(found.items())
    names = [
        f"{path if root is None else os.path.relpath(path, root)} ({fault})" for path, fault in items[:NAMED]
    ]
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(names) + more
