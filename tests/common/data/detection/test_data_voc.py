"""VOC's layout: boxes as the files have them, repaired with a count; what is wrong said in one line."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.base.errors import UserError
from common.data.detection import voc
from common.data.detection.boxes import is_box
from common.data.shared.prepare import Checksum

Make = Callable[..., Any]
WIDTH, HEIGHT = 40, 30
# (name, xmin, ymin, xmax, ymax, difficult), counted from 1, ends included
Drawn = tuple[str, float, float, float, float, int]
CAT: Drawn = ("cat", 11, 6, 20, 15, 0)
DOG: Drawn = ("dog", 1, 1, 40, 30, 1)
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"


def object_xml(drawn: Drawn) -> str:
    name, *corners, difficult = drawn
    ends = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{key}>{value}</{key}>" for key, value in ends)
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"


def annotation(*objects: Drawn, size: str = SIZE) -> str:
    return f"<annotation>{size}{''.join(map(object_xml, objects))}</annotation>"


def picture(*objects: Drawn) -> bytes:
    """A JPEG image, white where the objects are, else black."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for _, x0, y0, x1, y1, _ in objects:
        pixels[int(y0) - 1 : int(y1), int(x0) - 1 : int(x1)] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def tree(parts: dict[str, list[str]], objects: dict[str, tuple[Drawn, ...]]) -> dict[str, bytes]:
    """The files of a folder of this layout, by path."""
    files = {
        f"ImageSets/Main/{part}.txt": "".join(f"{name}\n" for name in names).encode()
        for part, names in parts.items()
    }
    for name, drawn in objects.items():
        files[f"Annotations/{name}.xml"] = annotation(*drawn).encode()
        files[f"JPEGImages/{name}.jpg"] = picture(*drawn)
    return files


TREE = tree(
    {"train": ["one"], "val": ["two"], "trainval": ["one", "two"], "test": ["three"]},
    {"one": (CAT,), "two": (DOG, CAT), "three": ()},
)


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def set_up(make: Make, name: str = "voc2007", **overrides: Any) -> Any:
    options = {"size": [HEIGHT, WIDTH], "workers": 0, "augment": "none", "normalise": "none"} | overrides
    data = make(name, **options)
    data.setup()
    return data


def targets(data: Any, split: str) -> list[list[list[float]]]:
    _, boxes = data.batch(split, slice(None), augment=False)
    return [rows[is_box(rows)].tolist() for rows in boxes]


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        act()
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """VOC 2007 of two images for training and one for testing."""
    place = tmp_path / "VOCdevkit" / "VOC2007"
    put(place, TREE)
    return place


def test_boxes_are_the_drawn_pixels_counted_from_0_and_half_open(make: Make, folder: Path) -> None:
    data = set_up(make)
    assert targets(data, "train") == [[[10, 5, 20, 15, 7, 0]], [[0, 0, 40, 30, 11, 1], [10, 5, 20, 15, 7, 0]]]
    assert targets(data, "test") == [[]]
    assert data.repairs == {}
    inputs, boxes = data.batch("train", torch.tensor([0]), augment=False)
    assert inputs.shape == (1, 3, HEIGHT, WIDTH) and boxes.dtype == torch.float32
    check_white_where_the_box_is(inputs[0], boxes[0, 0], tolerance=0)


def check_white_where_the_box_is(image: Tensor, box: Tensor, tolerance: int) -> None:
    rows, columns = (image.mean(0) > 127).nonzero(as_tuple=True)
    found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert (found - box[:4]).abs().max() <= tolerance


def test_boxes_are_stretched_with_their_image(make: Make, folder: Path) -> None:
    data = set_up(make, size=[60, 160])
    assert data.shape == (3, 60, 160)
    assert targets(data, "train")[0] == [[40, 10, 80, 30, 7, 0]]


@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_boxes_move_with_their_image_when_it_is_augmented(make: Make, folder: Path, augment: str) -> None:
    put(folder, tree({"trainval": ["one"] * 40}, {}))
    data = set_up(make, augment=augment, size=[120, 160], batch_size=40)
    inputs, boxes = data.ready(next(iter(data.loader(0)))[0])
    for image, rows in zip(inputs, boxes, strict=True):
        check_white_where_the_box_is(image, rows[0], tolerance=4)
    different = {tuple(rows[0].tolist()) for rows in boxes}
    assert {"none": len(different) == 1, "flip": len(different) == 2, "crop_flip": len(different) > 30}[
        augment
    ]


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_two_epochs_are_the_same_with_workers_and_without(make: Make, folder: Path, augment: str) -> None:
    put(folder, tree({"trainval": ["one", "two"] * 8}, {}))
    epochs = []
    for workers in (0, 2):
        data = set_up(make, workers=workers, augment=augment, batch_size=3)
        loader = data.loader(seed=5)
        blocks = iter(loader)
        epochs.append([data.ready(item) for _ in range(2 * loader.steps_per_epoch) for item in next(blocks)])
    # 16 images in batches of 3: the last one joins the batch before it
    assert len(epochs[0]) == 10
    for (inputs, boxes), (same_inputs, same_boxes) in zip(*epochs, strict=True):
        assert torch.equal(inputs, same_inputs) and torch.equal(boxes, same_boxes)
    first, second = (
        torch.stack([boxes.sum() for _, boxes in epochs[0][half]]) for half in (slice(5), slice(5, 10))
    )
    assert not torch.equal(first, second)


def test_both_years_together_train_on_both_and_test_on_2007(make: Make, folder: Path, tmp_path: Path) -> None:
    bird = ("bird", 1, 1, 8, 8, 0)
    put(tmp_path / "VOCdevkit" / "VOC2012", tree({"trainval": ["2012_1"]}, {"2012_1": (bird,)}))
    data = set_up(make, "voc0712")
    assert (data.size("train"), data.size("test")) == (3, 1)
    assert targets(data, "train")[2] == [[0, 0, 8, 8, 2, 0]]


def test_2012_is_tested_on_its_val(make: Make, tmp_path: Path) -> None:
    put(tmp_path / "VOCdevkit" / "VOC2012", TREE)
    data = set_up(make, "voc2012")
    assert (len(targets(data, "train")[0]), len(targets(data, "test")[0])) == (1, 2)


OUTSIDE: dict[str, tuple[Drawn, list[float] | None]] = {
    "beyond the right and lower edge": (("cat", 31, 21, 50, 99, 0), [30, 20, 40, 30]),
    "before the left and upper edge": (("cat", -5, 0, 10, 10, 0), [0, 0, 10, 10]),
    "fully outside": (("cat", 41, 5, 50, 10, 0), None),
    "of one point": (("cat", 20, 20, 20, 20, 0), None),
    "of one line": (("cat", 20, 5, 20, 25, 0), None),
    "inside out": (("cat", 20, 20, 10, 25, 0), None),
}


@pytest.mark.parametrize("fault", OUTSIDE)
def test_a_box_outside_or_without_area_is_repaired_and_counted(make: Make, folder: Path, fault: str) -> None:
    drawn, expected = OUTSIDE[fault]
    put(folder, tree({}, {"one": (CAT, drawn, CAT)}))
    data = set_up(make)
    cat = [10, 5, 20, 15, 7, 0]
    assert targets(data, "train")[0] == [cat, *([] if expected is None else [[*expected, 7, 0]]), cat]
    what = "boxes without area, dropped" if expected is None else "boxes clipped to their images"
    assert data.repairs == {what: 1}


def test_boxes_of_parts_of_an_object_are_not_taken(make: Make, folder: Path) -> None:
    head = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    xml = annotation(CAT).replace("<difficult>0</difficult>", f"{head}<pose>Left</pose>")
    put(folder, {"Annotations/one.xml": xml.encode()})
    assert targets(set_up(make), "train")[0] == [[10, 5, 20, 15, 7, 0]]


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>"])
def test_a_size_that_is_not_given_is_read_from_the_image(make: Make, folder: Path, size: str) -> None:
    xml = annotation(CAT, ("cat", 31, 21, 50, 99, 0), size=size)
    put(folder, {"Annotations/one.xml": xml.encode()})
    data = set_up(make)
    assert targets(data, "train")[0][1] == [30, 20, 40, 30, 7, 0]
    assert data.repairs == {"boxes clipped to their images": 1}


XML = "Annotations/one.xml"
ENTITY = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
BAD_XML = {
    "cut": (annotation(CAT)[:-20], "not XML"),
    "empty": ("", "not XML"),
    "html": ("<html><body>404</body></html>", "<html> instead of <annotation>"),
    "entity": (ENTITY + annotation(CAT).replace("cat", "&e;"), "declares a document type"),
    "unknown encoding": ("<?xml version='1.0' encoding='nonesuch'?>" + annotation(CAT), "not XML"),
    "unknown class": (annotation(CAT, ("elk", 1, 1, 5, 5, 0)), "object 2 is a 'elk'; the classes are"),
    "no name": (annotation(CAT).replace("<name>cat</name>", ""), "object 1 has no name"),
    "no box": (annotation(CAT).replace("bndbox", "box"), "object 1, a cat, has no bndbox"),
    "no corner": (annotation(CAT).replace("<xmin>11</xmin>", ""), "object 1 has xmin = ''; it is a number"),
    "a word": (annotation(CAT).replace("15", "high"), "object 1 has ymax = 'high'"),
    "not a number": (annotation(CAT).replace("15", "nan"), "object 1 has ymax = 'nan'"),
    "difficult": (annotation(CAT).replace("<difficult>0", "<difficult>7"), "difficult = '7'; it is 0 or 1"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BAD_XML)
def test_a_damaged_annotation_is_named_with_what_is_wrong(make: Make, folder: Path, damage: str) -> None:
    content, words = BAD_XML[damage]
    put(folder, {XML: content.encode()})
    message = refusal(lambda: set_up(make))
    assert message.startswith(f"{folder / XML} is damaged (") and words in message
    assert "VOCtrainval_06-Nov-2007.tar" in message


ABSENT = {
    XML: "",
    "JPEGImages/one.jpg": "/trainval.txt names it",
    "JPEGImages": "",
    "ImageSets/Main/trainval.txt": "",
    "ImageSets/Main/test.txt": "",
}


@pytest.mark.parametrize("name", ABSENT)
def test_a_missing_file_is_named_with_what_to_do(make: Make, folder: Path, name: str) -> None:
    (folder / name).rename(folder / "away")
    message = refusal(lambda: set_up(make))
    assert message.startswith(f"{folder / name} is missing") and ABSENT[name] in message
    assert "VOCtest_06-Nov-2007.tar" in message


@pytest.mark.parametrize(
    ("content", "words"), [(b"\n \n", "it names no image"), (b"\xff\xfe\x00", "not a text file")]
)
def test_a_list_without_names_is_refused(make: Make, folder: Path, content: bytes, words: str) -> None:
    put(folder, {"ImageSets/Main/trainval.txt": content})
    assert f"trainval.txt is damaged ({words})" in refusal(lambda: set_up(make))


SMALL = io.BytesIO()
Image.new("RGB", (20, 10)).save(SMALL, "JPEG")
BAD_IMAGES = {
    "truncated": (picture(CAT)[:-80], "truncated"),
    "foreign": (b"<html>404</html>", "not a JPEG or PNG image"),
    "of another size": (SMALL.getvalue(), "20x10 pixels, but its boxes are of an image of 40x30"),
}


@pytest.mark.parametrize("damage", BAD_IMAGES)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_when_its_batch_is_asked_for(
    make: Make, folder: Path, damage: str, workers: int
) -> None:
    content, words = BAD_IMAGES[damage]
    put(folder, {"JPEGImages/three.jpg": content})
    data = set_up(make, workers=workers)
    message = refusal(lambda: list(data.batches("test", 1)))
    assert message.startswith(f"{folder}/JPEGImages/three.jpg is damaged (") and words in message


def test_a_part_of_another_size_than_the_official_one_is_said(
    make: Make, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(make)
    assert f"voc2007: 2 train images in {tmp_path}, not 5011" in capsys.readouterr().err


def test_a_subset_and_a_validation_split_are_of_the_training_images(make: Make, folder: Path) -> None:
    put(folder, tree({"trainval": ["one", "two"] * 5}, {}))
    data = set_up(make, limit=8, validation=0.25)
    assert (data.size("train"), data.size("validation"), data.size("test")) == (6, 2, 1)
    assert "voc2007 has 10 training examples" in refusal(lambda: set_up(make, limit=11))


@pytest.mark.parametrize("size", [[300], [300, 300, 3], [0, 300]])
def test_a_size_is_two_numbers_above_0(make: Make, size: list[int]) -> None:
    assert "dataset.size=" in refusal(lambda: make("voc2007", size=size))


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


TRAIN_TAR, TEST_TAR = (archive.name for archive in voc.VOC2007.archives)


@pytest.fixture
def archives() -> dict[str, bytes]:
    """VOC 2007 as it is shipped: training and test images in archives of their own."""
    is_test = {name: "three" in name or name.endswith("test.txt") for name in TREE}
    return {
        archive: tar_of({f"VOCdevkit/VOC2007/{name}": TREE[name] for name in TREE if is_test[name] == test})
        for archive, test in ((TRAIN_TAR, False), (TEST_TAR, True))
    }


def serve(monkeypatch: pytest.MonkeyPatch, server: Any, archives: dict[str, bytes]) -> None:
    """Let VOC 2007 be downloaded from `server`, with the checksums that these archives have."""
    put(server.folder, archives)
    here = tuple(
        voc.Archive(f"{server.url}/{name}", name, Checksum(hashlib.md5(content).hexdigest(), False))
        for name, content in archives.items()
    )
    folder = voc.VOC2007._replace(archives=here)
    parts = {"train": ((folder, "trainval"),), "test": ((folder, "test"),)}
    monkeypatch.setattr(voc.Voc2007, "PARTS", parts)


def test_the_archives_are_downloaded_once_and_unpacked_into_one_folder(
    make: Make, archives: dict[str, bytes], server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, server, archives)
    for _ in range(2):
        assert len(targets(set_up(make), "train")) == 2
    assert sorted(server.requests) == sorted(f"/{name}" for name in archives)
    unpacked = tmp_path / "VOCdevkit" / "VOC2007"
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert found == set(TREE)


def test_archives_that_are_there_are_unpacked_without_network(
    make: Make, archives: dict[str, bytes], server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, server, archives)
    put(tmp_path, archives)
    assert len(targets(set_up(make), "test")) == 1
    assert server.requests == []


def test_an_archive_with_another_checksum_is_refused_unless_it_is_not_verified(
    make: Make, archives: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, archives)
    message = refusal(lambda: set_up(make))
    assert f"{tmp_path}/{TRAIN_TAR} is damaged (md5" in message and "unconfirmed" in message
    assert f"put {TRAIN_TAR} into {tmp_path}" in message and "dataset.verify=false" in message
    assert not (tmp_path / "VOCdevkit" / "VOC2007").exists()
    assert len(targets(set_up(make, verify=False), "train")) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/{TRAIN_TAR}: md5" in told and f"{tmp_path}/{TEST_TAR}: md5" in told


BAD_ARCHIVES = {
    "truncated": (lambda content: content[:1000], "cannot be unpacked"),
    "foreign": (lambda content: b"<html>404</html>", "cannot be unpacked"),
    "escaping": (lambda content: tar_of({"../escaped": b"x"}), "would land outside"),
    "of something else": (lambda content: tar_of({"VOC/x": b"x"}), "no folder VOCdevkit/VOC2007 in it"),
}


@pytest.mark.parametrize("damage", BAD_ARCHIVES)
def test_a_damaged_archive_is_named_and_leaves_nothing_behind(
    make: Make, archives: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    change, words = BAD_ARCHIVES[damage]
    place = tmp_path / "data"
    put(place, archives | {TEST_TAR: change(archives[TEST_TAR])})
    message = refusal(lambda: set_up(make, data_dir=str(place), verify=False))
    assert message.startswith(f"{place}/{TEST_TAR} is damaged (") and words in message
    assert not [path for path in place.rglob("*") if path.is_file() and path.suffix not in (".tar", ".lock")]
    assert not (tmp_path / "escaped").exists()


def test_offline_without_any_file_the_message_says_what_to_put_where(make: Make, tmp_path: Path) -> None:
    message = refusal(lambda: set_up(make))
    assert f"{tmp_path}/{TRAIN_TAR} is missing" in message and f"put {TRAIN_TAR} into {tmp_path}" in message
    message = refusal(lambda: set_up(make, "bccd"))
    assert f"https://github.com/Shenggan/BCCD_Dataset/archive/{voc.BCCD_COMMIT}.zip" in message


def test_bccd_is_unpacked_from_the_archive_of_its_repository(make: Make, tmp_path: Path) -> None:
    cell: Drawn = ("Platelets", 1, 1, 4, 4, 0)
    files = tree({"trainval": ["one"], "test": ["one"]}, {"one": (cell,)})
    inside = {f"BCCD_Dataset-{voc.BCCD_COMMIT}/BCCD/{name}": content for name, content in files.items()}
    put(tmp_path, {voc.BCCD.archives[0].name: zip_of(inside)})
    assert targets(set_up(make, "bccd"), "train") == [[[0, 0, 4, 4, 2, 0]]]


@pytest.mark.parametrize("name", ["voc2007", "voc2012", "voc0712", "bccd"])
def test_synthetic_images_and_boxes_need_no_file(make: Make, name: str) -> None:
    data = set_up(make, name, source="synthetic", size=[20, 30], batch_size=64)
    assert (data.size("train"), data.size("test")) == (min(512, data.TRAIN_SIZE), min(256, data.TEST_SIZE))
    inputs, boxes = data.ready(next(iter(data.loader(0)))[0])
    rows = boxes[is_box(boxes)]
    assert inputs.shape == (64, 3, 20, 30) and boxes.shape[::2] == (64, 6) and boxes.dtype == torch.float32
    assert (rows[:, :2] >= 0).all() and (rows[:, 2:4] <= torch.tensor([30, 20])).all()
    assert (rows[:, 2:4] > rows[:, :2]).all()
    assert set(rows[:, 4].tolist()) <= set(range(data.classes)) and rows[:, 4].max() > 0


@pytest.mark.real_data
def test_real_bccd_is_whole_and_two_of_its_boxes_are_dropped(
    make: Make, need: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    place = need("bccd").parent
    data = set_up(make, "bccd", data_dir=str(place), size=[480, 640])
    assert capsys.readouterr().err == ""
    assert (data.size("train"), data.size("test")) == (292, 72)
    assert data.repairs == {"boxes without area, dropped": 2}
    boxes = [record.annotation.boxes for part in ("train", "test") for record in data.records(part)]
    rows = torch.from_numpy(np.concatenate(boxes))
    # 4,155 RBC less the two without area
    assert rows[:, 4].long().bincount().tolist() == [4153, 372, 361]
    assert rows[:, :4].amin(0).tolist()[:2] == [0, 0] and rows[:, :4].amax(0).tolist()[2:] == [640, 480]
    # white blood cells have purple nuclei: their boxes hold less green than the rest
    less = []
    for image, target in zip(*data.batch("test", slice(0, 8), augment=False), strict=True):
        for x0, y0, x1, y1 in target[target[:, 4] == 1][:, :4].int().tolist():
            less.append(image[1, y0:y1, x0:x1].mean() - image[1].mean())
    assert len(less) >= 8 and torch.stack(less).max() < 0
