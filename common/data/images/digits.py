"""Handwritten digits that come with scikit-learn: no file, no network."""

from typing import ClassVar

from common.data.shared.bundled_digits import read_digits
from common.data.shared.in_memory import ImageData, Part, Split


class Digits(ImageData):
    """1,797 handwritten digits, 8x8 (UCI): the first 1,400 are for training, the last 397 for testing.

    Pixels are the original integers 0..16, so PEAK is 16.
    """

    NAME: ClassVar = "digits"
    KIND: ClassVar = "image_classification"
    SHAPE: ClassVar = (1, 8, 8)
    CLASSES: ClassVar = 10
    CLASS_NAMES: ClassVar = tuple("0123456789")
    TRAIN_SIZE: ClassVar = 1400
    TEST_SIZE: ClassVar = 397
    PEAK: ClassVar = 16
    MEAN: ClassVar = (0.3055,)
    STD: ClassVar = (0.3757,)

    def read(self, part: Part) -> Split:
        """All of one part, as uint8 [n, 1, 8, 8] and labels 0..9."""
        images, labels = read_digits()
        rows = slice(None, self.TRAIN_SIZE) if part == "train" else slice(self.TRAIN_SIZE, None)
        return Split(images[rows, None], labels[rows])
