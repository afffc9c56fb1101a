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

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
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
# files and folders of which every test starts processes, or takes seconds
SLOW = (
    "reliability",
    "test_claims_command.py",
    "test_commands.py",
    "test_evidence.py",
    "test_floors.py",
    "test_launchers.py",
    "test_report_command.py",
    "test_results.py",
    "test_stages_command.py",
    "test_steady.py",
    "common/report/test_report_wandb.py",
    "common/data/images/test_data_curves.py",
    "common/models/test_models_configs.py",
    "common/models/test_models_resnets.py",
    "common/pruning/test_pruning_pruned.py",
    "common/pruning/test_pruning_shelf.py",
    "common/pruning/test_pruning_slicing.py",
    "common/runs/test_runs_as_objective.py",
    "common/runs/test_runs_evaluate.py",
    "common/runs/test_runs_export.py",
    "common/runs/test_runs_pipeline.py",
    "common/runs/test_runs_pruned.py",
    "common/runs/test_runs_record.py",
    "common/runs/test_runs_starting.py",
    "common/runs/test_runs_tune.py",
    "common/search/test_search_module.py",
    "common/training/test_training_early_stopping.py",
    "common/training/test_training_supervised.py",
    "papers/accelegrad/test_accelegrad_module.py",
    "papers/dcp/test_dcp_complexity.py",
    "papers/ablr/test_ablr_search.py",
    "papers/dpc/test_dpc_search.py",
    "papers/nao/test_nao_search.py",
    "papers/factor_transfer/test_factor_transfer_claims.py",
    "papers/int8_training/test_int8_training_runs.py",
    "papers/maxacq/test_maxacq_search.py",
    "papers/mgda/test_mgda_runs.py",
    "papers/moonshine/test_moonshine_claims.py",
    "papers/moonshine/test_moonshine_erfnet.py",
    "papers/moonshine/test_moonshine_networks.py",
    "papers/moonshine/test_moonshine_tables.py",
    "papers/one/test_one_costs.py",
    "papers/one/test_one_runs.py",
    "papers/qff/test_qff_models.py",
    "papers/saddle/test_saddle_module.py",
    "papers/saddle/test_saddle_units.py",
    "papers/sdp_cert/test_sdp_cert_bounds.py",
    "papers/sdp_cert/test_sdp_cert_module.py",
    "papers/sdp_cert/test_sdp_cert_units.py",
    "papers/sensitivity/test_sensitivity_runs.py",
    "papers/yogi/test_yogi_claims.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `slow` what starts processes by a fixture or stands in a slow file; others say so.

    Files with slow tests come first: of two workers none then begins a long one when the other is done.
    """
    tests = Path(__file__).parent
    slow = {
        path
        for path in {item.path for item in items}
        if any(path.is_relative_to(tests / name) for name in SLOW)
    }
    for item in items:
        if item.path in slow or STARTS & set(getattr(item, "fixturenames", ())):
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
