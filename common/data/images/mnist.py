"""MNIST and Fashion-MNIST from their original idx files, in `data_dir/mnist` and `data_dir/fashion_mnist`.

The files may be gzipped or not, and may lie where torchvision keeps them: `MNIST/raw`, `FashionMNIST/raw`.
"""

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
from common.data.shared.streamed import naming

# what a gzipped file begins with
GZIP = b"\x1f\x8b"


class IdxImages(ImageData):
    """Grey 28x28 images of 10 classes in four idx files: 60,000 for training, 10,000 for testing.

    A file is looked for gzipped and unpacked, with the names of its maker and those that some copies have
    (`train-images.idx3-ubyte`), in `FOLDER` and where torchvision puts it; else it is downloaded.
    """

    KIND: ClassVar = "image_classification"
    SHAPE: ClassVar = (1, 28, 28)
    CLASSES: ClassVar = 10
    TRAIN_SIZE: ClassVar = 60_000
    TEST_SIZE: ClassVar = 10_000
    URL: ClassVar[str]
    # where the files lie in `data_dir`, and the data set to take where they cannot be had
    FOLDER: ClassVar[str]
    TORCHVISION: ClassVar[str]
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
        return {f"{self.FOLDER}/{name}": self._place(name) for name in self.CHECKSUMS}

    def _place(self, name: str) -> Path:
        """Where a file lies: the first place that has it; where none has, that of a download."""
        raw = name.removesuffix(".gz")
        names = (name, raw, raw.replace("-idx", ".idx"), f"{raw.replace('-idx', '.idx')}.gz")
        folders = (self.data_dir / self.FOLDER, self.data_dir / self.TORCHVISION)
        places = [folder / one for folder in folders for one in names]
        return next((place for place in places if place.is_file()), places[0])

    def _idx(self, name: str, shape: tuple[int, ...]) -> Tensor:
        path = self._place(name)
        if path != self.data_dir / self.FOLDER / name:
            # of another name or place: nothing is downloaded over it
            with naming(path, f"remove it to have {name} downloaded"):
                return self._parse(path, shape)
        advice = (
            f"put {name} (gzipped or not) into {path.parent.resolve()}, as torchvision's {self.TORCHVISION} "
            f"into {self.data_dir.resolve()}, or take dataset={self.BUNDLED}, which is bundled"
        )
        return obtain(path, f"{self.URL}/{name}", lambda file: self._parse(file, shape), advice)

    def _parse(self, path: Path, shape: tuple[int, ...]) -> Tensor:
        """An idx file: magic number 2048 + dimensions, then the sizes, big-endian int32, then the bytes."""
        packed = path.read_bytes()
        content = packed if path.suffix != ".gz" and not packed.startswith(GZIP) else _unpacked(packed)
        header = np.array([2048 + len(shape), *shape], dtype=">i4").tobytes()
        size = len(header) + math.prod(shape)
        if len(content) != size or not content.startswith(header):
            raise DamagedError(f"not the {size} bytes of an idx file of shape {shape}")
        self._check(path, packed, content)
        values = np.frombuffer(content, np.uint8, offset=len(header))
        if len(shape) == 1 and values.max() >= 10:
            raise DamagedError(f"a label {values.max()}; they are 0 to 9")
        return torch.from_numpy(values.reshape(shape).copy())

    def _check(self, path: Path, packed: bytes, content: bytes) -> None:
        """Compare the checksum; an unpacked file of a set whose packed one is known has none."""
        if self.CHECKSUMS_OF_GZIP and packed is content:
            return
        known = self.CHECKSUMS[f"{path.name.removesuffix('.gz').replace('.idx', '-idx')}.gz"]
        check_content(path, packed if self.CHECKSUMS_OF_GZIP else content, [known], self.verify)


def _unpacked(packed: bytes) -> bytes:
    try:
        return gzip.decompress(packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DamagedError(f"broken gzip: {error}") from error


class Mnist(IdxImages):
    """Handwritten digits (LeCun, Cortes, Burges)."""

    NAME: ClassVar = "mnist"
    CLASS_NAMES: ClassVar = tuple("0123456789")
    FOLDER: ClassVar = "mnist"
    TORCHVISION: ClassVar = "MNIST/raw"
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
    TORCHVISION: ClassVar = "FashionMNIST/raw"
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
