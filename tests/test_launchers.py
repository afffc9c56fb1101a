"""Sweeps under every launcher, as a user types them: the same jobs, the same summary, the same exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calls import Calls

Run = Callable[..., subprocess.CompletedProcess[str]]

RUN = ["paper=spider", "scale=smoke", "paper.repeats=1"]
# the first job is refused by its own constructor
SWEEP = ["-m", *RUN[:2], "paper.repeats=0,1"]
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib"],
    "submitit_local": ["hydra/launcher=submitit_local"],
    "submitit_slurm": ["hydra/launcher=submitit_slurm"],
    "ray": ["hydra/launcher=ray"],
}

# Slurm's commands as submitit calls them, run on this machine
FAKE_SLURM = {
    "sbatch": """
import os, re, subprocess, sys
from pathlib import Path
script = Path(__file__).with_name("script")  # submitit moves its own as soon as it is submitted
script.write_text(Path(sys.argv[-1]).read_text())
first, last = map(int, re.search(r"--array=(\\d+)-(\\d+)", script.read_text()).groups())
for task in range(first, last + 1):
    job = {"SLURM_JOB_ID": str(8000 + task), "SLURM_ARRAY_JOB_ID": "8000", "SLURM_ARRAY_TASK_ID": str(task)}
    job |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "1"}
    job |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost"}
    done = Path(__file__).with_name(f"done_{task}")
    command = f"sleep 1; bash {script}; touch {done}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.Popen(["bash", "-c", command], env={**os.environ, **job}, **quiet)
print("Submitted batch job 8000")
""",
    "srun": """
import os, sys
words = sys.argv[1:]
words = words[words.index(next(word for word in words if "python" in word)):]
os.execvp(words[0], words)
""",
    "sacct": """
from pathlib import Path
print("JobID|State|NodeList")
for task in range(2):
    ended = Path(__file__).with_name(f"done_{task}").exists()
    print(f"8000_{task}|{'COMPLETED' if ended else 'RUNNING'}|localhost")
""",
    "scontrol": 'print("localhost")',
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's commands on the PATH."""
    commands = tmp_path / "slurm"
    commands.mkdir()
    for name, code in FAKE_SLURM.items():
        (commands / name).write_text(f"#!{sys.executable}\n{code}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")


def statuses(folder: Path) -> list[dict[str, Any]]:
    newest = sorted((folder / "outputs" / "sweeps").iterdir())[-1]
    return [json.loads(path.read_text()) for path in sorted(newest.glob("[0-9]*.json"))]


def measured(result: Path) -> dict[str, Any]:
    """A result's metrics without times."""
    metrics = json.loads(result.read_text())["metrics"]
    return {name: value for name, value in metrics.items() if "seconds" not in name}


@pytest.fixture(scope="module")
def alone(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the sweep's good job measures as a run of its own."""
    folder = tmp_path_factory.mktemp("alone")
    assert calls.run([*RUN, "logger=none"], folder).code == 0
    (result,) = folder.glob("outputs/*/*/result.json")
    return measured(result)


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.usefixtures("slurm")
def test_a_sweep_has_the_same_results_summary_and_exit_code_under_every_launcher(
    launcher: str,
    alone: dict[str, Any],
    calls: Calls,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if launcher == "ray":
        # the test of a cluster stops all of Ray at its end
        request.getfixturevalue("ray_alone")
    words = [*SWEEP, "logger=none", *LAUNCHERS[launcher]]
    done = calls.run(words, tmp_path, PATH=os.environ["PATH"])
    assert done.code == 1, done.errors
    assert "sweep: 1 passed, 1 failed, 0 skipped as done" in done.out
    failed, passed = statuses(tmp_path)
    assert (passed["job"], passed["state"]) == ("paper.repeats=1", "passed")
    assert (failed["job"], failed["state"]) == ("paper.repeats=0", "failed")
    assert failed["text"] == "paper.repeats=0; valid: at least 1"
    assert measured(tmp_path / passed["result"]) == alone
    assert alone["gradient_calls"] > 0
    assert "Traceback" not in done.errors


def test_a_search_names_the_best_of_its_runs_and_judges_by_the_validation_split(
    quick: Run, tmp_path: Path
) -> None:
    words = ["-m", "paper=yogi", "paper.epochs=1", "dataset.validation=0.2", "hydra/sweeper=optuna"]
    words += ["objective=validation_loss", "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=0"]
    done = quick(*words, "method.lr=tag(log,interval(0.0001,0.1))")
    assert done.returncode == 0, done.stderr
    judged = statuses(tmp_path)
    assert len(judged) == 3
    for status in judged:
        result = json.loads((tmp_path / status["result"]).read_text())
        assert status["objective"] == result["metrics"]["validation_loss"]
    best = min(judged, key=lambda status: status["objective"])
    assert (
        f"best: {best['job']} (validation_loss {best['objective']:.5g}); the run that has it" in done.stdout
    )
    assert "test_" not in done.stdout


def test_a_job_that_dies_without_a_word_counts_as_failed(calls: Calls, tmp_path: Path) -> None:
    """A worker process of joblib is killed as the operating system kills one that takes too much memory."""
    (tmp_path / "sitecustomize.py").write_text(
        "import multiprocessing, os, signal, sys\n"
        "class Kill:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        worker = multiprocessing.current_process().name != 'MainProcess'\n"
        "        if worker and name == 'common.runs.runner':\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.meta_path.insert(0, Kill())\n"
    )
    words = ["-m", "paper=spider", "scale=smoke", "seed=0,1", "logger=none", "hydra/launcher=joblib"]
    done = calls.run(words, tmp_path, PYTHONPATH=str(tmp_path))
    assert done.code == 1
    assert "0 passed" in done.out
    assert "it ended without a word" in done.out
    assert done.errors.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("hydra/sweeper=optuna", "needs a metric to search by"),
        ("hydra/sweeper=optuna objective=test_accuracy", "must not look at the test set"),
        ("hydra/sweeper=optuna objective=validation_accuracy", "hydra.sweeper.direction=maximize"),
    ],
)
def test_a_search_by_the_test_set_or_without_aim_is_refused_at_once(
    words: str, advice: str, quick: Run, tmp_path: Path
) -> None:
    done = quick("-m", "paper=yogi", "seed=0,1", *words.split())
    assert done.returncode == 1
    assert advice in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "outputs" / "yogi").exists()
