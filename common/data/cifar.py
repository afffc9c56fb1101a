"""CIFAR-10 from its binary version (Krizhevsky 2009), in `data_dir/cifar-10-batches-bin`.

Each batch file holds 10,000 records of one label byte and 3 x 32 x 32 pixel bytes (R, G, B planes).
"""

import tarfile
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from common.data.base import ImageData, Part, Split
from common.data.download import (
    DamagedError,
    check_md5,
    describe,
    folder_lock,
    md5_of,
    obtain,
    reason,
    remember,
    remembered,
)
from common.runs.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz"
ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
# No checksums are published for single files. These are of a copy rebuilt from public repositories, all
# but 111 of whose 60,000 images are the official bytes; files unpacked here are in the folder's manifest.
REBUILT_MD5 = {
    "data_batch_1.bin": "e8800bf27ec6f45491f149f7317b9608",
    "data_batch_2.bin": "d178ad1f6648a2183a31cf87432de900",
    "data_batch_3.bin": "a07657a99d38d72989b3d36914cccca1",
    "data_batch_4.bin": "92d9153c23dfe57f13352f5b8c71cdfe",
    "data_batch_5.bin": "bb2cb22b9fb926de4da54317ccfe567b",
    "test_batch.bin": "4e0bc13f0b7c578e9606b29f675bdfd5",
}
RECORDS, SHAPE = 10_000, (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32


class Cifar10(ImageData):
    """Small colour photographs, 32x32: 50,000 for training, 10,000 for testing, 10 classes."""

    NAME: ClassVar = "cifar10"
    KIND: ClassVar = "image_classification"
    SHAPE: ClassVar = SHAPE
    CLASSES: ClassVar = 10
    TRAIN_SIZE: ClassVar = 50_000
    TEST_SIZE: ClassVar = 10_000
    MEAN: ClassVar = (0.49139968, 0.48215841, 0.44653091)
    STD: ClassVar = (0.24703223, 0.24348513, 0.26158784)

    def read(self, part: Part) -> Split:
        """All of one part: uint8 [n, 3, 32, 32] and labels 0..9; unpacks the archive if need be."""
        try:
            return self._batches(part)
        except UserError as problem:
            self._unpack(str(problem))
        return self._batches(part)

    def _batches(self, part: Part) -> Split:
        files = FILES[part]
        images = torch.empty(len(files) * RECORDS, *SHAPE, dtype=torch.uint8)
        labels = torch.empty(len(files) * RECORDS, dtype=torch.int64)
        for number, name in enumerate(files):
            path = self.data_dir / FOLDER / name
            try:
                records = self._records(path)
            except (OSError, DamagedError) as error:
                raise UserError(describe(path, error)) from error
            span = slice(number * RECORDS, (number + 1) * RECORDS)
            labels[span] = torch.from_numpy(records[:, 0].astype(np.int64))
            images[span] = torch.from_numpy(records[:, 1:].reshape(-1, *SHAPE))
        return Split(images, labels)

    def _records(self, path: Path) -> np.ndarray:
        content = np.fromfile(path, np.uint8)
        if content.size != RECORDS * RECORD_BYTES:
            raise DamagedError(f"{content.size} bytes instead of {RECORDS * RECORD_BYTES}")
        if self.verify:
            unpacked = remembered(path.parent)
            check_md5(content.data, {REBUILT_MD5[path.name], unpacked.get(path.name, REBUILT_MD5[path.name])})
        records = content.reshape(RECORDS, RECORD_BYTES)
        if records[:, 0].max() >= 10:
            raise DamagedError(f"a label {records[:, 0].max()}; they are 0 to 9")
        return records

    def _unpack(self, problem: str) -> None:
        """Put the six batch files of the archive, verified or downloaded, in their folder."""
        archive, folder = self.data_dir / ARCHIVE, self.data_dir / FOLDER
        as_they_are = "set dataset.verify=false to take files of the right size as they are, "
        advice = (
            f"put {ARCHIVE} into {self.data_dir.resolve()} to have it verified and unpacked, "
            f"{as_they_are if self.verify else ''}or take dataset=digits, which is bundled"
        )
        try:
            obtain(archive, f"{URL}/{ARCHIVE}", self._verify_archive, advice)
            with folder_lock(folder):
                self._extract(archive, folder)
        except UserError as error:
            raise UserError(f"{problem}; {error}") from error
        except (tarfile.TarError, EOFError, DamagedError) as error:
            raise UserError(
                f"{problem}; {archive.resolve()} cannot be unpacked ({error}): {advice}"
            ) from error
        except OSError as error:
            raise UserError(f"{problem}; {folder.resolve()} cannot be written ({reason(error)})") from error

    def _verify_archive(self, path: Path) -> None:
        found = md5_of(path)
        if self.verify and found != ARCHIVE_MD5:
            raise DamagedError(f"md5 {found} instead of {ARCHIVE_MD5}")

    def _extract(self, archive: Path, folder: Path) -> None:
        names = [name for part in FILES.values() for name in part]
        with tempfile.TemporaryDirectory(dir=self.data_dir, prefix=".unpack-") as scratch:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            unpacked = {name: Path(scratch) / FOLDER / name for name in names}
            absent = [name for name, path in unpacked.items() if not path.is_file()]
            if absent:
                raise DamagedError(f"no {FOLDER}/{absent[0]} in it")
            checksums = {name: md5_of(path) for name, path in unpacked.items()}
            for name, path in unpacked.items():
                path.replace(folder / name)
        if self.verify:
            remember(folder, checksums)
