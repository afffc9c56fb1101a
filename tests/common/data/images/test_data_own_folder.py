from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from common.base.errors import UserError
from common.data.images.own_folder import OwnFolder


def lay_out(folder: Path, names: tuple[str, ...] = ("cat", "dog"), count: int = 5, side: int = 12) -> None:
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (side + 4, side), (60 * number + i, 90, 50)).save(folder / name / f"{i}.png")


def own(path: Path, **changes: Any) -> OwnFolder:
    options: dict[str, Any] = {
        "kind": "image_classification",
        "data_dir": "data",
        "seed": 0,
        "source": "real",
        "limit": None,
        "validation": None,
        "normalise": "standard",
        "verify": True,
        "batch_size": 4,
        "workers": 0,
        "path": str(path),
        "size": None,
        "test": 0.2,
        "augment": "none",
    }
    data = OwnFolder(**options | changes)
    data.setup()
    return data


def test_classes_size_and_normalisation_are_found_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path / "train")
    lay_out(tmp_path / "val", count=2)
    data = own(tmp_path)
    assert (data.shape, data.classes, data.size("train"), data.size("test")) == ((3, 12, 12), 2, 10, 4)
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None
    assert targets.tolist() == [0] * 5 + [1] * 5
    assert inputs.mean((0, 2, 3)).abs().max() < 1e-4
    assert abs(float(inputs[:, 0].std(correction=0)) - 1) < 1e-3
    # a channel without contrast is only shifted
    assert inputs[:, 1].abs().max() < 1e-4
    said = capsys.readouterr().err
    assert "2 classes, images of 12 px; 10 train, 4 test; tested on the part val" in said


def test_beside_a_test_part_val_is_for_validation(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        lay_out(tmp_path / part, count=count)
    data = own(tmp_path)
    assert [data.size(split) for split in ("train", "validation", "test")] == [8, 6, 4]
    assert own(tmp_path, validation=0.25).size("validation") == 2


def test_without_a_test_part_one_is_held_out_the_same_for_all_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path)
    first, second = own(tmp_path), own(tmp_path, seed=7)
    assert (first.size("train"), first.size("test")) == (8, 2)
    paths = [{record.path for record in data._splits["test"].records} for data in (first, second)]
    assert paths[0] == paths[1]
    assert paths[0].isdisjoint(record.path for record in first._splits["train"].records)
    targets = first.batch("test", slice(None), augment=False)[1]
    assert torch.equal(torch.sort(targets).values, torch.tensor([0, 1])) if targets is not None else False
    assert "20% of the images, held out" in capsys.readouterr().err


def test_a_folder_that_does_not_fit_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        own(tmp_path / "none")
    with pytest.raises(UserError, match="has 0 class folders"):
        own(tmp_path)
    lay_out(tmp_path / "train")
    lay_out(tmp_path / "val", names=("cat", "cow"))
    with pytest.raises(UserError, match="the class folder cow is in only one of train and val"):
        own(tmp_path)
    with pytest.raises(UserError, match="has not both val and test"):
        own(tmp_path, validation="official")
    (tmp_path / "train" / "eel").mkdir()
    with pytest.raises(UserError, match="eel holds no image; found: nothing"):
        own(tmp_path)


def test_classes_a_floor_too_deep_are_told_with_what_was_found_and_what_is_expected(tmp_path: Path) -> None:
    lay_out(tmp_path / "train" / "animals", count=3)
    lay_out(tmp_path / "train" / "plants", names=("fern",), count=2)
    with pytest.raises(UserError) as refused:
        own(tmp_path)
    text = str(refused.value)
    assert "animals holds no image; found: 2 folders (cat, dog) with 6 images in them" in text
    assert "images right in each class folder, train/CLASS/*.jpg" in text


def test_a_folder_around_the_classes_is_named_as_the_path_to_give(tmp_path: Path) -> None:
    lay_out(tmp_path / "pictures")
    with pytest.raises(UserError) as refused:
        own(tmp_path)
    text = str(refused.value)
    assert "has 1 class folders; found: 1 folder (pictures) with 10 images in it" in text
    assert f"dataset.path={tmp_path / 'pictures'}" in text
    assert own(tmp_path / "pictures").classes == 2


def test_images_without_class_folders_and_files_of_other_formats_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"has 0 class folders; found: 1 image and 1 file \.txt"):
        own(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "x.webp").write_bytes(b"")
    with pytest.raises(UserError, match=r"cat holds no image; found: 1 file \.webp"):
        own(tmp_path / "photos")


def test_what_is_left_out_of_class_folders_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "x.bmp")
    lay_out(tmp_path / "dog", names=("puppies",), count=4)
    own(tmp_path)
    assert "left out: 1 folder (puppies) with 4 images in it and 1 file .bmp" in capsys.readouterr().err


def test_a_file_that_is_no_image_is_one_line_where_sizes_are_looked_at(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 40)
    with pytest.raises(UserError, match=r"0\.png is damaged"):
        own(tmp_path)
