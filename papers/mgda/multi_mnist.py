"""MultiMNIST: two handwritten digits overlaid, each to be named, composed from MNIST's files.

Sabour, Frosst, Hinton 2017, as Sener and Koltun 2018 have it.
"""

from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from common.data.detection.scenes import generator_of, refuse_positive
from common.data.images.mnist import Mnist
from common.data.shared.in_memory import Options, Part, Split
from papers.mgda.multi_digits import PAIR_TASKS, synthetic_pairs

DIGIT, CANVAS = 28, 36
OFFSET = CANVAS - 2 - DIGIT
# of the canvas, what nearest-neighbour shrinking to 28 keeps: floor((k + 1/2) 36 / 28)
KEPT = (2 * torch.arange(DIGIT) + 1) * CANVAS // (2 * DIGIT)


class MultiMnist(Mnist):
    """Pairs of digits, 28x28 grey, two tasks of 10 classes: 60,000 for training, 10,000 for testing.

    Image i has digit i of MNIST's part at the top left, and another one, drawn from a fixed seed (it may be i
    itself), at the bottom right. Targets int64 [n, 2]: the left digit, the right digit. There is no
    official validation part (the authors' code takes the test set for it): `validation` splits one off.

    Args:
        augment: only "none": a digit and its mirror image are not the same.
        positive: only null: there is more than one label an image.
        The others as in `TensorData`.
    """

    NAME: ClassVar = "multi_mnist"
    KIND: ClassVar = "multi_task"
    BUNDLED: ClassVar = "multi_digits"
    TASKS: ClassVar = PAIR_TASKS

    def __init__(self, *, augment: Literal["none"], **options: Unpack[Options]) -> None:
        refuse_positive(self.NAME, options["positive"])
        super().__init__(augment=augment, **options)

    def read(self, part: Part) -> Split:
        """All pairs of one part."""
        digits = super().read(part)
        assert digits.targets is not None
        partner = torch.randint(len(digits), (len(digits),), generator=generator_of(part))
        images = overlaid(digits.inputs[:, 0], digits.inputs[partner, 0])
        return Split(images.unsqueeze(1), torch.stack([digits.targets, digits.targets[partner]], dim=1))

    def _synthetic(self, part: Part) -> Split:
        return synthetic_pairs(super()._synthetic(part), part)

    def _labels(self, split: Split) -> None:
        """None: images have no single label to stratify subsets by."""


def overlaid(left: Tensor, right: Tensor) -> Tensor:
    """Two sets of digits [n, 28, 28] on a canvas of 36x36, shrunk to 28x28: uint8 [n, 28, 28].

    The left one lies at rows and columns 0 to 27, the right one at 6 to 33; a pixel is the larger of both.
    """
    canvas = left.new_zeros(len(left), CANVAS, CANVAS)
    canvas[:, :DIGIT, :DIGIT] = left
    place = canvas[:, OFFSET : OFFSET + DIGIT, OFFSET : OFFSET + DIGIT]
    torch.maximum(place, right, out=place)
    return canvas[:, KEPT[:, None], KEPT]
