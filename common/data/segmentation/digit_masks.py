"""Scenes composed of digits, each pixel to be named."""

from typing import ClassVar

import torch

from common.data.detection.scenes import CLASSES, ComposedScenes, generator_of
from common.data.shared.in_memory import Part, Split


class DigitMasks(ComposedScenes):
    """The scenes of `DigitScenes`, each pixel to be named: 0 is background, 1 + d is ink of digit d.

    Targets int64 [n, side, side]; which digit a pixel belongs to where two overlap is said in `compose`.
    """

    NAME: ClassVar = "digit_masks"
    KIND: ClassVar = "segmentation"
    CLASSES: ClassVar = CLASSES + 1
    CLASS_NAMES: ClassVar = ("background", *"0123456789")

    def read(self, part: Part) -> Split:
        """Compose all of one part."""
        scenes = self.scenes(part)
        return Split(scenes.images, scenes.masks)

    def _synthetic(self, part: Part) -> Split:
        inputs = super()._synthetic(part).inputs
        masks = torch.randint(self.CLASSES, (len(inputs), *self.shape[1:]), generator=generator_of(part))
        return Split(inputs, masks)
