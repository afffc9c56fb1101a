"""Clouds of points and their likeliest classes; what is no cloud is named."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.runs import trained
from common.runs.predict_clouds import predict_clouds
from common.runs.predict_files import Asked


class Flatness(nn.Module):
    """Class 0 for what has little extent along z."""

    def forward(self, inputs: Tensor) -> Tensor:
        extent = inputs[:, :, 2].abs().mean(1) - 0.3
        return torch.stack([-extent, extent, extent - 1], 1) * 20


@pytest.fixture
def found(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = make("solids", points=16, source="synthetic", limit=10)
    facts = {"class_names": ["flat", "round", "none"], "classes": 3}
    run = trained.Trained(SimpleNamespace(data=data), Flatness(), None, facts)  # type: ignore[arg-type]
    monkeypatch.setattr(trained, "trained", lambda _: run)


def test_clouds_of_any_unit_and_place_get_the_likeliest_classes_and_faults_are_named(
    found: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    flat, whole = random.normal(size=(40, 3)) * [1, 1, 0.01], random.normal(size=(9, 3))
    np.savetxt(folder / "a.xyz", flat * 1e8 + 1e9)
    np.save(folder / "b.npy", whole * 1e-8)
    (folder / "more" / "bad.xyz").write_text("0 0 0\n1 inf 0\n")
    (folder / "notes.md").touch()
    (folder / ".hidden.xyz").touch()
    asked = Asked([folder, folder / "a.xyz"], folder / "out", top=2, encoding="utf-8")
    done = predict_clouds(None, asked)  # type: ignore[arg-type]
    assert (done.count, done.faults, done.what) == (2, 1, "cloud")
    lines = [json.loads(line) for line in (folder / "out" / "clouds.jsonl").read_text().splitlines()]
    assert [Path(line["cloud"]).name for line in lines] == ["a.xyz", "b.npy", "bad.xyz"]
    assert [one["class"] for one in lines[0]["classes"]] == ["flat", "round"] and lines[0]["points"] == 40
    assert lines[1]["classes"][0]["class"] == "round" and lines[1]["points"] == 9
    assert lines[2]["error"].startswith("line 2 holds 1 inf 0") and "classes" not in lines[2]
    assert "bad.xyz: line 2 holds 1 inf 0" in capsys.readouterr().err


def test_a_folder_without_clouds_is_one_line(found: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no cloud"):
        predict_clouds(None, Asked([tmp_path], tmp_path, top=5, encoding="utf-8"))  # type: ignore[arg-type]
