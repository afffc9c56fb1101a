"""PASCAL-Person-Part (Chen et al., CVPR 2014; masks and lists of Chen et al., "Attention to Scale", CVPR
2016).

In `data_dir/pascal_person_part`: `images/NAME.jpg` (of PASCAL VOC 2010; those of
`data_dir/VOCdevkit/VOC2012` serve where there is no such folder), `masks/NAME.png` with 0 for the
background, 1 to 6 for parts and 255 for void, and `train.txt`, `val.txt` with a name a line (also
`NAME.jpg`, or a path that ends so).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.detection.voc import VOC2012, read_names
from common.data.segmentation.segmentation_data import IGNORE, SegmentationData, existing

LISTS: dict[SplitName, str] = {"train": "train", "test": "val"}
NAMES = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
VOID = 255


class PersonPart(SegmentationData):
    """Photographs of people, background and six parts of the body: 1,716 for training, 1,817 (val) for
    testing."""

    NAME: ClassVar = "pascal_person_part"
    CLASSES: ClassVar = len(NAMES)
    CLASS_NAMES: ClassVar = NAMES
    TRAIN_SIZE: ClassVar = 1716
    TEST_SIZE: ClassVar = 1817
    MASK_VALUES: ClassVar = {label: label for label in range(len(NAMES))} | {VOID: IGNORE}

    def pairs(self, part: SplitName) -> Sequence[tuple[str, str]]:
        """The images that the part's list names, in its order."""
        folder = self.data_dir / "pascal_person_part"
        advice = (
            "lay out train.txt, val.txt, masks/NAME.png and images/NAME.jpg there (the annotations are at "
            "http://liangchiehchen.com/projects/DeepLab.html, the images those of PASCAL VOC 2010), or take "
            "dataset.source=synthetic"
        )
        if not folder.is_dir():
            raise UserError(f"{folder.resolve()} is missing: {advice}")
        # lists have bare names, file names or paths
        names = [Path(line).stem for line in read_names(folder / f"{LISTS[part]}.txt", advice)]
        return existing(
            [(f"{self._images}/{name}.jpg", f"{folder}/masks/{name}.png") for name in names], advice
        )

    @property
    def _images(self) -> Path:
        own = self.data_dir / "pascal_person_part" / "images"
        voc = self.data_dir / VOC2012.place / "JPEGImages"
        return voc if voc.is_dir() and not own.is_dir() else own

    def sources(self) -> dict[str, Path]:
        """The lists and masks, and the images."""
        return {"pascal_person_part": self.data_dir / "pascal_person_part", "images": self._images}
