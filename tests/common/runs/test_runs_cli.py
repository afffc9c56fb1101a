"""What the command line does around a run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from common.runs.cli import from_first_folder


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
