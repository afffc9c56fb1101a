"""WikiText-2 (Merity et al. 2016), tokenised, version 1 with `<unk>`, in `data_dir/wikitext-2`."""

from pathlib import Path
from typing import ClassVar

from common.base.errors import UserError
from common.data.shared.download import DamagedError, describe, remembered
from common.data.shared.prepare import Archive, Checksum, obtain_unpacked
from common.data.text.text_data import TextData, Words, read_words

URL = "https://wikitext.smerity.com"
ARCHIVE = "wikitext-2-v1.zip"
FOLDER = "wikitext-2"


class WikiText2(TextData):
    """Good and featured articles of Wikipedia, 33,278 words with `<unk>` and `<eos>`.

    No checksum of the training file is known: its tokens and its words are counted.
    """

    NAME: ClassVar = "wikitext2"
    CLASSES: ClassVar = 33_278
    TRAIN_SIZE: ClassVar = 2_088_628
    VALIDATION_SIZE: ClassVar = 217_646
    TEST_SIZE: ClassVar = 245_569
    ARCHIVE_CHECKSUM: ClassVar = Checksum("542ccefacc6c27f945fb54453812b3cd", confirmed=False)
    MD5: ClassVar = {
        "wiki.valid.tokens": "d756d22ab2310e7e60c094bea5c5a8eb",
        "wiki.test.tokens": "781c9418ab9414bd09e4aad825aae752",
    }

    def read(self) -> Words:
        """The three files; unpacks the archive if need be."""
        archive = Archive(self.data_dir / ARCHIVE, f"{URL}/{ARCHIVE}", self.ARCHIVE_CHECKSUM, FOLDER)
        advice = (
            f"put {ARCHIVE} into {self.data_dir.resolve()} to have it verified and unpacked, "
            "or take dataset=python_docs, which is bundled"
        )
        names = [f"wiki.{split}.tokens" for split in ("train", "valid", "test")]
        return obtain_unpacked(self.data_dir / FOLDER, names, archive, self._read_files, self.verify, advice)

    def sources(self) -> dict[str, Path]:
        """The three files."""
        return {
            f"{FOLDER}/{name}": self.data_dir / FOLDER / name
            for name in (f"wiki.{split}.tokens" for split in ("train", "valid", "test"))
        }

    def _read_files(self, folder: Path) -> Words:
        return {
            "train": self._words(folder / "wiki.train.tokens", self.TRAIN_SIZE, self.CLASSES),
            "validation": self._words(folder / "wiki.valid.tokens", self.VALIDATION_SIZE, None),
            "test": self._words(folder / "wiki.test.tokens", self.TEST_SIZE, None),
        }

    def _words(self, path: Path, count: int, vocabulary_size: int | None) -> list[str]:
        md5s = [source[path.name] for source in (self.MD5, remembered(path.parent)) if path.name in source]
        known = [Checksum(md5, confirmed=True) for md5 in md5s]
        try:
            return read_words(path, count, vocabulary_size, known, self.verify)
        except (OSError, DamagedError) as error:
            raise UserError(describe(path, error)) from error
