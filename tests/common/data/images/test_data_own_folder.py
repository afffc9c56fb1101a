import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from common.base.errors import UserError
from common.data.images.own_folder import OwnFolder
from common.data.shared import unreadable

# of endings that Pillow does not know by themselves
FORMAT_OF = {"a.JPE": "JPEG"}


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


def test_parts_may_have_capitals_where_nothing_else_lies_beside_them(tmp_path: Path) -> None:
    for part in ("Train", "Test"):
        lay_out(tmp_path / "parts" / part)
    assert own(tmp_path / "parts").folders["test"].name == "Test"
    # classes of vehicles
    lay_out(tmp_path / "classes", names=("Car", "Train"))
    assert own(tmp_path / "classes").class_list == ["Car", "Train"]


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
    assert "has 1 class folder; found: 1 folder (pictures) with 10 images in it" in text
    assert f"dataset.path={tmp_path / 'pictures'}" in text
    assert own(tmp_path / "pictures").classes == 2


def test_images_without_class_folders_and_files_of_other_formats_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"has 0 class folders; found: 1 image and 1 file \.txt"):
        own(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "x.heic").write_bytes(b"")
    with pytest.raises(UserError, match=r"cat holds no image; found: 1 file \.heic"):
        own(tmp_path / "photos")


def test_what_is_left_out_of_class_folders_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path)
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for number, suffix in enumerate(("txt", "csv", "heic", "xml")):
        for i in range(4 - number):
            (tmp_path / "dog" / f"{i}.{suffix}").write_text("")
    lay_out(tmp_path / "dog", names=("puppies",), count=4)
    own(tmp_path)
    said = capsys.readouterr().err
    assert "left out: 1 folder (puppies) with 4 images in it and 4 files .txt and 3 files .csv" in said
    assert "and 2 files .heic and 1 other file and 1 link to nothing" in said


def broken(folder: Path) -> None:
    """One picture whose head is none, one that is cut off, one that is empty."""
    (folder / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 40)
    whole = folder / "dog" / "large.jpg"
    Image.effect_noise((64, 64), 90).convert("RGB").save(whole)
    whole.write_bytes(whole.read_bytes()[:-900])
    (folder / "dog" / "1.png").write_bytes(b"")


def test_all_pictures_that_cannot_be_read_are_named_in_one_line_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    lay_out(tmp_path)
    broken(tmp_path)
    with pytest.raises(UserError) as refused:
        own(tmp_path)
    text = str(refused.value)
    assert "3 pictures of 11 cannot be read: cat/0.png (" in text
    assert "dog/1.png (empty), dog/large.jpg (" in text
    assert text.endswith("dataset.unreadable=leave_out)") and "\n" not in text


def test_pictures_that_cannot_be_read_are_left_out_where_that_is_said_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path / "photos")
    broken(tmp_path / "photos")
    data = own(tmp_path / "photos", unreadable="leave_out")
    assert data.size("train") + data.size("test") == 8
    assert "left out: 3 pictures that cannot be read" in capsys.readouterr().err
    assert data.repairs == {"pictures left out, which cannot be read": 3}
    assert data.facts()["left_out"] == 3
    lay_out(tmp_path / "whole")
    assert "left_out" not in own(tmp_path / "whole").facts()


def test_a_class_of_which_no_picture_can_be_read_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path)
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="cat holds no image that can be read, of 5"):
        own(tmp_path, unreadable="leave_out")
    with pytest.raises(UserError, match=r"dataset.unreadable=skip: give leave_out, or null"):
        own(tmp_path, unreadable="skip")


def test_the_same_files_are_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / "cache"))
    lay_out(tmp_path / "photos")
    own(tmp_path / "photos")
    looked: list[str] = []

    def fault_of(path: str, formats: object) -> None:
        looked.append(path)

    monkeypatch.setattr(unreadable, "fault_of", fault_of)
    own(tmp_path / "photos")
    shutil.move(tmp_path / "photos", tmp_path / "moved")
    own(tmp_path / "moved")
    assert looked == []
    Image.new("RGB", (16, 12)).save(tmp_path / "moved" / "cat" / "new.png")
    own(tmp_path / "moved")
    assert len(looked) == 11


def test_a_cache_that_cannot_be_written_costs_another_look_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / "taken"))
    lay_out(tmp_path / "photos")
    assert own(tmp_path / "photos").size("train") == 8
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.webp", "a.bmp", "a.tif", "a.gif", "a.ppm", "a.JPE"])
def test_pictures_of_any_format_are_read(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path)
    Image.new("RGB", (16, 12), (10, 200, 30)).save(tmp_path / "cat" / name, format=FORMAT_OF.get(name))
    data = own(tmp_path, normalise="none", test=0.1)
    assert data.size("train") + data.size("test") == 11
    pixels = torch.cat([data.batch(split, slice(None), augment=False)[0] for split in ("train", "test")])
    apart = (pixels - torch.tensor([10.0, 200.0, 30.0]).view(1, 3, 1, 1)).abs().amax((1, 2, 3))
    assert (apart < 4).sum() == 1


def test_photographs_that_are_turned_upright_are_counted(tmp_path: Path) -> None:
    lay_out(tmp_path)
    mark = Image.Exif()
    mark[0x0112] = 6
    Image.new("RGB", (16, 12)).save(tmp_path / "cat" / "turned.jpg", exif=mark)
    data = own(tmp_path, normalise="none")
    for split in ("train", "test"):
        data.batch(split, slice(None), augment=False)
    assert data.repairs == {"images turned upright by their orientation marks": 1}


def test_a_folder_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    lay_out(tmp_path / "pictures")
    with pytest.raises(UserError, match=r"pictuers: no such folder; there is pictures in "):
        own(tmp_path / "pictuers")
