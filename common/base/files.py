"""Files that are written whole or not at all."""

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.base.errors import UserError

# names that a line shows
SHOWN = 12


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, by libyaml where that is there: it reads ten times as fast.

    Raises:
        UserError: it is none, with the line.
    """
    # no reader of files waits for it that reads no YAML
    import yaml

    try:
        return yaml.load(
            path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no YAML: {yaml_line(error)}") from error


def yaml_line(error: Exception) -> str:
    """What a reader of YAML stumbled over, in one line, with the number of the line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    what = " ".join(str(problem or error).split())
    return what if mark is None else f"line {mark.line + 1}: {what}"


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


def names_beside(path: Path, suffixes: tuple[str, ...] | None = None) -> str:
    """What lies where a path that leads nowhere should: `a, b in /home/me`, the likest first, for advice.

    Args:
        suffixes: of files that count beside folders, in lower case; () for all, None for folders alone.
    """
    near = path.expanduser().parent
    while not near.is_dir() and near != near.parent:
        near = near.parent
    try:
        names = sorted(one.name for one in near.iterdir() if _counts(one, suffixes))
    except OSError:
        names = []
    likest = difflib.get_close_matches(path.name, names, n=SHOWN, cutoff=0.6)
    names = list(dict.fromkeys([*likest, *names]))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN]) or 'nothing of the kind'}{more} in {near.resolve()}"


def _counts(path: Path, suffixes: tuple[str, ...] | None) -> bool:
    if path.name.startswith("."):
        return False
    return path.is_dir() or (suffixes is not None and path.name.lower().endswith(suffixes or ""))
