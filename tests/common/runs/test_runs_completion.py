"""Tab completion: what is offered, and that a real bash takes it."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from common.runs import catalogue, completion
from common.runs.completion import candidates
from common.runs.plugins import PLUGINS
from common.tables.tables import papers, runnable

ROOT = Path(__file__).resolve().parents[3]
RUN = "python run.py "


@pytest.mark.parametrize("group", catalogue.GROUPS)
def test_all_choices_of_a_group_are_offered(group: str) -> None:
    valid = completion.SCALES if group == "scale" else catalogue.names(group)
    assert candidates(f"{RUN}{group}=") == sorted(f"{group}={name}" for name in valid)


@pytest.mark.parametrize("paper", papers())
def test_with_a_paper_only_data_sets_and_methods_are_offered_that_it_takes(paper: str) -> None:
    assert candidates(f"{RUN}paper={paper} dataset=") == [
        f"dataset={name}" for name in catalogue.accepted_datasets(paper)
    ]
    kinds = {word.split("=")[1].split("/")[0] for word in candidates(f"{RUN}paper={paper} method=")}
    assert kinds <= set(catalogue.read("paper", paper)["accepts"]["methods"])


def test_entries_come_by_paper_table_and_row() -> None:
    assert candidates(f"{RUN}entry=yo") == ["entry=yogi."]
    assert "entry=yogi.table_ae." in candidates(f"{RUN}entry=yogi.")
    rows = [f"entry={entry.name}" for entry in runnable("yogi") if entry.table == "table_ae"]
    assert candidates(f"{RUN}entry=yogi.table_ae.") == sorted(rows)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dat", ["data_dir=", "dataset="]),
        ("dataset", ["dataset.", "dataset="]),
        ("dataset=digits dataset.lim", ["dataset.limit="]),
        ("paper=yogi method.v", ["method.v_init="]),
        ("paper=yogi paper.test", ["paper.test_every="]),
        (
            "paper=one paper.measure_gradient=",
            ["paper.measure_gradient=false", "paper.measure_gradient=true"],
        ),
        ("-m paper=yogi,sa", ["paper=yogi,saddle"]),
        ("-m paper=yogi seed=0,1 hydra/launcher=job", ["hydra/launcher=joblib"]),
        ("+scale=lap", ["+scale=laptop"]),
        ("debug=o", ["debug=one_step", "debug=overfit"]),
        ("paper=nothing_so paper.", []),
        ("model=nothing_so model.", []),
        ("entry=nothing_so.", []),
        ("teacher='model=resnet20 method=optimizer/yo", ["method=optimizer/yogi"]),
    ],
)
def test_what_a_line_may_become(typed: str, offered: list[str]) -> None:
    assert candidates(RUN + typed) == offered


def test_what_the_current_folder_adds_is_offered_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "net_of_mine.yaml").write_text("# mine\n_target_: x.Y\nwidth: 3\n")
    monkeypatch.chdir(tmp_path)
    catalogue.names.cache_clear()
    try:
        assert candidates(f"{RUN}paper=yogi model=net_of") == ["model=net_of_mine"]
        assert candidates(f"{RUN}paper=yogi model=net_of_mine model.w") == ["model.width="]
    finally:
        catalogue.names.cache_clear()


def test_all_plugins_are_offered() -> None:
    for plugin in PLUGINS:
        assert plugin in candidates(RUN + plugin.split("=")[0] + "=")


@pytest.mark.slow
def test_a_query_imports_neither_hydra_nor_torch() -> None:
    code = (
        "import sys; sys.argv = ['run.py', '-sc', 'query=bash', 'python run.py paper=yog']\n"
        "import runpy\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "print([name for name in ('torch', 'hydra', 'omegaconf', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["paper=yogi", "[]"]


def test_another_shell_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert completion.main(["-sc", "install=fish"]) == 1
    assert "valid: install=bash" in capsys.readouterr().err


def typed_into_bash(text: str) -> str:
    """What an interactive bash shows when this is typed."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**environment, "TERM": "dumb"})
    os.write(terminal, text.encode())
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:
        # how Linux ends the reading when bash has left
        pass
    os.waitpid(process, 0)
    return shown.decode()


@pytest.mark.slow
def test_tab_completes_words_in_a_real_bash() -> None:
    beginning = "\x01echo '=>' "  # to the line's beginning: what Tab has made is shown, not run
    shown = typed_into_bash(
        'eval "$(python run.py -sc install=bash)"\n'
        f"python run.py entry=yo\ttable_ae.mnist_y\tscale=lap\t{beginning}\n"
        f"python ./run.py paper=yogi method=optimizer/yo\tdataset=mni\t{beginning}\n"
        f"python tests/conf\t{beginning}\n"
        f'eval "$(python run.py -sc uninstall=bash)"; complete -p python{beginning}\n'
        "exit\n"
    )
    printed = [line.removeprefix("=> ") for line in shown.replace("\r", "\n").split("\n") if line[:2] == "=>"]
    assert printed[0].split() == ["python", "run.py", "entry=yogi.table_ae.mnist_yogi", "scale=laptop"]
    assert printed[1].split() == [
        "python",
        "./run.py",
        "paper=yogi",
        "method=optimizer/yogi",
        "dataset=mnist",
    ]
    # other scripts keep bash's own completion
    assert printed[2].split() == ["python", "tests/conftest.py"]
