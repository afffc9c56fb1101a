"""Cityscapes for three tasks: classes, offsets to the instance's centre, disparity (Sener and Koltun 2018).

Beside what `common.data.segmentation.cityscapes` reads: `gtFine/PART/CITY/NAME_gtFine_instanceIds.png` and
`disparity/PART/CITY/NAME_disparity.png` (from `disparity_trainvaltest.zip`, unpacked where it is absent).
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.base.task_spec import TaskSpec
from common.data.segmentation.cityscapes import IMAGES, Cityscapes
from common.data.segmentation.segmentation_data import IGNORE, existing
from common.data.shared.decode import FORMATS, decode_rgb, image_size, reading
from common.data.shared.download import DamagedError, describe
from common.data.shared.prepare import bar
from common.data.shared.streamed import Record, StreamedOptions, unpack_folder

DISPARITY = "disparity"
# targets are given for squares of so many pixels
CELL = 8
# of the authors' code: disparities (256 a pixel, plus 1; 0 is unknown) are divided by it
DISPARITY_SCALE, LEVELS = 2729.068, 256
# instance ids are 1000 x class + number, where instances are told apart
FIRST_INSTANCE = 1000
MAX_DEGREES = 10.0
CLASS, OFFSET, DEPTH = slice(0, 1), slice(1, 3), slice(3, 4)


class Files(NamedTuple):
    """The paths of what is known of an image."""

    labels: str
    instances: str
    disparity: str


class View(NamedTuple):
    """How a training image is turned: by an angle in radians, then mirrored or not."""

    angle: float
    mirrored: bool

    def source(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where a point of the view lies in the image, both from the middle of the image."""
        x = -x if self.mirrored else x
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return cos * y + sin * x, cos * x - sin * y


class CityscapesTasks(Cityscapes):
    """Streets of 50 cities: 2,975 images for training, 500 ("val") for testing.

    Targets are float32 [b, 4, H / 8, W / 8], of the pixel in the middle of each square of 8x8: the class of
    19, or 255; the offset (y, x) in pixels of the given image to the centre of the squares of the same
    instance, NaN where instances are not told apart; and the disparity p of the file, (p - mean) / 2729.068
    with the mean of that square over the training set, NaN where it is unknown. The means are computed once,
    from the files, and kept beside them. An error of 1 in the disparity is 10.66 pixels of the full image.

    Args:
        size: [height, width] of what is given, each divisible by 8.
        augment: of training: "none", or "rotate_flip": turned by up to 10 degrees either way, half of the
        images
            mirrored; what is outside of the image gets the mean colour and no targets.
        The others as in `StreamedData`.
    """

    NAME: ClassVar = "cityscapes_tasks"
    KIND: ClassVar = "multi_task"
    TARGET_DTYPE: ClassVar = torch.float32
    TASKS: ClassVar = (
        TaskSpec("segmentation", "pixel_class", Cityscapes.CLASSES),
        TaskSpec("instance", "pixel_number", 2),
        TaskSpec("disparity", "pixel_number", 1, DISPARITY_SCALE / LEVELS),
    )

    def __init__(
        self, *, size: list[int], augment: Literal["none", "rotate_flip"], **options: Unpack[StreamedOptions]
    ) -> None:
        super().__init__(size=size, augment="none", crop=None, **options)
        check("size", size, not (size[0] % CELL or size[1] % CELL), f"give sides divisible by {CELL}")
        # of this set's own ways, which `example` below follows
        self.augment = augment
        self.cells = (size[0] // CELL, size[1] // CELL)
        self._mean = torch.zeros(self.cells)

    def setup(self, stage: str | None = None) -> None:
        """List the files, and compute the mean disparities or read them."""
        super().setup(stage)
        if self.source == "real":
            self._mean = self._mean_disparity()

    def records(self, part: SplitName) -> Sequence[Record]:
        """The images of a part, each with the paths of its labels, instances and disparity."""
        folder = self.data_dir / "cityscapes"
        archive = f"{DISPARITY}_trainvaltest.zip"
        advice = (
            f"Cityscapes needs a login: download {archive} from https://www.cityscapes-dataset.com/downloads "
            f"and put it into {folder.resolve()}, unpacked or not; or take dataset.source=synthetic"
        )
        records = super().records(part)
        unpack_folder(folder / DISPARITY, folder / archive, DISPARITY, None, self.verify, advice)
        found = [Record(record.path, files_of(record)) for record in records]
        existing([(files.instances, files.disparity) for _, files in found], advice)
        return found

    def sources(self) -> dict[str, Path]:
        """The folders of images, masks and disparities."""
        return super().sources() | {DISPARITY: self.data_dir / "cityscapes" / DISPARITY}

    def example(self, record: Record, generator: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """The image, uint8 [3, *size], and its targets, float32 [4, H / 8, W / 8]."""
        files: Files = record.annotation
        whole = image_size(record.path)
        image = decode_rgb(record.path, self.image_size, None, self.note_repair)
        view = View(0.0, False)
        if generator is not None and self.augment == "rotate_flip":
            angle = math.radians(float(generator.uniform(-MAX_DEGREES, MAX_DEGREES)))
            view = View(angle, bool(generator.random() < 0.5))
            image = turned(image, view, self._mean_colour)
        y, x = self._centres()
        labels, instances, disparity = (self._at(path, whole, *view.source(y, x)) for path in files)
        targets = torch.full((4, *self.cells), torch.nan)
        targets[CLASS] = self._classes(labels, files.labels)
        targets[OFFSET] = offsets(instances, y, x)
        targets[DEPTH] = torch.where(disparity > 0, (disparity - self._mean) / DISPARITY_SCALE, torch.nan)
        return image, targets

    def _centres(self) -> tuple[Tensor, Tensor]:
        """The middles of all squares, (y, x) in pixels of the given image from its middle, each [h, w]."""
        down, across = ((torch.arange(n) + 0.5 - n / 2) * CELL for n in self.cells)
        y, x = torch.meshgrid(down, across, indexing="ij")
        return y, x

    def _at(self, path: str, whole: tuple[int, int], y: Tensor, x: Tensor) -> Tensor:
        """The values of an image of numbers at points of the given image, int64 [h, w]; -1 outside."""
        values = read_numbers(path, whole)
        rows, columns = (
            ((place / given + 0.5) * side).floor().long()
            for place, given, side in zip((y, x), self.image_size, whole, strict=True)
        )
        inside = (rows >= 0) & (rows < whole[0]) & (columns >= 0) & (columns < whole[1])
        found = values[rows.clamp(0, whole[0] - 1).numpy(), columns.clamp(0, whole[1] - 1).numpy()]
        return torch.where(inside, torch.from_numpy(found.astype(np.int64)), -1)

    def _classes(self, labels: Tensor, path: str) -> Tensor:
        if labels.max() > IGNORE:
            raise UserError(
                describe(Path(path), DamagedError(f"a label {int(labels.max())}; they are 0 to 255"))
            )
        classes = torch.where(labels < 0, IGNORE, self._class_of[labels.clamp_min(0)])
        if (classes < 0).any():
            wrong = int(labels[classes < 0][0])
            raise UserError(describe(Path(path), DamagedError(f"label {wrong} is no class of this set")))
        return classes.float()

    def _mean_disparity(self) -> Tensor:
        """The mean of every square over the training images where it is known, [h, w]; 0 where it never
        is."""
        records = self._rows("train").records
        name = f"disparity_mean_{len(records)}_{'x'.join(map(str, self.cells))}.npy"
        path = self.data_dir / "cityscapes" / name
        if not path.exists():
            total, count = torch.zeros(2, *self.cells, dtype=torch.float64)
            for record in bar(records, "mean disparities", len(records)):
                values = self._at(record.annotation.disparity, image_size(record.path), *self._centres())
                total += values.clamp_min(0)
                count += values > 0
            scratch = path.with_suffix(f".{os.getpid()}.npy")
            np.save(scratch, (total / count.clamp_min(1)).float().numpy())
            scratch.replace(path)
        return torch.from_numpy(np.load(path))

    def synthetic_target(self, number: int, generator: np.random.Generator) -> Tensor:
        """Random squares: classes and 255; offsets for a half of them, disparities for most."""
        assert self.classes is not None
        classes = generator.integers(0, self.classes + 1, self.cells)
        numbers = generator.standard_normal((3, *self.cells))
        numbers[:2, generator.random(self.cells) < 0.5] = np.nan
        numbers[2, generator.random(self.cells) < 0.2] = np.nan
        numbers[:2] *= CELL
        targets = np.concatenate([np.where(classes == self.classes, IGNORE, classes)[None], numbers])
        return torch.from_numpy(targets.astype(np.float32))


def files_of(record: Record) -> Files:
    """The paths of an image's labels, instances and disparity."""
    labels: str = record.annotation
    disparity = record.path.replace(f"/{IMAGES}/", f"/{DISPARITY}/")
    return Files(
        labels,
        labels.replace("labelIds.png", "instanceIds.png"),
        disparity.replace(f"_{IMAGES}.png", f"_{DISPARITY}.png"),
    )


def read_numbers(path: str, whole: tuple[int, int]) -> np.ndarray:
    """The values of a PNG file of one channel of 8 or 16 bits, [H, W].

    Raises:
        UserError: it is missing, damaged, has other pixels, or not the size of its image.
    """
    try:
        with reading(), Image.open(path, formats=FORMATS) as image:
            if image.mode not in ("L", "P", "I", "I;16", "I;16B"):
                raise DamagedError(f"pixels of mode {image.mode}; they are one number each")
            if (image.height, image.width) != whole:
                raise DamagedError(
                    f"{image.width}x{image.height} pixels; its image has {whole[1]}x{whole[0]}"
                )
            return np.asarray(image)
    except (OSError, DamagedError) as error:
        raise UserError(describe(Path(path), error)) from error


def offsets(instances: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """From every square to the centre of the squares of its instance, (y, x): [h, w] each -> float32 [2, h,
    w].

    NaN where the id is below 1000: there instances are not told apart.
    """
    _, which = instances.unique(return_inverse=True)
    counts = which.flatten().bincount()
    found = []
    for place in (y, x):
        sums = which.flatten().bincount(weights=place.flatten().double())
        found.append((sums / counts)[which] - place)
    return torch.where(instances >= FIRST_INSTANCE, torch.stack(found), torch.nan).float()


def turned(image: Tensor, view: View, outside: Tensor) -> Tensor:
    """An image as the view has it, bilinear: uint8 [3, H, W]; `outside` is the colour beyond it, [3]."""
    height, width = image.shape[1:]
    down, across = torch.arange(height) + 0.5 - height / 2, torch.arange(width) + 0.5 - width / 2
    y, x = view.source(*torch.meshgrid(down, across, indexing="ij"))
    grid = torch.stack([2 * x / width, 2 * y / height], dim=-1)
    colour = outside.float().view(3, 1, 1)
    moved = functional.grid_sample(
        (image.float() - colour).unsqueeze(0), grid.unsqueeze(0), mode="bilinear", align_corners=False
    )
    return (moved.squeeze(0) + colour).round().clamp(0, 255).to(torch.uint8)
