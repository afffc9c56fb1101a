"""Cityscapes (Cordts et al. 2016), fine annotations, in `data_dir/cityscapes`.

`leftImg8bit/PART/CITY/NAME_leftImg8bit.png` are the images, `gtFine/PART/CITY/NAME_gtFine_labelIds.png` their
masks. Where a folder is absent and its archive lies in `data_dir/cityscapes`, it is unpacked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.segmentation.segmentation_data import IGNORE, SegmentationData, existing
from common.data.shared.streamed import unpack_folder

IMAGES, MASKS = "leftImg8bit", "gtFine"
FOLDERS: dict[SplitName, str] = {"train": "train", "test": "val"}
# the official table (cityscapesScripts, helpers/labels.py): label ids that are trained, in the order of their
# train ids, and what they are
TRAINED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
LABEL_IDS = range(34)
# licence plates have id -1
LICENCE_PLATE = 255


class Cityscapes(SegmentationData):
    """Streets of 50 cities, 2048x1024, 19 classes: 2,975 images for training, 500 ("val") for testing.

    The masks of the 1,525 images of its own test part are not public.
    """

    NAME: ClassVar = "cityscapes"
    CLASSES: ClassVar = len(TRAINED_IDS)
    CLASS_NAMES: ClassVar = NAMES
    TRAIN_SIZE: ClassVar = 2975
    TEST_SIZE: ClassVar = 500
    MASK_VALUES: ClassVar = (
        dict.fromkeys(LABEL_IDS, IGNORE)
        | {LICENCE_PLATE: IGNORE}
        | {label: number for number, label in enumerate(TRAINED_IDS)}
    )

    def pairs(self, part: SplitName) -> Sequence[tuple[str, str]]:
        """The images of a part by city and name."""
        folder = self.data_dir / "cityscapes"
        archives = [f"{name}_trainvaltest.zip" for name in (IMAGES, MASKS)]
        advice = (
            f"Cityscapes needs a login: download {' and '.join(archives)} from "
            f"https://www.cityscapes-dataset.com/downloads and put them into {folder.resolve()}, unpacked or "
            "not; or take dataset.source=synthetic"
        )
        for name, archive in zip((IMAGES, MASKS), archives, strict=True):
            # no checksums are published
            unpack_folder(folder / name, folder / archive, name, None, self.verify, advice)
        place = FOLDERS[part]
        ending = f"_{IMAGES}.png"
        names = sorted(
            str(path.relative_to(folder / IMAGES)).removesuffix(ending)
            for path in (folder / IMAGES / place).glob(f"*/*{ending}")
        )
        if not names:
            raise UserError(f"{(folder / IMAGES / place).resolve()} holds no CITY/NAME{ending}: {advice}")
        pairs = [
            (f"{folder}/{IMAGES}/{name}{ending}", f"{folder}/{MASKS}/{name}_{MASKS}_labelIds.png")
            for name in names
        ]
        return existing(pairs, advice)

    def sources(self) -> dict[str, Path]:
        """The folders of images and masks."""
        return {name: self.data_dir / "cityscapes" / name for name in (IMAGES, MASKS)}
