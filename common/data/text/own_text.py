"""A text file of the user's own: what must be known of it is found from the file."""

import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import ClassVar, Unpack

from common.base.dataset import check
from common.base.errors import UserError
from common.data.text.python_docs import Level, tokens
from common.data.text.text_data import SPLITS, UNKNOWN, TextData, TextOptions, Words

# the names of the files of each part in a folder
FILES = (("train.txt",), ("valid.txt", "val.txt", "validation.txt"), ("test.txt",))


class OwnText(TextData):
    """A text, its lines in order: the first 80% for training, 10% for validation, 10% for testing.

    Args:
        path: of a UTF-8 file, or of a folder with train.txt, valid.txt and test.txt.
        level: a token is a "word" (letters, digits and underscores, or one punctuation mark) or a
            "character".
        kept_from: how often a token must be in the training split to be kept; others are `<unk>`.
        The others as in `TextData`.

    Raises:
        UserError: a file that is missing, empty or no text.
    """

    NAME: ClassVar = "text_file"

    def __init__(self, *, path: str, level: Level, kept_from: int, **options: Unpack[TextOptions]) -> None:
        check("path", path, bool(path), "give your text file")
        check("kept_from", kept_from, kept_from >= 1, "give at least 1")
        self.path = Path(path).expanduser()
        self.text = text_of(path, level, kept_from)
        super().__init__(**options)
        if options["source"] == "real":
            sizes = ", ".join(f"{len(self.text[split])} {split}" for split in SPLITS)
            print(f"dataset=text_file: {sizes} tokens, {self.vocabulary_size} different", file=sys.stderr)

    @property
    def vocabulary_size(self) -> int:
        return len(set(self.text["train"]))

    @property
    def train_size(self) -> int:
        return len(self.text["train"])

    def sources(self) -> dict[str, Path]:
        """The file, or the folder of the three."""
        return {"text": self.path}

    def read(self) -> Words:
        """The three splits."""
        return self.text


@cache
def text_of(path: str, level: Level, kept_from: int) -> Words:
    """The tokens of each split, rare ones replaced."""
    found = [tokens(part, level) for part in _parts(Path(path).expanduser())]
    for split, part in zip(SPLITS, found, strict=True):
        check("path", path, len(part) >= 2, f"it leaves {len(part)} tokens for {split} (valid: at least 2)")
    counts = Counter(found[0])
    kept = {token for token, count in counts.items() if count >= kept_from}
    words = [[token if token in kept else UNKNOWN for token in part] for part in found]
    if any(UNKNOWN in part for part in words[1:]) and UNKNOWN not in words[0]:
        # a language model must know the token: the training split has it once
        words[0].append(UNKNOWN)
    return dict(zip(SPLITS, words, strict=True))


def _parts(path: Path) -> list[str]:
    """The text of each split."""
    if path.is_dir():
        return [_read(_one_of(path, names)) for names in FILES]
    lines = _read(path).splitlines()
    first, second = len(lines) * 8 // 10, len(lines) * 9 // 10
    return ["\n".join(part) for part in (lines[:first], lines[first:second], lines[second:])]


def _one_of(folder: Path, names: tuple[str, ...]) -> Path:
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"dataset.path={path}: not UTF-8 text") from error
    except OSError as error:
        raise UserError(f"dataset.path={path}: {error.strerror} (valid: a text file)") from error
