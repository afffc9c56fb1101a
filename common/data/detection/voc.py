"""Photographs with boxes in the layout of Pascal VOC (Everingham et al. 2010), and BCCD, which shares it.

A folder `Annotations/NAME.xml`, `JPEGImages/NAME.jpg`, `ImageSets/Main/PART.txt` with the names of a part.

Coordinates in the files are of pixels, counted from 1, both ends included: xmin = 1, xmax = W is the whole
width. So a box here, half-open and from 0, is (xmin - 1, ymin - 1, xmax, ymax). A box whose ends are drawn
at the same place (xmin = xmax) counts as one without area.
"""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.detection.detection_data import (
    Archive,
    DetectionData,
    Listing,
    listed_images,
    listing_of,
    unpack_from,
)
from common.data.shared.decode import image_size
from common.data.shared.download import DamagedError, describe
from common.data.shared.prepare import Checksum, bar, prepare
from common.data.shared.streamed import naming

VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
URL = "http://host.robots.ox.ac.uk/pascal/VOC"
BCCD_URL = "https://github.com/Shenggan/BCCD_Dataset/archive"
BCCD_COMMIT = "d272fb14cdff6e473fafeeeba32aba5f560e9e43"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocFolder(NamedTuple):
    """A folder of this layout, its place under `data_dir`, and the archives that make it.

    `inside` is where an archive has the folder's content; its first part may be a pattern.
    """

    place: str
    inside: str
    archives: tuple[Archive, ...]


def voc_folder(year: int, archives: dict[str, str]) -> VocFolder:
    """VOC of a year, from archives {file name: unconfirmed md5}."""
    place = f"VOCdevkit/VOC{year}"
    files = (
        Archive(f"{URL}/voc{year}/{name}", name, Checksum(md5, confirmed=False))
        for name, md5 in archives.items()
    )
    return VocFolder(place, place, tuple(files))


VOC2007 = voc_folder(
    2007,
    {
        "VOCtrainval_06-Nov-2007.tar": "c52e279531787c972589f7e41ab4ae64",
        "VOCtest_06-Nov-2007.tar": "b6e924de25625d8de591ea690078ad9f",
    },
)
VOC2012 = voc_folder(2012, {"VOCtrainval_11-May-2012.tar": "6cd6e144f989b92b3379bac3b3de84fd"})
BCCD = VocFolder(
    "bccd/BCCD",
    "BCCD_Dataset-*/BCCD",
    # GitHub packs archives anew now and then, so that they have no lasting checksum
    (Archive(f"{BCCD_URL}/{BCCD_COMMIT}.zip", f"BCCD_Dataset-{BCCD_COMMIT}.zip", None),),
)


class VocLayout(DetectionData):
    """A set of which each part is one or more lists of names in folders of this layout."""

    CLASS_NAMES: ClassVar[tuple[str, ...]]
    # the folders and name lists that make up each part
    PARTS: ClassVar[dict[SplitName, tuple[tuple[VocFolder, str], ...]]]

    def listing(self, part: SplitName) -> Listing:
        """All images of a part, in the order of its lists."""
        paths: list[str] = []
        sizes: list[tuple[int, int]] = []
        rows: list[list[list[float]]] = []
        for folder, names in self.PARTS[part]:
            for image, size, boxes in self._list(folder, names):
                paths.append(image)
                sizes.append(size)
                rows.append(boxes)
        return listing_of(paths, sizes, rows)

    def _list(self, folder: VocFolder, part: str) -> Iterator[tuple[str, tuple[int, int], list[list[float]]]]:
        """Path, size and boxes of each image of a list."""
        place = prepare(self.data_dir / folder.place, lambda scratch: self._make(folder, scratch))
        archives = " and ".join(archive.name for archive in folder.archives)
        advice = f"unpack {archives} there, or move {place.resolve()} away to have that done"
        source = place / "ImageSets" / "Main" / f"{part}.txt"
        names = read_names(source, advice)
        images = listed_images(place / "JPEGImages", [f"{name}.jpg" for name in names], source, advice)
        labels = {name: label for label, name in enumerate(self.CLASS_NAMES)}
        files = [place / "Annotations" / f"{name}.xml" for name in names]
        for file, image in bar(zip(files, images, strict=True), f"reading {self.NAME}", len(files)):
            drawn = read_annotation(file, advice)
            with naming(file, advice):
                boxes = rows_of(drawn, labels)
            yield image, drawn.size or size_of(image, advice), boxes

    def sources(self) -> dict[str, Path]:
        """The lists, images and annotations of each year."""
        return {
            f"{folder.place}/{name}": self.data_dir / folder.place / name
            for parts in self.PARTS.values()
            for folder, _ in parts
            for name in ("ImageSets/Main", "JPEGImages", "Annotations")
        }

    def _make(self, folder: VocFolder, scratch: Path) -> None:
        for archive in folder.archives:
            unpack_from(archive, self.data_dir, scratch, folder.inside, self.verify)


class Drawn(NamedTuple):
    """An annotation as it is drawn: (height, width), None where it is not said, and objects.

    Of each object the name of its class, and (xmin, ymin, xmax, ymax, difficult).
    """

    size: tuple[int, int] | None
    names: list[str]
    boxes: list[list[float]]


def read_names(source: Path, advice: str) -> list[str]:
    """The names of a part: the first word of each line.

    Raises:
        UserError: the list is missing, empty or not text.
    """
    try:
        names = [line.split()[0] for line in source.read_text().splitlines() if line.strip()]
        if not names:
            raise DamagedError("it names no image")
    except (OSError, DamagedError) as error:
        raise UserError(f"{describe(source, error)}: {advice}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{describe(source, DamagedError('not a text file'))}: {advice}") from error
    return names


def read_annotation(path: Path, advice: str) -> Drawn:
    """An annotation file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return parse_annotation(path.read_bytes())
    except (OSError, DamagedError) as error:
        raise UserError(f"{describe(path, error)}: {advice}") from error


def size_of(image: str, advice: str) -> tuple[int, int]:
    """(height, width) of an image file, from its header.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return image_size(image)
    except (OSError, DamagedError) as error:
        raise UserError(f"{describe(Path(image), error)}: {advice}") from error


def parse_annotation(content: bytes) -> Drawn:
    """What an annotation says.

    Raises:
        DamagedError: not XML of this form, or an object without a class or a box.
    """
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DamagedError("it declares a document type, which annotations do not")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DamagedError(f"not XML: {error}") from error
    if root.tag != "annotation":
        raise DamagedError(f"<{root.tag}> instead of <annotation>")
    names, boxes = [], []
    for number, item in enumerate(root.findall("object"), 1):
        names.append(item.findtext("name", "").strip())
        boxes.append(_parse_object(number, names[-1], item))
    return Drawn(_parse_size(root), names, boxes)


def half_open(box: list[float]) -> list[float]:
    """(xmin, ymin, xmax, ymax, difficult), pixels from 1 with both ends, as (x0, y0, x1, y1, difficult).

    One whose ends are drawn at the same place gets no area.
    """
    x0, y0, x1, y1, difficult = box
    first = float(x1 > x0 and y1 > y0)
    return [x0 - first, y0 - first, x1, y1, difficult]


def rows_of(drawn: Drawn, labels: dict[str, int]) -> list[list[float]]:
    """Its boxes with their labels: rows (x0, y0, x1, y1, label, difficult).

    Raises:
        DamagedError: a class that is not in `labels`.
    """
    rows = []
    for number, (name, box) in enumerate(zip(drawn.names, drawn.boxes, strict=True), 1):
        if name not in labels:
            raise DamagedError(f"object {number} is a {name!r}; the classes are {', '.join(labels)}")
        *corners, difficult = half_open(box)
        rows.append([*corners, float(labels[name]), difficult])
    return rows


def _parse_size(root: ElementTree.Element) -> tuple[int, int] | None:
    found = root.findtext("size/height", ""), root.findtext("size/width", "")
    try:
        height, width = (int(number) for number in found)
    except ValueError:
        return None
    # some tools write 0 for a size that they do not know
    return (height, width) if height > 0 and width > 0 else None


def _parse_object(number: int, name: str, item: ElementTree.Element) -> list[float]:
    if not name:
        raise DamagedError(f"object {number} has no name")
    box = item.find("bndbox")
    if box is None:
        raise DamagedError(f"object {number}, a {name}, has no bndbox")
    row = [_parse_number(box, corner, number) for corner in CORNERS]
    difficult = item.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise DamagedError(f"object {number} has difficult = {difficult!r}; it is 0 or 1")
    return [*row, float(difficult)]


def _parse_number(box: ElementTree.Element, key: str, number: int) -> float:
    text = box.findtext(key, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DamagedError(f"object {number} has {key} = {text!r}; it is a number")
    return value


class Voc2007(VocLayout):
    """Pascal VOC 2007, 20 classes: 5,011 images (trainval) for training, 4,952 (test) for testing."""

    NAME: ClassVar = "voc2007"
    CLASS_NAMES: ClassVar = VOC_NAMES
    CLASSES: ClassVar = 20
    TRAIN_SIZE: ClassVar = 5011
    TEST_SIZE: ClassVar = 4952
    PARTS: ClassVar = {"train": ((VOC2007, "trainval"),), "test": ((VOC2007, "test"),)}


class Voc2012(VocLayout):
    """Pascal VOC 2012, 20 classes: 5,717 images (train) for training, 5,823 (val) for testing.

    The annotations of its own test images are not public.
    """

    NAME: ClassVar = "voc2012"
    CLASS_NAMES: ClassVar = VOC_NAMES
    CLASSES: ClassVar = 20
    TRAIN_SIZE: ClassVar = 5717
    TEST_SIZE: ClassVar = 5823
    PARTS: ClassVar = {"train": ((VOC2012, "train"),), "test": ((VOC2012, "val"),)}


class Voc0712(VocLayout):
    """Both years' trainval, 16,551 images, for training, and the 4,952 of 2007's test for testing."""

    NAME: ClassVar = "voc0712"
    CLASS_NAMES: ClassVar = VOC_NAMES
    CLASSES: ClassVar = 20
    TRAIN_SIZE: ClassVar = 16_551
    TEST_SIZE: ClassVar = 4952
    PARTS: ClassVar = {
        "train": ((VOC2007, "trainval"), (VOC2012, "trainval")),
        "test": ((VOC2007, "test"),),
    }


class Bccd(VocLayout):
    """Blood cells under a microscope, 640x480, 3 classes: 292 images for training, 72 for testing.

    Two of its 4,888 boxes have no area.
    """

    NAME: ClassVar = "bccd"
    CLASS_NAMES: ClassVar = ("RBC", "WBC", "Platelets")
    CLASSES: ClassVar = 3
    TRAIN_SIZE: ClassVar = 292
    TEST_SIZE: ClassVar = 72
    PARTS: ClassVar = {"train": ((BCCD, "trainval"),), "test": ((BCCD, "test"),)}
