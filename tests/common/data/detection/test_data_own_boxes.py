"""A folder of one's own images with boxes: the usual layouts are read alike, and faults get one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.base.dataset import Origin
from common.base.errors import UserError
from common.data.detection.boxes import is_box
from common.data.detection.own_boxes import OwnBoxes
from common.data.shared.fingerprint import fingerprint_of

WIDTH, HEIGHT = 40, 30
# (x0, y0, x1, y1) of each object by its class
Objects = dict[str, tuple[float, float, float, float]]
CAT, DOG = {"cat": (10.0, 5.0, 20.0, 15.0)}, {"dog": (0.0, 0.0, 40.0, 30.0)}
SCENES: dict[str, Objects] = {"a": CAT, "b": CAT | DOG, "c": {}}
NUMBERS = {"dog": 3, "cat": 7, "never": 1}


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), turn: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path, exif=exif)


def pictures(folder: Path, scenes: dict[str, Objects], suffix: str = ".jpg") -> None:
    for name in scenes:
        picture(folder / f"{name}{suffix}")


def instances(scenes: dict[str, Objects], prefix: str = "") -> dict[str, Any]:
    """A COCO file of scenes, whose categories have the numbers of `NUMBERS`."""
    images = [
        {"id": 10 + i, "file_name": f"{prefix}{name}.jpg", "width": WIDTH, "height": HEIGHT}
        for i, name in enumerate(scenes)
    ]
    annotations = [
        {"image_id": 10 + i, "category_id": NUMBERS[label], "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for i, objects in enumerate(scenes.values())
        for label, (x0, y0, x1, y1) in objects.items()
    ]
    categories = [{"id": number, "name": name} for name, number in NUMBERS.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco(path: Path, scenes: dict[str, Objects] = SCENES, prefix: str = "", **changes: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(instances(scenes, prefix) | changes))


def voc(folder: Path, scenes: dict[str, Objects] = SCENES, size: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, objects in scenes.items():
        boxes = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox></object>"
            for label, (x0, y0, x1, y1) in objects.items()
        )
        said = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>" if size else ""
        (folder / f"{name}.xml").write_text(f"<annotation>{said}{boxes}</annotation>")


def own(path: Path | str, **changes: Any) -> OwnBoxes:
    options: dict[str, Any] = {
        "kind": "detection",
        "data_dir": "data",
        "seed": 0,
        "source": "real",
        "limit": None,
        "validation": None,
        "normalise": "none",
        "verify": True,
        "batch_size": 4,
        "workers": 0,
        "path": str(path),
        "size": [HEIGHT, WIDTH],
        "test": 0.34,
        "augment": "none",
    }
    data = OwnBoxes(**options | changes)
    data.setup()
    return data


def found(data: OwnBoxes, split: Any) -> dict[str, Objects]:
    """The scenes of a split by the names of their images."""
    names = data.class_names()
    assert names is not None
    rows = data._rows(split)
    _, boxes = data.batch(split, slice(None), augment=False)
    assert boxes is not None
    return {
        Path(rows.records[int(number)].path).stem: {
            names[int(row[4])]: tuple(row[:4].tolist()) for row in target[is_box(target)]
        }
        for number, target in zip(rows.numbers, boxes, strict=True)
    }


def roboflow(folder: Path) -> None:
    for part in ("train", "valid", "test"):
        pictures(folder / part, SCENES)
        coco(folder / part / "_annotations.coco.json")


def cvat(folder: Path) -> None:
    for part in ("train", "val", "test"):
        pictures(folder / "images" / part, {f"{part}_{name}": {} for name in SCENES})
        scenes = {f"{part}_{name}": objects for name, objects in SCENES.items()}
        coco(folder / "annotations" / f"instances_{part}2017.json", scenes, f"images/{part}/")
    (folder / "annotations" / "captions_train2017.json").write_text('{"images": [], "annotations": []}')


def apart(folder: Path) -> None:
    for part in ("train", "val", "test"):
        pictures(folder / part, SCENES)
        coco(folder / "annotations" / f"{part}.json")


def devkit(folder: Path) -> None:
    names = {
        part: {f"{part}_{name}": boxes for name, boxes in SCENES.items()} for part in ("train", "val", "test")
    }
    for part, scenes in names.items():
        pictures(folder / "JPEGImages", scenes)
        voc(folder / "Annotations", scenes, size=part == "train")
        (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Main/{part}.txt").write_text("\n".join(scenes))


def beside(folder: Path) -> None:
    for part in ("train", "val", "test"):
        pictures(folder / part, SCENES, ".png")
        voc(folder / part)


@pytest.mark.parametrize("lay_out", [roboflow, cvat, apart, devkit, beside])
def test_the_usual_layouts_give_the_same_boxes_in_three_parts(lay_out: Any, tmp_path: Path) -> None:
    lay_out(tmp_path)
    data = own(tmp_path)
    assert sorted(data.class_names() or ()) == ["cat", "dog"] and data.classes == 2
    for split in ("train", "validation", "test"):
        scenes = {name.split("_")[-1]: objects for name, objects in found(data, split).items()}
        assert scenes == SCENES
    assert own(tmp_path, validation=0.34).size("validation") == 1


@pytest.mark.parametrize("lay_out", [roboflow, cvat, apart, devkit, beside])
def test_without_a_part_named_test_the_other_one_is_for_testing(lay_out: Any, tmp_path: Path) -> None:
    lay_out(tmp_path)
    for path in list(tmp_path.rglob("*")):
        if path.name == "test" and path.is_dir():
            shutil.rmtree(path)
        elif path.name in ("test.json", "instances_test2017.json", "test.txt"):
            path.unlink()
    data = own(tmp_path)
    assert not data.has_validation and (data.size("train"), data.size("test")) == (3, 3)
    assert not {Path(record.path).parent.name for record in data._rows("test").records} & {"train"}


def test_a_test_part_without_a_box_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, scenes in (("train", SCENES), ("test", {"d": {}})):
        pictures(tmp_path / part, scenes)
        voc(tmp_path / part, scenes)
    assert own(tmp_path).size("test") == 1
    assert "no box to test on: no average precision" in capsys.readouterr().err


def test_classes_have_the_order_of_cocos_numbers_and_of_vocs_names(tmp_path: Path) -> None:
    roboflow(tmp_path / "coco")
    beside(tmp_path / "voc")
    assert own(tmp_path / "coco").class_names() == ["dog", "cat"]
    assert own(tmp_path / "voc").class_names() == ["cat", "dog"]


def test_one_folder_holds_a_part_out_the_same_for_all_seeds_and_says_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "images", SCENES)
    picture(tmp_path / "images" / "unlabelled.jpg")
    coco(tmp_path / "annotations" / "instances_default.json")
    data = own(tmp_path)
    tested = found(data, "test")
    assert len(tested) == 1 and found(data, "train") | tested == SCENES
    assert found(own(tmp_path, seed=5), "test") == tested
    said = capsys.readouterr().err.splitlines()[0]
    assert "2 classes of 3 boxes (dog 1, cat 2); 2 train, 1 test; tested on 34% of the images, held" in said
    assert "1 image without boxes, for the background" in said
    assert "left out: 1 image of which no file tells" in said


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
@pytest.mark.parametrize("drawn", ["upright", "stored", "without a size"])
def test_an_image_is_turned_upright_where_its_boxes_were_drawn_so(
    turn: int, drawn: str, tmp_path: Path
) -> None:
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[:15, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    picture(tmp_path / "b.png")
    shown = stored if drawn == "stored" and turn > 3 else np.rot90(stored, {1: 0, 3: 2, 6: 3, 8: 1}[turn])
    rows, columns = np.nonzero(shown[..., 0])
    corners = columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, corners, strict=True))
    height, width = shown.shape[:2]
    size = f"<size><width>{width}</width><height>{height}</height></size>" * (drawn != "without a size")
    content = f"<annotation>{size}<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
    (tmp_path / "a.xml").write_text(content)
    (tmp_path / "b.xml").write_text("<annotation></annotation>")
    data = own(tmp_path, size=[24, 24], test=0.5)
    split = "test" if "a" in found(data, "test") else "train"
    images, boxes = data.batch(split, slice(None), augment=False)
    assert boxes is not None
    x0, y0, x1, y1 = (round(float(value)) for value in boxes[0, 0, :4])
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[y0:y1, x0:x1] = True
    assert float(images[0, 0][inside].mean()) > 230 and float(images[0, 0][~inside].mean()) < 25


def without(key: str) -> dict[str, Any]:
    return {
        "annotations": [
            {k: v for k, v in one.items() if k != key} for one in instances(SCENES)["annotations"]
        ]
    }


def each(**changes: Any) -> dict[str, Any]:
    return {"annotations": [one | changes for one in instances(SCENES)["annotations"]]}


BAD_COCO: dict[str, tuple[dict[str, Any], str]] = {
    "labels begin at another number": (
        each(category_id=0),
        r"of category 0, which there is not \(valid: 1, 3, 7\)",
    ),
    "no image": ({"images": []}, "it has no image"),
    "no box": ({"annotations": []}, "its files tell of no box"),
    "two categories of a name": (
        {"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]},
        r"two categories have the name cat",
    ),
    "a category without a name": ({"categories": [{"id": 1}]}, "category number 0 has no name"),
    "no bbox": (without("bbox"), "annotation number 0 has no bbox"),
    "three numbers": (each(bbox=[1, 2, 3]), r"a bbox is \[1, 2, 3\]; it is four numbers"),
    "fractions": (each(bbox=[0.1, 0.1, 0.3, 0.4]), "its boxes are parts of the images"),
    "not a number": (each(bbox=[1, 2, float("nan"), 3]), "it is four numbers"),
}


@pytest.mark.parametrize("fault", BAD_COCO)
def test_faults_of_an_instances_file_get_one_line(fault: str, tmp_path: Path) -> None:
    changes, says = BAD_COCO[fault]
    pictures(tmp_path, SCENES)
    coco(tmp_path / "boxes.json", **changes)
    with pytest.raises(UserError, match=says) as refused:
        own(tmp_path)
    assert "\n" not in str(refused.value)


def test_folders_that_do_not_fit_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the folder of your images and boxes"):
        own("")
    with pytest.raises(UserError, match="no such folder"):
        own(tmp_path / "none")
    pictures(tmp_path / "bare", SCENES)
    with pytest.raises(UserError, match="holds 3 images and no file of their boxes"):
        own(tmp_path / "bare")
    (tmp_path / "bare" / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    with pytest.raises(UserError, match=r"but 1 \.txt, and boxes of YOLO are not read \(valid: a COCO file"):
        own(tmp_path / "bare")
    coco(tmp_path / "bare" / "one.json")
    coco(tmp_path / "bare" / "two.json")
    with pytest.raises(UserError, match=r"which of one\.json, two\.json is for training does not follow"):
        own(tmp_path / "bare")
    (tmp_path / "bare" / "two.json").write_text("{")
    with pytest.raises(UserError, match=r"two\.json is damaged.*not JSON"):
        own(tmp_path / "bare")


def test_images_that_are_missing_doubled_or_of_another_size_are_named(tmp_path: Path) -> None:
    coco(tmp_path / "boxes.json")
    with pytest.raises(UserError, match=r"tells of the image a\.jpg: no such JPEG or PNG file lies"):
        own(tmp_path)
    pictures(tmp_path / "one", SCENES)
    pictures(tmp_path / "two", SCENES)
    with pytest.raises(UserError, match=r"tells of the image a\.jpg: 2 of them lie"):
        own(tmp_path)
    coco(tmp_path / "boxes.json", prefix="one/")
    assert own(tmp_path).size("train") == 2
    picture(tmp_path / "one" / "b.jpg", (20, 20))
    with pytest.raises(UserError, match=r"b\.jpg has 20x20 pixels, and .*boxes\.json tells of 40x30"):
        own(tmp_path)


def test_boxes_without_area_go_and_most_boxes_out_of_their_images_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes: dict[str, Objects] = {
        "a": {"cat": (30, 20, 70, 50)},
        "b": {"cat": (25, 25, 60, 55)},
        "c": {"dog": (5, 5, 5, 9)},
    }
    pictures(tmp_path, scenes)
    coco(tmp_path / "boxes.json", scenes)
    data = own(tmp_path)
    everything = found(data, "train") | found(data, "test")
    assert everything == {"a": {"cat": (30, 20, 40, 30)}, "b": {"cat": (25, 25, 40, 30)}, "c": {}}
    assert data.repairs == {"boxes clipped to their images": 2, "boxes without area, dropped": 1}
    assert (
        "more than half of the boxes reach out of their images: COCO's are (x, y, w"
        in capsys.readouterr().err
    )


def test_one_class_works_and_images_of_a_pixel_do_too(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png", (1, 1))
        (tmp_path / f"{name}.xml").write_text(
            "<annotation><object><name>cat</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>1</xmax><ymax>1</ymax>"
            "</bndbox></object></annotation>"
        )
    data = own(tmp_path, augment="ssd_distort")
    assert data.classes == 1
    images, _ = data.batch("train", slice(None), augment=True)
    assert images.shape == (2, 3, HEIGHT, WIDTH)


def test_another_folder_is_judged_by_the_names_of_its_classes(tmp_path: Path) -> None:
    roboflow(tmp_path / "own")
    pictures(tmp_path / "new", {"a": CAT})
    voc(tmp_path / "new", {"a": CAT})
    trained = own(tmp_path / "own")
    facts = {"class_names": trained.class_names()}
    judged = own(tmp_path / "new", origin=Origin(facts, None))
    # by itself it would be class 0
    assert found(judged, "test") == {"a": CAT} and judged.class_names() == ["dog", "cat"]
    assert judged.notes == ["no box of 1 of the classes: dog"]
    with pytest.raises(UserError, match=r"1 of its classes are no classes of training: dog \(valid: cat\)"):
        own(tmp_path / "own", origin=Origin({"class_names": ["cat"]}, None))


def test_of_the_very_files_of_a_run_those_that_it_held_out_are_judged(tmp_path: Path) -> None:
    pictures(tmp_path, SCENES)
    voc(tmp_path)
    trained = own(tmp_path)
    origin = Origin({"class_names": trained.class_names()}, fingerprint_of(trained))
    assert found(own(tmp_path, origin=origin), "test") == found(trained, "test")
    assert own(tmp_path, origin=Origin(origin.facts, None)).size("test") == 3


def test_crowds_of_coco_are_not_trained_on_and_difficult_objects_of_voc_are(tmp_path: Path) -> None:
    roboflow(tmp_path / "coco")
    beside(tmp_path / "voc")
    assert not own(tmp_path / "coco").LEARNS_DIFFICULT
    assert own(tmp_path / "voc").LEARNS_DIFFICULT
