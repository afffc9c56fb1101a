"""Two bits, each in one half of the channels, and their exclusive or: what groups apart cannot see."""

from typing import ClassVar

import torch

from common.data.shared.in_memory import ImageData, Part, Split

SEED = 2018
HALF, SIDE = 8, 4
# how far a bit moves its channels, and the noise of each number, of 255
STEP, NOISE = 32.0, 64.0


class ChannelXor(ImageData):
    """Maps of 16 channels, 4x4: bit a is in channels 0 to 7, bit b in 8 to 15; the class is a xor b.

    A number is 127.5 + 32 (2 bit - 1) + 64 noise, noise N(0, 1), rounded into 0..255. Bits are drawn evenly
    from a fixed seed, so that the sets are the same in every run. A network that computes f(channels 0 to 7)
    + h(channels 8 to 15) and thresholds the sum names at most three of the four pairs of bits rightly.
    """

    NAME: ClassVar = "channel_xor"
    KIND: ClassVar = "image_classification"
    SHAPE: ClassVar = (2 * HALF, SIDE, SIDE)
    CLASSES: ClassVar = 2
    CLASS_NAMES: ClassVar = ("equal", "different")
    TRAIN_SIZE: ClassVar = 2000
    TEST_SIZE: ClassVar = 2000
    MEAN: ClassVar = (0.5,) * (2 * HALF)
    STD: ClassVar = (0.27,) * (2 * HALF)

    def read(self, part: Part) -> Split:
        """All of one part, uint8 [n, 16, 4, 4] and labels 0 or 1."""
        count = self.TRAIN_SIZE if part == "train" else self.TEST_SIZE
        generator = torch.Generator().manual_seed(SEED + (part == "test"))
        bits = torch.randint(2, (count, 2), generator=generator)
        signs = (2 * bits - 1).repeat_interleave(HALF, 1)[:, :, None, None]
        noise = torch.randn(count, *self.SHAPE, generator=generator)
        values = 127.5 + STEP * signs + NOISE * noise
        return Split(values.round().clamp(0, self.PEAK).to(torch.uint8), bits[:, 0] ^ bits[:, 1])
