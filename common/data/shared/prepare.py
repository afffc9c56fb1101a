"""Checksums, archives and folders that are made once: what stands between a download and its reader.

The text of every fault is one line; readers and `obtain` add the file and what to do.
"""

import contextlib
import hashlib
import lzma
import posixpath
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from filelock import FileLock
from rich.console import Console
from rich.progress import Progress

from common.base.errors import UserError
from common.data.shared.download import DamagedError, describe, folder_lock, md5_of, obtain, reason, remember

T = TypeVar("T")
Content = TypeVar("Content")

# bytes: of a header of a tar file, and read at once
BLOCK, CHUNK = 512, 1 << 20


class Checksum(NamedTuple):
    """An md5 in hexadecimal; not `confirmed` where nobody of this project has seen the file itself."""

    md5: str
    confirmed: bool


def check_file(path: Path, checksum: Checksum | None, verify: bool) -> None:
    """Compare the md5 of a file; see `check_content`. None: no checksum is known, nothing is done.

    Raises:
        DamagedError: it differs.
        OSError: the file is missing or cannot be read.
    """
    if checksum is not None:
        _compare(path, md5_of(path), [checksum], verify)


def check_content(path: Path, content: bytes | memoryview, known: Collection[Checksum], verify: bool) -> None:
    """Compare the md5 of what `path` holds with the known ones; none are known: nothing is done.

    Without `verify`, a difference is said on stderr, and no more.

    Raises:
        DamagedError: "md5 ... instead of ...", and whether that checksum is unconfirmed.
    """
    if known:
        _compare(path, hashlib.md5(content, usedforsecurity=False).hexdigest(), known, verify)


def _compare(path: Path, found: str, known: Collection[Checksum], verify: bool) -> None:
    expected = sorted({checksum.md5 for checksum in known})
    if found in expected:
        return
    fault = f"md5 {found} instead of {' or '.join(expected)}"
    if not verify:
        print(f"{path.resolve()}: {fault}; taken as it is (dataset.verify=false)", file=sys.stderr)
        return
    if not all(checksum.confirmed for checksum in known):
        fault += " (that checksum is unconfirmed: if you trust the file, set dataset.verify=false)"
    raise DamagedError(fault)


def prepare(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`; where it is absent, `make` fills an empty scratch folder beside it, which takes its place.

    Atomic: `folder` is either absent or whole, also after a kill. Of processes at once one makes it, the
    others wait and find it. A `make` that fails leaves nothing behind but the empty file of the lock, and
    its exception goes on.

    Raises:
        UserError: the folder cannot be written.
    """
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # a lock of its own: `make` may download into the parent, under that folder's lock
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not folder.exists():
                _make(folder, make)
    except OSError as error:
        raise UserError(f"{folder.resolve()} cannot be made ({reason(error)})") from error
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    scratch = folder.parent / f".{folder.name}.partial"
    # of a process that was killed: nobody else holds the lock
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        make(scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def unpack(archive: Path, target: Path, what: str) -> None:
    """Unpack a tar (plain, gzip, bzip2 or xz) or zip file into the folder `target`, whatever its name is.

    A progress bar named `what` is shown on terminals. Files that were unpacked before a fault was met
    stay in `target`: unpack into a scratch folder (`prepare`).

    Raises:
        DamagedError: the archive is truncated, foreign or encrypted, or a member or the target of a link
            would lie outside `target`.
        OSError: the archive cannot be read, or a file cannot be written.
    """
    try:
        with _progress() as progress, progress.open(archive, "rb", description=what) as file:
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            _unpack_zip(file, target) if is_zip else _unpack_tar(file, target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DamagedError(f"it cannot be unpacked: {_one_line(error)}") from error
    except (NotImplementedError, RuntimeError) as error:
        # zipfile's words for a method or an encryption that it does not know
        raise DamagedError(f"it cannot be unpacked: {_one_line(error)}") from error
    except OSError as error:
        # gzip and bz2 give bad content as an OSError without a number
        if error.errno is None:
            raise DamagedError(f"it cannot be unpacked: {_one_line(error)}") from error
        raise


def _unpack_tar(file: BinaryIO, target: Path) -> None:
    with tarfile.open(fileobj=file) as tar:
        for member in tar:
            # the data filter refuses what leads outside; absolute names it would only make relative
            _check_inside(member.name)
            tar.extract(member, target, filter="data")
        # tarfile takes a header that it cannot read for the end
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(BLOCK) != bytes(BLOCK):
            raise DamagedError("it cannot be unpacked: the end of the archive is missing")
        # compressed streams hold their checksum at the very end
        while tar.fileobj.read(CHUNK):
            pass


def _unpack_zip(file: BinaryIO, target: Path) -> None:
    with zipfile.ZipFile(file) as packed:
        for member in packed.infolist():
            _check_inside(member.filename)
            packed.extract(member, target)


def _check_inside(name: str) -> None:
    if posixpath.normpath(name).startswith(("/", "..")):
        raise DamagedError(f"its member {name!r} would land outside the folder")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class Archive(NamedTuple):
    """An archive to be downloaded: where it lies, and the folder `inside` it that holds the files."""

    path: Path
    url: str
    checksum: Checksum
    inside: str


def obtain_unpacked(
    folder: Path,
    names: Collection[str],
    archive: Archive,
    read: Callable[[Path], Content],
    verify: bool,
    advice: str,
) -> Content:
    """`read(folder)`; where that fails, put the files `names` of the archive there and read again.

    The archive is verified, and downloaded if need be. Each file is replaced atomically; md5s of those of
    a verified archive are remembered in the folder. Of processes at once one unpacks, the others wait.

    Args:
        read: raises UserError where a file of the folder is missing or damaged.
        advice: what the user can do.

    Raises:
        UserError: what `read` found, and why the archive did not help.
    """
    try:
        return read(folder)
    except UserError as error:
        problem = str(error)
    try:
        obtain(archive.path, archive.url, lambda path: check_file(path, archive.checksum, verify), advice)
        with folder_lock(folder):
            # another process may have unpacked them while this one waited for the lock
            with contextlib.suppress(UserError):
                return read(folder)
            _unpack_files(folder, names, archive, verify)
    except UserError as error:
        raise UserError(f"{problem}; {error}") from error
    except DamagedError as error:
        raise UserError(f"{problem}; {describe(archive.path, error)}: {advice}") from error
    except OSError as error:
        raise UserError(f"{problem}; {folder.resolve()} cannot be written ({reason(error)})") from error
    return read(folder)


def _unpack_files(folder: Path, names: Collection[str], archive: Archive, verify: bool) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as scratch:
        unpack(archive.path, Path(scratch), archive.path.name)
        unpacked = {name: Path(scratch, archive.inside, name) for name in names}
        absent = [name for name, path in unpacked.items() if not path.is_file()]
        if absent:
            raise DamagedError(f"no {archive.inside}/{absent[0]} in it")
        checksums = {name: md5_of(path) for name, path in unpacked.items()}
        for name, path in unpacked.items():
            path.replace(folder / name)
    if verify:
        remember(folder, checksums)


def bar(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    """The items, with a progress bar on stderr where that is a terminal; silent elsewhere."""
    with _progress() as progress:
        yield from progress.track(items, total, description=what)


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
