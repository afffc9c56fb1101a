"""What the sets of photographs with a class for each pixel share.

To add a set: a subclass that states its facts and implements `pairs`, and one file in `conf/dataset`.
"""

import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.base.preparation import Preparation
from common.data.shared.decode import Box, decode_labels, decode_rgb, image_size, mirrored
from common.data.shared.download import DamagedError, describe
from common.data.shared.streamed import PEAK, Record, StreamedData, StreamedOptions

IGNORE = 255
# by which random factors images are scaled in training (DeepLab: Chen et al. 2018)
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
# side in pixels of the squares of one class in synthetic targets
SYNTHETIC_SQUARE = 8


class SegmentationData(StreamedData):
    """Photographs with a class for each pixel.

    Targets are int64 [b, H, W]: a class, or 255 for pixels that count for nothing.

    Images are scaled to fit into `size`, keeping their aspect ratio, and what is missing at the right and
    at the bottom is filled up: with the mean colour, and 255 in the target. So images of that aspect ratio
    fill it, and those of just that size are not resampled. Images are scaled bilinearly, targets by nearest
    neighbour, with the same geometry.

    Args:
        size: [height, width] of what is given.
        augment: of training: "none"; "flip" mirrors half of the images; "scale_crop_flip" first scales by a
            factor out of 0.5, 0.75, ... 2 beyond what fits, and cuts a random window of `crop` out of that.
        crop: [height, width] of the windows of "scale_crop_flip"; null: `size`. So a network trains on crops
            and is judged on whole images at the same scale.
        The others as in `StreamedData`.
    """

    KIND: ClassVar = "segmentation"
    # the class of each value in the files' masks, IGNORE for those that count for nothing
    MASK_VALUES: ClassVar[dict[int, int]]

    def __init__(
        self,
        *,
        size: list[int],
        augment: Literal["none", "flip", "scale_crop_flip"],
        crop: list[int] | None,
        **options: Unpack[StreamedOptions],
    ) -> None:
        check("size", size, len(size) == 2 and min(size) >= 1, "give [height, width], each at least 1")
        valid = crop is None or (len(crop) == 2 and min(crop) >= 1)
        check("crop", crop, valid, "give [height, width], each at least 1, or null")
        needed = "is of augment=scale_crop_flip; give null, or that"
        check("crop", crop, crop is None or augment == "scale_crop_flip", needed)
        super().__init__(shape=(3, size[0], size[1]), **options)
        self.augment = augment
        self.crop = self.image_size if crop is None else (crop[0], crop[1])
        self._class_of = torch.full((256,), -1)
        self._class_of[list(self.MASK_VALUES)] = torch.tensor(list(self.MASK_VALUES.values()))
        self._mean_colour = (torch.tensor(self.MEAN) * PEAK).round().to(torch.uint8)

    @abstractmethod
    def pairs(self, part: SplitName) -> Sequence[tuple[str, str]]:
        """The paths of all images of an official part and of their masks, in a fixed order.

        Raises:
            UserError: files are missing or damaged, and what to do.
        """

    def records(self, part: SplitName) -> Sequence[Record]:
        """The images of a part, each with the path of its mask."""
        pairs = self.pairs(part)
        official = self.official_size(part)
        if len(pairs) != official:
            print(
                f"{self.NAME}: {len(pairs)} {part} images in {self.data_dir}, not {official}", file=sys.stderr
            )
        return [Record(image, mask) for image, mask in pairs]

    def example(self, record: Record, generator: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """The image, uint8 [3, *size], and the classes of its pixels, uint8 [*size]; `crop` for `size` if
        cut."""
        whole = image_size(record.path)
        drawn = generator if self.augment == "scale_crop_flip" else None
        window = self.image_size if drawn is None else self.crop
        box, size = fitting_window(whole, self.image_size, drawn, window)
        image = decode_rgb(record.path, size, lambda height, width: box, self.note_repair)
        mask: str = record.annotation
        try:
            labels = decode_labels(mask, whole, box, size, self._class_of)
        except (OSError, DamagedError) as error:
            raise UserError(describe(Path(mask), error)) from error
        if generator is not None and self.augment != "none" and generator.random() < 0.5:
            image, labels = mirrored(image), mirrored(labels)
        return self._filled_up(image, labels, window)

    def preparation(self) -> Preparation | None:
        """See `DataSet`: scaled to fit, and filled up with the mean colour."""
        fill = tuple(float(value) for value in self._mean_colour)
        return Preparation("fit", self.image_size, fill=fill)

    def _filled_up(self, image: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        down, across = (want - have for want, have in zip(size, labels.shape, strict=True))
        if (down, across) == (0, 0):
            return image, labels
        canvas = self._mean_colour.view(3, 1, 1).repeat(1, *size)
        canvas[:, : labels.shape[0], : labels.shape[1]] = image
        return canvas, functional.pad(labels, (0, across, 0, down), value=IGNORE)

    def synthetic_target(self, number: int, generator: np.random.Generator) -> Tensor:
        """Squares of random classes, and of 255, uint8 [*size]."""
        height, width = self.image_size
        assert self.classes is not None
        squares = (-(-height // SYNTHETIC_SQUARE), -(-width // SYNTHETIC_SQUARE))
        classes = generator.integers(0, self.classes + 1, squares)
        classes[classes == self.classes] = IGNORE
        pixels = np.kron(classes, np.ones((SYNTHETIC_SQUARE, SYNTHETIC_SQUARE), dtype=np.int64))
        return torch.from_numpy(pixels[:height, :width].astype(np.uint8))


def fitting_window(
    whole: tuple[int, int],
    size: tuple[int, int],
    generator: np.random.Generator | None,
    crop: tuple[int, int] | None = None,
) -> tuple[Box, tuple[int, int]]:
    """Which window of an image is given, and at which (height, width), at most `crop`; None: `size`.

    Without a generator: the whole image, scaled to fit into `size`. With one: scaled by a factor of `SCALES`
    more than that, and cut to `crop` at a random place where it is larger.
    """
    scale = min(size[0] / whole[0], size[1] / whole[1])
    if generator is not None:
        scale *= float(generator.choice(SCALES))
    sides, starts, given = [], [], []
    for have, want in zip(whole, size if crop is None else crop, strict=True):
        side = max(1, min(have, round(want / scale)))
        sides.append(side)
        starts.append(0 if generator is None else int(generator.integers(have - side + 1)))
        given.append(max(1, min(want, round(side * scale))))
    (top, left), (down, across) = starts, sides
    return Box(left, top, left + across, top + down), (given[0], given[1])


def existing(pairs: Sequence[tuple[str, str]], advice: str) -> Sequence[tuple[str, str]]:
    """The pairs, if every file of them exists.

    Raises:
        UserError: one does not, by name.
    """
    for path in (Path(name) for pair in pairs for name in pair):
        if not path.is_file():
            raise UserError(f"{path.resolve()} is missing: {advice}")
    return pairs
