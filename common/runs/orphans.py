"""Workers that end when the process that started them ends, however it does: kill -9 tells nobody."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# seconds between two looks, and from the request to end until the end
LOOK_EVERY = 1.0
PATIENCE = 30.0
_watched: set[int] = set()
# whether a job is under way in this process, which makes several
_at_work = threading.Event()


def end_with(pid: int, at_work: threading.Event | None = None) -> None:
    """End this process soon after another one on this machine has ended.

    A run under way is asked to stop, as by SIGTERM, so that it keeps a checkpoint; what has not ended
    half a minute later ends at once.

    Args:
        pid: of the other process; nothing is done where it is this one.
        at_work: set while there is something to stop for; once it is not, nothing is waited for.
    """
    if pid != os.getpid() and pid not in _watched:
        _watched.add(pid)
        threading.Thread(target=_watch, args=(pid, at_work), daemon=True).start()


@contextmanager
def job_of(pid: int) -> Iterator[None]:
    """A job that another process on this machine has asked for: this one ends as soon as both have ended.

    A job that is to begin when the other process has gone already, as those that wait in a queue, does not.
    """
    if pid != os.getpid() and not alive(pid):
        os._exit(1)
    _at_work.set()
    try:
        end_with(pid, _at_work)
        yield
    finally:
        _at_work.clear()


def _watch(pid: int, at_work: threading.Event | None) -> None:
    while alive(pid):
        time.sleep(LOOK_EVERY)
    os.kill(os.getpid(), signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and (at_work is None or at_work.is_set()):
        time.sleep(LOOK_EVERY / 10)
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
