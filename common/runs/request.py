"""How a run is asked for, and what comes out of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """How a run was asked for: none of it changes the result."""

    choices: dict[str, str]
    overrides: list[str]
    label: str
    terminal: bool

    @property
    def entry(self) -> str | None:
        entry = self.choices.get("entry")
        return None if entry in (None, "None", "null") else entry


@dataclass(frozen=True)
class Outcome:
    """What came out: the result, where it lies, and whether it had been there before."""

    path: Path
    result: dict[str, Any]
    skipped: bool
