"""Memory stays flat: over a long run, and over many runs in one process. Only the long form (make soak)."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
# more than this over the second half is a leak: a list of floats a step, or a kept network a run
MEGABYTES_A_RUN, MEGABYTES_OF_A_RUN = 0.1, 20.0
# writes the resident memory of the process every second
WATCH = """
import os, threading, time
def watch():
    page = os.sysconf("SC_PAGE_SIZE") / 2**20
    with open("memory.csv", "a") as file:
        while True:
            time.sleep(1)
            pages = int(open("/proc/self/statm").read().split()[1])
            file.write(f"{time.time()},{pages * page}\\n")
            file.flush()
if os.environ.get("WATCHED") == str(os.getppid()):
    threading.Thread(target=watch, daemon=True).start()
"""


@pytest.fixture
def megabytes(
    soak: bool, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[float]]:
    """Make a call; the resident memory of its process, each second since its first run began."""
    if not soak:
        pytest.skip("takes minutes: make soak")
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("WATCHED", str(os.getpid()))

    def call(*words: str) -> list[float]:
        done = run(*words, timeout=3000)
        assert done.returncode == 0, done.stderr
        first = min(path.stat().st_mtime for path in tmp_path.glob("outputs/*/*/.lock"))
        with (tmp_path / "memory.csv").open() as file:
            return [float(megabytes) for moment, megabytes in csv.reader(file) if float(moment) > first]

    return call


def growth(memory: list[float]) -> float:
    """From the second quarter's median to the last one's."""
    quarter = len(memory) // 4
    assert quarter >= 5, "too short to say anything"
    second, last = sorted(memory[quarter : 2 * quarter]), sorted(memory[-quarter:])
    return last[quarter // 2] - second[quarter // 2]


def test_a_run_of_ten_thousand_steps_keeps_no_memory_per_step(megabytes: Callable[..., list[float]]) -> None:
    words = ["paper=yogi", "dataset=digits", "model=convnet", "dataset.batch_size=64", "trainer=cpu"]
    memory = megabytes(*words, "paper.epochs=460")
    assert growth(memory) < MEGABYTES_OF_A_RUN


def test_five_hundred_runs_in_one_process_keep_no_memory_per_run(
    megabytes: Callable[..., list[float]], tmp_path: Path
) -> None:
    memory = megabytes("-m", "paper=yogi", "dataset=digits", "scale=smoke", "seed=range(500)", "trainer=cpu")
    assert len(list(tmp_path.glob("outputs/yogi/*/result.json"))) == 500
    assert growth(memory) < MEGABYTES_A_RUN * 250


def test_the_growth_of_memory_that_leaks_is_seen() -> None:
    assert growth([100.0 + second for second in range(80)]) > MEGABYTES_OF_A_RUN
    assert abs(growth([100.0 + second % 3 for second in range(80)])) < 3
