"""Original files of data sets: found, checked, fetched again once when damaged, and remembered.

A reader is any function of a path that returns the parsed file and raises `DamagedError` when its content
is wrong. `obtain` hands it the local file, else a fresh download, else tells the user what to do.
"""

import contextlib
import errno
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from common.base.errors import UserError

Content = TypeVar("Content")

# (connect, read) in seconds, for each try
TIMEOUT = (10, 30)
RETRIES = 1
# bytes written at once
CHUNK = 1 << 18
# md5 of what was downloaded or unpacked here, by file name, beside those files
MANIFEST = "checksums.json"


class DamagedError(Exception):
    """A file is not what it should be; the message says in what."""


class FetchError(Exception):
    """A file could not be downloaded; the message says why, in a few words."""


def obtain(path: Path, url: str, read: Callable[[Path], Content], advice: str) -> Content:
    """`read(path)`; where the file is missing or damaged, fetch it once from `url` and read that.

    A download is read before it takes the place of `path` (atomically), so a bad one never does. Of
    several processes one downloads, the others wait and find the file.

    Raises:
        UserError: "PATH is missing (or damaged: in what), and URL ...: ADVICE".
    """
    try:
        return read(path)
    except (OSError, DamagedError) as error:
        problem = describe(path, error)
    try:
        with folder_lock(path.parent):
            return _read_or_replace(path, url, read)
    except FetchError as error:
        raise UserError(f"{problem}, and {url} could not be fetched ({error}): {advice}") from error
    except DamagedError as error:
        raise UserError(f"{problem}, and {url} gave a damaged file ({error}): {advice}") from error
    except OSError as error:
        raise UserError(f"{problem}, and cannot be written ({reason(error)}): {advice}") from error


def _read_or_replace(path: Path, url: str, read: Callable[[Path], Content]) -> Content:
    # another process may have fetched it while this one waited for the lock
    with contextlib.suppress(OSError, DamagedError):
        return read(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
        fresh = Path(folder) / path.name
        fetch(url, fresh)
        content = read(fresh)
        remember(path.parent, {path.name: md5_of(fresh)})
        fresh.replace(path)
    return content


def fetch(url: str, path: Path) -> None:
    """Download `url` to `path`, retried; a progress bar on terminals.

    Raises:
        FetchError: no connection, a timeout, or an HTTP error.
        OSError: the file cannot be written.
    """
    # most runs fetch nothing
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    print(f"downloading {url}", file=sys.stderr)
    store = pooch.create(
        path=path.parent,
        base_url="",
        registry={path.name: None},
        urls={path.name: url},
        retry_if_failed=RETRIES,
    )
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=CHUNK, timeout=TIMEOUT)
    try:
        store.fetch(path.name, downloader=downloader)
    except requests.Timeout as error:
        raise FetchError("timed out") from error
    except requests.HTTPError as error:
        status = "error" if error.response is None else error.response.status_code
        raise FetchError(f"HTTP {status}") from error
    except requests.RequestException as error:
        raise FetchError("no connection") from error


def describe(path: Path, error: Exception) -> str:
    """One phrase: the file, by its absolute path, and what is wrong with it."""
    if isinstance(error, FileNotFoundError):
        return f"{path.resolve()} is missing"
    if isinstance(error, OSError):
        return f"{path.resolve()} cannot be read ({reason(error)})"
    return f"{path.resolve()} is damaged ({error})"


def reason(error: OSError) -> str:
    """The operating system's words, in a few."""
    return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or type(error).__name__


def folder_lock(folder: Path) -> FileLock:
    """The lock under which files of `folder` are written; the folder is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def md5_of(path: Path) -> str:
    """The md5 of a file, in hexadecimal, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def remember(folder: Path, checksums: dict[str, str]) -> None:
    """Add to the folder's manifest {file name: md5}, atomically; to be called under `folder_lock`."""
    manifest = folder / MANIFEST
    fresh = manifest.with_suffix(".partial")
    fresh.write_text(json.dumps(remembered(folder) | checksums, indent=1))
    fresh.replace(manifest)


def remembered(folder: Path) -> dict[str, str]:
    """The folder's manifest, {file name: md5}; empty where there is none that can be read."""
    try:
        checksums = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return checksums if isinstance(checksums, dict) else {}
