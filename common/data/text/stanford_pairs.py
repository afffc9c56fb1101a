"""IWSLT'15 English-Vietnamese and WMT'14 English-German as Stanford prepared them, in words already.

Luong and Manning, "Stanford Neural Machine Translation Systems for Spoken Language Domains", IWSLT 2015; the
files lie below https://nlp.stanford.edu/projects/nmt/. `data_dir/<name>` holds two files for each split.
"""

from functools import partial
from pathlib import Path
from typing import ClassVar

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.shared.download import DamagedError, obtain
from common.data.text.parallel_text import Pairs, Splits, lines_of, read_pair
from common.data.text.translation_data import TranslationData

URL = "https://nlp.stanford.edu/projects/nmt/data"


class StanfordPairs(TranslationData):
    """Two files for each split, one in each language.

    Subclasses state: `FOLDER`, at Stanford; `SIDES`, the suffixes of source and target; `FILES`, the stem of
    each split's files and how many lines they have, None where that is not known for certain.
    """

    FOLDER: ClassVar[str]
    SIDES: ClassVar[tuple[str, str]]
    FILES: ClassVar[dict[SplitName, tuple[str, int | None]]]

    def read(self) -> Splits:
        """All splits."""
        return {split: self._pair(stem, count) for split, (stem, count) in self.FILES.items()}

    def sources(self) -> dict[str, Path]:
        """All files."""
        names = [f"{stem}.{side}" for stem, _ in self.FILES.values() for side in self.SIDES]
        return {f"{self.NAME}/{name}": self._folder / name for name in names}

    @property
    def _folder(self) -> Path:
        return self.data_dir / self.NAME

    def _pair(self, stem: str, count: int | None) -> Pairs:
        paths = [self._folder / f"{stem}.{side}" for side in self.SIDES]
        for path in paths:
            place = path.parent.resolve()
            advice = f"put {path.name} into {place}, or take dataset=messages, which needs no download"
            obtain(path, f"{URL}/{self.FOLDER}/{path.name}", partial(_check, count=count), advice)
        source, target = paths
        return read_pair(source, target)


def _check(path: Path, count: int | None) -> None:
    """Whether a file has as many lines.

    Raises:
        DamagedError: it has not, or is no UTF-8 text.
        OSError: it is missing.
    """
    path.stat()
    try:
        found = len(lines_of(path))
    except UserError as error:
        raise DamagedError("not UTF-8 text") from error
    if count is not None and found != count:
        raise DamagedError(f"{found} lines instead of {count}")


class IWSLT15(StanfordPairs):
    """Talks: 133,317 pairs to train on, tst2012 (1,553) for validation, tst2013 (1,268) for testing."""

    NAME: ClassVar = "iwslt15_en_vi"
    FOLDER: ClassVar = "iwslt15.en-vi"
    SIDES: ClassVar = ("en", "vi")
    FILES: ClassVar = {
        "train": ("train", 133_317),
        "validation": ("tst2012", 1_553),
        "test": ("tst2013", 1_268),
    }
    TRAIN_SIZE: ClassVar = 133_317
    TEST_SIZE: ClassVar = 1_268


class WMT14(StanfordPairs):
    """News and parliament: about 4.5 million pairs, newstest2013 for validation, newstest2014 for testing."""

    NAME: ClassVar = "wmt14_en_de"
    FOLDER: ClassVar = "wmt14.en-de"
    SIDES: ClassVar = ("en", "de")
    FILES: ClassVar = {
        "train": ("train", None),
        "validation": ("newstest2013", 3_000),
        "test": ("newstest2014", None),
    }
