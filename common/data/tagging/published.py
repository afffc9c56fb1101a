"""Published corpora of named entities, from files that the user has put there."""

from pathlib import Path
from typing import ClassVar, Unpack

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.data.tagging.schemes import FileScheme, split_tag
from common.data.tagging.tagged_file import Sentence, read_sentences
from common.data.tagging.tagging_data import Splits, TaggingData, TaggingOptions


class PublishedTags(TaggingData):
    """Three files in `data_dir/NAME`, a word and its tag a line.

    Args:
        file_scheme: of the files' tags; "iob1" reads those in BIO, too.
        encoding: of the files, by its name in Python.
        The others as in `TaggingData`.

    Raises:
        UserError: in `setup`: a file is missing, a line is not what it should be, a type of entity that the
            corpus has not, and without `verify=false` other numbers of sentences than the makers'.
    """

    # by which names the file of each split goes
    FILES: ClassVar[dict[SplitName, tuple[str, ...]]]
    # the numbers of sentences that are known, of each split; where there are none, none is compared
    SIZES: ClassVar[dict[SplitName, int]] = {}
    FROM: ClassVar[str]

    def __init__(self, *, file_scheme: FileScheme, encoding: str, **options: Unpack[TaggingOptions]) -> None:
        check("encoding", encoding, bool(encoding), "give the encoding of the files (valid: utf-8, ...)")
        super().__init__(**options)
        self.file_scheme, self.text_encoding = file_scheme, encoding

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.data_dir / self.NAME

    def sources(self) -> dict[str, Path]:
        """The file of each split."""
        return {split: self._file(split) for split in self.FILES}

    def _file(self, split: SplitName) -> Path:
        names = self.FILES[split]
        return next(
            (self.folder / name for name in names if (self.folder / name).is_file()), self.folder / names[0]
        )

    def read(self) -> Splits:
        """The three splits."""
        return {split: self._read(split) for split in self.FILES}

    def _read(self, split: SplitName) -> list[Sentence]:
        path = self._file(split)
        if not path.is_file():
            raise UserError(
                f"{path.resolve()} is missing: put {self.FROM} there (as {' or '.join(self.FILES[split])}); "
                "or take dataset=python_tags, or dataset.source=synthetic"
            )
        found = read_sentences(path, self.file_scheme, self.scheme, self.text_encoding, self.longest)
        foreign = {kind for sentence in found for tag in sentence.tags if (kind := split_tag(tag)[1])} - {
            *self.types
        }
        if foreign:
            raise UserError(
                f"{path.resolve()}: entities of type {', '.join(sorted(foreign))} (valid: "
                f"{', '.join(self.types)}; files of others: dataset=tagged_file)"
            )
        wanted = self.SIZES.get(split, len(found))
        if self.verify and len(found) != wanted:
            raise UserError(
                f"{path.resolve()}: {len(found)} sentences instead of {wanted} (dataset.verify=false takes "
                "it as it is)"
            )
        return found


class Conll2003(PublishedTags):
    """News of Reuters, persons, organisations, places and others (Tjong Kim Sang and De Meulder 2003).

    The files' own scheme is IOB1; those that others have turned into BIO are read, too.
    """

    NAME: ClassVar = "conll2003"
    TYPES: ClassVar = ("PER", "ORG", "LOC", "MISC")
    CLASSES: ClassVar = 9
    TRAIN_SIZE: ClassVar = 14_041
    TEST_SIZE: ClassVar = 3453
    FILES: ClassVar = {
        "train": ("eng.train", "train.txt"),
        "validation": ("eng.testa", "valid.txt", "dev.txt"),
        "test": ("eng.testb", "test.txt"),
    }
    SIZES: ClassVar = {"train": 14_041, "validation": 3250, "test": 3453}
    FROM: ClassVar = "the English files of CoNLL-2003 (https://www.clips.uantwerpen.be/conll2003/ner)"


class Bc5cdr(PublishedTags):
    """Abstracts of PubMed, chemicals and diseases (Li et al., "BioCreative V CDR task corpus", 2016)."""

    NAME: ClassVar = "bc5cdr"
    TYPES: ClassVar = ("Chemical", "Disease")
    CLASSES: ClassVar = 5
    TRAIN_SIZE: ClassVar = 4560
    TEST_SIZE: ClassVar = 4797
    FILES: ClassVar = {
        "train": ("train.tsv", "train.txt"),
        "validation": ("devel.tsv", "dev.tsv", "devel.txt", "dev.txt"),
        "test": ("test.tsv", "test.txt"),
    }
    FROM: ClassVar = (
        "the corpus as CoNLL files (BC5CDR-IOB of github.com/cambridgeltl/MTL-Bioinformatics-2016)"
    )
