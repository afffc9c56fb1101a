"""What several tests share: the project's folder, real data, and running the commands as a user would."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from calls import HANGS, Calls
from slow import NAMES, Timed, function_of

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-slow", action="store_true", help="time all tests and write tests/slow.txt")


def pytest_configure(config: pytest.Config) -> None:
    # of several processes the one that hears of all tests
    if config.getoption("write_slow") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Timed())
    os.environ.setdefault("WANDB_MODE", "offline")
    # what is known of folders of pictures is kept for these tests alone
    if "REPRISE_CACHE" not in os.environ:
        os.environ["REPRISE_CACHE"] = cache = tempfile.mkdtemp(prefix="reprise-cache-")
        atexit.register(shutil.rmtree, cache, ignore_errors=True)
    # how long it waits for its own service
    os.environ.setdefault("WANDB__SERVICE_WAIT", "300")
    torch.set_num_threads(1)
    # no example has to be quick, and each run of the tests tries the same ones
    slow = [HealthCheck.too_slow]
    settings.register_profile(
        "steady", deadline=None, derandomize=True, database=None, suppress_health_check=slow
    )
    settings.load_profile("steady")


# what a test asks for when it starts processes
STARTS = {"run", "quick", "calls", "ray_alone"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `slow` what starts processes by a fixture or was slow when it was timed; others say so.

    Files with slow tests come first: of two workers none then begins a long one when the other is done.
    """
    slow = set(NAMES.read_text().split())
    for item in items:
        if function_of(item.nodeid) in slow or STARTS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    first = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in first)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where real data lie: DATA_DIR, or `data` in the project."""
    return Path(os.environ.get("DATA_DIR", ROOT / "data")).resolve()


@pytest.fixture
def need(data_dir: Path) -> Callable[[str], Path]:
    """A real file or folder by its path under DATA_DIR; the test is skipped where it is missing."""

    def find(name: str) -> Path:
        path = data_dir / name
        if not path.exists():
            if os.environ.get("REQUIRE_REAL_DATA"):
                pytest.fail(f"{path} is missing, and REQUIRE_REAL_DATA is set")
            pytest.skip(f"{path} is missing: real data are laid out under DATA_DIR")
        return path

    return find


@pytest.fixture
def run(tmp_path: Path, data_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call `run.py` in an empty folder of its own, on one thread, without a logger."""

    def call(*words: str, logger: str = "none", timeout: float = HANGS) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DATA_DIR": str(data_dir)}
        command = [sys.executable, str(ROOT / "run.py"), *words]
        if logger and not {"--help"} & set(words):
            command.append(f"logger={logger}")
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout
        )

    return call


@pytest.fixture(scope="session")
def calls() -> Iterator[Calls]:
    """Calls of `run.py` without their start-up."""
    with Calls() as started:
        yield started


@pytest.fixture
def ray_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing else of these tests uses Ray on this machine meanwhile: `ray stop` stops all of it."""
    # a token that an earlier use of Ray has left at home is taken up by the first node alone
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with FileLock(Path(tempfile.gettempdir()) / f"reprise-ray-{os.getuid()}.lock"):
        yield


@pytest.fixture
def quick(calls: Calls, tmp_path: Path, data_dir: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `run`, without the start-up: a process forked from one that has imported everything."""

    def call(*words: str, logger: str = "none", timeout: float = HANGS) -> subprocess.CompletedProcess[str]:
        more = [] if {"--help"} & set(words) else [f"logger={logger}"]
        ended = calls.run([*words, *more], tmp_path, timeout, DATA_DIR=str(data_dir))
        return subprocess.CompletedProcess([*words], ended.code, ended.out, ended.errors)

    return call
