"""Scenes composed of scikit-learn's handwritten digits: small sets with boxes, and what those with
masks (`common.data.segmentation.digit_masks`) and pairs (`papers.mgda.multi_digits`) are made by.

Training scenes are composed of the first 1,300 of the 1,797 digits, test scenes of the last 497. All draws
come from a fixed seed of their own: the sets are the same in every run. Pixels are 0..16, as the digits'.
"""

from typing import ClassVar, Literal, NamedTuple, Unpack

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.errors import UserError
from common.data.detection.boxes import COLUMNS, LABEL, PADDING
from common.data.shared.bundled_digits import read_digits
from common.data.shared.in_memory import ImageData, Options, Part, Split

# of the 1,797 digits, in their order, for training; the others are for testing
POOL = 1300
GENERATOR_SEED = 2018
DIGIT, PEAK, CLASSES = 8, 16, 10
# places that are tried for a digit before it is left out of its scene
PLACES = 16


class Pool(NamedTuple):
    """Digits to draw from: uint8 [n, 8, 8] in 0..16, and their labels int64 [n]."""

    images: Tensor
    labels: Tensor


def pool(part: Part) -> Pool:
    """The digits of one part."""
    images, labels = read_digits()
    rows = slice(None, POOL) if part == "train" else slice(POOL, None)
    return Pool(images[rows], labels[rows])


def generator_of(part: Part) -> torch.Generator:
    """A generator in the fixed state from which a part is drawn."""
    return torch.Generator().manual_seed(GENERATOR_SEED + (part == "test"))


def refuse_positive(name: str, positive: list[int] | None) -> None:
    """Raise UserError unless `dataset.positive` is null, for sets with more than one label an image."""
    if positive is not None:
        raise UserError(f"dataset.positive={positive}: {name} has many labels an image; leave it null")


class Composed(ImageData):
    """What the composed sets share.

    Args:
        augment: only "none": a digit and its mirror image are not the same, and targets do not move.
        positive: only null: there is more than one label an image.
        The others as in `TensorData`.
    """

    CLASSES: ClassVar = CLASSES
    PEAK: ClassVar = PEAK
    TRAIN_SIZE: ClassVar = 6000
    TEST_SIZE: ClassVar = 3000

    def __init__(self, *, augment: Literal["none"], **options: Unpack[Options]) -> None:
        refuse_positive(self.NAME, options["positive"])
        super().__init__(augment=augment, **options)

    def _labels(self, split: Split) -> None:
        """None: images have no single label to stratify subsets by."""


class Scenes(NamedTuple):
    """Composed scenes: images uint8 [n, 1, S, S], boxes [n, k, 6], masks int64 [n, S, S]."""

    images: Tensor
    boxes: Tensor
    masks: Tensor


def compose(
    digits: Pool, count: int, side: int, most: int, overlap: float, generator: torch.Generator
) -> Scenes:
    """Place 1 to `most` digits (uniform) on each of `count` canvases of side x side pixels.

    A digit's 8x8 cell is uniform over the canvas, redrawn while it shares more than the fraction `overlap`
    of its area with a cell that is there already; after 16 tries the digit is left out. A pixel is the
    largest of the digits that cover it. A digit's ink is its pixels above 0: its box is the smallest that
    holds all its ink, hidden or not; the mask is 1 + the label of the digit whose grey value the pixel
    shows (the one placed first if they are equal), 0 where there is no ink.
    """
    chosen = torch.randint(len(digits.labels), (count, most), generator=generator)
    wanted = torch.randint(1, most + 1, (count, 1), generator=generator)
    corners, fits = place(count, most, side, overlap, generator)
    there = fits & (torch.arange(most) < wanted)

    images = torch.zeros(count, side * side, dtype=torch.uint8)
    masks = torch.zeros(count, side * side, dtype=torch.int64)
    cell = (torch.arange(DIGIT)[:, None] * side + torch.arange(DIGIT)).flatten()
    for slot in range(most):
        left, top = corners[:, slot].unbind(1)
        pixels = (top * side + left)[:, None] + cell
        ink = digits.images[chosen[:, slot]].flatten(1) * there[:, slot, None]
        below = images.gather(1, pixels)
        label = 1 + digits.labels[chosen[:, slot], None]
        images.scatter_(1, pixels, torch.maximum(ink, below))
        masks.scatter_(1, pixels, torch.where(ink > below, label, masks.gather(1, pixels)))
    boxes = box_targets(ink_boxes(digits.images)[chosen], corners, digits.labels[chosen], there)
    return Scenes(images.view(count, 1, side, side), boxes, masks.view(count, side, side))


def place(
    count: int, most: int, side: int, overlap: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Places for the cells, one after the other: (x, y) int64 [count, most, 2], and whether one was found."""
    corners = torch.zeros(count, most, 2, dtype=torch.int64)
    fits = torch.zeros(count, most, dtype=torch.bool)
    for slot in range(most):
        tries = torch.randint(side - DIGIT + 1, (count, PLACES, 2), generator=generator)
        apart = (tries[:, :, None] - corners[:, None, :slot]).abs()
        shared = (DIGIT - apart).clamp_min(0).prod(-1) * fits[:, None, :slot]
        allowed = (shared <= overlap * DIGIT**2).all(-1)
        first = allowed.int().argmax(1)
        corners[:, slot] = tries[torch.arange(count), first]
        fits[:, slot] = allowed.any(1)
    return corners, fits


def ink_boxes(images: Tensor) -> Tensor:
    """The smallest box that holds all pixels above 0: [n, H, W] -> float32 [n, 4]."""
    ink = images > 0
    corners = []
    for lines in (ink.any(1), ink.any(2)):
        length = lines.shape[1]
        corners.append((lines.int().argmax(1), length - lines.flip(1).int().argmax(1)))
    (left, right), (top, bottom) = corners
    return torch.stack([left, top, right, bottom], dim=1).float()


def box_targets(ink: Tensor, corners: Tensor, labels: Tensor, there: Tensor) -> Tensor:
    """Targets [n, k, 6] (see `boxes`), padding last: ink boxes moved to their cells' places."""
    boxes = torch.zeros(*labels.shape, COLUMNS)
    boxes[..., :4] = ink + corners.repeat(1, 1, 2)
    boxes[..., LABEL] = labels.float()
    padding = torch.zeros(COLUMNS)
    padding[LABEL] = PADDING
    boxes = torch.where(there[..., None], boxes, padding)
    order = there.int().argsort(dim=1, descending=True, stable=True)
    return boxes.gather(1, order[..., None].expand_as(boxes))


class ComposedScenes(Composed):
    """Scenes of several digits on a square canvas.

    Args:
        side: of the canvas in pixels, at least 8.
        digits: most of a scene, at least 1; their number is uniform from 1 to this.
        overlap: how much of its 8x8 cell a digit may share with another's, 0 to below 1.
        The others as in `Composed`.
    """

    SHAPE: ClassVar = (1, 32, 32)

    def __init__(
        self, *, side: int, digits: int, overlap: float, augment: Literal["none"], **options: Unpack[Options]
    ) -> None:
        super().__init__(augment=augment, **options)
        check("side", side, side >= DIGIT, f"digits are {DIGIT} pixels wide; give at least {DIGIT}")
        check("digits", digits, digits >= 1, "give at least 1")
        check("overlap", overlap, 0 <= overlap < 1, "give a fraction from 0 to below 1")
        self.side, self.digits, self.overlap = side, digits, overlap
        self.shape = (1, side, side)

    def scenes(self, part: Part) -> Scenes:
        """Compose all of one part."""
        count = self.TRAIN_SIZE if part == "train" else self.TEST_SIZE
        return compose(pool(part), count, self.side, self.digits, self.overlap, generator_of(part))

    def statistics(self, train: Split) -> tuple[Tensor, Tensor]:
        """(offset, scale), each [1, 1, 1]: of `train`, as grey levels depend on how full the canvas is."""
        if self.normalise != "standard":
            return super().statistics(train)
        std, mean = torch.std_mean(train.inputs.float(), correction=0)
        return mean.view(1, 1, 1), 1 / std.view(1, 1, 1)


class DigitScenes(ComposedScenes):
    """Digits to be found and named: 6,000 scenes for training, 3,000 for testing.

    Targets float32 [n, digits, 6] (see `boxes`), padding last; boxes are tight around the ink.
    """

    NAME: ClassVar = "digit_scenes"
    KIND: ClassVar = "detection"
    CLASS_NAMES: ClassVar = tuple("0123456789")

    def read(self, part: Part) -> Split:
        """Compose all of one part."""
        scenes = self.scenes(part)
        return Split(scenes.images, scenes.boxes)

    def _synthetic(self, part: Part) -> Split:
        inputs, generator = super()._synthetic(part).inputs, generator_of(part)
        shape = (len(inputs), self.digits)
        sides = 1 + (self.side - 1) * torch.rand(*shape, 2, generator=generator)
        low = (self.side - sides) * torch.rand(*shape, 2, generator=generator)
        labels = torch.randint(CLASSES, (*shape, 1), generator=generator)
        return Split(inputs, torch.cat([low, low + sides, labels, torch.zeros_like(labels)], dim=-1))
