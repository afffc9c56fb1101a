"""Pascal VOC 2012, segmentation (Everingham et al. 2010), in `data_dir/VOCdevkit/VOC2012`.

`ImageSets/Segmentation/PART.txt` names the images of a part, `JPEGImages/NAME.jpg` are they, and
`SegmentationClass/NAME.png` their masks: palette images whose indices are the classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from common.base.dataset import SplitName
from common.data.detection.detection_data import unpack_from
from common.data.detection.voc import VOC2012, VOC_NAMES, read_names
from common.data.segmentation.segmentation_data import IGNORE, SegmentationData, existing
from common.data.shared.prepare import prepare

LISTS: dict[SplitName, str] = {"train": "train", "test": "val"}
VOID = 255


class Voc2012Segmentation(SegmentationData):
    """Photographs, background and 20 classes: 1,464 for training, 1,449 (val) for testing.

    The masks of its own test images are not public.
    """

    NAME: ClassVar = "voc2012_segmentation"
    CLASSES: ClassVar = 1 + len(VOC_NAMES)
    CLASS_NAMES: ClassVar = ("background", *VOC_NAMES)
    TRAIN_SIZE: ClassVar = 1464
    TEST_SIZE: ClassVar = 1449
    MASK_VALUES: ClassVar = {label: label for label in range(1 + len(VOC_NAMES))} | {VOID: IGNORE}

    def pairs(self, part: SplitName) -> Sequence[tuple[str, str]]:
        """The images that the part's list names, in its order."""
        (archive,) = VOC2012.archives
        folder = prepare(
            self.data_dir / VOC2012.place,
            lambda scratch: unpack_from(archive, self.data_dir, scratch, VOC2012.inside, self.verify),
        )
        advice = f"unpack {archive.name} there, or move {folder.resolve()} away to have that done"
        names = read_names(folder / "ImageSets" / "Segmentation" / f"{LISTS[part]}.txt", advice)
        pairs = [
            (f"{folder}/JPEGImages/{name}.jpg", f"{folder}/SegmentationClass/{name}.png") for name in names
        ]
        return existing(pairs, advice)

    def sources(self) -> dict[str, Path]:
        """The lists, images and masks."""
        return {
            name: self.data_dir / VOC2012.place / name
            for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass")
        }
