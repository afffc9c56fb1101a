"""Commands whose reader may stop reading, as in `python claims.py --list | head`."""

import logging
import os
import sys
from collections.abc import Callable


def piped(main: Callable[[], int | None]) -> int | None:
    """The exit code of a command; 0 where its reader has gone before its end."""
    # Hydra prints by way of logging, which would tell of each line that has no reader
    logging.raiseExceptions = False
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes once more at its end: that must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
