"""Several processes: of one run (trainer=ddp), of a sweep on a cluster, and of runs that want the same."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import HANGS, Calls, Ended, until
from filelock import FileLock

from common.runs.compose import compose
from common.runs.keys import run_key

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
Run = Callable[..., subprocess.CompletedProcess[str]]
DIGITS = ["paper=yogi", "dataset=digits", "model=lenet_300_100", "logger=none"]
# a batch that two processes cannot halve, and a rest of one example
DDP = [*DIGITS, "paper.epochs=2", "dataset.batch_size=39", "schedule=cosine"]
TOGETHER = ["trainer=ddp", "trainer.accelerator=cpu"]


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by their run keys."""
    found = folder.glob("outputs/*/*/result.json")
    return {f"{path.parts[-3]}/{path.parts[-2]}": json.loads(path.read_text()) for path in found}


def metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """Metrics by run key; times are left out."""
    return {
        key: {name: value for name, value in result["metrics"].items() if "seconds" not in name}
        for key, result in results(folder).items()
    }


def text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def torchrun(words: list[str], folder: Path) -> list[Ended]:
    """Two processes that make one run on the CPU, as a user starts them."""
    command = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node=2", str(ROOT / "run.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder.mkdir()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=HANGS
    )
    return [Ended(done.returncode, done.stdout, done.stderr)]


def forked(calls: Calls, words: list[str], folder: Path) -> list[Ended]:
    """The same two processes, told of each other as torchrun tells them, without their start-up."""
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    group["MASTER_PORT"] = str(free_port())
    pids = [
        calls.start(
            [*words, f"output_dir={folder / 'outputs'}"], folder / rank, RANK=rank, LOCAL_RANK=rank, **group
        )
        for rank in ("0", "1")
    ]
    return [ended for pid in pids if (ended := calls.wait(pid, HANGS)) is not None]


def test_two_processes_with_half_of_each_batch_come_to_the_metrics_of_one(
    calls: Calls, tmp_path: Path, soak: bool
) -> None:
    assert calls.run(DDP, tmp_path / "one").code == 0
    words, folder = [*DDP, *TOGETHER], tmp_path / "two"
    done = torchrun(words, folder) if soak else forked(calls, words, folder)
    assert {ended.code for ended in done} == {0}, done
    assert "".join(ended.out for ended in done).count("result: ") == 1
    alone, together = metrics(tmp_path / "one"), metrics(folder)
    assert alone.keys() == together.keys()
    for key, expected in alone.items():
        assert together[key] == pytest.approx(expected, rel=1e-3)


def test_what_trains_on_no_minibatches_and_what_nothing_started_is_refused(
    calls: Calls, tmp_path: Path
) -> None:
    done = forked(calls, ["paper=saddle", "dataset=b1", "logger=none", *TOGETHER], tmp_path / "two")
    assert [ended.code for ended in done] == [1, 1]
    assert "error: trainer=ddp: SaddleModule does not train a network by minibatches" in done[0].errors
    ended = calls.run([*DIGITS, "trainer=ddp"], tmp_path / "one")
    assert ended.code == 1
    assert "start them by torchrun" in ended.errors


def test_eight_processes_record_their_results_and_none_is_lost(calls: Calls, tmp_path: Path) -> None:
    words = [*DIGITS, "scale=smoke", "record=true", f"results_dir={tmp_path / 'results'}"]
    pids = [calls.start([*words, f"seed={seed}"], tmp_path / str(seed)) for seed in range(8)]
    ended = [calls.wait(pid, HANGS) for pid in pids]
    assert all(one is not None and one.code == 0 for one in ended), ended
    recorded = [json.loads(path.read_text()) for path in tmp_path.glob("results/yogi/*.json")]
    assert sorted(result["seed"] for result in recorded) == list(range(8))
    for result in recorded:
        (own,) = results(tmp_path / str(result["seed"])).values()
        assert result["metrics"] == own["metrics"]


def test_a_teacher_that_four_runs_want_is_trained_once(calls: Calls, tmp_path: Path) -> None:
    student = [*DIGITS, "method=distillation/kd", "paper.epochs=1"]
    student += ["teacher='model=lenet_300_100 method=distillation/none paper.epochs=3'"]
    folders = [tmp_path / str(seed) for seed in range(4)]
    pids = [
        calls.start([*student, f"seed={seed}", f"output_dir={tmp_path / 'outputs'}"], folder)
        for seed, folder in enumerate(folders)
    ]
    ended = [calls.wait(pid, HANGS) for pid in pids]
    assert all(one is not None and one.code == 0 for one in ended), ended
    made = results(tmp_path)
    teachers = [key for key, result in made.items() if not result["stages"]]
    assert len(made) == 5 and len(teachers) == 1
    used = {result["stages"]["teacher"]["key"] for result in made.values() if result["stages"]}
    assert used == set(teachers)
    # who trained it said how it went, the others waited or came after
    shown = [one.errors.count("teacher] ") > 0 and "waiting" not in one.errors for one in ended if one]
    assert sum(shown) <= 1


def test_an_entry_started_twice_is_made_once(calls: Calls, tmp_path: Path) -> None:
    """The test holds the run's lock until both stand at it."""
    words = [*DIGITS, "paper.epochs=10", f"output_dir={tmp_path / 'outputs'}"]
    folders = [tmp_path / name for name in ("first", "second")]
    key = run_key(compose(words)[0])
    (tmp_path / "outputs" / key).mkdir(parents=True)
    with FileLock(tmp_path / "outputs" / key / ".lock"):
        pids = [calls.start(words, folder) for folder in folders]
        until(lambda: all("waiting" in text(folder / "stderr") for folder in folders))
    ended = [one for one in (calls.wait(pid, HANGS) for pid in pids) if one is not None]
    assert [one.code for one in ended] == [0, 0]
    assert sum("already done" in one.out for one in ended) == 1
    assert len(results(tmp_path)) == 1


SWEEP = [
    "-m",
    "entry=spider.saddle_escape.saddle_spider_sfo_plus_neon2",
    "seed=0,1",
    "scale=smoke",
    "trainer=cpu",
]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory, calls: Calls) -> dict[str, dict[str, Any]]:
    """The metrics of the sweep, one job after the other."""
    folder = tmp_path_factory.mktemp("serial")
    ended = calls.run([*SWEEP, "logger=none"], folder)
    assert ended.code == 0, ended.errors
    return metrics(folder)


@pytest.fixture
def ray_cluster(ray_alone: None) -> Iterator[str]:
    """The address of a Ray cluster of two nodes of one core each."""
    pytest.importorskip("ray")
    port = free_port()
    ray = str(BIN / "ray")
    quiet: dict[str, Any] = {"capture_output": True, "text": True, "check": False}
    small = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"]
    head = ["--head", f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        for options in (head, [f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.2"]):
            done = subprocess.run([ray, "start", *options, *small], env=environment, **quiet)
            assert done.returncode == 0, done.stdout + done.stderr
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([ray, "stop", "--force"], **quiet)


def test_a_sweep_through_a_ray_cluster_of_two_nodes_gives_the_results_of_a_serial_one(
    soak: bool, request: pytest.FixtureRequest, quick: Run, tmp_path: Path
) -> None:
    """Starting and stopping the cluster takes most of a minute; `test_launchers.py` has one of one node."""
    if not soak:
        pytest.skip("a cluster of two nodes is started by `make soak` alone")
    serial, ray_cluster = request.getfixturevalue("serial"), request.getfixturevalue("ray_cluster")
    words = ["hydra/launcher=ray", f"+hydra.launcher.ray.init.address={ray_cluster}"]
    # the launcher's own setting, which a cluster that is up does not take
    words += ["+hydra.launcher.ray.init.object_store_memory=null", f"output_dir={tmp_path / 'outputs'}"]
    done = quick(*SWEEP, *words, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path) == serial
