"""How a run is asked for, and what comes out of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """How a run was asked for: none of it changes the result.

    Attributes:
        inherited: those of the overrides that no user has typed, of a run that another needs.
    """

    choices: dict[str, str]
    overrides: list[str]
    label: str
    terminal: bool
    inherited: tuple[str, ...] = ()

    @property
    def entry(self) -> str | None:
        entry = self.choices.get("entry")
        return None if entry in (None, "None", "null") else entry


@dataclass(frozen=True)
class Outcome:
    """What came out: the result, where it lies, and whether it had been there before.

    Attributes:
        since: of a result that had been there, what has changed since it was made.
    """

    path: Path
    result: dict[str, Any]
    skipped: bool
    since: tuple[str, ...] = ()

    @property
    def changed(self) -> str:
        """What has changed since, as the rest of a sentence; empty where nothing has."""
        return "".join(f"; {what}" for what in self.since)
