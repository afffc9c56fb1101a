"""MNIST from its original idx files (LeCun, Cortes, Burges), gzipped, in `data_dir/mnist`."""

import gzip
import math
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from common.data.base import ImageData, Part, Split
from common.data.download import DamagedError, check_md5, obtain

URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
# of the uncompressed bytes: gzip headers hold a time stamp that differs between copies
MD5 = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}


class Mnist(ImageData):
    """Handwritten digits, 28x28 grey: 60,000 for training, 10,000 for testing."""

    NAME: ClassVar = "mnist"
    KIND: ClassVar = "image_classification"
    SHAPE: ClassVar = (1, 28, 28)
    CLASSES: ClassVar = 10
    TRAIN_SIZE: ClassVar = 60_000
    TEST_SIZE: ClassVar = 10_000
    MEAN: ClassVar = (0.1307,)
    STD: ClassVar = (0.3081,)

    def read(self, part: Part) -> Split:
        """All of one part: uint8 [n, 1, 28, 28] and labels 0..9."""
        prefix, count = ("train", self.TRAIN_SIZE) if part == "train" else ("t10k", self.TEST_SIZE)
        images = self._idx(f"{prefix}-images-idx3-ubyte.gz", (count, 28, 28))
        labels = self._idx(f"{prefix}-labels-idx1-ubyte.gz", (count,))
        return Split(images.unsqueeze(1), labels.long())

    def _idx(self, name: str, shape: tuple[int, ...]) -> Tensor:
        path = self.data_dir / "mnist" / name
        advice = f"put {name} into {path.parent.resolve()}, or take dataset=digits, which is bundled"
        return obtain(path, f"{URL}/{name}", lambda file: self._parse(file, MD5[name], shape), advice)

    def _parse(self, path: Path, md5: str, shape: tuple[int, ...]) -> Tensor:
        """An idx file: magic number 2048 + dimensions, then the sizes, big-endian int32, then the bytes."""
        try:
            content = gzip.decompress(path.read_bytes())
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DamagedError(f"broken gzip: {error}") from error
        header = np.array([2048 + len(shape), *shape], dtype=">i4").tobytes()
        size = len(header) + math.prod(shape)
        if len(content) != size or not content.startswith(header):
            raise DamagedError(f"not the {size} bytes of an idx file of shape {shape}")
        if self.verify:
            check_md5(content, [md5])
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy())
