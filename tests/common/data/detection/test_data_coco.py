"""COCO 2017: boxes as its instances files have them, repaired with a count; damages in one line."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.base.errors import UserError
from common.data.detection.boxes import is_box
from common.data.detection.coco import CATEGORY_IDS

Make = Callable[..., Any]
WIDTH, HEIGHT = 40, 30


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def instances(part: str, boxes: list[dict[str, Any]]) -> dict[str, Any]:
    """An instances file of images 7, 3 and 5, of which 5 has no box; not in the order of their numbers."""
    names = {7: "000007.jpg", 3: "000003.jpg", 5: "000005.jpg"}
    return {
        "info": {"description": part},
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in names.items()
        ],
        "annotations": [{"id": n, "iscrowd": 0, "segmentation": []} | box for n, box in enumerate(boxes)],
        "categories": [{"id": number, "name": f"class {number}"} for number in CATEGORY_IDS],
    }  # fmt: skip


BOXES = [
    {"image_id": 3, "category_id": 90, "bbox": [1.5, 2, 10, 20]},
    {"image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
    {"image_id": 3, "category_id": 13, "bbox": [30, 20, 10, 10]},
]
# in the order of the file's images: 7, 3, 5
EXPECTED = [[[0, 0, 40, 30, 0, 1]], [[1.5, 2, 11.5, 22, 79, 0], [30, 20, 40, 30, 11, 0]], []]


def files(content: dict[str, Any]) -> dict[str, bytes]:
    """A whole COCO, by path, both of its parts of the same content."""
    made = {
        f"annotations/instances_{part}.json": json.dumps(content).encode()
        for part in ("train2017", "val2017")
    }
    images = {image["file_name"] for image in content["images"]}
    return made | {f"{part}/{name}": picture() for part in ("train2017", "val2017") for name in images}


def put(folder: Path, made: dict[str, bytes]) -> None:
    for name, content in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """COCO of three images."""
    put(tmp_path / "coco", files(instances("train2017", BOXES)))
    return tmp_path / "coco"


def set_up(make: Make, **overrides: Any) -> Any:
    options = {"size": [HEIGHT, WIDTH], "workers": 0, "augment": "none", "normalise": "none"} | overrides
    data = make("coco2017", **options)
    data.setup()
    return data


def targets(data: Any, split: str) -> list[list[list[float]]]:
    _, boxes = data.batch(split, slice(None), augment=False)
    return [rows[is_box(rows)].tolist() for rows in boxes]


def refusal(make: Make, **overrides: Any) -> str:
    with pytest.raises(UserError) as error:
        set_up(make, **overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_80_classes_are_numbered_without_gaps() -> None:
    assert len(CATEGORY_IDS) == 80 and CATEGORY_IDS[0] == 1 and CATEGORY_IDS[79] == 90
    # person, bicycle; stop sign comes after the unused 12
    assert CATEGORY_IDS[:2] == (1, 2) and CATEGORY_IDS[11] == 13


def test_boxes_become_corners_and_crowds_difficult_in_the_order_of_the_images(
    make: Make, folder: Path
) -> None:
    data = set_up(make, drop_empty=False)
    assert targets(data, "train") == EXPECTED == targets(data, "test")
    assert data.repairs == {}


def renamed(folder: Path, part: str, names: dict[int, str]) -> None:
    """Give the categories of a part's file other names, by their numbers; "" takes one away."""
    path = folder / "annotations" / f"instances_{part}.json"
    content = json.loads(path.read_text())
    for entry in content["categories"]:
        entry["name"] = names.get(entry["id"], entry["name"])
    content["categories"] = [entry for entry in content["categories"] if entry["name"]]
    path.write_text(json.dumps(content))


def test_categories_of_another_number_are_found_by_their_names(make: Make, folder: Path) -> None:
    renamed(folder, "val2017", {1: "class 90", 90: "class 1"})
    data = set_up(make, drop_empty=False)
    assert targets(data, "train") == EXPECTED
    assert [[row[4] for row in rows] for rows in targets(data, "test")] == [[79], [0, 11], []]


def test_a_category_of_val_alone_is_named(make: Make, folder: Path) -> None:
    renamed(folder, "val2017", {13: "unicorn"})
    message = refusal(make, drop_empty=False)
    assert (
        "instances_val2017.json is damaged (its categories unicorn are none of train2017's (class 1,"
        in message
    )


def test_two_categories_of_one_name_are_named(make: Make, folder: Path) -> None:
    renamed(folder, "train2017", {13: "class 1"})
    assert "two categories have the name class 1" in refusal(make, drop_empty=False)


def test_a_file_that_names_no_categories_goes_by_their_numbers(make: Make, folder: Path) -> None:
    renamed(folder, "val2017", dict.fromkeys(CATEGORY_IDS, ""))
    assert targets(set_up(make, drop_empty=False), "test") == EXPECTED


def test_where_no_image_has_a_box_dropping_them_is_refused_before_training(
    make: Make, tmp_path: Path
) -> None:
    put(tmp_path / "coco", files(instances("train2017", [])))
    message = refusal(make, drop_empty=True)
    assert "drop_empty=true leaves nothing: none of the 3 images of train2017 has a box" in message


def test_images_without_boxes_are_left_out_of_training_alone_if_asked(make: Make, folder: Path) -> None:
    data = set_up(make, drop_empty=True)
    assert targets(data, "train") == EXPECTED[:2]
    assert targets(data, "test") == EXPECTED


BAD_BOXES = {
    "no width": ([5, 5, 0, 10], "boxes without area, dropped", None),
    "negative": ([5, 5, -3, 10], "boxes without area, dropped", None),
    "outside": ([50, 5, 10, 10], "boxes without area, dropped", None),
    "reaching out": ([35, -5, 10, 10], "boxes clipped to their images", [35, 0, 40, 5, 0, 0]),
}


@pytest.mark.parametrize("fault", BAD_BOXES)
def test_a_box_outside_or_without_area_is_repaired_and_counted(make: Make, folder: Path, fault: str) -> None:
    box, what, expected = BAD_BOXES[fault]
    put(folder, files(instances("", [*BOXES, {"image_id": 5, "category_id": 1, "bbox": box}])))
    data = set_up(make, drop_empty=False)
    assert targets(data, "train") == [*EXPECTED[:2], [] if expected is None else [expected]]
    # once in each part, as both are the same here
    assert data.repairs == {what: 2}


def test_a_file_without_any_box_is_taken(make: Make, folder: Path) -> None:
    put(folder, files(instances("", [])))
    data = set_up(make, drop_empty=False)
    assert targets(data, "train") == [[], [], []]
    _, boxes = data.batch("train", slice(None), augment=False)
    assert boxes.shape == (3, 0, 6)


def changed(key: str, value: Any) -> dict[str, Any]:
    """One annotation more, of which an entry is another."""
    return instances("", [*BOXES, {"image_id": 5, "category_id": 1, "bbox": [1, 1, 5, 5]} | {key: value}])


WHOLE = instances("", BOXES)
FAULTS: dict[str, tuple[Any, str]] = {
    "list": ([], "it has no list of images"),
    "captions": ({"images": [], "annotations": "none"}, "it has no list of annotations"),
    "no image": (WHOLE | {"images": [], "annotations": []}, "it has no image"),
    "same id": (WHOLE | {"images": WHOLE["images"][:1] * 2}, "two images have the same id"),
    "no height": (WHOLE | {"images": [{"id": 3, "file_name": "x", "width": 4}]}, "number 0 has no height"),
    "height 0": (WHOLE | {"images": [WHOLE["images"][0] | {"height": 0}]}, "a height or width below 1"),
    "unknown image": (changed("image_id", 99), "of image 99, which there is not"),
    "unknown category": (changed("category_id", 12), "of category 12, which there is not"),
    "short box": (changed("bbox", [1, 2, 3]), "a bbox is [1, 2, 3]; it is four numbers"),
    "word in box": (changed("bbox", [1, 2, 3, "wide"]), "a bbox is [1, 2, 3, 'wide']"),
    "nan in box": (changed("bbox", [1, 2, 3, float("nan")]), "a bbox is [1, 2, 3, nan]"),
    "no box": (WHOLE | {"annotations": [{"image_id": 3, "category_id": 1}]}, "number 0 has no bbox"),
    "crowd": (changed("iscrowd", "yes"), "iscrowd is not always a number"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_instances_file_is_named_with_what_is_wrong(make: Make, folder: Path, fault: str) -> None:
    content, words = FAULTS[fault]
    path = folder / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps(content))
    message = refusal(make)
    assert message.startswith(f"{path} is damaged (") and words in message
    assert "annotations_trainval2017.zip" in message


@pytest.mark.parametrize("content", [b'{"images": [', b"", b"\xff\xfe", b"[" * 200_000])
def test_what_is_not_json_is_refused(make: Make, folder: Path, content: bytes) -> None:
    put(folder, {"annotations/instances_val2017.json": content})
    assert "instances_val2017.json is damaged (not JSON" in refusal(make)


@pytest.mark.parametrize("name", ["train2017/000003.jpg", "annotations/instances_train2017.json"])
def test_a_missing_file_is_named(make: Make, folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(make).startswith(f"{folder / name} is missing")


def test_a_truncated_image_is_named_when_its_batch_is_asked_for(make: Make, folder: Path) -> None:
    put(folder, {"train2017/000003.jpg": picture()[:-60]})
    data = set_up(make)
    with pytest.raises(UserError, match=r"(?i)000003\.jpg is damaged \([^\n]*truncated[^\n]*$"):
        data.batch("train", slice(None), augment=False)


def zip_of(made: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in made.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def test_archives_that_are_there_are_unpacked_and_an_unverified_one_is_said(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = files(WHOLE)
    archives = {"train2017": "train2017", "val2017": "val2017", "annotations": "annotations_trainval2017"}
    for folder, name in archives.items():
        inside = {path: content for path, content in made.items() if path.startswith(f"{folder}/")}
        put(tmp_path / "coco", {f"{name}.zip": zip_of(inside)})
    assert "(that checksum is unconfirmed" in refusal(make)
    assert targets(set_up(make, verify=False, drop_empty=False), "train") == EXPECTED
    assert f"{tmp_path}/coco/train2017.zip: md5" in capsys.readouterr().err


def test_offline_without_any_file_the_message_says_what_to_put_where(make: Make, tmp_path: Path) -> None:
    assert f"put annotations_trainval2017.zip into {tmp_path}/coco" in refusal(make)


@pytest.mark.parametrize("workers", [0, 2])
def test_synthetic_images_and_boxes_need_no_file(make: Make, workers: int) -> None:
    data = set_up(make, source="synthetic", size=[20, 30], workers=workers, batch_size=8)
    inputs, boxes = data.ready(next(iter(data.loader(0)))[0])
    assert inputs.shape == (8, 3, 20, 30) and is_box(boxes).any(1).all() and boxes[..., 4].max() < 80
    assert torch.equal(boxes[is_box(boxes)][:, 5], torch.zeros(int(is_box(boxes).sum())))
