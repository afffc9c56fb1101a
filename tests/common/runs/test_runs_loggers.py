import json
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from calls import Calls
from pytorch_lightning.loggers import Logger
from wandb.proto.wandb_internal_pb2 import Record

from common.base.errors import UserError
from common.base.module import PaperModule, Progress
from common.runs.loggers import close, csv_logger, logged_in, run_facts, tensorboard_logger, wandb_logger

Run = Callable[..., subprocess.CompletedProcess[str]]
ENTRY = "spider.ifo.synthetic_logistic_n1e3_spiderboost_eps0p01"


def records(path: Path) -> Iterator[Record]:
    """The records of a `.wandb` file, a log in LevelDB's format.

    After a header of 7 bytes come blocks of 32 KiB (the header counts into the first) of pieces: CRC-32 of
    type and data (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last), data. A block's end
    that is too short for another piece is left empty.
    """
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    position, data = 7, b""
    while position + 7 <= len(content):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        piece = content[position + 7 : position + 7 + length]
        assert zlib.crc32(bytes([kind]) + piece) == checksum
        position += 7 + length
        data += piece
        if kind in (1, 4):
            yield Record.FromString(data)
            data = b""


class Logged:
    """What one offline W&B run holds."""

    def __init__(self, path: Path) -> None:
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "exit":
                self.exit_code = record.exit.exit_code
            elif kind == "config":
                self.config |= values(record.config.update)
            elif kind == "summary":
                self.summary |= values(record.summary.update)
            elif kind == "history":
                self.history.append(values(record.history.item))


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def logged(directory: Path) -> Logged:
    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    return Logged(path)


def directories(done: subprocess.CompletedProcess[str], folder: Path) -> list[Path]:
    """The run directories of a command or sweep, in its order."""
    lines = [line.split("result: ")[1] for line in done.stdout.splitlines() if "result: " in line]
    return [(folder / line).parent for line in lines]


@pytest.fixture
def offline(quick: Run) -> Run:
    """`run.py` with W&B offline."""
    return lambda *words: quick(*words, logger="wandb")


def test_an_offline_run_read_back_equals_its_result(offline: Run, tmp_path: Path) -> None:
    done = offline("paper=yogi", "dataset=digits", "scale=smoke", "paper.epochs=3", "seed=4")
    assert done.returncode == 0, done.stderr
    (directory,) = directories(done, tmp_path)
    (kept,) = directory.glob("wandb/offline-run-*")
    assert f"logged offline; to send it: wandb sync {kept.relative_to(tmp_path)}" in done.stderr
    result, found = json.loads((directory / "result.json").read_text()), logged(directory)

    history = result["history"]
    *points, end = found.history
    assert len(history["step"]) == 3
    assert [row["trainer/global_step"] for row in points] == history["step"]
    for name in set(history) - {"step"}:
        assert [row.get(name) for row in points] == history[name]

    finals = {f"final/{name}": value for name, value in result["metrics"].items()}
    assert {name: value for name, value in end.items() if name.startswith("final/")} == finals
    assert {name: found.summary[name] for name in finals} == finals
    last = {name: series[-1] for name, series in history.items() if name != "step"}
    assert {name: found.summary[name] for name in last} == last

    facts = {name: found.config[name] for name in ("paper", "scale", "seed", "dataset", "model", "method")}
    assert facts == {
        "paper": result["paper"],
        "scale": "smoke",
        "seed": 4,
        **{group: result["choices"][group] for group in ("dataset", "model", "method")},
    }
    assert [found.config[name] for name in ("entry", "table", "row")] == [None, None, None]
    for group, node in result["config"].items():
        kept = found.config["config"][group]
        assert kept == node or {name: kept[name] for name in node} == node
    assert found.run.run_group == "yogi"
    assert found.run.run_id == f"yogi-{directory.name}"
    assert found.exit_code == 0


def test_an_entry_is_logged_by_its_paper_table_and_row(offline: Run, tmp_path: Path) -> None:
    done = offline(f"entry={ENTRY}", "scale=smoke")
    assert done.returncode == 0, done.stderr
    (directory,) = directories(done, tmp_path)
    found = logged(directory)
    facts = {name: found.config[name] for name in ("entry", "paper", "table", "row", "scale", "seed")}
    assert facts == {
        "entry": ENTRY,
        "paper": "spider",
        "table": "ifo",
        "row": "synthetic_logistic_n1e3_spiderboost_eps0p01",
        "scale": "smoke",
        "seed": 0,
    }
    assert found.run.run_group == "spider.ifo"
    assert found.run.job_type == found.config["method"] == "variance_reduction/spiderboost"
    assert found.run.display_name == f"{ENTRY} seed 0"
    assert set(found.run.tags) == {"smoke", "synthetic_logistic_n1e3"}


def test_every_job_of_a_sweep_has_a_wandb_run_of_its_own_and_a_failed_one_says_so(
    offline: Run, tmp_path: Path
) -> None:
    words = ["-m", "paper=yogi", "dataset=digits", "scale=smoke", "paper.epochs=3", "method=optimizer/sgd"]
    done = offline(*words, "method.lr=1e30,0.1,0.2")
    assert "2 passed, 1 failed" in done.stdout
    paths = list(tmp_path.glob("outputs/yogi/*/wandb/offline-run-*/*.wandb"))
    codes = {run.config["config"]["method"]["lr"]: run.exit_code for run in map(Logged, paths)}
    assert codes == {1e30: 1, 0.1: 0, 0.2: 0}
    for directory in directories(done, tmp_path):
        result = json.loads((directory / "result.json").read_text())
        assert logged(directory).summary["final/test_loss"] == result["metrics"]["test_loss"]


def test_the_row_of_an_entry_keeps_its_own_dots() -> None:
    choices = {
        "paper": "p",
        "scale": "paper",
        "dataset": "d",
        "model": "m",
        "method": "k/x",
        "trainer": "auto",
    }
    facts = run_facts(choices, "p.table.row.1", 0)
    assert (facts["table"], facts["row"]) == ("table", "row.1")
    assert "trainer" not in facts


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No credentials anywhere; gives the path where a netrc file would be read."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_a_key_in_netrc_for_a_host_of_wandb_is_a_login(nobody: Path, host: str) -> None:
    assert not logged_in()
    nobody.write_text(f"machine {host}\n  login user\n  password {'a' * 40}\n")
    assert logged_in()


def test_a_key_for_another_host_or_of_a_wrong_form_is_no_login(nobody: Path) -> None:
    nobody.write_text(f"machine example.org\n  login user\n  password {'a' * 40}\n")
    assert not logged_in()
    nobody.write_text("machine api.wandb.ai\n  login user\n  password short\n")
    assert not logged_in()


def test_a_key_in_the_environment_is_a_login(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert logged_in()


@pytest.mark.parametrize(("checkpoint", "resume"), [(True, "allow"), (False, None)])
def test_only_an_interrupted_run_goes_on_in_its_wandb_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: bool, resume: str | None
) -> None:
    started: dict[str, Any] = {}
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("wandb.init", lambda **words: started.update(words))
    if checkpoint:
        (tmp_path / "last.ckpt").touch()
    choices = {"paper": "p", "scale": "paper", "dataset": "d", "model": "m", "method": "k/x"}
    facts = run_facts(choices, None, 0)
    wandb_logger(directory=tmp_path, key="p/0123", facts=facts, project="reprise", entity=None)
    assert started["resume"] == resume
    assert started["id"] == "p-0123"
    assert started["project"] == "reprise"


def test_a_mode_that_wandb_has_not_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "bogus")
    with pytest.raises(UserError, match="WANDB_MODE=bogus; valid: online, shared, run, offline"):
        wandb_logger(directory=tmp_path, key="p/0123", facts={}, project="reprise", entity=None)


class Curves(PaperModule):
    """A module that only records."""

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self.trainer = pl.Trainer(logger=logger, accelerator="cpu", enable_checkpointing=False)

    def progress(self) -> Progress:
        return Progress(0, 1, "points", "")

    def results(self) -> dict[str, Any]:
        return {}

    def points(self, first: int, stop: int) -> None:
        """The second series comes late, and now and then."""
        for i in range(first, stop):
            rare = {"rare": i / 7} if i % 3 == 2 else {}
            self.record(10 * i, loss=1 / (i + 1), **rare)


CHOICES = {"paper": "p", "scale": "paper", "dataset": "d", "model": "m", "method": "k/x"}


def saved(module: PaperModule) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


# killed at 7, from the start, in the midst of the late series, and with nothing lost
@pytest.mark.parametrize("kept", [0, 1, 2, 5, 7])
def test_after_a_kill_the_csv_file_holds_each_point_once_as_that_of_an_unbroken_run(
    kept: int, tmp_path: Path
) -> None:
    def start(name: str) -> Curves:
        return Curves(csv_logger(directory=tmp_path / name, key="p/0", facts={}))

    unbroken = start("unbroken")
    unbroken.points(0, 12)
    broken = start("broken")
    broken.points(0, kept)
    checkpoint = saved(broken)
    # lost with the process: what was recorded after the checkpoint
    broken.points(kept, 7)
    resumed = start("broken")
    resumed.on_load_checkpoint(checkpoint)
    resumed.points(kept, 12)
    for module in (unbroken, resumed):
        assert module.logger is not None
        close(module.logger)
    texts = [(tmp_path / name / "csv" / "metrics.csv").read_text() for name in ("unbroken", "broken")]
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 1 + 12


class Remote:
    """A W&B run as the server keeps it: what is sent with a number that it has is dropped."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, float]] = {}

    def log(self, row: dict[str, float], *, step: int, commit: bool) -> None:
        assert commit
        self.rows.setdefault(step, row)

    def define_metric(self, *words: Any, **more: Any) -> None: ...


@pytest.mark.parametrize("kept", [0, 2, 7])
# the last points may not have reached the server when the process was killed
@pytest.mark.parametrize("arrived", [0, 3, 7])
def test_after_a_kill_an_online_run_holds_each_point_once(
    kept: int, arrived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote()
    monkeypatch.setattr("wandb.init", lambda **words: remote)

    def start() -> Curves:
        facts = run_facts(CHOICES, None, 0)
        made = wandb_logger(directory=tmp_path, key="p/01", facts=facts, project="r", entity=None)
        # an experiment that Lightning does not know is made anew at each use
        monkeypatch.setattr(type(made), "experiment", remote)
        return Curves(made)

    broken = start()
    broken.points(0, kept)
    checkpoint = saved(broken)
    broken.points(kept, 7)
    remote.rows = {number: row for number, row in remote.rows.items() if number < arrived}
    resumed = start()
    resumed.on_load_checkpoint(checkpoint)
    resumed.points(kept, 12)
    rows = [remote.rows[number] for number in range(12)]
    assert len(remote.rows) == 12
    assert [row["trainer/global_step"] for row in rows] == [10 * i for i in range(12)]
    assert [row["loss"] for row in rows] == [1 / (i + 1) for i in range(12)]
    assert [row.get("rare") for row in rows] == [i / 7 if i % 3 == 2 else None for i in range(12)]


def test_a_killed_run_read_back_from_wandb_is_the_unbroken_one(calls: Calls, tmp_path: Path) -> None:
    words = ["paper=yogi", "dataset=digits", "model=lenet_300_100", "paper.epochs=12", "logger=wandb"]
    assert calls.run(words, tmp_path / "unbroken").code == 0
    calls.killed_at(1, 12, words, tmp_path / "broken")
    assert calls.run(words, tmp_path / "broken").code == 0
    unbroken, broken = (logged(next(tmp_path.glob(f"{name}/outputs/*/*"))) for name in ("unbroken", "broken"))
    kept = [
        [{name: value for name, value in row.items() if "time" not in name} for row in run.history]
        for run in (unbroken, broken)
    ]
    assert len(kept[0]) == 13
    assert kept[0] == kept[1]
    assert unbroken.run.run_id == broken.run.run_id


def test_tensorboard_has_one_event_file_with_each_point_once_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an extra: pip install -e '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    facts: dict[str, Any] = {"paper": "yogi", "seed": 0}
    for points in ((1, 2), (1, 2, 3)):
        logger = tensorboard_logger(directory=tmp_path, key="yogi/0", facts=facts)
        logger.log_hyperparams({**facts, "config": {"paper": {"epochs": 3}}})
        for point in points:
            logger.log_metrics({"running_loss": 1.0 / point}, step=point)
        close(logger)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("running_loss")] == [1, 2, 3]
    assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 1


def test_tensorboard_that_is_not_installed_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.runs.loggers.find_spec", lambda name: None)
    with pytest.raises(UserError, match="logger=tensorboard needs the package tensorboard: pip install"):
        tensorboard_logger(directory=tmp_path, key="yogi/0", facts={})
