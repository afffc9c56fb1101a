"""The committed evidence: `results/<paper>/<12 hex digits>.json`, one small file a run."""

from pathlib import Path
from typing import Any

from filelock import FileLock

from common.runs.evidence import asked_forms, joined, neutral
from common.runs.result import read_result, write_json

# of each curve in `history`; the last point is always among them
POINTS = 200


def record(key: str, result: dict[str, Any], folder: Path) -> Path:
    """Write a result into the committed evidence, and return its path.

    What an earlier record of the same run has served (its entries, and the words that asked for it) stays.

    Args:
        key: the run key, `<paper>/<12 hex digits>`.
        result: as in `result.json`.
        folder: that of the evidence.
    """
    path = folder / f"{key}.json"
    with alone_in(folder):
        old, new = read_result(path), _recorded(result)
        write_json(path, new if old is None else joined(old, new))
    return path


def alone_in(folder: Path) -> FileLock:
    """While it is held nobody else writes into a folder of evidence, which is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def record_all(key: str, result: dict[str, Any], outputs: Path, folder: Path) -> None:
    """Record a run and, with it, those that it needed first: a stage is evidence of nothing by itself.

    A stage that lies elsewhere than in `outputs`, or whose result is gone from there, has no record.

    Args:
        key: as for `record`; so are `result` and `folder`.
        outputs: the folder of all runs (output_dir).
    """
    for stage in result["stages"].values():
        # one that began from a file of the user's own is known by its folder
        made = (
            None if Path(stage["key"]).is_absolute() else read_result(outputs / stage["key"] / "result.json")
        )
        if made is not None:
            record_all(stage["key"], made, outputs, folder)
    record(key, result, folder)


def _recorded(result: dict[str, Any]) -> dict[str, Any]:
    """A result with thinned curves, and without the words that name places on this machine."""
    words = [word for word in result["overrides"] if not neutral(word)]
    forms = [list(words) for words in asked_forms(result)]
    return {**result, "overrides": words, "asked": forms, "history": thinned(result["history"], POINTS)}


def thinned(history: dict[str, list[Any]], points: int) -> dict[str, list[Any]]:
    """Curves of at most so many points, evenly spread over those that there are, the last among them."""

    def thin(curve: list[Any]) -> list[Any]:
        last = len(curve) - 1
        return curve if last < points else [curve[last * i // (points - 1)] for i in range(points)]

    return {name: thin(curve) for name, curve in history.items()}
