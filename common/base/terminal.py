"""The terminal that tables are printed to, or the pipe or file in its place."""

import os

from rich.console import Console


class _Console(Console):
    """Rich's console, which leaves a reader that has gone to `common.base.command`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(wide: int = 160) -> Console:
    """Where a command prints its tables: as wide as the terminal, or `wide` in a pipe or a file.

    A reader that stops reading raises BrokenPipeError (rich itself would exit with code 1).
    """
    return _Console(width=None if os.isatty(1) else wide)
