"""What the sets of photographs with boxes share: VOC's, COCO's and those of their layout.

To add a set: a subclass that states its facts and implements `listing`, and one file in `conf/dataset`.
"""

import shutil
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.data.detection.boxes import (
    COLUMNS,
    clip_boxes,
    crop_boxes,
    flip_boxes,
    is_box,
    pad_boxes,
    random_patch,
    resize_boxes,
)
from common.data.shared.decode import Box, Window, decode_rgb, mirrored
from common.data.shared.download import DamagedError, describe, obtain
from common.data.shared.prepare import Checksum, check_file, unpack
from common.data.shared.streamed import PEAK, Record, StreamedData, StreamedOptions, naming

Augment = Literal["none", "flip", "crop_flip", "ssd", "ssd_distort"]
# of a synthetic image
SYNTHETIC_BOXES = 4
# how many of the augmented images are mirrored
MIRRORED = 0.5


class Archive(NamedTuple):
    """A file to download: its address, and its checksum where one is known."""

    url: str
    name: str
    checksum: Checksum | None


class Listing(NamedTuple):
    """The images of a part and all their boxes, before any repair.

    Shapes: sizes int64 [n, 2] (height, width); boxes float64 [N, 6] (see `boxes`, but they may
    reach outside or have no area); owner int64 [N], ascending, the number of each box's image.
    """

    paths: Sequence[str]
    sizes: Tensor
    boxes: Tensor
    owner: Tensor


class Annotation(NamedTuple):
    """What an image's target is made from: its (height, width), and its boxes float32 [k, 6].

    A numpy array, as tensors would each be handed to the workers through a file of their own. `upright` says
    whether both are of the image once it is turned as its orientation mark says.
    """

    size: tuple[int, int]
    boxes: np.ndarray
    upright: bool = False


class DetectionData(StreamedData):
    """Photographs and the boxes of their objects, stretched to one size.

    Targets are float32 [b, k, 6] in pixels of the stretched image, padded: see `boxes`. Boxes
    are clipped to their images and dropped where they have no area; `repairs` counts both.

    Args:
        size: [height, width] that all images are stretched to.
        augment: of training: "none"; "flip" mirrors half of the images; "crop_flip" also cuts a random
            patch out of each first (`common.data.detection.boxes.random_patch`); "ssd" does so by SSD's batch
            sampler and stretches it by a random interpolation; "ssd_distort" also distorts colours and puts
            the image on a larger canvas before (`common.data.detection.augment`).
        The others as in `StreamedData`.
    """

    KIND: ClassVar = "detection"
    CLASSES: ClassVar[int]
    TARGET_DTYPE: ClassVar = torch.float32
    # whether objects marked as difficult are trained on; that they need not be found is always so
    LEARNS_DIFFICULT: bool = True

    def __init__(
        self,
        *,
        size: list[int],
        augment: Augment,
        **options: Unpack[StreamedOptions],
    ) -> None:
        check("size", size, len(size) == 2 and min(size) >= 1, "give [height, width], each at least 1")
        super().__init__(shape=(3, size[0], size[1]), **options)
        self.augment = augment

    @abstractmethod
    def listing(self, part: SplitName) -> Listing:
        """All images and boxes of an official part, as its files have them, in a fixed order.

        Raises:
            UserError: files are missing or damaged, and what to do.
        """

    def records(self, part: SplitName) -> Sequence[Record]:
        """The images of a part with their repaired boxes."""
        listing = self.listing(part)
        annotations, clipped, dropped = annotate(listing)
        for what, count in (
            ("boxes clipped to their images", clipped),
            ("boxes without area, dropped", dropped),
        ):
            if count:
                self.repairs[what] = self.repairs.get(what, 0) + count
        self._tell_size(part, len(annotations))
        return [Record(path, image) for path, image in zip(listing.paths, annotations, strict=True)]

    def _tell_size(self, part: SplitName, found: int) -> None:
        """Say on stderr that a part is not as large as the official one: results are of another set then."""
        official = self.TRAIN_SIZE if part == "train" else self.TEST_SIZE
        if found != official:
            print(f"{self.NAME}: {found} {part} images in {self.data_dir}, not {official}", file=sys.stderr)

    def example(self, record: Record, generator: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """The image, uint8 [3, *size], and its boxes, float32 [k, 6]."""
        annotation: Annotation = record.annotation
        if generator is not None and self.augment in ("ssd", "ssd_distort"):
            return self._sampled(record.path, annotation, generator)
        boxes = torch.from_numpy(annotation.boxes)
        patch = Box(0, 0, annotation.size[1], annotation.size[0])
        if generator is not None and self.augment == "crop_flip":
            patch = random_patch(boxes, *annotation.size, generator)
            boxes = crop_boxes(boxes, boxes.new_tensor(patch))
            boxes = boxes[is_box(boxes)]
        size = self.shape[1], self.shape[2]
        window = _checked(patch, annotation.size)
        image = decode_rgb(record.path, size, window, self.note_repair, annotation.upright)
        boxes = resize_boxes(boxes, (patch.bottom - patch.top, patch.right - patch.left), size)
        if generator is not None and self.augment != "none" and generator.random() < MIRRORED:
            return mirrored(image), flip_boxes(boxes, size[1])
        return image, boxes

    def _sampled(
        self, path: str, annotation: Annotation, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """As `example`, augmented as SSD does it (`common.data.detection.augment`)."""
        from common.data.detection.augment import (
            boxes_seen,
            canvas,
            distorted,
            pasted,
            placed,
            sampled_window,
            sides,
            stretched,
        )

        whole, distorts, size = annotation.size, self.augment == "ssd_distort", (self.shape[1], self.shape[2])
        frame = canvas(*whole, generator) if distorts else Box(0, 0, whole[1], whole[0])
        window = sampled_window(annotation.boxes, frame, generator)
        seen, place = placed(window, *whole, size)
        image = None
        if min(sides(seen)) > 0 and min(sides(place)) > 0:
            part = _checked(seen, whole)
            pixels = decode_rgb(path, sides(seen), part, self.note_repair, annotation.upright)
            image = stretched(pixels, sides(place), generator)
            image = distorted(image, generator) if distorts else image
        fill = tuple(round(PEAK * mean) for mean in self.MEAN)
        result = pasted(image, place, size, fill)
        mirror = generator.random() < MIRRORED
        boxes = torch.from_numpy(boxes_seen(annotation.boxes, window, size, mirror))
        return mirrored(result) if mirror else result, boxes

    def collate_targets(self, targets: list[Tensor]) -> Tensor:
        """[b, k, 6], k the most boxes of an image of the batch."""
        return pad_boxes(targets)

    def synthetic_target(self, number: int, generator: np.random.Generator) -> Tensor:
        """1 to 4 random boxes, [k, 6]."""
        height, width = self.shape[1:]
        count = generator.integers(1, SYNTHETIC_BOXES + 1)
        limit = np.array([width, height])
        sides = generator.uniform(0.1, 1, (count, 2)) * limit
        low = generator.random((count, 2)) * (limit - sides)
        assert self.classes is not None
        labels = generator.integers(0, self.classes, (count, 1))
        rows = np.hstack([low, np.minimum(low + sides, limit), labels, np.zeros((count, 1))])
        return torch.from_numpy(rows).float()


def _checked(window: Box, whole: tuple[int, int]) -> Window:
    """The window of an image that has the (height, width) that its boxes were drawn for.

    Raises:
        DamagedError: by what is returned: it has another.
    """

    def chosen(height: int, width: int) -> Box:
        if (height, width) != whole:
            raise DamagedError(
                f"{width}x{height} pixels, but its boxes are of an image of {whole[1]}x{whole[0]}"
            )
        return window

    return chosen


def listing_of(
    paths: Sequence[str], sizes: Sequence[tuple[int, int]], rows: Sequence[list[list[float]]]
) -> Listing:
    """The listing of images, their (height, width), and rows (x0, y0, x1, y1, label, difficult) of each."""
    boxes = torch.tensor([row for each in rows for row in each], dtype=torch.float64).reshape(-1, COLUMNS)
    owner = torch.arange(len(paths)).repeat_interleave(torch.tensor([len(each) for each in rows]))
    return Listing(paths, torch.tensor(sizes), boxes, owner)


def annotate(listing: Listing) -> tuple[list[Annotation], int, int]:
    """The annotation of each image, and how many boxes were clipped and how many dropped."""
    height, width = listing.sizes[listing.owner].unbind(1)
    rows = torch.cat([listing.boxes, listing.owner[:, None].double()], dim=1)
    kept, clipped, dropped = clip_boxes(rows, height, width)
    ends = kept[:, COLUMNS].long().bincount(minlength=len(listing.sizes)).cumsum(0)
    boxes = np.split(kept[:, :COLUMNS].float().numpy(), ends[:-1].numpy())
    pairs = zip(listing.sizes.tolist(), boxes, strict=True)
    annotations = [Annotation((down, across), rows) for (down, across), rows in pairs]
    return annotations, clipped, dropped


def listed_images(folder: Path, names: Sequence[str], source: Path, advice: str) -> list[str]:
    """The paths of the images `names` in `folder`.

    Raises:
        UserError: the folder or an image that `source` names is missing.
    """
    try:
        present = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UserError(f"{describe(folder, error)}: {advice}") from error
    for name in names:
        if name not in present:
            path = (folder / name).resolve()
            raise UserError(f"{path} is missing, though {source.resolve()} names it: {advice}")
    return [str(folder / name) for name in names]


def unpack_from(archive: Archive, data_dir: Path, scratch: Path, inside: str, verify: bool) -> None:
    """Download an archive into `data_dir` if need be, and put what its folder `inside` holds into `scratch`.

    Args:
        inside: a path in the archive; its first part may be a pattern.

    Raises:
        UserError: it cannot be had, or is damaged, or has no such folder.
    """
    path = data_dir / archive.name
    advice = f"put {archive.name} into {data_dir.resolve()} to have it verified and unpacked"
    obtain(path, archive.url, lambda file: _check_archive(file, archive.checksum, verify), advice)
    unpacked = scratch / ".unpacked"
    with naming(path, f"remove it, or {advice}"):
        unpack(path, unpacked, f"unpacking {archive.name}")
        found = next(iter(sorted(unpacked.glob(inside))), None)
        if found is None or not found.is_dir():
            raise DamagedError(f"no folder {inside} in it")
    merge(found, scratch)
    shutil.rmtree(unpacked)


def _check_archive(path: Path, checksum: Checksum | None, verify: bool) -> None:
    # where no checksum is known, nothing else would notice that the file is missing
    path.stat()
    check_file(path, checksum, verify)


def merge(source: Path, target: Path) -> None:
    """Move the files of `source` into `target`, folder by folder; files that are there already stay."""
    for path in source.iterdir():
        place = target / path.name
        if path.is_dir() and place.is_dir():
            merge(path, place)
        elif not place.exists():
            path.rename(place)
