"""MNIST and Fashion-MNIST from their original gzipped idx files, in `data_dir/mnist` and `/fashion_mnist`."""

import gzip
import math
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from common.data.shared.download import DamagedError, obtain
from common.data.shared.in_memory import ImageData, Part, Split
from common.data.shared.prepare import Checksum, check_content


class IdxImages(ImageData):
    """Grey 28x28 images of 10 classes in four idx files: 60,000 for training, 10,000 for testing."""

    KIND: ClassVar = "image_classification"
    SHAPE: ClassVar = (1, 28, 28)
    CLASSES: ClassVar = 10
    TRAIN_SIZE: ClassVar = 60_000
    TEST_SIZE: ClassVar = 10_000
    URL: ClassVar[str]
    # where the files lie in `data_dir`, and the data set to take where they cannot be had
    FOLDER: ClassVar[str]
    BUNDLED: ClassVar = "digits"
    # by file name; of the gzipped file, or of what it holds
    CHECKSUMS: ClassVar[dict[str, Checksum]]
    CHECKSUMS_OF_GZIP: ClassVar[bool]

    def read(self, part: Part) -> Split:
        """All of one part: uint8 [n, 1, 28, 28] and labels 0..9."""
        prefix, count = ("train", self.TRAIN_SIZE) if part == "train" else ("t10k", self.TEST_SIZE)
        images = self._idx(f"{prefix}-images-idx3-ubyte.gz", (count, 28, 28))
        labels = self._idx(f"{prefix}-labels-idx1-ubyte.gz", (count,))
        return Split(images.unsqueeze(1), labels.long())

    def sources(self) -> dict[str, Path]:
        """The four files."""
        return {f"{self.FOLDER}/{name}": self.data_dir / self.FOLDER / name for name in self.CHECKSUMS}

    def _idx(self, name: str, shape: tuple[int, ...]) -> Tensor:
        path = self.data_dir / self.FOLDER / name
        advice = f"put {name} into {path.parent.resolve()}, or take dataset={self.BUNDLED}, which is bundled"
        return obtain(path, f"{self.URL}/{name}", lambda file: self._parse(file, shape), advice)

    def _parse(self, path: Path, shape: tuple[int, ...]) -> Tensor:
        """An idx file: magic number 2048 + dimensions, then the sizes, big-endian int32, then the bytes."""
        packed = path.read_bytes()
        try:
            content = gzip.decompress(packed)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DamagedError(f"broken gzip: {error}") from error
        header = np.array([2048 + len(shape), *shape], dtype=">i4").tobytes()
        size = len(header) + math.prod(shape)
        if len(content) != size or not content.startswith(header):
            raise DamagedError(f"not the {size} bytes of an idx file of shape {shape}")
        checked = packed if self.CHECKSUMS_OF_GZIP else content
        check_content(path, checked, [self.CHECKSUMS[path.name]], self.verify)
        values = np.frombuffer(content, np.uint8, offset=len(header))
        if len(shape) == 1 and values.max() >= 10:
            raise DamagedError(f"a label {values.max()}; they are 0 to 9")
        return torch.from_numpy(values.reshape(shape).copy())


class Mnist(IdxImages):
    """Handwritten digits (LeCun, Cortes, Burges)."""

    NAME: ClassVar = "mnist"
    CLASS_NAMES: ClassVar = tuple("0123456789")
    FOLDER: ClassVar = "mnist"
    MEAN: ClassVar = (0.1307,)
    STD: ClassVar = (0.3081,)
    URL: ClassVar = "https://ossci-datasets.s3.amazonaws.com/mnist"
    # gzip headers hold a time stamp that differs between copies
    CHECKSUMS_OF_GZIP: ClassVar = False
    CHECKSUMS: ClassVar = {
        "train-images-idx3-ubyte.gz": Checksum("6bbc9ace898e44ae57da46a324031adb", confirmed=True),
        "train-labels-idx1-ubyte.gz": Checksum("a25bea736e30d166cdddb491f175f624", confirmed=True),
        "t10k-images-idx3-ubyte.gz": Checksum("2646ac647ad5339dbf082846283269ea", confirmed=True),
        "t10k-labels-idx1-ubyte.gz": Checksum("27ae3e4e09519cfbb04c329615203637", confirmed=True),
    }


class FashionMnist(IdxImages):
    """Pictures of clothes (Xiao, Rasul, Vollgraf 2017), in MNIST's format and sizes."""

    NAME: ClassVar = "fashion_mnist"
    CLASS_NAMES: ClassVar = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
        "Ankle boot",
    )  # fmt: skip
    FOLDER: ClassVar = "fashion_mnist"
    MEAN: ClassVar = (0.2860,)
    STD: ClassVar = (0.3530,)
    URL: ClassVar = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    CHECKSUMS_OF_GZIP: ClassVar = True
    CHECKSUMS: ClassVar = {
        "train-images-idx3-ubyte.gz": Checksum("8d4fb7e6c68d591d4c3dfef9ec88bf0d", confirmed=False),
        "train-labels-idx1-ubyte.gz": Checksum("25c81989df183df01b3e8a0aad5dffbe", confirmed=False),
        "t10k-images-idx3-ubyte.gz": Checksum("bef4ecab320f06d8554ea6380940ec79", confirmed=False),
        "t10k-labels-idx1-ubyte.gz": Checksum("bb300cfdad3c16e7a12a480ee83cd310", confirmed=False),
    }
