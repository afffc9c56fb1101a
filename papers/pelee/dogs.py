"""The 120 classes of ImageNet (ILSVRC-2012) that Stanford Dogs has, with ImageNet's own images.

Wang et al. 2018, section 2.2, "a customized Stanford Dogs": 150,466 images for training, 6,000 for testing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Unpack

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.images.image_folder import FOLDERS, ImageFolder, images_of, listed
from common.data.shared.streamed import Record, StreamedOptions

# the numbers of the classes in WordNet: the breeds of Stanford Dogs (Khosla et al. 2011), in their order
NUMBERS = """
    02085620 02085782 02085936 02086079 02086240 02086646 02086910 02087046 02087394 02088094
    02088238 02088364 02088466 02088632 02089078 02089867 02089973 02090379 02090622 02090721
    02091032 02091134 02091244 02091467 02091635 02091831 02092002 02092339 02093256 02093428
    02093647 02093754 02093859 02093991 02094114 02094258 02094433 02095314 02095570 02095889
    02096051 02096177 02096294 02096437 02096585 02097047 02097130 02097209 02097298 02097474
    02097658 02098105 02098286 02098413 02099267 02099429 02099601 02099712 02099849 02100236
    02100583 02100735 02100877 02101006 02101388 02101556 02102040 02102177 02102318 02102480
    02102973 02104029 02104365 02105056 02105162 02105251 02105412 02105505 02105641 02105855
    02106030 02106166 02106382 02106550 02106662 02107142 02107312 02107574 02107683 02107908
    02108000 02108089 02108422 02108551 02108915 02109047 02109525 02109961 02110063 02110185
    02110627 02110806 02110958 02111129 02111277 02111500 02111889 02112018 02112137 02112350
    02112706 02113023 02113186 02113624 02113712 02113799 02113978 02115641 02115913 02116738
"""
WNIDS = tuple(f"n{number}" for number in NUMBERS.split())


class StanfordDogsIlsvrc(ImageFolder):
    """Photographs of dogs of 120 breeds, read from a folder of ImageNet; class k is the k-th of `WNIDS`.

    Args:
        folder: ImageNet's name in `data_dir`, as `ImageFolder` has it; other classes there are left alone.
        size, resize, augment: as in `ImageFolder`.
        The others as in `StreamedData`.
    """

    NAME: ClassVar = "stanford_dogs_ilsvrc"
    CLASSES: ClassVar = len(WNIDS)
    TRAIN_SIZE: ClassVar = 150_466
    TEST_SIZE: ClassVar = 6000

    def __init__(
        self,
        *,
        folder: str,
        size: int,
        resize: int,
        augment: Literal["none", "flip", "resized_crop"],
        **options: Unpack[StreamedOptions],
    ) -> None:
        settings = {"folder": folder, "size": size, "resize": resize, "augment": augment, **options}
        super().__init__(classes=len(WNIDS), **settings)  # type: ignore[arg-type]
        # what the archives are unpacked to
        self.whole = ImageFolder(classes=ImageFolder.CLASSES, **settings)  # type: ignore[arg-type]

    def records(self, part: SplitName) -> Sequence[Record]:
        """The images of a part, class by class.

        Raises:
            UserError: a class has no folder or no image.
        """
        self.whole._prepare(part)
        folder = self.folder / FOLDERS[part]
        absent = [wnid for wnid in WNIDS if not (folder / wnid).is_dir()]
        if absent:
            raise UserError(
                f"{folder.resolve()} lacks {len(absent)} of the {len(WNIDS)} class folders of dogs, as "
                f"{absent[0]}: {self._advice()}"
            )
        return listed(folder, list(WNIDS), images_of(folder, WNIDS))

    def sources(self) -> dict[str, Path]:
        """The folders of the classes in both parts."""
        return {f"{part}/{wnid}": self.folder / part / wnid for part in FOLDERS.values() for wnid in WNIDS}
