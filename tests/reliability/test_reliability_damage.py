"""Damaged files, folders that take nothing and full disks: a clear line or a recovery."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import Calls, Ended

RUN = ["paper=yogi", "dataset=digits", "model=lenet_300_100", "scale=smoke", "logger=none", "trainer=cpu"]
LONG = ["paper=yogi", "dataset=digits", "model=lenet_300_100", "paper.epochs=16", "logger=none"]


def only(folder: Path, name: str) -> Path:
    (path,) = folder.glob(f"outputs/*/*/{name}")
    return path


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads(only(folder, "result.json").read_text())["metrics"]


def line(ended: Ended) -> str:
    """The one line that a refused call ends with."""
    assert ended.code == 1, ended
    assert "Traceback" not in ended.errors + ended.out
    (found,) = [text for text in ended.errors.splitlines() if text.startswith("error: ")]
    return found


@pytest.fixture(scope="module")
def made(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, for all tests: each damages a copy."""
    folder = tmp_path_factory.mktemp("made")
    assert calls.run(RUN, folder).code == 0
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> dict[str, Any]:
    """The metrics of a run that lies in tmp_path."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return metrics(tmp_path)


@pytest.mark.parametrize("content", ["", "{", '{"metrics": ', "[]", "\0" * 100])
def test_a_damaged_result_is_made_again_from_the_checkpoint(
    content: str, finished: dict[str, Any], calls: Calls, tmp_path: Path
) -> None:
    only(tmp_path, "result.json").write_text(content)
    ended = calls.run(RUN, tmp_path)
    assert ended.code == 0 and "already done" not in ended.out
    assert metrics(tmp_path) == finished


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_checkpoint_cut_off_is_named_and_once_deleted_the_run_is_as_new(
    kept: float, finished: dict[str, Any], calls: Calls, tmp_path: Path
) -> None:
    only(tmp_path, "result.json").unlink()
    checkpoint = only(tmp_path, "last.ckpt")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(kept * len(whole))])
    text = line(calls.run(RUN, tmp_path))
    assert "last.ckpt cannot be read" in text and "delete it" in text
    checkpoint.unlink()
    assert calls.run(RUN, tmp_path).code == 0
    assert metrics(tmp_path) == finished


def test_the_lock_of_a_dead_process_holds_nobody_up(calls: Calls, tmp_path: Path) -> None:
    calls.killed_at(1, 6, LONG, tmp_path)
    assert only(tmp_path, ".lock").exists()
    ended = calls.run(LONG, tmp_path)
    assert ended.code == 0
    assert "waiting" not in ended.errors and "goes on at" in ended.errors


@pytest.mark.parametrize("place", ["a file", "read-only"])
def test_outputs_that_take_nothing_are_named_in_one_line(place: str, calls: Calls, tmp_path: Path) -> None:
    target = tmp_path / "taken"
    if place == "a file":
        target.write_text("")
        text = line(calls.run([*RUN, f"output_dir={target}"], tmp_path))
    else:
        target.mkdir(mode=0o555)
        if os.access(target, os.W_OK):
            _mount(target, "ro")
        try:
            text = line(calls.run([*RUN, f"output_dir={target}"], tmp_path))
        finally:
            subprocess.run(["umount", str(target)], capture_output=True, check=False)
    assert str(target) in text


def _mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may mount nothing: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    _mount(folder, "size=2m")
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True, check=True)


def test_on_a_full_disk_the_last_checkpoint_stays_and_the_run_goes_on_when_there_is_room(
    small_disk: Path, calls: Calls, tmp_path: Path
) -> None:
    words = [*LONG, "paper.epochs=8", f"output_dir={small_disk}/outputs", "checkpoint_every=0"]
    # a checkpoint of this network with Adam's moments takes more than half of the disk: no room for a second
    words += ["model.hidden=[500,200]"]
    text = line(calls.run(words, tmp_path))
    assert "the disk is full" in text and "last.ckpt" in text
    (checkpoint,) = small_disk.glob("outputs/*/*/last.ckpt")
    assert checkpoint.stat().st_size > 0
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    ended = calls.run(words, tmp_path)
    assert ended.code == 0, ended.errors
    assert "goes on at" in ended.errors
