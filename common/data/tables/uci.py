"""Regression tables of the UCI repository, in `data_dir/uci`, as float32.

There are no official test sets: a 20% holdout, drawn once with seed 0, serves as one. No checksums are
published; what is checked are rows, columns and that all values are finite numbers.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from common.data.shared.download import DamagedError, obtain
from common.data.shared.in_memory import Part, Split, TensorData
from common.data.tables.bundled import holdout

URL = "https://archive.ics.uci.edu/ml/machine-learning-databases"


@dataclass(frozen=True)
class Facts:
    """What a table's file holds.

    Attributes:
        address: of the file, below `URL`.
        members: within the archive, in order, by the ends of their names; none for a file as it is.
        unpacked: the name of the file that is read in its place where it is there; None for none.
        rows: in all.
        columns: in the file.
        target: the number of its column.
        left_out: numbers of columns that are no inputs, beside the target.
        separator: of cells; None for blanks.
        header: lines before the first row of each member.
        words: numbers of columns that are text, which are left out too.
    """

    address: str
    members: tuple[str, ...]
    unpacked: str | None
    rows: int
    columns: int
    target: int
    left_out: tuple[int, ...] = ()
    separator: str | None = ","
    header: int = 1
    words: tuple[int, ...] = ()

    @property
    def inputs(self) -> list[int]:
        """The numbers of the columns that are inputs."""
        others = {self.target, *self.left_out, *self.words}
        return [column for column in range(self.columns) if column not in others]


def parse(path: Path, facts: Facts) -> np.ndarray:
    """All cells that are numbers, float64 [rows, columns]; text is 0.

    Raises:
        DamagedError: the content is not what `facts` say.
        OSError: the file is missing or cannot be read.
    """
    packed = facts.members and path.suffix == ".zip"
    parts = [_cells(text, facts) for text in (_unpacked(path, facts) if packed else [path.read_text()])]
    found = np.concatenate(parts)
    if len(found) != facts.rows:
        raise DamagedError(f"{len(found)} rows instead of {facts.rows}")
    if not np.isfinite(found).all():
        raise DamagedError("values that are not finite")
    return found


def _unpacked(path: Path, facts: Facts) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
            texts = []
            for member in facts.members:
                chosen = [name for name in names if Path(name).match(member) and "__MACOSX" not in name]
                if not chosen:
                    raise DamagedError(f"no {member} within")
                texts += [archive.read(name).decode() for name in chosen]
            return texts
    except (zipfile.BadZipFile, EOFError, UnicodeDecodeError) as error:
        raise DamagedError(f"broken archive: {error}") from error


def _cells(text: str, facts: Facts) -> np.ndarray:
    numbers = [column for column in range(facts.columns) if column not in facts.words]
    try:
        read = np.loadtxt(
            io.StringIO(text),
            delimiter=facts.separator,
            skiprows=facts.header,
            usecols=numbers,
            ndmin=2,
        )
    except (ValueError, IndexError) as error:
        raise DamagedError(str(error).splitlines()[0]) from error
    found = np.zeros((len(read), facts.columns))
    found[:, numbers] = read
    return found


class UciTable(TensorData):
    """One of the tables; subclasses state which."""

    KIND: ClassVar = "regression"
    CLASSES: ClassVar = None
    FACTS: ClassVar[Facts]

    def read(self, part: Part) -> Split:
        """All of one part of the fixed holdout split."""
        whole = obtain(
            self.path,
            f"{URL}/{self.FACTS.address}",
            lambda path: parse(path, self.FACTS),
            f"put {self.path.name} into {self.path.parent.resolve()}, or take dataset=diabetes (bundled)",
        )
        inputs = torch.from_numpy(whole[:, self.FACTS.inputs]).float()
        targets = torch.from_numpy(whole[:, self.FACTS.target]).float()
        return holdout(Split(inputs, targets), None, self.TEST_SIZE, part)

    @property
    def path(self) -> Path:
        """The file that is read: the unpacked one where it is there, else the maker's."""
        folder = self.data_dir / "uci"
        if self.FACTS.unpacked is not None and (folder / self.FACTS.unpacked).exists():
            return folder / self.FACTS.unpacked
        return folder / self.FACTS.address.split("/")[-1].replace("%20", " ")

    def sources(self) -> dict[str, Path]:
        """The one file."""
        return {f"uci/{self.NAME}": self.path}


class Protein(UciTable):
    """Tertiary structure of proteins (CASP 5-9): deviation from the true one by nine measures."""

    NAME: ClassVar = "protein"
    SHAPE: ClassVar = (9,)
    TRAIN_SIZE: ClassVar = 36_584
    TEST_SIZE: ClassVar = 9_146
    FACTS: ClassVar = Facts("00265/CASP.csv", (), None, 45_730, 10, target=0)


class Naval(UciTable):
    """A frigate's gas turbine (simulated): decay of the turbine by 16 measures; that of the compressor left
    out."""

    NAME: ClassVar = "naval"
    SHAPE: ClassVar = (16,)
    TRAIN_SIZE: ClassVar = 9_547
    TEST_SIZE: ClassVar = 2_387
    FACTS: ClassVar = Facts(
        "00316/UCI%20CBM%20Dataset.zip", ("data.txt",), "naval_data.txt", 11_934, 18, target=17,
        left_out=(16,), separator=None, header=0,
    )  # fmt: skip


class Slice(UciTable):
    """CT images of bodies: where along the axis a slice is, by 384 histogram features."""

    NAME: ClassVar = "slice"
    SHAPE: ClassVar = (384,)
    TRAIN_SIZE: ClassVar = 42_800
    TEST_SIZE: ClassVar = 10_700
    FACTS: ClassVar = Facts(
        "00206/slice_localization_data.zip", ("*.csv",), "slice_localization_data.csv", 53_500, 386,
        target=385, left_out=(0,),
    )  # fmt: skip


class News(UciTable):
    """Articles of a news site: how often they were shared, by 58 features (address and age left out)."""

    NAME: ClassVar = "news"
    SHAPE: ClassVar = (58,)
    TRAIN_SIZE: ClassVar = 31_715
    TEST_SIZE: ClassVar = 7_929
    FACTS: ClassVar = Facts(
        "00332/OnlineNewsPopularity.zip", ("*.csv",), "OnlineNewsPopularity.csv", 39_644, 61, target=60,
        left_out=(1,), words=(0,),
    )  # fmt: skip


class Blog(UciTable):
    """Blog posts: comments in the next 24 hours, by 280 features."""

    NAME: ClassVar = "blog"
    SHAPE: ClassVar = (280,)
    TRAIN_SIZE: ClassVar = 48_017
    TEST_SIZE: ClassVar = 12_004
    FACTS: ClassVar = Facts(
        "00304/BlogFeedback.zip", ("blogData_train.csv", "blogData_test*.csv"), None, 60_021, 281, target=280,
        header=0,
    )  # fmt: skip


class Indoor(UciTable):
    """Phones in three buildings: their longitude, by the strength of 520 access points (UJIIndoorLoc)."""

    NAME: ClassVar = "indoor"
    SHAPE: ClassVar = (520,)
    TRAIN_SIZE: ClassVar = 16_838
    TEST_SIZE: ClassVar = 4_210
    FACTS: ClassVar = Facts(
        "00310/UJIndoorLoc.zip", ("trainingData.csv", "validationData.csv"), None, 21_048, 529, target=520,
        left_out=tuple(range(521, 529)),
    )  # fmt: skip
