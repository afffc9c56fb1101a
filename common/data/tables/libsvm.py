"""Binary classification sets of the LIBSVM collection, in `data_dir/libsvm`, as float32 tables.

No checksums are published for these files. What is checked: rows (and that the last one is whole),
features, labels, that all values are finite (1 in the sets whose features are binary), the number of
positive labels where it is known, and the md5 of files that were downloaded here or that are, by their
size, one of the known copies.
"""

import bz2
import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.datasets import load_svmlight_file
from torch import Tensor

from common.base.dataset import Batch, SplitName, check
from common.base.errors import UserError
from common.data.shared.download import DamagedError, obtain, remembered
from common.data.shared.in_memory import Options, Part, Split, TensorData
from common.data.shared.prepare import Checksum, check_content
from common.data.shared.sparse import csr, row_norms, scale_rows
from common.data.tables.bundled import holdout

URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary"


@dataclass(frozen=True)
class Facts:
    """What a file must hold; `positives` is None where the number is not known."""

    rows: int
    features: int
    positives: int | None
    # whether all values that are written are 1
    binary: bool = True
    # kept as it is: most values are 0
    sparse: bool = False


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
    "ijcnn1.bz2": Facts(49_990, 22, None, binary=False),
    "ijcnn1.t.bz2": Facts(91_701, 22, None, binary=False),
    "covtype.libsvm.binary.scale.bz2": Facts(581_012, 54, None, binary=False),
    "rcv1_train.binary.bz2": Facts(20_242, 47_236, None, binary=False, sparse=True),
    "rcv1_test.binary.bz2": Facts(677_399, 47_236, None, binary=False, sparse=True),
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
# of a parser's message
LONGEST_MESSAGE = 120


def parse(path: Path, name: str, verify: bool) -> Split:
    """One LIBSVM text file ("label index:value ...", indices from 1), as it is or in bzip2.

    Labels may be -1/+1, 0/1 or 1/2; the larger one becomes 1.

    Returns:
        float32 [n, d], dense or sparse CSR as `FACTS` says, and labels 0/1.

    Raises:
        DamagedError: the content is not that of the file `name`.
        OSError: the file is missing or cannot be read.
    """
    content = path.read_bytes()
    facts, rows = FACTS[name], {FACTS[name].rows}
    if name in COPIES and (not verify or len(content) == COPIES[name].size):
        rows.add(COPIES[name].rows)
    check_content(path, content, _known(content, path.parent, name), verify)
    table, labels = _load(_text(content, name), facts.features)
    if table.shape[0] not in rows:
        raise DamagedError(f"{table.shape[0]} rows instead of {facts.rows}")
    if tuple(np.unique(labels)) not in LABELS:
        raise DamagedError("labels other than -1/+1, 0/1 or 1/2")
    if facts.binary and not np.all(table.data == 1):
        raise DamagedError("values other than 1")
    if not np.isfinite(table.data).all():
        raise DamagedError("values that are not finite")
    positive = labels == labels.max()
    if facts.positives not in (None, positive.sum()):
        raise DamagedError(f"{positive.sum()} positive labels instead of {facts.positives}")
    return Split(_tensor(table, facts.sparse), torch.from_numpy(positive).long())


def _known(content: bytes, folder: Path, name: str) -> list[Checksum]:
    md5s = {md5 for file, md5 in remembered(folder).items() if file == name}
    if name in COPIES and len(content) == COPIES[name].size:
        md5s.add(COPIES[name].md5)
    return [Checksum(md5, confirmed=True) for md5 in md5s]


def _text(content: bytes, name: str) -> io.BytesIO | bz2.BZ2File:
    if name.endswith(".bz2"):
        # a truncated one is seen by its own checksums
        return bz2.open(io.BytesIO(content))
    if not content.endswith(b"\n"):
        raise DamagedError("it ends within a row")
    return io.BytesIO(content)


def _load(text: io.BytesIO | bz2.BZ2File, features: int) -> tuple[csr_matrix, np.ndarray]:
    try:
        table, labels = load_svmlight_file(text, n_features=features, dtype=np.float32, zero_based=False)
    except (ValueError, OverflowError) as error:
        raise DamagedError(str(error).splitlines()[0][:LONGEST_MESSAGE]) from error
    except (EOFError, OSError) as error:
        raise DamagedError(f"broken bzip2: {error}") from error
    return table, labels


def _tensor(table: csr_matrix, sparse: bool) -> Tensor:
    if not sparse:
        return torch.from_numpy(table.toarray())
    starts, columns = (torch.from_numpy(part).long() for part in (table.indptr, table.indices))
    return csr(starts, columns, torch.from_numpy(table.data), table.shape[1])


class LibsvmData(TensorData):
    """A set with an official training file, and a test file that is read when it is first used."""

    READS_TEST_IN_SETUP: ClassVar = False
    KIND: ClassVar = "tabular_classification"
    CLASSES: ClassVar = 2
    # file names of the training and the test set
    FILES: ClassVar[dict[Part, str]]

    def read(self, part: Part) -> Split:
        """All of one part: float32 [n, d] and labels 0/1."""
        return self._file(self.FILES[part])

    def sources(self) -> dict[str, Path]:
        """The files of both parts."""
        return {f"libsvm/{name}": self.data_dir / "libsvm" / name for name in self.file_names()}

    def file_names(self) -> tuple[str, ...]:
        """The names of the files that are read."""
        return tuple(self.FILES.values())

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
    CLASS_NAMES: ClassVar = ("<=50K", ">50K")
    FILES: ClassVar = {"train": "a9a", "test": "a9a.t"}
    SHAPE: ClassVar = (123,)
    TRAIN_SIZE: ClassVar = 32_561
    TEST_SIZE: ClassVar = 16_281


class W8a(LibsvmData):
    """Web pages of one category or not, by 300 binary keyword features (Platt); 3% positive."""

    NAME: ClassVar = "w8a"
    FILES: ClassVar = {"train": "w8a", "test": "w8a.t"}
    SHAPE: ClassVar = (300,)
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
    CLASS_NAMES: ClassVar = ("edible", "poisonous")
    SHAPE: ClassVar = (112,)
    TRAIN_SIZE: ClassVar = 6_499
    TEST_SIZE: ClassVar = 1_625
    PAIR: ClassVar = ("agaricus.txt.train", "agaricus.txt.test")
    # stalk-root's columns among the 126, from 0
    STALK_ROOT: ClassVar = slice(54, 61)

    def file_names(self) -> tuple[str, ...]:
        """LIBSVM's file where it is there, else the pair."""
        return ("mushrooms",) if (self.data_dir / "libsvm" / "mushrooms").exists() else self.PAIR

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


class Ijcnn1(LibsvmData):
    """A car engine's misfires (IJCNN 2001 challenge), 22 features; about 10% positive."""

    NAME: ClassVar = "ijcnn1"
    FILES: ClassVar = {"train": "ijcnn1.bz2", "test": "ijcnn1.t.bz2"}
    SHAPE: ClassVar = (22,)
    TRAIN_SIZE: ClassVar = 49_990
    TEST_SIZE: ClassVar = 91_701


class Covtype(LibsvmData):
    """Forest cover: the most frequent of seven types or not, 54 features scaled to [0, 1].

    There is no official test set: a stratified 20% holdout, drawn once with seed 0, serves as one.
    """

    NAME: ClassVar = "covtype"
    SHAPE: ClassVar = (54,)
    FILE: ClassVar = "covtype.libsvm.binary.scale.bz2"
    TRAIN_SIZE: ClassVar = 464_810
    TEST_SIZE: ClassVar = 116_202

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        # reading takes seconds and gives both parts: what has not been asked for yet
        self._parts: dict[Part, Split] = {}

    def file_names(self) -> tuple[str, ...]:
        """One file has both parts."""
        return (self.FILE,)

    def read(self, part: Part) -> Split:
        """All of one part of the fixed holdout split."""
        if part not in self._parts:
            whole = self._file(self.FILE)
            for name in ("train", "test"):
                self._parts[name] = holdout(whole, whole.targets, self.TEST_SIZE, name)
        return self._parts.pop(part)


class SparseTable(LibsvmData):
    """A table most of whose values are 0: stored as a sparse CSR tensor, given in dense batches.

    `normalise` is "none" or "unit_rows": the other ways would fill in the zeros.

    Raises:
        UserError: another `normalise`; in `batch`, rows that would take over `LARGEST` bytes.
    """

    # of a dense batch, in bytes
    LARGEST: ClassVar = 1 << 30
    # columns for each value other than 0, in synthetic rows
    SPACING: ClassVar = 50
    EVALUATION_BATCH: ClassVar = 256

    def __init__(self, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        sparse = self.normalise in ("none", "unit_rows")
        check("normalise", self.normalise, sparse, f"{self.NAME} is sparse; give none or unit_rows")

    def statistics(self, train: Split) -> tuple[Tensor, Tensor]:
        """Nothing to shift or scale by."""
        return torch.zeros(()), torch.ones(())

    def sparse_rows(self, split: SplitName) -> Tensor:
        """All rows of a split, normalised, as a sparse CSR tensor [n, d], for code that multiplies by it."""
        return self._scaled(self._split(split).inputs)

    def labels(self, split: SplitName) -> Tensor | None:
        """The labels of all rows of a split, [n]."""
        return self._split(split).targets

    def normalised(self, inputs: Tensor) -> Tensor:
        """Stored rows (sparse CSR) as dense float32 [b, d]."""
        return self._scaled(inputs).to_dense()

    def _scaled(self, rows: Tensor) -> Tensor:
        if self.normalise == "none":
            return rows
        return scale_rows(rows, 1 / row_norms(rows).clamp_min(1e-12))

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        rows = len(range(*index.indices(self.size(split)))) if isinstance(index, slice) else len(index)
        size = rows * self.shape[0] * 4
        if size > self.LARGEST:
            raise UserError(
                f"dataset={self.NAME}: {rows} rows of its {self.shape[0]} columns at once would take "
                f"{size / 1e9:.1f} GB; it is sparse and gives dense batches of at most "
                f"{self.LARGEST // (self.shape[0] * 4)} rows (dataset.limit takes fewer examples)"
            )
        return super().batch(split, index, augment)

    def random_inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Synthetic rows with a standard normal value in each 50 columns: sparse CSR [count, d]."""
        filled = self.shape[0] // self.SPACING
        offsets = torch.randint(self.SPACING, (count, filled), generator=generator)
        columns = offsets + self.SPACING * torch.arange(filled)
        starts = torch.arange(0, count * filled + 1, filled)
        values = torch.randn(count * filled, generator=generator)
        return csr(starts, columns.flatten(), values, self.shape[0])


class Rcv1(SparseTable):
    """Newswire stories, two groups of topics (Lewis et al. 2004), by the tf-idf of 47,236 words."""

    NAME: ClassVar = "rcv1"
    FILES: ClassVar = {"train": "rcv1_train.binary.bz2", "test": "rcv1_test.binary.bz2"}
    SHAPE: ClassVar = (47_236,)
    TRAIN_SIZE: ClassVar = 20_242
    TEST_SIZE: ClassVar = 677_399
