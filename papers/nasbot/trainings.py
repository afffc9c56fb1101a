"""A growing table of trainings on disk, which searches share: nothing is trained twice.

One file for each training, named by a hash of all that decides what comes out. A file takes its place whole,
so a killed process leaves none that is broken; of two processes that want the same training one makes it,
while the other waits and reads it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from common.base.files import whole

Measures = dict[str, float]


class Trainings:
    """The table.

    Args:
        folder: that holds it; made when it is first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, words: Mapping[str, Any], train: Callable[[], Measures]) -> Measures:
        """The measures of a training: as the table has them, else made now and kept.

        What raises is not kept.

        Args:
            words: plain data that decide what comes out.
            train: makes it.
        """
        path = self._path(words)
        found = _read(path)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            # another process may have made it while this one waited
            found = _read(path)
            if found is None:
                found = train()
                self._write(path, words, found)
        return found

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All trainings: their words, and `measures`."""
        for path in sorted(self.folder.glob("*/*.json")):
            yield json.loads(path.read_text())

    def _path(self, words: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.json"

    def _write(self, path: Path, words: Mapping[str, Any], measures: Measures) -> None:
        told = {name: value if math.isfinite(value) else None for name, value in measures.items()}
        with whole(path) as partial:
            partial.write_text(json.dumps({**words, "measures": told}, sort_keys=True))


def _read(path: Path) -> Measures | None:
    """Measures that were kept; None where there are none."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return {name: math.nan if value is None else value for name, value in data["measures"].items()}
