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

VOID = 255


class Voc2012Segmentation(SegmentationData):
    """Photographs, background and 20 classes: 1,464 for training, 1,449 (val) for testing.

    The masks of its own test images are not public.
    """

    LISTS: ClassVar[dict[SplitName, str]] = {"train": "train", "test": "val"}
    # the folders of masks by part
    MASKS: ClassVar[dict[SplitName, str]] = {"train": "SegmentationClass", "test": "SegmentationClass"}

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
        names = read_names(folder / "ImageSets" / "Segmentation" / f"{self.LISTS[part]}.txt", advice)
        pairs = [
            (f"{folder}/JPEGImages/{name}.jpg", f"{folder}/{self.MASKS[part]}/{name}.png") for name in names
        ]
        return existing(pairs, advice)

    def sources(self) -> dict[str, Path]:
        """The lists, images and masks."""
        return {
            name: self.data_dir / VOC2012.place / name
            for name in ("ImageSets/Segmentation", "JPEGImages", *sorted(set(self.MASKS.values())))
        }


class Voc2012Augmented(Voc2012Segmentation):
    """The same, its training part with the masks that Hariharan et al. (ICCV 2011) made: 10,582 images.

    Their masks lie in `SegmentationClassAug/NAME.png`, the names in `ImageSets/Segmentation/trainaug.txt`, as
    they are usually passed on; they are no part of the archive.
    """

    NAME: ClassVar = "voc2012_augmented"
    TRAIN_SIZE: ClassVar = 10582
    LISTS: ClassVar = {"train": "trainaug", "test": "val"}
    MASKS: ClassVar = {"train": "SegmentationClassAug", "test": "SegmentationClass"}
