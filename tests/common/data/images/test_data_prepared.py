"""A decoded picture becomes what the run's own evaluation would have made of its file, but for rounding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.base.preparation import GREY, Preparation, usual_preparation
from common.data.images.decoding import decode_picture
from common.data.images.image_folder import ImageFolder
from common.data.images.own_folder import OwnFolder
from common.data.images.prepared import fitted_size, prepared
from common.data.segmentation.camvid import CamVid
from common.data.segmentation.segmentation_data import fitting_window
from common.data.shared.streamed import Record

OPTIONS: dict[str, Any] = {
    "data_dir": "none", "seed": 0, "source": "real", "limit": None, "validation": 0.0,
    "normalise": "standard", "verify": True, "batch_size": 4, "workers": 0, "augment": "none",
}  # fmt: skip
SIZES = [(1, 1), (36, 48), (300, 200), (48, 36), (37, 90), (5, 400)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(folder: Path, picture: np.ndarray) -> str:
    Image.fromarray(picture).save(folder / "x.png")
    return str(folder / "x.png")


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_is_that_of_the_folders_own_evaluation(tmp_path: Path, size: tuple[int, int]) -> None:
    data = ImageFolder(folder="x", classes=2, size=32, resize=37, kind="image_classification", **OPTIONS)
    picture = noise(*size)
    own, _ = data.example(Record(saved(tmp_path, picture), 0), None)
    preparation = data.preparation()
    assert preparation is not None
    found = prepared(torch.from_numpy(picture), preparation)
    assert found.filled == (32, 32)
    # torch's kernel for uint8 rounds, and somewhat coarsely
    assert (found.stored - own.float()).abs().max() <= 1.001


@pytest.mark.parametrize("size", SIZES)
def test_what_fits_is_filled_up_as_by_the_set_of_masks_itself(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = CamVid(size=[36, 48], crop=None, kind="segmentation", **OPTIONS)
    picture = noise(*size)
    Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "mask.png")
    own, labels = data.example(Record(saved(tmp_path, picture), str(tmp_path / "mask.png")), None)
    preparation = data.preparation()
    assert preparation is not None
    found = prepared(torch.from_numpy(picture), preparation)
    assert (found.stored - own.float()).abs().max() <= 1.001
    # what the picture does not fill counts for nothing there
    covered = torch.zeros(36, 48, dtype=torch.bool)
    covered[: found.filled[0], : found.filled[1]] = True
    assert torch.equal(covered, labels != 255)


sides = st.integers(1, 3000)


@given(sides, sides, st.integers(1, 512), st.integers(1, 512))
def test_pictures_fit_as_images_of_masks_do(height: int, width: int, down: int, across: int) -> None:
    _, size = fitting_window((height, width), (down, across), None)
    assert fitted_size((height, width), (down, across)) == size


def test_a_picture_of_the_inputs_size_is_not_resampled() -> None:
    picture = noise(20, 20)
    for frame in ("centre", "fit", "stretch"):
        preparation = Preparation(frame, (20, 20), resize=23, fill=(0.0,) * 3)
        stored = prepared(torch.from_numpy(picture), preparation).stored
        assert np.array_equal(stored.permute(1, 2, 0).numpy(), picture)


def test_grey_is_weighed_as_by_pillow_and_white_becomes_the_sets_own() -> None:
    picture = noise(8, 8)
    preparation = Preparation("stretch", (8, 8), channels=1, white=16)
    stored = prepared(torch.from_numpy(picture), preparation).stored
    expected = np.asarray(Image.fromarray(picture).convert("L"), np.float32) * 16 / 255
    assert stored.shape == (1, 8, 8)
    assert np.abs(stored[0].numpy() - expected).max() <= 0.51 * 16 / 255
    assert sum(GREY) == pytest.approx(1)
    white = torch.full((3, 5, 3), 255, dtype=torch.uint8)
    assert prepared(white, preparation).stored.allclose(torch.tensor(16.0))


def test_the_usual_preparation_shows_masks_and_boxes_all_of_a_picture_and_classes_its_centre() -> None:
    kinds = {"image_classification": "centre", "segmentation": "fit", "detection": "stretch"}
    for kind, frame in kinds.items():
        found = usual_preparation(kind, (1, 30, 40), 16)
        assert found is not None and found.frame == frame and found.channels == 1 and found.white == 16
    assert usual_preparation("tabular_classification", (13,), 1) is None


@pytest.mark.parametrize(
    "preparation",
    [Preparation("centre", (8, 8), 1, 16, resize=9), Preparation("fit", (3, 4), fill=(1.0, 2.0, 3.0))],
)
def test_a_preparation_survives_json_and_says_itself_in_words(preparation: Preparation) -> None:
    assert Preparation.of_json(preparation.as_json()) == preparation
    assert "bilinear" in preparation.in_words() and "upright" in preparation.in_words()


def test_a_folder_of_ones_own_is_trained_upright_and_others_as_they_are_stored(tmp_path: Path) -> None:
    picture = noise(40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(np.rot90(picture)).save(tmp_path / name / f"{number}.png", exif=exif)
    data = OwnFolder(path=str(tmp_path), size=40, test=0.34, kind="image_classification", **OPTIONS)
    record = Record(str(tmp_path / "a" / "0.png"), 0)
    found, _ = data.example(record, None)
    preparation = data.preparation()
    assert preparation is not None
    shown = decode_picture(record.path)
    assert np.array_equal(shown, picture)
    assert (found.float() - prepared(torch.from_numpy(shown), preparation).stored).abs().max() <= 1.001
    assert "upright" in data.encoding()["preparation"]
    other = ImageFolder(folder="x", classes=2, size=40, resize=46, kind="image_classification", **OPTIONS)
    stored, _ = other.example(record, None)
    assert not torch.equal(stored, found)
