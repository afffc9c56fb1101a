"""A folder of one's own clouds: three layouts, clouds of any sizes, and what is refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.base.dataset import Origin
from common.base.errors import UserError

Make = Callable[..., Any]


def cloud(folder: Path, name: str, points: int = 12, seed: int = 0, offset: float = 0.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, np.random.default_rng((seed, points)).normal(size=(points, 3)) + offset)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label in ("car", "tree"):
        for n in range(10):
            cloud(tmp_path / "mine" / label, f"{n}.npy", points=5 + n, seed=n)
    return tmp_path / "mine"


def test_a_fifth_of_each_class_is_held_out_and_clouds_of_any_size_go(
    make: Make, folder: Path, capsys: Any
) -> None:
    data = make("cloud_folder", path=str(folder), points=8)
    data.setup()
    assert data.train.inputs.shape == (16, 8, 3) and data.test.inputs.shape == (4, 8, 3)
    assert data.test.targets.tolist() == [0, 0, 1, 1] and data.class_names() == ["car", "tree"]
    assert data.repairs == {"clouds of fewer than 8 points, which stand there several times": 6}
    assert "2 classes, 16 train, 0 validation, 4 test; tested on 20%" in capsys.readouterr().err
    assert data.train.inputs.mean(1).abs().max() < 0.7


@pytest.mark.parametrize("layout", ["{part}/{label}", "{label}/{part}"])
def test_parts_stand_before_or_behind_the_classes(make: Make, tmp_path: Path, layout: str) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for label in ("a", "b"):
            for n in range(count):
                cloud(tmp_path / "mine" / layout.format(part=part, label=label), f"{n}.npy", seed=n)
    data = make("cloud_folder", path=str(tmp_path / "mine"), points=8)
    data.setup()
    assert (len(data.train), len(data.test), data.classes) == (6, 4, 2) and not data.held_out


def test_large_offsets_of_maps_cost_no_precision(make: Make, tmp_path: Path) -> None:
    for label in ("a", "b"):
        for n in range(2):
            cloud(tmp_path / "near" / label, f"{n}.npy", seed=n)
            cloud(tmp_path / "far" / label, f"{n}.npy", seed=n, offset=4e6)
    near, far = (
        make("cloud_folder", path=str(tmp_path / name), points=12, test=0.5) for name in ("near", "far")
    )
    near.setup()
    far.setup()
    assert torch.allclose(near.train.inputs, far.train.inputs, atol=1e-6)


def test_another_file_in_the_folder_leaves_the_points_of_the_others(make: Make, folder: Path) -> None:
    first = make("cloud_folder", path=str(folder), points=4)
    before = {
        file.name: row for file, row in zip(first.files("train"), first.read("train").inputs, strict=True)
    }
    cloud(folder / "car", "00.npy", points=40)
    second = make("cloud_folder", path=str(folder), points=4)
    after = {
        file.name: row for file, row in zip(second.files("train"), second.read("train").inputs, strict=True)
    }
    assert len(before.keys() & after.keys()) > 10
    assert all(torch.equal(before[name], after[name]) for name in before.keys() & after.keys())


def test_a_trained_network_is_judged_on_other_folders_by_the_names_of_classes(
    make: Make, folder: Path, tmp_path: Path
) -> None:
    trained = make("cloud_folder", path=str(folder), points=8)
    cloud(tmp_path / "new" / "tree", "a.npy")
    judged = make("cloud_folder", path=str(tmp_path / "new"), points=8, origin=Origin(trained.facts(), None))
    judged.adopt(trained.facts())
    assert judged.size("test") == 1 and judged.test.targets.tolist() == [1] and judged.classes == 2
    assert judged.notes == ["no folder for 1 of the classes: car"]
    cloud(tmp_path / "new" / "boat", "a.npy")
    with pytest.raises(UserError, match="no classes of training: boat"):
        make("cloud_folder", path=str(tmp_path / "new"), origin=Origin(trained.facts(), None))


def test_what_is_no_folder_of_clouds_is_one_line(make: Make, folder: Path, tmp_path: Path) -> None:
    def refused(told: str, **settings: Any) -> None:
        with pytest.raises(UserError, match=told) as caught:
            make("cloud_folder", **{"path": str(folder), **settings}).setup()
        assert "\n" not in str(caught.value)

    refused("give the folder of your clouds", path="")
    refused("no such folder", path=str(tmp_path / "nowhere"))
    refused("has 0 class folders", path=str(folder / "car"))
    refused("dataset.test=1.5", test=1.5)
    (folder / "empty").mkdir()
    refused("empty holds no cloud")
    (folder / "empty").rmdir()
    cloud(tmp_path / "parts" / "train" / "a", "a.npy")
    cloud(tmp_path / "parts" / "train" / "b", "a.npy")
    cloud(tmp_path / "parts" / "test" / "a", "a.npy")
    refused("the class folder b is in only one of train and test", path=str(tmp_path / "parts"))


def test_all_files_that_are_no_clouds_are_named_at_once_or_left_out_and_counted(
    make: Make, folder: Path, capsys: Any
) -> None:
    (folder / "car" / "nan.xyz").write_text("0 0 0\n1 nan 2\n")
    (folder / "car" / "single.csv").write_text("1,2,3\n")
    (folder / "tree" / "old.txt").write_bytes("0 0 0 Größe\n".encode("latin-1"))
    with pytest.raises(UserError, match="3 of 23 files are no clouds") as caught:
        make("cloud_folder", path=str(folder)).setup()
    for told in (
        "car/nan.xyz (line 2 holds 1 nan 2",
        "car/single.csv (a cloud of one point",
        "tree/old.txt (line 1 is no text in UTF-8",
        "dataset.unreadable=leave_out",
    ):
        assert told in str(caught.value) and "\n" not in str(caught.value)
    data = make("cloud_folder", path=str(folder), points=8, unreadable="leave_out")
    data.setup()
    whole = len(data.train) + data.size("test")
    assert (whole, data.repairs["files that are no clouds, left out"], data.facts()["left_out"]) == (20, 3, 3)
    assert "left out: 3 files that are no clouds" in capsys.readouterr().err


def test_files_of_other_formats_beside_clouds_are_counted_and_said(
    make: Make, folder: Path, capsys: Any
) -> None:
    (folder / "car" / "scan.ply").write_text("ply\n")
    (folder / "tree" / "deeper").mkdir()
    make("cloud_folder", path=str(folder)).setup()
    assert "left out: 1 folder (deeper) with 0 clouds in it and 1 file .ply" in capsys.readouterr().err


def test_a_class_without_a_cloud_that_can_be_read_is_named(make: Make, folder: Path) -> None:
    (folder / "boat").mkdir()
    (folder / "boat" / "a.xyz").write_text("no numbers\n")
    with pytest.raises(UserError, match="boat holds no cloud that can be read"):
        make("cloud_folder", path=str(folder), unreadable="leave_out").setup()
