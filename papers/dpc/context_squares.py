"""A small task that no pixel's neighbourhood decides: squares whose class a mark elsewhere in the image
tells."""

from typing import ClassVar, Unpack

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.errors import UserError
from common.data.shared.in_memory import Options, Part, Split, TensorData

SIDE, SQUARE, SQUARES = 48, 6, 5
NOISE = 0.1
GENERATOR_SEED = 2018


class ContextSquares(TensorData):
    """Images of 3 x 48 x 48: channel 0 has five squares of 6x6, channel 1 or 2 a mark of 6x6 somewhere else.

    All squares of an image are of class 1 where the mark is in channel 1, of class 2 where it is in channel
    2; the rest is class 0. Squares and marks are ones on zeros, with normal noise of standard deviation 0.1.
    So a head must look as far as the mark to tell the classes apart. All draws come from a fixed seed.

    Targets int64 [n, 48, 48].

    Args:
        positive: only null.
        The others as in `TensorData`.
    """

    NAME: ClassVar = "context_squares"
    KIND: ClassVar = "segmentation"
    SHAPE: ClassVar = (3, SIDE, SIDE)
    CLASSES: ClassVar = 3
    CLASS_NAMES: ClassVar = ("background", "square of mark 1", "square of mark 2")
    TRAIN_SIZE: ClassVar = 600
    TEST_SIZE: ClassVar = 400

    def __init__(self, **options: Unpack[Options]) -> None:
        if options["positive"] is not None:
            raise UserError("dataset.positive: context_squares has many labels an image; leave it null")
        check("normalise", options["normalise"], options["normalise"] == "none", "must be none")
        super().__init__(**options)

    def read(self, part: Part) -> Split:
        """Draw all of one part."""
        generator = torch.Generator().manual_seed(GENERATOR_SEED + (part == "test"))
        count = self.TRAIN_SIZE if part == "train" else self.TEST_SIZE
        corners = torch.randint(SIDE - SQUARE + 1, (count, SQUARES + 1, 2), generator=generator)
        kinds = torch.randint(2, (count,), generator=generator)
        squares = covered(corners[:, :SQUARES]).any(1)
        mark = covered(corners[:, SQUARES:])[:, 0]
        channels = [squares, mark & (kinds == 0)[:, None, None], mark & (kinds == 1)[:, None, None]]
        images = torch.stack(channels, 1).float()
        images += NOISE * torch.randn(images.shape, generator=generator)
        return Split(images, squares * (1 + kinds)[:, None, None])

    def _labels(self, split: Split) -> None:
        """None: images have no single label to stratify subsets by."""

    def _synthetic(self, part: Part) -> Split:
        inputs = super()._synthetic(part).inputs
        generator = torch.Generator().manual_seed(GENERATOR_SEED)
        return Split(inputs, torch.randint(self.CLASSES, (len(inputs), SIDE, SIDE), generator=generator))


def covered(corners: Tensor) -> Tensor:
    """Which pixels squares with these upper left corners cover: [n, k, 2] -> bool [n, k, 48, 48]."""
    apart = torch.arange(SIDE) - corners[..., None]
    within = (apart >= 0) & (apart < SQUARE)
    return within[..., 0, :, None] & within[..., 1, None, :]
