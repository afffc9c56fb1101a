"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# names that a line shows
SHOWN = 12


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another path to write to, which takes the place of `path` at the end; its folder is made.

    A reader sees the old file or the new one, never half of one. Where the block raises, the old file stays,
    and nothing is left of the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def folders_beside(path: Path) -> str:
    """The folders where a path that leads nowhere should lie: `a, b in /home/me`, for a line of advice."""
    near = path.parent
    while not near.is_dir() and near != near.parent:
        near = near.parent
    try:
        names = sorted(one.name for one in near.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        names = []
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{shown or 'no folder'} in {near.resolve()}"
