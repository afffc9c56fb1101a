import os
import signal
import subprocess
import sys
import time

import pytest

from common.runs import orphans

WORKER = """
import sys, time
from common.runs import orphans
orphans.LOOK_EVERY = 0.05
orphans.end_with(int(sys.argv[1]))
print("up", flush=True)
time.sleep(60)
"""


def test_a_process_that_nobody_has_waited_for_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert orphans.alive(child.pid)
    child.kill()
    until = time.monotonic() + 60
    while orphans.alive(child.pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not orphans.alive(child.pid)
    child.wait()
    assert not orphans.alive(child.pid)


def test_a_worker_ends_with_the_process_that_it_watches() -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(other.pid)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "up\n"
    other.kill()
    other.wait()
    assert worker.wait(timeout=60) == -signal.SIGTERM
    worker.stdout.close()


def test_a_process_does_not_watch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_watch", lambda pid: pytest.fail("watched"))
    orphans.end_with(os.getpid())
    assert os.getpid() not in orphans._watched
