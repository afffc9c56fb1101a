"""Pairs of scikit-learn's digits, each to be named: two small tasks on one image."""

from typing import ClassVar

import torch

from common.base.task_spec import TaskSpec
from common.data.detection.scenes import CLASSES, DIGIT, Composed, generator_of, pool
from common.data.shared.in_memory import Part, Split

OFFSET = 3

# of a pair of digits
PAIR_TASKS = (TaskSpec("left", "class", CLASSES), TaskSpec("right", "class", CLASSES))


class MultiDigits(Composed):
    """Two digits overlaid on 11x11 pixels, each to be named: 6,000 pairs for training, 3,000 for testing.

    The left one lies at row and column 0, the right one at 3, and a pixel is the larger of both (a small
    MultiMNIST: Sabour et al. 2017). Targets int64 [n, 2]: the left digit, the right digit.
    """

    NAME: ClassVar = "multi_digits"
    KIND: ClassVar = "multi_task"
    SHAPE: ClassVar = (1, DIGIT + OFFSET, DIGIT + OFFSET)
    MEAN: ClassVar = (0.3014,)
    STD: ClassVar = (0.3814,)
    TASKS: ClassVar = PAIR_TASKS

    def read(self, part: Part) -> Split:
        """Compose all of one part."""
        digits = pool(part)
        count = self.TRAIN_SIZE if part == "train" else self.TEST_SIZE
        chosen = torch.randint(len(digits.labels), (count, 2), generator=generator_of(part))
        images = torch.zeros(count, *self.SHAPE, dtype=torch.uint8)
        images[:, 0, :DIGIT, :DIGIT] = digits.images[chosen[:, 0]]
        right = images[:, 0, OFFSET:, OFFSET:]
        torch.maximum(right, digits.images[chosen[:, 1]], out=right)
        return Split(images, digits.labels[chosen])

    def _synthetic(self, part: Part) -> Split:
        return synthetic_pairs(super()._synthetic(part), part)


def synthetic_pairs(split: Split, part: Part) -> Split:
    """The same inputs with random digits of both sides, int64 [n, 2]."""
    return Split(split.inputs, torch.randint(CLASSES, (len(split), 2), generator=generator_of(part)))
