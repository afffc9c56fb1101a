"""By which code and settings a result was made, and whether those have changed since."""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from common.tables.tables import ROOT, load_tables

# what reads results, and so cannot change one
READERS = {"claims", "report"}
# what a table says beside how its rows are run
TEXTS = {"about", "metrics", "reported", "source"}


def code_hash(paper: str, choices: dict[str, str]) -> str:
    """A hash over what decides the result of a paper's runs beside their words.

    That is the source files of `common` (but for what only reads results) and of the paper, the settings
    of its tables, its config, its recipes, and the config files of the choices.

    Args:
        paper: its name.
        choices: the choice of each config group, as `{"dataset": "digits"}`.
    """
    digest = hashlib.sha256(_source_hash(paper).encode())
    for group, choice in sorted(choices.items()):
        path = ROOT / "conf" / group / f"{choice}.yaml"
        digest.update(f"{group}={choice}".encode() + (path.read_bytes() if path.exists() else b""))
    return digest.hexdigest()[:12]


@cache
def _source_hash(paper: str) -> str:
    digest = hashlib.sha256(json.dumps(_settings(load_tables(paper)), default=str).encode())
    for path in _sources(paper):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _sources(paper: str) -> Iterator[Path]:
    for folder in sorted((ROOT / "common").iterdir()):
        if folder.name not in READERS:
            yield from sorted(folder.rglob("*.py"))
    yield from sorted((ROOT / "papers" / paper).rglob("*.py"))
    yield ROOT / "conf" / "paper" / f"{paper}.yaml"
    yield from sorted((ROOT / "conf" / "recipe" / paper).rglob("*.yaml"))


def _settings(node: Any) -> Any:
    """Tables without what only says what was reported."""
    if isinstance(node, dict):
        return {key: _settings(value) for key, value in node.items() if key not in TEXTS}
    return [_settings(value) for value in node] if isinstance(node, list) else node


def stale(result: dict[str, Any]) -> bool:
    """Whether the code or the settings that made a result have changed since."""
    return result["code"] != code_hash(result["paper"], result["choices"])
