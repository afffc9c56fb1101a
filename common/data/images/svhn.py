"""SVHN, cropped house numbers (Netzer et al. 2011), from its MATLAB files, in `data_dir/svhn`."""

from pathlib import Path
from typing import ClassVar, Literal, Unpack

import numpy as np
import torch
from scipy.io import loadmat

from common.data.shared.download import DamagedError, obtain
from common.data.shared.in_memory import ImageData, Options, Part, Split
from common.data.shared.prepare import Checksum, check_file

URL = "http://ufldl.stanford.edu/housenumbers"


class Svhn(ImageData):
    """Digits of house numbers, 32x32 colour: 73,257 for training, 26,032 for testing.

    Means and deviations are those of the training set without the extra images.

    Args:
        extra: train on the 531,131 extra, easier images too: 604,388 in all (1.9 GB of memory, and as
            much again while they are read).
        The others as in `ImageData`.
    """

    NAME: ClassVar = "svhn"
    KIND: ClassVar = "image_classification"
    SHAPE: ClassVar = (3, 32, 32)
    CLASSES: ClassVar = 10
    CLASS_NAMES: ClassVar = tuple("0123456789")
    TRAIN_SIZE: ClassVar = 73_257
    EXTRA_SIZE: ClassVar = 531_131
    TEST_SIZE: ClassVar = 26_032
    MEAN: ClassVar = (0.4377, 0.4438, 0.4728)
    STD: ClassVar = (0.1980, 0.2010, 0.1970)
    CHECKSUMS: ClassVar = {
        "train_32x32.mat": Checksum("e26dedcc434d2e4c54c9b2d4a06d8373", confirmed=False),
        "test_32x32.mat": Checksum("eb5a983be6a315427106f1b164d9cef3", confirmed=False),
        "extra_32x32.mat": Checksum("a93ce644f1a588dc4d68dda5feec44a7", confirmed=False),
    }

    def __init__(
        self, *, extra: bool, augment: Literal["none", "crop_flip"], **options: Unpack[Options]
    ) -> None:
        super().__init__(augment=augment, **options)
        self.extra = extra

    @property
    def train_size(self) -> int:
        return self.TRAIN_SIZE + (self.EXTRA_SIZE if self.extra else 0)

    def read(self, part: Part) -> Split:
        """All of one part: uint8 [n, 3, 32, 32] and labels 0..9, the extra images after the others."""
        files = {"test_32x32.mat": self.TEST_SIZE}
        if part == "train":
            files = {"train_32x32.mat": self.TRAIN_SIZE}
            if self.extra:
                files["extra_32x32.mat"] = self.EXTRA_SIZE
        images = torch.empty(sum(files.values()), *self.SHAPE, dtype=torch.uint8)
        labels = torch.empty(len(images), dtype=torch.int64)
        first = 0
        for name, count in files.items():
            self._fill(name, images[first : first + count], labels[first : first + count])
            first += count
        return Split(images, labels)

    def sources(self) -> dict[str, Path]:
        """The files of both parts, and the extra ones if they are used."""
        return {
            f"svhn/{name}": self.data_dir / "svhn" / name
            for name in self.CHECKSUMS
            if self.extra or not name.startswith("extra")
        }

    def _fill(self, name: str, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Read a file into the given tensors."""

        def read(path: Path) -> None:
            pixels, digits = self._parse(path, len(images))
            # stored with height fastest, then width, channel, image
            images.copy_(torch.from_numpy(pixels.T).transpose(2, 3))
            labels.copy_(torch.from_numpy(digits))

        path = self.data_dir / "svhn" / name
        advice = f"put {name} into {path.parent.resolve()}, or take dataset=digits, which is bundled"
        obtain(path, f"{URL}/{name}", read, advice)

    def _parse(self, path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(X uint8 [32, 32, 3, count], y int64 [count] in 0..9)."""
        check_file(path, self.CHECKSUMS[path.name], self.verify)
        try:
            content = loadmat(path, variable_names=["X", "y"])
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            # whatever a parser of foreign bytes stumbles over
            raise DamagedError(f"not a MATLAB 5 file: {' '.join(str(error).split())}") from error
        pixels, digits = content.get("X"), content.get("y")
        if pixels is None or digits is None:
            raise DamagedError("no X and y in it")
        if pixels.shape != (32, 32, 3, count) or pixels.dtype != np.uint8 or digits.shape != (count, 1):
            raise DamagedError(
                f"X of {pixels.dtype} {pixels.shape} and y of {digits.shape} "
                f"instead of uint8 {(32, 32, 3, count)} and {(count, 1)}"
            )
        if not np.isin(digits, range(1, 11)).all():
            raise DamagedError(f"a label {digits[~np.isin(digits, range(1, 11))][0]}; they are 1 to 10")
        # 10 stands for the digit 0
        return pixels, digits[:, 0].astype(np.int64) % 10
