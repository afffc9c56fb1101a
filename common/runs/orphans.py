"""Workers that end when the process that started them ends, however it does: kill -9 tells nobody."""

import os
import signal
import threading
import time
from pathlib import Path

# seconds between two looks, and from the request to end until the end
LOOK_EVERY = 1.0
PATIENCE = 30.0
_watched: set[int] = set()


def end_with(pid: int) -> None:
    """End this process soon after another one on this machine has ended.

    A run under way is asked to stop, as by SIGTERM, so that it keeps a checkpoint; what has not ended
    half a minute later ends at once.

    Args:
        pid: of the other process; nothing is done where it is this one.
    """
    if pid != os.getpid() and pid not in _watched:
        _watched.add(pid)
        threading.Thread(target=_watch, args=(pid,), daemon=True).start()


def _watch(pid: int) -> None:
    while alive(pid):
        time.sleep(LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended, and for which nobody has waited yet, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # after the name in brackets, which may hold anything
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        # no Linux, or it has ended just now: the next look tells
        return True
