"""Nothing that lies in a data set, a result or a checkpoint is ever executed, and nothing calls home."""

import ast
import json
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import Calls, Ended

from common.base.errors import UserError
from common.runs.check import load_target

ROOT = Path(__file__).resolve().parents[2]
RUN = ["paper=yogi", "dataset=digits", "model=lenet_300_100", "scale=smoke", "logger=none", "trainer=cpu"]
# what runs code that lies in a file, by the last two parts of its name
RUNS_CODE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "cloudpickle.load", "joblib.load"),
    *("marshal.load", "shelve.open", "pandas.read_pickle", "pd.read_pickle", "os.system", "os.popen"),
    *("yaml.unsafe_load", "yaml.full_load", "torch.hub", "hub.load", "jit.load"),
}


def sources() -> Iterator[tuple[Path, ast.AST]]:
    for folder in ("common", "papers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                yield path, node


def called(node: ast.AST) -> str:
    """`torch.load` of a call of torch.load(...), "" of anything else."""
    return ".".join(ast.unparse(node.func).split(".")[-2:]) if isinstance(node, ast.Call) else ""


def given(node: ast.AST, name: str) -> str:
    assert isinstance(node, ast.Call)
    return next((ast.unparse(word.value) for word in node.keywords if word.arg == name), "")


def test_no_source_unpickles_or_evaluates_what_lies_in_a_file() -> None:
    found = []
    for path, node in sources():
        name = called(node)
        bad = name in RUNS_CODE or name in ("eval", "exec", "compile", "__import__")
        bad |= name == "torch.load" and given(node, "weights_only") != "True"
        bad |= name == "np.load" and given(node, "allow_pickle") == "True"
        bad |= name == "yaml.load" and "Safe" not in given(node, "Loader")
        bad |= name.endswith("extractall") and given(node, "filter") != "'data'"
        bad |= name.startswith("subprocess.") and given(node, "shell") == "True"
        if bad:
            found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {name}")
    assert not found


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "builtins.exec", "subprocess.Popen", "torch.load", "torch.hub.load", "pickle.loads"),
        # by way of what a module of ours has imported
        *(
            "common.runs.cli.os.system",
            "common.runs.environment.subprocess.run",
            "common.runs.runner.get_object",
        ),
        "torch.optim.os.system",
    ],
)
def test_a_config_may_only_name_what_is_ours_or_listed(target: str) -> None:
    with pytest.raises(UserError, match=r"method\._target_"):
        load_target(target, "method")


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def refused(ended: Ended) -> str:
    assert ended.code == 1 and "Traceback" not in ended.errors, ended
    (line,) = [line for line in ended.errors.splitlines() if line.startswith("error: ")]
    return line


def test_a_crafted_checkpoint_is_refused_and_not_executed(calls: Calls, tmp_path: Path) -> None:
    assert calls.run(RUN, tmp_path).code == 0
    (checkpoint,) = tmp_path.glob("outputs/*/*/last.ckpt")
    checkpoint.with_name("result.json").unlink()
    for save in (
        lambda bomb: torch.save(bomb, checkpoint),
        lambda bomb: checkpoint.write_bytes(pickle.dumps(bomb)),
    ):
        save({"state_dict": Bomb(tmp_path / "boom")})
        assert "last.ckpt cannot be read (UnpicklingError)" in refused(calls.run(RUN, tmp_path))
        student = [*RUN, "method=distillation/kd", f"teacher='model=lenet_300_100 checkpoint={checkpoint}'"]
        assert "cannot be read (UnpicklingError)" in refused(calls.run(student, tmp_path))
    assert not (tmp_path / "boom").exists()


@pytest.fixture(scope="module")
def made(calls: Calls, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a finished run, for all tests."""
    folder = tmp_path_factory.mktemp("made")
    assert calls.run(RUN, folder).code == 0
    (path,) = folder.glob("outputs/*/*/result.json")
    return path


@pytest.mark.parametrize("group", ["model", "dataset", "method", "schedule", "paper"])
def test_a_crafted_result_beside_a_checkpoint_names_nothing_that_is_run(
    group: str, made: Path, calls: Calls, tmp_path: Path
) -> None:
    result = json.loads(made.read_text())
    crafted = tmp_path / "crafted" / "yogi" / "0"
    shutil.copytree(made.parent, crafted)
    boom = tmp_path / "boom"
    words = [f"{group}._target_=os.system", f"+{group}.command='touch {boom}'"]
    result["overrides"] = [*result["overrides"], *words]
    (crafted / "result.json").write_text(json.dumps(result))
    student = [*RUN, "method=distillation/kd", f"teacher={crafted / 'last.ckpt'}"]
    assert "configs may only name" in refused(calls.run(student, tmp_path))
    assert not boom.exists()


# a process that may not speak to anything but itself says where it tried to
NO_NETWORK = """
import socket
connect = socket.socket.connect
def only_here(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith("127."):
        print("NETWORK", address, flush=True)
        raise OSError("no network in this test")
    return connect(self, address)
socket.socket.connect = only_here
def no_names(*words, **more):
    print("NETWORK", words, flush=True)
    raise OSError("no network in this test")
socket.getaddrinfo = no_names
"""


RUN_WATCHED = f"""{NO_NETWORK}
import runpy
runpy.run_path({str(ROOT / "run.py")!r}, run_name="__main__")
"""


def test_a_run_that_needs_no_download_asks_the_network_for_nothing(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "watched.py").write_text(RUN_WATCHED)
    ended = calls.run([*RUN[:-2], "logger=csv"], tmp_path / "call", script=tmp_path / "watched.py")
    assert ended.code == 0, ended.errors
    assert "NETWORK" not in ended.out + ended.errors


def test_neither_imports_nor_wandb_ask_the_network_for_anything_where_nobody_is_logged_in(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: Any
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = run(*RUN[:-2], logger="wandb")
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stdout + done.stderr
