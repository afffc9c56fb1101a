import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.evidence import asked
from common.runs.finished import finished
from common.runs.keys import run_key
from common.runs.result import write_json
from common.runs.runner import execute

ROOT = Path(__file__).resolve().parents[3]
SMOKE = ["paper=yogi", "dataset=digits", "scale=smoke", "logger=none"]
HEAVY = {"torch", "numpy", "scipy", "pytorch_lightning", "pydantic", "sklearn"}
# of what a smoke run of the digits has no use for, and Lightning does not import by itself
UNUSED = {
    *("sklearn", "joblib", "pydantic", "pooch", "requests", "pandas", "wandb", "simplejpeg", "numba"),
    *("ray", "optuna"),
    *("submitit", "hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_ray_launcher"),
    *("hydra_plugins.hydra_submitit_launcher", "hydra_plugins.hydra_optuna_sweeper"),
    *("common.training.segmentation", "common.training.multi_task", "common.data.shared.download"),
}
# run.py as a user starts it, and then a line of all modules that it has imported
CALL = """
import runpy, sys
sys.argv[0] = "run.py"
sys.path.insert(0, {root!r})
try:
    runpy.run_path({root!r} + "/run.py", run_name="__main__")
except SystemExit as stop:
    print(stop.code or 0, *sys.modules)
"""

Call = Callable[..., tuple[int, set[str], str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Call `run.py` in a folder of its own: its exit code, the modules that it imported, and what it said."""

    def started(*words: str) -> tuple[int, set[str], str]:
        command = [sys.executable, "-c", CALL.format(root=str(ROOT)), *words]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        code, *modules = ended.stdout.splitlines()[-1].split()
        return int(code), set(modules), ended.stdout + ended.stderr

    return started


@pytest.mark.slow
def test_a_smoke_run_imports_nothing_that_it_does_not_use_and_is_shown_without_torch(call: Call) -> None:
    code, modules, said = call(*SMOKE)
    assert code == 0 and "torch" in modules, said
    assert not UNUSED & modules
    code, modules, said = call(*SMOKE)
    assert code == 0 and "already done" in said, said
    assert not HEAVY & modules


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paper=yogy"], "unknown paper=yogy; did you mean yogi"),
        (["entry=yogi.table_ae.mnist_yogy"], r"unknown entry=.*did you mean yogi\.table_ae\.mnist_yogi"),
        (["-m", "paper=yogi", "model=mlp,mlq"], "unknown model=mlq; did you mean mlp"),
        (["paper=yogi", "method=optimizer/yogy"], "unknown method=optimizer/yogy; did you mean"),
        (["dataset=digits"], "name a paper"),
    ],
)
@pytest.mark.slow
def test_a_wrong_word_is_refused_before_hydra_is_imported(call: Call, words: list[str], message: str) -> None:
    code, modules, said = call(*words)
    assert code == 1 and re.search(f"^error: {message}", said, re.MULTILINE), said
    assert not (HEAVY | {"hydra", "omegaconf"}) & modules


@pytest.mark.parametrize(
    ("word", "message"), [("paper.epoch=1", "unknown key"), ("seed=1,2", "Ambiguous value")]
)
@pytest.mark.slow
def test_what_hydra_refuses_is_refused_before_torch_is_imported(call: Call, word: str, message: str) -> None:
    code, modules, said = call(*SMOKE, word)
    assert code == 1 and f"error: {message}" in said, said
    assert not HEAVY & modules


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("teacher=model=mlp", "learns from no teacher"),
        ("checkpoint_every=soon", "checkpoint_every=soon"),
        ("++logger.nothing=1", "takes no 'nothing'"),
    ],
)
def test_a_wrong_word_that_the_run_key_does_not_cover_is_refused_where_the_run_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.runs.finished.code_changes", lambda result: [])
    config, request = compose([*SMOKE])
    result = {"metrics": {}, "entries": [], "reported": {}, "asked": [list(asked(request.overrides))]}
    path = tmp_path / "outputs" / run_key(config) / "result.json"
    write_json(path, result)
    outcome = finished(config, request)
    assert outcome is not None and outcome.skipped and (tmp_path / outcome.path) == path
    with pytest.raises(UserError, match=message):
        wrong = compose([*SMOKE, word])
        assert finished(*wrong) is None
        execute(*wrong)


def test_what_a_finished_run_still_has_to_note_is_left_to_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, request = compose([*SMOKE])
    assert finished(config, request) is None
    result = {"metrics": {}, "entries": [], "reported": {}, "asked": [list(asked(request.overrides))]}
    write_json(tmp_path / "outputs" / run_key(config) / "result.json", result)
    for words in (["force=true"], ["record=true"], ["paper.epochs=3"], ["model=mlp"]):
        assert finished(*compose([*SMOKE, *words])) is None


@pytest.mark.slow
def test_a_launcher_that_was_hidden_is_there_once_it_is_chosen() -> None:
    script = (
        "from common.runs.plugins import load_plugins\n"
        "from hydra.core.plugins import Plugins\n"
        "load_plugins([])\n"
        "print(sorted(name for name in Plugins.instance().class_name_to_class if 'hydra_plugins' in name))\n"
        "load_plugins(['hydra/launcher=joblib'])\n"
        "print(sorted(name for name in Plugins.instance().class_name_to_class if 'hydra_plugins' in name))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    joblib = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    assert ended.stdout.splitlines() == ["[]", f"['{joblib}']"], ended.stderr
