"""What the command line does around a run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from common.runs.cli import from_first_folder, reported_line


def test_folders_are_seen_from_where_a_command_was_called_where_hydra_changes_into_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, inner = tmp_path / "first", tmp_path / "first" / "outputs" / "run"
    inner.mkdir(parents=True)
    folders = {"data_dir": "/elsewhere", "output_dir": "outputs", "results_dir": "results"}
    config = OmegaConf.create({**folders, "dataset": {"data_dir": "${data_dir}"}})
    monkeypatch.chdir(first)
    from_first_folder(config, first)
    assert config.output_dir == "outputs"
    monkeypatch.chdir(inner)
    from_first_folder(config, first)
    assert config.output_dir == str(first / "outputs")
    assert config.results_dir == str(first / "results")
    assert config.data_dir == config.dataset.data_dir == "/elsewhere"


def test_what_is_reported_stands_beside_a_run_and_what_is_not_has_no_line() -> None:
    known = {"error": 3.5, "params": None, "source": {"kind": "recalled", "where": "memory"}}
    assert reported_line("a.b.c", known) == ["  reported for a.b.c: error 3.5 (recalled, unverified)"]
    assert reported_line("a.b.c", {"error": None, "source": {"kind": "none"}}) == []
    assert reported_line("a.b.c", {"error": 1, "source": {}}) == [
        "  reported for a.b.c: error 1 (no source given, unverified)"
    ]
