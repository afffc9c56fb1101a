"""Binary classification sets of the LIBSVM collection, in `data_dir/libsvm`, as dense float32 tables.

No checksums are published for these files. What is checked: rows (and that the last one is whole),
features, labels, that all values are 1 (all three sets are binary), the number of positive labels, and
the md5 of files that were downloaded here or that are, by their size, one of the known copies.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from sklearn.datasets import load_svmlight_file

from common.data.base import Part, Split, TensorData
from common.data.bundled import holdout
from common.data.download import DamagedError, check_md5, obtain, remembered

URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary"


@dataclass(frozen=True)
class Facts:
    """What a file must hold; `positives` is None where the number is not known."""

    rows: int
    features: int
    positives: int | None


@dataclass(frozen=True)
class Copy:
    """A known copy of a file: its size in bytes, its md5, and how many rows it has."""

    size: int
    md5: str
    rows: int


FACTS = {
    "a9a": Facts(32_561, 123, 7_841),
    "a9a.t": Facts(16_281, 123, 3_846),
    "w8a": Facts(49_749, 300, 1_479),
    "w8a.t": Facts(14_951, 300, None),
    "mushrooms": Facts(8_124, 112, None),
    "agaricus.txt.train": Facts(6_513, 126, 3_140),
    "agaricus.txt.test": Facts(1_611, 126, 776),
}
COPIES = {
    # labels 0/1, and one row less than the official file
    "a9a": Copy(2_297_242, "d60af0ec70da11211de4b7d1f2bfa46a", 32_560),
    "a9a.t": Copy(1_148_347, "f9425d9b07b46c4bbf29a3714a691113", 16_281),
    "w8a": Copy(3_478_239, "a0447c58bf2c1c2d2eb1c414f8cca393", 49_749),
    "agaricus.txt.train": Copy(742_257, "a88a94251c2969849ee603701cd4878e", 6_513),
    "agaricus.txt.test": Copy(183_611, "e13c43414be35bb0c7d40b09e1ad34ad", 1_611),
}
LABELS = [(-1, 1), (0, 1), (1, 2)]


def parse(path: Path, name: str, verify: bool) -> Split:
    """One LIBSVM text file ("label index:value ...", indices from 1): float32 [n, d], labels 0/1.

    Labels may be -1/+1, 0/1 or 1/2; the larger one becomes 1.

    Raises:
        DamagedError: the content is not that of the file `name`.
        OSError: the file is missing or cannot be read.
    """
    content = path.read_bytes()
    facts, rows = FACTS[name], {FACTS[name].rows}
    if name in COPIES and (not verify or len(content) == COPIES[name].size):
        rows.add(COPIES[name].rows)
    if verify:
        _check_md5(content, path.parent, name)
    if not content.endswith(b"\n"):
        raise DamagedError("it ends within a row")
    try:
        table, labels = load_svmlight_file(io.BytesIO(content), n_features=facts.features, zero_based=False)
    except (ValueError, OverflowError) as error:
        raise DamagedError(str(error).splitlines()[0]) from error
    if table.shape[0] not in rows:
        raise DamagedError(f"{table.shape[0]} rows instead of {facts.rows}")
    if tuple(np.unique(labels)) not in LABELS:
        raise DamagedError("labels other than -1/+1, 0/1 or 1/2")
    if not np.all(table.data == 1):
        raise DamagedError("values other than 1")
    positive = labels == labels.max()
    if facts.positives not in (None, positive.sum()):
        raise DamagedError(f"{positive.sum()} positive labels instead of {facts.positives}")
    return Split(torch.from_numpy(table.astype(np.float32).toarray()), torch.from_numpy(positive).long())


def _check_md5(content: bytes, folder: Path, name: str) -> None:
    known = {md5 for file, md5 in remembered(folder).items() if file == name}
    if name in COPIES and len(content) == COPIES[name].size:
        known.add(COPIES[name].md5)
    if known:
        check_md5(content, known)


class LibsvmData(TensorData):
    """A set with an official training file, and a test file that is read when it is first used."""

    READS_TEST_IN_SETUP: ClassVar = False

    def read(self, part: Part) -> Split:
        """All of one part: float32 [n, d] and labels 0/1."""
        return self._file(self.NAME if part == "train" else f"{self.NAME}.t")

    def _file(self, name: str) -> Split:
        path = self.data_dir / "libsvm" / name
        advice = (
            f"put {name} into {path.parent.resolve()}, or take dataset=breast_cancer or dataset=digits, "
            "which are bundled"
        )
        return obtain(path, f"{URL}/{name}", lambda file: self._parse(file, name), advice)

    def _parse(self, path: Path, name: str) -> Split:
        return parse(path, name, self.verify)


class A9a(LibsvmData):
    """Adult: does a person earn over 50,000 dollars? 123 binary features of census data (Platt)."""

    NAME: ClassVar = "a9a"
    KIND: ClassVar = "tabular_classification"
    SHAPE: ClassVar = (123,)
    CLASSES: ClassVar = 2
    TRAIN_SIZE: ClassVar = 32_561
    TEST_SIZE: ClassVar = 16_281


class W8a(LibsvmData):
    """Web pages of one category or not, by 300 binary keyword features (Platt); 3% positive."""

    NAME: ClassVar = "w8a"
    KIND: ClassVar = "tabular_classification"
    SHAPE: ClassVar = (300,)
    CLASSES: ClassVar = 2
    TRAIN_SIZE: ClassVar = 49_749
    TEST_SIZE: ClassVar = 14_951


class Mushrooms(LibsvmData):
    """Poisonous (1) or edible (0) mushrooms, by 112 binary features.

    Read from LIBSVM's file `mushrooms`, or from xgboost's pair `agaricus.txt.train` and `.test`, which
    holds the same 8,124 mushrooms in 126 features. LIBSVM's encoding leaves out values that never occur
    (9 columns) and the attribute stalk-root, which has missing values (5 more); so does `read`.
    There is no official test set: a stratified 20% holdout, drawn once with seed 0, serves as one.
    """

    NAME: ClassVar = "mushrooms"
    KIND: ClassVar = "tabular_classification"
    SHAPE: ClassVar = (112,)
    CLASSES: ClassVar = 2
    TRAIN_SIZE: ClassVar = 6_499
    TEST_SIZE: ClassVar = 1_625
    PAIR: ClassVar = ("agaricus.txt.train", "agaricus.txt.test")
    # stalk-root's columns among the 126, from 0
    STALK_ROOT: ClassVar = slice(54, 61)

    def read(self, part: Part) -> Split:
        """All of one part of the fixed holdout split."""
        whole = self._file("mushrooms")
        return holdout(whole, whole.targets, self.TEST_SIZE, part)

    def _parse(self, path: Path, name: str) -> Split:
        pair = [path.with_name(other) for other in self.PAIR]
        if path.exists() or not all(other.exists() for other in pair):
            return parse(path, name, self.verify)
        halves = []
        for other in pair:
            try:
                halves.append(parse(other, other.name, self.verify))
            except DamagedError as error:
                raise DamagedError(f"{other.name}: {error}") from error
        inputs = torch.cat([half.inputs for half in halves])
        used = inputs.any(dim=0)
        used[self.STALK_ROOT] = False
        return Split(
            inputs[:, used], torch.cat([half.targets for half in halves if half.targets is not None])
        )
