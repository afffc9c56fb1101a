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
    monkeypatch.setattr(orphans, "_watch", lambda *_: pytest.fail("watched"))
    orphans.end_with(os.getpid())
    assert os.getpid() not in orphans._watched


QUEUE = """
import signal, sys, time
from common.runs import orphans
orphans.LOOK_EVERY = 0.05
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
for job in "abc":
    with orphans.job_of(int(sys.argv[1])):
        print(f"job {job}", flush=True)
        until = time.monotonic() + (60 if job == "b" else 0)
        asked = []
        signal.signal(signal.SIGTERM, lambda *_: (print("asked to stop", flush=True), asked.append(1)))
        while time.monotonic() < until and not asked:
            time.sleep(0.01)
        print("stopped", flush=True)
    time.sleep(0 if job == "a" else 60)
"""


def test_a_worker_of_several_jobs_ends_as_soon_as_its_job_has_stopped_and_begins_no_other() -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    command = [sys.executable, "-c", QUEUE, str(other.pid)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert [worker.stdout.readline() for _ in range(3)] == ["job a\n", "stopped\n", "job b\n"]
    other.kill()
    other.wait()
    assert worker.wait(timeout=25) == 1
    assert worker.stdout.read() == "asked to stop\nstopped\n"
    worker.stdout.close()


def test_a_job_whose_sweep_has_gone_does_not_begin() -> None:
    other = subprocess.Popen([sys.executable, "-c", ""])
    other.wait()
    command = [sys.executable, "-c", QUEUE, str(other.pid)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""
