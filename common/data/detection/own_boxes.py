"""A folder of the user's own images with boxes, in COCO's or VOC's files: all else is found from these.

A part's boxes are those of its instances file (COCO, `*.json` in its folder or in `annotations`), else those
of its annotations (VOC, `*.xml` at any depth). An image of which none tells is left out; one that they name
and have no box for teaches what is background.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Unpack

from common.base.dataset import Origin, SplitName, check
from common.base.errors import UserError
from common.data.detection.coco import parse_categories, parse_instances, read_json
from common.data.detection.detection_data import Augment, DetectionData, Listing, listing_of
from common.data.detection.voc import half_open, read_annotation, read_names
from common.data.shared.decode import EXTENSIONS, sizes_of
from common.data.shared.download import DamagedError, describe
from common.data.shared.own_parts import (
    TEST,
    TRAIN,
    VALIDATION,
    FolderOfImages,
    as_trained,
    folders_of_parts,
    held_out,
    trained_on,
    usual_validation,
)
from common.data.shared.prepare import bar
from common.data.shared.streamed import Record, StreamedOptions, naming
from common.data.shared.subsets import complement
from common.data.shared.text_file import shown

LAYOUT = (
    "a COCO file, PATH/annotations/*.json or PATH/train/*.json and so on, or VOC files, "
    "PATH/Annotations/*.xml or PATH/train/*.xml, with their JPEG or PNG images"
)
# where an instances file may lie in its folder, and the lists of names of VOC's parts
PLACES, LISTS = (".", "annotations"), "ImageSets/Main"
NAMES: dict[SplitName, tuple[str, ...]] = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
# the share of boxes that reach out of their images from which on they are told as an oddity
OUTSIDE = 0.5


class Source(NamedTuple):
    """What tells of a part's boxes: an instances file with what it holds, or annotations.

    Images lie in `folder`, at any depth.
    """

    folder: Path
    instances: tuple[Path, Any] | None
    annotations: tuple[Path, ...] = ()


class Told(NamedTuple):
    """An image as its files tell of it.

    Attributes:
        path: of the image.
        size: (height, width), None where they do not say it.
        names: of each box, its class.
        boxes: (x0, y0, x1, y1, difficult), half-open and from 0, as drawn.
        file: which tells of it.
    """

    path: str
    size: tuple[int, int] | None
    names: list[str]
    boxes: list[list[float]]
    file: Path


class OwnBoxes(FolderOfImages, DetectionData):
    """Images with boxes in `PATH/train`, `PATH/val` and `PATH/test`, or all in `PATH`.

    Instances files and lists of names (`ImageSets/Main`) may also lie in `PATH` together and be named for
    their parts. The test part is `test`; without one it is `val`; without both, a part of the training
    images, the same for every run. With both, `val` is the validation part. Classes are those that some box
    has, in the order of their numbers (COCO) or names (VOC). One line on stderr says what was found.

    An image is turned upright by its orientation mark where its boxes were drawn so: where its files have
    the size of the upright one, or none.

    Args:
        path: the folder.
        size, augment: as in `DetectionData`.
        validation: "official" for `val` where there is a `test` beside it, or the fraction of the training
            images that is split off; null for the former where it can be had, else none.
        test: the fraction of the images that is held out for testing where no part is there for it.
        origin: of a network that is to be judged: classes are then those that it was trained with, by their
            names; some may be absent. All images are for testing where no part is there for it, but those
            that it was trained on.
        The others as in `StreamedData`. "standard" normalises as ImageNet's networks are, as those start
            from.

    Raises:
        UserError: no such folder, files that cannot be read or do not agree with the images, no box at all;
            with `origin`, a class that it has not.
    """

    NAME: ClassVar = "folder_boxes"
    CLASSES: ClassVar = 0
    TRAIN_SIZE: ClassVar = 512
    TEST_SIZE: ClassVar = 256
    SUFFIXES: ClassVar = (*EXTENSIONS, ".json", ".xml", ".txt")
    # of all three parts, where the folder has them
    OFFICIAL_VALIDATION: ClassVar = True

    def __init__(
        self,
        *,
        path: str,
        size: list[int],
        test: float,
        augment: Augment,
        origin: Origin | None = None,
        **options: Unpack[StreamedOptions],
    ) -> None:
        check("path", path, bool(path), f"give the folder of your images and boxes (valid: {LAYOUT})")
        check("test", test, 0 < test < 1, "give a fraction above 0 and below 1")
        self.root, self.holdout, self.origin = Path(path).expanduser(), test, origin
        found = sources_of(self.root, origin is not None)
        self.folders = {part: source.folder for part, source in found.items()}
        self.told = {part: list(told(source)) for part, source in found.items()}
        self._called = {part: classes_of(source, self.told[part]) for part, source in found.items()}
        self.class_list = self._class_list()
        options["validation"] = usual_validation(
            options["validation"], self.root, "validation" in found, origin is not None
        )
        super().__init__(size=size, augment=augment, **options)
        self.classes = len(self.class_list)
        # crowds, of which COCO's files tell, are not trained on; VOC's difficult objects are
        self.LEARNS_DIFFICULT = all(source.instances is None for source in found.values())
        self.held_out = "test" not in found and (
            origin is None or trained_on(origin, self.sources(), self.SUFFIXES)
        )
        absent = [] if origin is None else [name for name in self.class_list if name not in self._names()]
        if absent:
            self.notes.append(f"no box of {len(absent)} of the classes: {shown(absent)}")

    def judged_folder(self) -> Path:
        return self.folders[self._judged()]

    def _judged(self) -> SplitName:
        """The part that a network is judged on."""
        return "test" if "test" in self.told else "train"

    def _names(self) -> list[str]:
        """The classes that some box has: of all parts, or of the one that is judged."""
        parts = list(self.told) if self.origin is None else [self._judged()]
        return list(dict.fromkeys(name for part in parts for name in self._called[part]))

    def _class_list(self) -> list[str]:
        """The classes, in the order of their labels: those of the files, or of the network's training.

        Raises:
            UserError: no box at all, or one of a class that the network has not.
        """
        found = self._names()
        if not found:
            raise UserError(f"dataset.path={self.root}: its files tell of no box (valid: {LAYOUT})")
        theirs = None if self.origin is None else self.origin.facts["class_names"]
        if theirs is None:
            return found
        return as_trained(found, theirs, self.root, "classes are no classes of training")

    def _images(self, part: SplitName) -> list[Told]:
        """The images of a part; where the test part is drawn, those of the training part that are its."""
        if not self.held_out:
            return self.told[part if part in self.told else "train"]
        everything = self.told["train"]
        drawn = held_out(self.holdout, None, len(everything))
        rows = drawn if part == "test" else complement(drawn, len(everything))
        return [everything[row] for row in rows.tolist()]

    def listing(self, part: SplitName) -> Listing:
        """The images of a part with their boxes, as their files have them."""
        images = self._images(part)
        labels = {name: float(label) for label, name in enumerate(self.class_list)}
        self._turned = [size_and_turn(one) for one in bar(images, f"reading {self.NAME}", len(images))]
        rows = [
            [[*box[:4], labels[name], box[4]] for name, box in zip(one.names, one.boxes, strict=True)]
            for one in images
        ]
        return listing_of([one.path for one in images], [size for size, _ in self._turned], rows)

    def records(self, part: SplitName) -> Sequence[Record]:
        """The images of a part with their repaired boxes, turned upright where boxes were drawn so."""
        return [
            record._replace(annotation=record.annotation._replace(upright=upright))
            for record, (_, upright) in zip(super().records(part), self._turned, strict=True)
        ]

    def _tell_size(self, part: SplitName, found: int) -> None:
        """Say nothing: no size is official."""

    def setup(self, stage: str | None = None) -> None:
        """List the images (once), take the splits, and say what was found."""
        if self._splits:
            return
        if self.origin is not None:
            self._splits = {"test": self._whole("test")}
            return
        super().setup(stage)
        if self.source == "real":
            print(self._found(), file=sys.stderr)

    def _found(self) -> str:
        """What was found in the folder, in one line."""
        sizes = ", ".join(f"{len(rows.numbers)} {split}" for split, rows in self._splits.items())
        images = [one for part in self.told.values() for one in part]
        counts = Counter(name for one in images for name in one.names)
        tested = (
            f"the part {self.folders['test'].name}"
            if "test" in self.told
            else f"{self.holdout:.0%} of the images, held out, as there is no part test or val"
        )
        empty = sum(not one.names for one in images)
        there = {str(path) for folder in set(self.folders.values()) for path in files_in(folder, EXTENSIONS)}
        left = len(there - {one.path for one in images})
        clipped = self.repairs.get("boxes clipped to their images", 0)
        notes = [
            f"{_counted(empty, 'image')} without boxes, for the background" if empty else "",
            ""
            if any(one.names for one in self._images("test"))
            else "no box to test on: no average precision",
            f"left out: {_counted(left, 'image')} of which no file tells" if left else "",
            "more than half of the boxes reach out of their images: COCO's are (x, y, width, height), VOC's "
            "(xmin, ymin, xmax, ymax), both in pixels"
            if clipped > OUTSIDE * counts.total()
            else "",
        ]
        by_class = shown([f"{name} {counts[name]:,}" for name in self.class_list])
        classes = _counted(len(self.class_list), "class", "es")
        found = f"dataset={self.NAME}: {classes} of {_counted(counts.total(), 'box', 'es')} ({by_class})"
        return "; ".join([found, f"{sizes}; tested on {tested}", *filter(None, notes)])


def _counted(count: int, what: str, more: str = "s") -> str:
    return f"{count:,} {what}{more if count != 1 else ''}"


def sources_of(root: Path, judged: bool) -> dict[SplitName, Source]:
    """What tells of the boxes of each part that is there.

    Args:
        root: `dataset.path`.
        judged: whether a network is to be judged on it, which needs no training part.

    Raises:
        UserError: no such folder, no files of boxes in a part, or several where one is looked for.
    """
    folders = folders_of_parts(root, LAYOUT, judged)
    if judged and "test" in folders:
        folders = {"test": folders["test"]}
    together = instances_in(root)
    if folders == {"train": root}:
        if len(together) > 1:
            return _named(root, together, judged)
        return _of_folder(root, together)
    found = {}
    for part, folder in folders.items():
        # `val` may be the test part
        own = together if folder == root else instances_in(folder) or _for_part(together, folder.name)
        found[part] = _one(folder, own)
    return found


def instances_in(folder: Path) -> list[tuple[Path, Any]]:
    """The instances files of COCO in a folder, or in `annotations` in it, with what they hold.

    Raises:
        UserError: a JSON file that cannot be read.
    """
    found = []
    for path in sorted(path for place in PLACES for path in (folder / place).glob("[!.]*.json")):
        with naming(path, f"mend it or move it away (valid: {LAYOUT})"):
            content = read_json(path.read_bytes())
        if isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content):
            found.append((path, content))
    return found


def _named(root: Path, files: list[tuple[Path, Any]], judged: bool) -> dict[SplitName, Source]:
    """The parts of which several instances files of one folder are named."""
    found = {part: _one(root, own) for part, names in NAMES.items() if (own := _for_part(files, names[0]))}
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    if not found or ("train" not in found and not judged):
        names = shown([path.name for path, _ in files])
        raise UserError(
            f"dataset.path={root}: which of {names} is for training does not follow from their names (valid: "
            "train, val and test in them, or one file alone)"
        )
    return found


def _for_part(files: list[tuple[Path, Any]], name: str) -> list[tuple[Path, Any]]:
    """Those that are named for the part of a name; of them those of instances, where there are such."""
    alike = next(names for names in NAMES.values() if name in names)
    words = re.compile(rf"(?<![a-z])({'|'.join(alike)})(?![a-z])")
    found = [file for file in files if words.search(file[0].stem.lower())]
    return [file for file in found if file[0].stem.lower().startswith("instances")] or found


def _one(folder: Path, files: list[tuple[Path, Any]]) -> Source:
    """The one instances file of a part, else its annotations.

    Raises:
        UserError: several, or none of both.
    """
    if len(files) > 1:
        names = ", ".join(str(path) for path, _ in files)
        raise UserError(f"{folder}: {len(files)} COCO files tell of its boxes: {names} (valid: one of them)")
    if files:
        return Source(folder, files[0])
    annotations = tuple(files_in(folder, (".xml",)))
    if not annotations:
        images, texts = (len(list(files_in(folder, suffixes))) for suffixes in (EXTENSIONS, (".txt",)))
        raise UserError(
            f"dataset.path: {folder.resolve()} holds {_counted(images, 'image')} and no file of their boxes"
            f"{f' but {texts} .txt, and boxes of YOLO are not read' if texts else ''} (valid: {LAYOUT})"
        )
    return Source(folder, None, annotations)


def _of_folder(root: Path, files: list[tuple[Path, Any]]) -> dict[SplitName, Source]:
    """A folder without parts: one of all its images, or those that VOC's lists of names make."""
    whole = _one(root, files)
    lists = {path.stem: path for path in (root / LISTS).glob("*.txt")} if not files else {}
    train = "train" if {"train", "val"} <= set(lists) or "trainval" not in lists else "trainval"
    if train not in lists:
        return {"train": whole}
    chosen: dict[SplitName, str] = {"train": train}
    others = [name for name in ("val", "test") if name in lists and (name, train) != ("val", "trainval")]
    chosen |= {"test": others[-1]} if others else {}
    chosen |= {"validation": "val"} if len(others) > 1 else {}
    by_name = {path.stem: path for path in whole.annotations}
    found: dict[SplitName, Source] = {}
    for part, name in chosen.items():
        advice = f"mend it, or remove {root / LISTS}"
        names = read_names(lists[name], advice)
        missing = [one for one in names if one not in by_name]
        if missing:
            raise UserError(
                f"{lists[name]} names {missing[0]}, of which there is no {missing[0]}.xml: {advice}"
            )
        found[part] = Source(root, None, tuple(by_name[one] for one in names))
    return found


def told(source: Source) -> Iterator[Told]:
    """The images of a part, in the order of their files.

    Raises:
        UserError: a file that cannot be read, or names an image that is not there.
    """
    if source.instances is not None:
        yield from _told_by_instances(source.folder, *source.instances)
        return
    images = _by(source.folder, lambda path: path.stem)
    for file in bar(source.annotations, "reading annotations", len(source.annotations)):
        drawn = read_annotation(file, "mend it or move it away")
        found = images.get(file.stem, [])
        beside = [path for path in found if path.parent == file.parent]
        image = _only(beside or found, f"{file.stem}.jpg or .png", file, source.folder)
        yield Told(str(image), drawn.size, drawn.names, [half_open(box) for box in drawn.boxes], file)


def _told_by_instances(folder: Path, file: Path, content: Any) -> Iterator[Told]:
    """The images of an instances file."""
    with naming(file, "mend it or move it away"):
        names = parse_categories(content)
        found = parse_instances(content, {number: label for label, number in enumerate(names)})
        fractions = len(found.boxes) > 0 and bool(found.boxes[:, :4].amax() <= 1)
        if fractions and bool((found.sizes > 1).all()):
            raise DamagedError(
                "its boxes are parts of the images; COCO's are (x, y, width, height) in pixels"
            )
    called = list(names.values())
    counts = found.owner.bincount(minlength=len(found.names)).tolist()
    images = _by(folder, lambda path: path.name)
    sizes = [(height, width) for height, width in found.sizes.tolist()]
    for name, size, rows in zip(found.names, sizes, found.boxes.split(counts), strict=True):
        path = Path(name.replace("\\", "/"))
        same = images.get(path.name, [])
        exact = [one for one in same if one == folder / path] or [
            one for one in same if str(one).endswith(f"/{path}")
        ]
        image = _only(exact or same, name, file, folder)
        boxes = [[*row[:4], row[5]] for row in rows.tolist()]
        yield Told(str(image), size, [called[int(label)] for label in rows[:, 4].tolist()], boxes, file)


def classes_of(source: Source, images: list[Told]) -> list[str]:
    """The classes that some box has: of COCO in the order of the categories' numbers, of VOC by name."""
    used = {name for one in images for name in one.names}
    if source.instances is None:
        return sorted(used)
    return [name for name in parse_categories(source.instances[1]).values() if name in used]


def size_and_turn(image: Told) -> tuple[tuple[int, int], bool]:
    """The (height, width) of an image, and whether that is so once it is turned upright.

    Raises:
        UserError: its boxes were drawn for an image of another size; or it is damaged.
    """
    try:
        stored, upright = sizes_of(image.path)
    except (OSError, DamagedError) as error:
        raise UserError(describe(Path(image.path), error)) from error
    if image.size in (None, upright):
        return upright, True
    if image.size == stored:
        return stored, False
    assert image.size is not None
    raise UserError(
        f"{image.path} has {stored[1]}x{stored[0]} pixels, and {image.file} tells of {image.size[1]}x"
        f"{image.size[0]} (valid: boxes of these very images)"
    )


def files_in(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files of some suffixes in a folder at any depth, sorted; hidden ones do not count."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield path


def _by(folder: Path, key: Callable[[Path], str]) -> dict[str, list[Path]]:
    """The images in a folder at any depth, by a key."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_in(folder, EXTENSIONS):
        found[key(path)].append(path)
    return found


def _only(found: list[Path], name: str, file: Path, folder: Path) -> Path:
    """The one image that a file names.

    Raises:
        UserError: there is none, or several.
    """
    if len(found) != 1:
        what = f"{len(found)} of them lie" if found else "no such JPEG or PNG file lies"
        raise UserError(f"{file} tells of the image {name}: {what} in {folder.resolve()} (valid: one)")
    return found[0]
