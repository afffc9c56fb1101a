"""Faces in files: who is who, which pairs are shown, and what is said of files that are not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from common.base.errors import UserError
from common.data.shared.download import DamagedError
from papers.dcp.faces import Faces, Pair, parse_pairs

# two folds of two pairs of one person and two of two
LIST = """2\t2
Ann\t1\t2
Bob\t1\t3
Ann\t1\tBob\t1
Cid\t4\tAnn\t2
Cid\t4\t5
Bob\t3\t1
Dan\t1\tBob\t1
Ann\t2\tDan\t1
"""
# in the order in which the list shows them
SHOWN = ["Ann_0001", "Ann_0002", "Bob_0001", "Bob_0003", "Cid_0004", "Cid_0005", "Dan_0001"]


def picture(path: Path, grey: int, size: tuple[int, int] = (96, 112)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey,) * 3).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two identities of two images, and LFW's images: image k of the list is grey 10 k."""
    for number, name in enumerate(["b/1.jpg", "b/2.jpg", "a/7.png", "a/8.jpg"]):
        picture(tmp_path / "casia_webface" / name, 100 + 10 * number)
    for number, name in enumerate(SHOWN):
        ending = "png" if number == 3 else "jpg"
        picture(tmp_path / "lfw" / name.split("_")[0] / f"{name}.{ending}", 10 * number)
    (tmp_path / "lfw/pairs.txt").write_text(LIST)
    return tmp_path


@pytest.fixture
def faces(make: Callable[..., Any]) -> Callable[..., Faces]:
    def build(**overrides: Any) -> Faces:
        data: Faces = make("faces", **{"workers": 0, "batch_size": 2, "classes": 2} | overrides)
        data.setup()
        return data

    return build


def test_training_faces_are_labelled_by_their_folders(folder: Path, faces: Callable[..., Faces]) -> None:
    inputs, targets = faces(normalise="none").batch("train", slice(None), augment=False)
    assert targets is not None
    assert targets.tolist() == [0, 0, 1, 1]
    assert inputs.shape == (4, 3, 112, 96)
    assert inputs.mean((1, 2, 3)).round().tolist() == [120, 130, 100, 110]


def test_the_test_split_is_each_face_that_a_pair_shows_once(
    folder: Path, faces: Callable[..., Faces]
) -> None:
    data = faces(normalise="none")
    inputs, people = data.batch("test", slice(None), augment=False)
    assert people is not None
    assert inputs.mean((1, 2, 3)).round().tolist() == [10 * number for number in range(len(SHOWN))]
    assert people.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert data.pairs.first.tolist() == [0, 2, 0, 4, 4, 3, 6, 1]
    assert data.pairs.second.tolist() == [1, 3, 2, 1, 5, 2, 2, 6]
    assert data.pairs.same.tolist() == [True, True, False, False] * 2
    assert data.pairs.fold.tolist() == [0] * 4 + [1] * 4


def test_standard_inputs_are_those_of_spherenet(folder: Path, faces: Callable[..., Faces]) -> None:
    plain, _ = faces(normalise="none").batch("test", slice(None), augment=False)
    standard, _ = faces().batch("test", slice(None), augment=False)
    assert torch.allclose(standard, (plain - 127.5) / 128, atol=1e-6)


def test_a_face_of_another_size_is_cut_and_stretched_without_changing_its_ratio(
    folder: Path, faces: Callable[..., Faces]
) -> None:
    # the right half of a face twice as wide as high is white: 96/112 of its height is left of the width
    image = Image.new("RGB", (224, 112))
    image.paste((255, 255, 255), (112, 0, 224, 112))
    image.save(folder / "lfw/Ann/Ann_0001.jpg", quality=100)
    inputs, _ = faces(normalise="unit_interval").batch("test", slice(1), augment=False)
    assert inputs[..., :46].max() < 0.1
    assert inputs[..., 50:].min() > 0.9


def test_synthetic_faces_need_no_files(faces: Callable[..., Faces]) -> None:
    data = faces(source="synthetic", limit=20)
    assert (data.size("train"), data.size("test")) == (20, 256)
    assert data.pairs.fold.bincount().tolist() == [26, 26, 26, 26, 26, 26, 26, 26, 24, 24]
    assert data.pairs.same.sum() == 128
    assert all(data.pairs.same[data.pairs.fold == fold].float().mean() == 0.5 for fold in range(10))


@pytest.mark.parametrize("missing", ["casia_webface", "lfw/pairs.txt", "lfw/Bob/Bob_0003.png", "lfw/Cid"])
def test_what_is_missing_is_said_in_one_line_with_what_to_do(
    folder: Path, faces: Callable[..., Faces], missing: str
) -> None:
    (folder / missing).rename(folder / "elsewhere")
    with pytest.raises(UserError) as error:
        faces()
    text = str(error.value)
    name = {"lfw/Cid": "Cid_0004", "lfw/Bob/Bob_0003.png": "Bob_0003"}.get(missing, missing)
    assert name in text
    assert str(folder / "casia_webface") in text
    assert "pairs.txt" in text
    assert "dataset.source=synthetic" in text
    assert "\n" not in text


def test_another_number_of_identities_is_said(folder: Path, faces: Callable[..., Faces]) -> None:
    with pytest.raises(UserError, match=r"dataset\.classes=10575: .* has 2 folders; set dataset\.classes=2"):
        faces(classes=10_575)
    (folder / "casia_webface/c").mkdir()
    with pytest.raises(UserError, match="c holds no image"):
        faces(classes=3)


def test_a_list_of_pairs_is_read_as_it_stands() -> None:
    pairs = parse_pairs(LIST)
    assert pairs[1] == Pair(0, ("Bob", 1), ("Bob", 3))
    assert pairs[3] == Pair(0, ("Cid", 4), ("Ann", 2))
    assert [pair.same for pair in pairs] == [True, True, False, False] * 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2\t2\n", "2\n", "starts with '2'"),
        ("2\t2\n", "1\t4\n", "starts with '1 4'"),
        ("2\t2\n", "2\t3\n", "8 pairs; its first line says 2 folds of 6"),
        ("Bob\t1\t3", "Bob\t1\tAnn\t3", "line 3 is 'Bob 1 Ann 3' instead of 'NAME i j'"),
        ("Cid\t4\tAnn\t2", "Cid\t4\tCid\t2", "line 5 is 'Cid 4 Cid 2' instead of 'NAME i OTHER j'"),
        ("Cid\t4\t5", "Cid\t4\tx", "line 6 is 'Cid 4 x'"),
        ("Ann\t2\tDan\t1\n", "", "7 pairs"),
        (LIST, "", "starts with ''"),
    ],
)
def test_a_damaged_list_of_pairs_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(DamagedError) as error:
        parse_pairs(LIST.replace(old, new))
    assert said in str(error.value)
