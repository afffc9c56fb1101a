"""The commands as a user types them: each call is a process of its own, most of them forked ready-made."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import HANGS, Calls, until
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


def result_path(done: subprocess.CompletedProcess[str], folder: Path) -> Path:
    """The path on the last line of stdout."""
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("result: ")
    return folder / last.removeprefix("result: ")


def result_of(done: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    return json.loads(result_path(done, folder).read_text())


def statuses(folder: Path) -> list[dict[str, Any]]:
    newest = sorted((folder / "outputs" / "sweeps").iterdir())[-1]
    return [json.loads(path.read_text()) for path in sorted(newest.glob("[0-9]*.json"))]


def test_a_run_ends_with_its_result_and_the_same_command_shows_it_again(run: Run, tmp_path: Path) -> None:
    words = ["paper=yogi", "dataset=digits", "scale=smoke"]
    first = run(*words)
    path = result_path(first, tmp_path)
    result = json.loads(path.read_text())
    assert result["metrics"]["steps"] == 1
    assert {"seed", "config", "commit", "versions", "wall_seconds", "peak_memory_mb", "device"} <= set(result)
    changed = path.stat().st_mtime_ns
    again = run(*words, "data_dir=elsewhere")
    assert "already done" in again.stdout
    assert result_path(again, tmp_path) == path
    assert path.stat().st_mtime_ns == changed


def test_seed_zero_seeds_and_seeds_differ(quick: Run, tmp_path: Path) -> None:
    words = ["paper=yogi", "dataset=digits", "scale=smoke"]
    first = result_of(quick(*words, "seed=0"), tmp_path)["metrics"]
    again = result_of(quick(*words, "seed=0", "force=true"), tmp_path)["metrics"]
    other = result_of(quick(*words, "seed=1"), tmp_path)["metrics"]
    assert first == again
    assert first["test_loss"] != other["test_loss"]


def test_one_override_runs_an_entry_and_its_row_keeps_what_defines_it(quick: Run, tmp_path: Path) -> None:
    done = quick("entry=spider.ifo.synthetic_logistic_n1e3_spiderboost_eps0p01", "scale=laptop")
    result = result_of(done, tmp_path)
    assert result["entries"] == ["spider.ifo.synthetic_logistic_n1e3_spiderboost_eps0p01"]
    assert result["scale"] == "laptop"
    assert result["config"]["paper"]["eps"] == 0.01
    assert result["config"]["model"]["alpha"] == 0.1
    assert result["metrics"]["ifo_over_n"] > 0


def test_a_table_by_glob_then_again_all_skipped(quick: Run, tmp_path: Path) -> None:
    words = ["-m", "entry=glob(spider.saddle_escape.*)", "scale=smoke"]
    first = quick(*words)
    assert first.returncode == 0, first.stderr
    assert [status["state"] for status in statuses(tmp_path)] == ["passed"] * 3
    time.sleep(1.1)
    second = quick(*words)
    assert second.returncode == 0, second.stderr
    assert [status["state"] for status in statuses(tmp_path)] == ["skipped"] * 3
    assert "0 passed, 0 failed, 3 skipped as done" in second.stdout


def test_a_failing_job_lets_the_others_finish_and_shows_in_the_exit_code(quick: Run, tmp_path: Path) -> None:
    words = ["paper=yogi", "dataset=digits", "scale=smoke"]
    done = quick("-m", *words, "method=optimizer/sgd", "method.lr=0.1,1e30,0.2", "paper.epochs=3")
    assert done.returncode == 1
    assert sorted(status["state"] for status in statuses(tmp_path)) == ["failed", "passed", "passed"]
    assert "2 passed, 1 failed" in done.stdout
    assert "not finite" in done.stdout
    assert "Traceback" not in done.stderr


def test_what_a_paper_does_not_take_fails_alone(quick: Run, tmp_path: Path) -> None:
    methods = "method=optimizer/adam,variance_reduction/spider_sfo_opt2"
    done = quick("-m", "paper=yogi", "dataset=digits,synthetic_stream_sigma1", methods, "scale=smoke")
    assert done.returncode == 1
    assert [status["state"] for status in statuses(tmp_path)] == ["passed", "failed", "failed", "failed"]
    assert "Traceback" not in done.stderr


LONG = {
    "yogi": [
        "paper=yogi",
        "dataset=digits",
        "model=lenet_300_100",
        "schedule=cosine",
        "dataset.validation=0.1",
        "paper.epochs=24",
    ],
    "spider": [
        "entry=spider.ifo.synthetic_logistic_n1e3_scsg_eps0p001",
        "scale=laptop",
        "paper.until=budget",
        "paper.passes=20",
    ],
    "folder": [
        "paper=yogi",
        "dataset=imagenet",
        "model=convnet",
        "data_dir=..",
        "dataset.folder=photos",
        "dataset.classes=2",
        "dataset.size=16",
        "dataset.resize=18",
        "dataset.batch_size=10",
        "paper.epochs=8",
    ],
}


def make_photos(folder: Path) -> None:
    """A folder of images in ImageNet's layout: 200 for training, 20 for validation."""
    noise = np.random.default_rng(0)
    for part, count in (("train", 200), ("val", 20)):
        for number in range(count):
            path = folder / part / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


# after so many checkpoints: in the midst of each, whatever the machine's speed (a run of rounds has few)
KILLED_AT = {"yogi": 10, "spider": 2, "folder": 5}


@pytest.mark.parametrize("name", LONG)
def test_a_killed_run_goes_on_to_the_very_result_of_an_unbroken_one(
    name: str, calls: Calls, tmp_path: Path
) -> None:
    make_photos(tmp_path / "photos")
    words = [*LONG[name], "logger=csv"]
    assert calls.run(words, tmp_path / "unbroken").code == 0
    calls.killed_at(1, KILLED_AT[name], words, tmp_path / "broken")
    assert not list(tmp_path.glob("broken/outputs/*/*/result.json"))
    resumed = calls.run(words, tmp_path / "broken")
    assert resumed.code == 0
    assert "goes on at" in resumed.errors

    def outcome(folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
        (path,) = (tmp_path / folder).glob("outputs/*/*/result.json")
        return json.loads(path.read_text()), torch.load(path.with_name("last.ckpt"), weights_only=True)

    (first, weights), (second, resumed_weights) = outcome("unbroken"), outcome("broken")
    assert first["metrics"] == second["metrics"]
    assert first["history"] == second["history"]
    for key, value in weights["state_dict"].items():
        assert torch.equal(value, resumed_weights["state_dict"][key])
    unbroken, broken = (
        next(tmp_path.glob(f"{folder}/outputs/*/*/csv/metrics.csv")).read_text()
        for folder in ("unbroken", "broken")
    )
    assert len(unbroken.splitlines()) == len(first["history"]["step"]) + 2
    assert broken == unbroken


def test_repaired_images_are_counted_on_stderr_and_a_damaged_one_is_named(quick: Run, tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    for number in (0, 2, 4):
        path = tmp_path / "photos" / "train" / "class0" / f"{number}.jpg"
        Image.open(path).convert("L").save(path)
    words = ["data_dir=.", "paper.epochs=1", *LONG["folder"][:3], *LONG["folder"][4:9]]
    done = quick(*words)
    assert done.returncode == 0, done.stderr
    assert "imagenet: 3 images of one channel, made RGB" in done.stderr
    damaged = tmp_path / "photos" / "train" / "class1" / "7.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    again = quick(*words, "seed=1")
    assert again.returncode == 1
    assert f"error: {damaged} is damaged" in again.stderr


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(calls: Calls, tmp_path: Path) -> None:
    words = [*LONG["yogi"], "logger=none", "checkpoint_every=0.05", "paper.epochs=1000000"]
    call = calls.start(words, tmp_path)
    until(lambda: list(tmp_path.glob("outputs/*/*/last.ckpt")))
    os.kill(call, signal.SIGINT)
    ended = calls.wait(call, HANGS)
    assert ended is not None and ended.code == 1
    errors = ended.errors
    last = errors.splitlines()[-1]
    assert re.search(
        r"error: stopped by SIGINT; checkpoint kept in .*last\.ckpt: the same command goes on", last
    )
    assert "Traceback" not in errors


REFUSED = {
    "paper=spyder": "unknown paper=spyder; did you mean spider",
    "paper=yogi dataset=cifar11": "unknown dataset=cifar11; did you mean cifar10",
    "paper=yogi model=resnet_20": "unknown model=resnet_20; did you mean resnet20",
    "paper=yogi method=svrg": "did you mean variance_reduction/svrg",
    "entry=yogi.table_ae.mnist_yogy": "did you mean yogi.table_ae.mnist_yogi",
    "-m entry=glob(nothing.*)": "matches no entry",
    "paper=yogi scale=huge": "valid: paper, laptop, smoke",
    "dataset=digits": "name a paper",
    "paper=yogi dataset=synthetic_stream_sigma1": "kind stream; valid: a9a, bc5cdr, bccd, blog",
    "paper=yogi method=variance_reduction/svrg": "does not take method=variance_reduction/svrg",
    "paper=yogi paper.epochz=3": "unknown key paper.epochz; did you mean epochs",
    "paper=yogi paper.epochs=many": "paper.epochs=many: must be a number",
    "paper=yogi paper.epochs=-1": "paper.epochs=-1: must be positive",
    "paper=yogi +method.momentum=0.9": "takes no 'momentum'",
    "paper=yogi seed=x": "seed=x: Input should be a valid integer",
    "paper=yogi dataset.limit=5000": "give 1 to 1400",
    "paper=yogi dataset=curves model=mlp": "model=mlp is for classification",
    "paper=yogi dataset=cifar10 data_dir=/nonexistent": "dataset=digits, which is bundled",
    "paper=spider dataset=digits schedule=cosine": "takes no schedule",
    "paper=yogi seed=0,1": "several values are a sweep (-m)",
}


@pytest.mark.parametrize("words", REFUSED)
def test_wrong_input_gets_one_line_and_exit_code_one(words: str, quick: Run) -> None:
    done = quick(*words.split())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert REFUSED[words] in errors[0]


def test_a_diverging_run_names_the_step_the_last_value_and_the_checkpoint(quick: Run) -> None:
    done = quick("paper=yogi", "method=optimizer/sgd", "method.lr=1e30", "dataset=digits", "paper.epochs=2")
    assert done.returncode == 1
    assert re.search(r"not finite at step \d+ \(last finite value: .*\); last checkpoint: ", done.stderr)
    assert "Traceback" not in done.stderr


def test_help_names_every_paper_and_data_set_and_how_to_get_an_entry(quick: Run) -> None:
    text = quick("--help").stdout
    for name in ("spider", "yogi", "cifar10", "a9a", "entry=", "make -s entries", "variance_reduction/svrg"):
        assert name in text


def test_the_entries_command_prints_one_name_a_line() -> None:
    command = [sys.executable, "-m", "common.tables.tables"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(set(lines)) > 190
    assert all(re.fullmatch(r"[a-z_0-9]+\.[a-z_0-9]+\.[a-z_0-9]+", line) for line in lines)


def test_the_conda_environment_has_the_pins_of_pyproject() -> None:
    import tomllib

    import yaml

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [pin for pins in project["optional-dependencies"].values() for pin in pins]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (listed,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert sorted(listed) == sorted(project["dependencies"] + extras)
