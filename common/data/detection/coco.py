"""COCO 2017 (Lin et al. 2014) in `data_dir/coco`: train2017, val2017 and annotations/instances_*.json."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.detection.detection_data import (
    Annotation,
    Archive,
    Augment,
    DetectionData,
    Listing,
    listed_images,
    unpack_from,
)
from common.data.shared.download import DamagedError, describe
from common.data.shared.prepare import Checksum, prepare
from common.data.shared.streamed import Record, StreamedOptions
from common.data.shared.text_file import shown

URL = "http://images.cocodataset.org"
PARTS: dict[SplitName, str] = {"train": "train2017", "test": "val2017"}
# the file names' addresses below URL, and their md5
ARCHIVES = {
    "train2017": ("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val2017": ("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
    "annotations": ("annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
}
# ten numbers of 1 to 90 were never given to a class of objects
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in UNUSED_IDS)
# of each category's number, as text
LABELS = {str(category): label for label, category in enumerate(CATEGORY_IDS)}
COCO_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


class Coco2017(DetectionData):
    """Photographs of everyday scenes, 80 classes: 118,287 for training, 5,000 (val2017) for testing.

    Labels 0..79 follow the order of the files' category numbers 1..90. Where both files name categories,
    those of val2017 are found by name: one of another number is taken for that of train2017. Boxes around
    crowds are marked as difficult; nobody learns from them.

    Args:
        drop_empty: leave images without any box out of training; they always stay for testing.
        The others as in `DetectionData`.
    """

    NAME: ClassVar = "coco2017"
    CLASSES: ClassVar = 80
    CLASS_NAMES: ClassVar = COCO_NAMES
    TRAIN_SIZE: ClassVar = 118_287
    TEST_SIZE: ClassVar = 5000
    LEARNS_DIFFICULT = False

    def __init__(
        self,
        *,
        drop_empty: bool,
        size: list[int],
        augment: Augment,
        **options: Unpack[StreamedOptions],
    ) -> None:
        super().__init__(size=size, augment=augment, **options)
        self.drop_empty = drop_empty
        # of train2017, once that has been read: the label of each name
        self._label_of: dict[str, int] = {}

    def records(self, part: SplitName) -> Sequence[Record]:
        """The images of a part with their repaired boxes, in the order of its file."""
        records = super().records(part)
        if part != "train" or not self.drop_empty:
            return records
        kept = [record for record in records if len(_annotation(record).boxes)]
        if not kept:
            raise UserError(
                f"dataset.drop_empty=true leaves nothing: none of the {len(records)} images of {PARTS[part]} "
                "has a box (valid: annotations of these images, or dataset.drop_empty=false)"
            )
        return kept

    def listing(self, part: SplitName) -> Listing:
        """All images of a part and their boxes."""
        name = PARTS[part]
        source = self._folder("annotations") / f"instances_{name}.json"
        advice = (
            f"unpack {_file_name('annotations')} and {_file_name(name)} in {self.data_dir.resolve()}/coco"
        )
        try:
            instances = read_json(source.read_bytes())
            categories = parse_categories(instances) if "categories" in instances else {}
            found = parse_instances(instances, self._labels(part, categories))
        except (OSError, DamagedError) as error:
            raise UserError(f"{describe(source, error)}: {advice}") from error
        paths = listed_images(self._folder(name), found.names, source, advice)
        return Listing(paths, found.sizes, found.boxes, found.owner)

    def _labels(self, part: SplitName, categories: dict[str, str]) -> dict[str, int]:
        """The label of each category's number in a part's file; by name for val2017.

        Raises:
            DamagedError: a category of val2017 that train2017 does not name.
        """
        if part == "train":
            self._label_of = {name: LABELS[number] for number, name in categories.items() if number in LABELS}
            return LABELS
        if not categories or not self._label_of:
            return LABELS
        unknown = [name for name in categories.values() if name not in self._label_of]
        if unknown:
            raise DamagedError(
                f"its categories {shown(unknown)} are none of {PARTS['train']}'s ({shown([*self._label_of])})"
            )
        return {number: self._label_of[name] for number, name in categories.items()}

    def sources(self) -> dict[str, Path]:
        """The folders of both parts, and of the annotations."""
        return {name: self.data_dir / "coco" / name for name in ARCHIVES}

    def _folder(self, name: str) -> Path:
        return prepare(self.data_dir / "coco" / name, lambda scratch: self._make(name, scratch))

    def _make(self, name: str, scratch: Path) -> None:
        address, md5 = ARCHIVES[name]
        archive = Archive(f"{URL}/{address}", _file_name(name), Checksum(md5, confirmed=False))
        unpack_from(archive, self.data_dir / "coco", scratch, name, self.verify)


def _annotation(record: Record) -> Annotation:
    annotation: Annotation = record.annotation
    return annotation


def _file_name(name: str) -> str:
    return ARCHIVES[name][0].rpartition("/")[2]


class Instances(NamedTuple):
    """The images and boxes of an instances file, in the order of its images.

    Shapes: sizes int64 [n, 2] (height, width); boxes float64 [N, 6] (x, y, x + w, y + h, label, crowd); owner
    int64 [N], ascending, the number of each box's image.
    """

    names: list[str]
    sizes: Tensor
    boxes: Tensor
    owner: Tensor


def read_json(content: bytes) -> Any:
    """What a JSON file holds.

    Raises:
        DamagedError: not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"not JSON: {error}") from error


def parse_categories(instances: Any) -> dict[str, str]:
    """The names of an instances file's categories by their numbers, in the order of these.

    Raises:
        DamagedError: not of this form, or two categories of one number or name.
    """
    entries = _entries(instances, "categories")
    numbers = _column(entries, "id", "category")
    names = [str(name).strip() for name in _column(entries, "name", "category")]
    for what, values in (("id", list(map(str, numbers))), ("name", names)):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise DamagedError(f"two categories have the {what} {twice[0]}")
    order = np.argsort(_numbers(numbers, "id"), kind="stable")
    return {str(numbers[i]): names[i] for i in order}


def parse_instances(instances: Any, label_of: Mapping[str, int]) -> Instances:
    """The images and boxes of an instances file.

    Args:
        instances: as JSON gives it.
        label_of: the labels of the categories, by their numbers.

    Raises:
        DamagedError: not of this form, or a box of an image or a category that is not there.
    """
    images, annotations = _entries(instances, "images"), _entries(instances, "annotations")
    names = [str(name) for name in _column(images, "file_name", "image")]
    sizes = np.array([_numbers(_column(images, key, "image"), key) for key in ("height", "width")]).T
    if not names or sizes.min() < 1:
        raise DamagedError("it has no image" if not names else "an image has a height or width below 1")
    number_of = {str(identity): number for number, identity in enumerate(_column(images, "id", "image"))}
    if len(number_of) < len(images):
        raise DamagedError("two images have the same id")
    owner = _looked_up(_column(annotations, "image_id", "annotation"), number_of, "image")
    label = _looked_up(_column(annotations, "category_id", "annotation"), label_of, "category")
    crowd = _numbers([entry.get("iscrowd", 0) for entry in annotations], "iscrowd")
    corner_and_size = _boxes(annotations)
    corners = np.hstack([corner_and_size[:, :2], corner_and_size[:, :2] + corner_and_size[:, 2:]])
    order = np.argsort(owner, kind="stable")
    boxes = np.column_stack([corners, label, crowd > 0])[order].astype(np.float64)
    of_images = torch.from_numpy(sizes.astype(np.int64))
    return Instances(names, of_images, torch.from_numpy(boxes), torch.from_numpy(owner[order]))


def _entries(instances: Any, key: str) -> list[dict[str, Any]]:
    entries = instances.get(key) if isinstance(instances, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DamagedError(f"it has no list of {key}")
    return entries


def _column(entries: list[dict[str, Any]], key: str, what: str) -> list[Any]:
    try:
        return [entry[key] for entry in entries]
    except KeyError as error:
        lacking = next(number for number, entry in enumerate(entries) if key not in entry)
        raise DamagedError(f"{what} number {lacking} has no {key}") from error


def _numbers(values: list[Any], key: str) -> np.ndarray:
    try:
        numbers = np.array(values, dtype=np.float64).reshape(len(values))
    except (TypeError, ValueError) as error:
        raise DamagedError(f"{key} is not always a number") from error
    if not np.isfinite(numbers).all():
        raise DamagedError(f"{key} is not always a number")
    return numbers


def _looked_up(values: list[Any], known: Mapping[str, int], what: str) -> np.ndarray:
    try:
        return np.array([known[str(value)] for value in values], dtype=np.int64)
    except KeyError as error:
        valid = f" (valid: {shown(list(known))})" if what == "category" else ""
        raise DamagedError(
            f"an annotation is of {what} {error.args[0]}, which there is not{valid}"
        ) from error


def _boxes(annotations: list[dict[str, Any]]) -> np.ndarray:
    """float64 [N, 4], rows (x, y, w, h)."""
    boxes = _column(annotations, "bbox", "annotation")
    try:
        rows = np.array(boxes, dtype=np.float64).reshape(len(boxes), 4)
    except (TypeError, ValueError):
        rows = np.full((len(boxes), 4), math.nan)
    if not np.isfinite(rows).all():
        bad = next(box for box in boxes if not _is_box(box))
        raise DamagedError(f"a bbox is {bad!r}; it is four numbers")
    return rows


def _is_box(box: Any) -> bool:
    try:
        row = np.array(box, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return row.shape == (4,) and bool(np.isfinite(row).all())
