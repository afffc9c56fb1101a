"""CIFAR-10 and CIFAR-100 from their binary versions (Krizhevsky 2009), in `data_dir/cifar-*`.

Each file holds records of one label byte (CIFAR-10) or two (CIFAR-100: coarse, fine) and 3 x 32 x 32 pixel
bytes (R, G, B planes).
"""

from pathlib import Path
from typing import ClassVar, Literal, Unpack

import numpy as np
import torch

from common.base.errors import UserError
from common.data.shared.download import DamagedError, describe, remembered
from common.data.shared.in_memory import ImageData, Options, Part, Split
from common.data.shared.prepare import Archive, Checksum, check_content, obtain_unpacked

URL = "https://www.cs.toronto.edu/~kriz"
PIXEL_BYTES = 3 * 32 * 32
# of CIFAR-100, in the order of their labels (coarse_label_names.txt, fine_label_names.txt)
COARSE_NAMES = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables",
    "household_electrical_devices", "household_furniture", "insects", "large_carnivores",
    "large_man-made_outdoor_things", "large_natural_outdoor_scenes", "large_omnivores_and_herbivores",
    "medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals", "trees",
    "vehicles_1", "vehicles_2",
)  # fmt: skip
FINE_NAMES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo",
    "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree",
    "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree",
    "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit",
    "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe",
    "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip


class CifarData(ImageData):
    """Small colour photographs, 32x32: 50,000 for training, 10,000 for testing."""

    KIND: ClassVar = "image_classification"
    SHAPE: ClassVar = (3, 32, 32)
    TRAIN_SIZE: ClassVar = 50_000
    TEST_SIZE: ClassVar = 10_000
    ARCHIVE: ClassVar[str]
    ARCHIVE_CHECKSUM: ClassVar[Checksum]
    FOLDER: ClassVar[str]
    FILES: ClassVar[dict[Part, list[str]]]
    # how many classes each label byte of a record tells apart
    LABELS: ClassVar[tuple[int, ...]]
    # of single files that are known, though none are published
    MD5: ClassVar[dict[str, str]]
    # which label byte is the target
    label = 0

    def read(self, part: Part) -> Split:
        """All of one part: uint8 [n, 3, 32, 32] and labels; unpacks the archive if need be."""
        archive = Archive(
            self.data_dir / self.ARCHIVE, f"{URL}/{self.ARCHIVE}", self.ARCHIVE_CHECKSUM, self.FOLDER
        )
        as_they_are = "set dataset.verify=false to take files of the right size as they are, "
        advice = (
            f"put {self.ARCHIVE} into {self.data_dir.resolve()} to have it verified and unpacked, "
            f"{as_they_are if self.verify else ''}or take dataset=digits, which is bundled"
        )
        names = [name for files in self.FILES.values() for name in files]
        return obtain_unpacked(
            self.data_dir / self.FOLDER,
            names,
            archive,
            lambda folder: self._read_files(folder, part),
            self.verify,
            advice,
        )

    def sources(self) -> dict[str, Path]:
        """The files of both parts."""
        return {
            f"{self.FOLDER}/{name}": self.data_dir / self.FOLDER / name
            for files in self.FILES.values()
            for name in files
        }

    def _read_files(self, folder: Path, part: Part) -> Split:
        total = self.TRAIN_SIZE if part == "train" else self.TEST_SIZE
        images = torch.empty(total, *self.SHAPE, dtype=torch.uint8)
        labels = torch.empty(total, dtype=torch.int64)
        count = total // len(self.FILES[part])
        for number, name in enumerate(self.FILES[part]):
            try:
                records = torch.from_numpy(self._records(folder / name, count))
            except (OSError, DamagedError) as error:
                raise UserError(describe(folder / name, error)) from error
            span = slice(number * count, (number + 1) * count)
            labels[span] = records[:, self.label]
            images[span].view(count, -1).copy_(records[:, len(self.LABELS) :])
        return Split(images, labels)

    def _records(self, path: Path, count: int) -> np.ndarray:
        content = np.fromfile(path, np.uint8)
        size = count * (len(self.LABELS) + PIXEL_BYTES)
        if content.size != size:
            raise DamagedError(f"{content.size} bytes instead of {size}")
        md5s = [source[path.name] for source in (self.MD5, remembered(path.parent)) if path.name in source]
        check_content(path, content.data, [Checksum(md5, confirmed=True) for md5 in md5s], self.verify)
        records = content.reshape(count, -1)
        for byte, classes in enumerate(self.LABELS):
            if records[:, byte].max() >= classes:
                raise DamagedError(f"a label {records[:, byte].max()}; they are 0 to {classes - 1}")
        return records


class Cifar10(CifarData):
    """CIFAR-10: ten classes."""

    NAME: ClassVar = "cifar10"
    CLASSES: ClassVar = 10
    CLASS_NAMES: ClassVar = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    MEAN: ClassVar = (0.49139968, 0.48215841, 0.44653091)
    STD: ClassVar = (0.24703223, 0.24348513, 0.26158784)
    ARCHIVE: ClassVar = "cifar-10-binary.tar.gz"
    ARCHIVE_CHECKSUM: ClassVar = Checksum("c32a1d4ab5d03f1284b67883e8d87530", confirmed=True)
    FOLDER: ClassVar = "cifar-10-batches-bin"
    FILES: ClassVar = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    LABELS: ClassVar = (10,)
    # of a copy rebuilt from public repositories, all but 111 of whose 60,000 images are the official bytes
    MD5: ClassVar = {
        "data_batch_1.bin": "e8800bf27ec6f45491f149f7317b9608",
        "data_batch_2.bin": "d178ad1f6648a2183a31cf87432de900",
        "data_batch_3.bin": "a07657a99d38d72989b3d36914cccca1",
        "data_batch_4.bin": "92d9153c23dfe57f13352f5b8c71cdfe",
        "data_batch_5.bin": "bb2cb22b9fb926de4da54317ccfe567b",
        "test_batch.bin": "4e0bc13f0b7c578e9606b29f675bdfd5",
    }


class Cifar100(CifarData):
    """CIFAR-100: a hundred fine classes in twenty coarse ones.

    Args:
        labels: "fine" for 100 classes, "coarse" for 20.
        The others as in `ImageData`.
    """

    NAME: ClassVar = "cifar100"
    CLASSES: ClassVar = 100
    MEAN: ClassVar = (0.50707516, 0.48654887, 0.44091784)
    STD: ClassVar = (0.26733429, 0.25643846, 0.27615047)
    ARCHIVE: ClassVar = "cifar-100-binary.tar.gz"
    ARCHIVE_CHECKSUM: ClassVar = Checksum("03b5dce01913d631647c71ecec9e9cb8", confirmed=False)
    FOLDER: ClassVar = "cifar-100-binary"
    FILES: ClassVar = {"train": ["train.bin"], "test": ["test.bin"]}
    LABELS: ClassVar = (20, 100)
    MD5: ClassVar = {}

    def __init__(
        self,
        *,
        labels: Literal["fine", "coarse"],
        augment: Literal["none", "crop_flip"],
        **options: Unpack[Options],
    ) -> None:
        self.label = 1 if labels == "fine" else 0
        super().__init__(augment=augment, **options)

    @property
    def label_count(self) -> int:
        return self.LABELS[self.label]

    def label_names(self) -> list[str]:
        return list((COARSE_NAMES, FINE_NAMES)[self.label])
