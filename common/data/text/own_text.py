"""A text file of the user's own: what must be known of it is found from the file."""

import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from common.base.dataset import Origin, check
from common.base.errors import UserError
from common.data.shared.own_parts import trained_on
from common.data.shared.text_file import read_text, shown
from common.data.text.python_docs import Level, tokens
from common.data.text.text_data import SPLITS, UNKNOWN, TextData, TextOptions, Words

# the names of the files of each part in a folder
FILES = (("train.txt",), ("valid.txt", "val.txt", "validation.txt"), ("test.txt",))


class OwnText(TextData):
    """A text, its lines in order: the first 80% for training, 10% for validation, 10% for testing.

    Args:
        path: of a file, or of a folder with train.txt, valid.txt and test.txt.
        level: a token is a "word" (letters, digits and underscores, or one punctuation mark) or a
            "character".
        kept_from: how often a token must be in the training split to be kept; others are `<unk>`.
        encoding: of the files, by its name in Python.
        origin: of a network that is to be judged: the words have the numbers with which it was trained, and
            all of the text is for testing, or test.txt of a folder; of the file that it was trained on, its
            last 10%.
        The others as in `TextData`.

    Raises:
        UserError: a file that is missing, empty or no text; with `origin`, words that it has not, where it
            was trained without unknown ones.
    """

    NAME: ClassVar = "text_file"

    def __init__(
        self,
        *,
        path: str,
        level: Level,
        kept_from: int,
        encoding: str,
        origin: Origin | None = None,
        **options: Unpack[TextOptions],
    ) -> None:
        check("path", path, bool(path), "give your text file")
        check("kept_from", kept_from, kept_from >= 1, "give at least 1")
        self.path = Path(path).expanduser()
        # by a network whose words are known
        self.words: list[str] | None = None if origin is None else origin.facts.get("vocabulary")
        self.unknown = 0
        self.held_out = origin is None or trained_on(origin, self.sources())
        if self.words is None:
            self.text = text_of(path, level, kept_from, encoding)
        else:
            self.text = {"test": self._judged(level, encoding)}
        super().__init__(**options)
        if self.unknown:
            self.repairs[f"words that training has not, taken as {UNKNOWN}"] = self.unknown
        if options["source"] == "real" and self.words is None:
            sizes = ", ".join(f"{len(self.text[split])} {split}" for split in SPLITS)
            print(f"dataset=text_file: {sizes} tokens, {self.vocabulary_size} different", file=sys.stderr)

    @property
    def vocabulary_size(self) -> int:
        return len(set(self.text["train"]) if self.words is None else self.words)

    @property
    def train_size(self) -> int:
        return len(self.text["train"])

    def encoding(self) -> dict[str, Any]:
        """The words by their numbers."""
        return {"vocabulary": list(dict.fromkeys(self.text["train"])) if self.words is None else self.words}

    def tested(self) -> str:
        """Which part of which file is judged."""
        if self.source == "synthetic":
            return super().tested()
        if self.path.is_dir():
            return f"the tokens of {self.path / FILES[-1][0]}"
        return f"the tokens of the last 10% of {self.path}" if self.held_out else f"all tokens of {self.path}"

    def setup(self, stage: str | None = None) -> None:
        """Number the words, of a text that is judged as they were in training."""
        if self.words is None or self.source == "synthetic":
            super().setup(stage)
        elif not self._tokens:
            self.vocabulary = self.words
            numbers = {word: place for place, word in enumerate(self.words)}
            found = np.array([numbers[word] for word in self.text["test"]], np.int64)
            self._tokens = {"test": torch.from_numpy(found)}
            self.move(self.device)

    def adopt(self, facts: dict[str, Any]) -> None:
        """Give the words their numbers in `facts`, as the constructor was told.

        Raises:
            UserError: it was not.
        """
        self.setup()
        if facts.get("vocabulary") != self.vocabulary:
            super().adopt(facts)

    def _judged(self, level: Level, encoding: str) -> list[str]:
        """The tokens that are judged, those that the network has not as `<unk>`.

        Raises:
            UserError: it has no `<unk>` either.
        """
        assert self.words is not None
        parts = _parts(self.path, encoding) if self.path.is_dir() or self.held_out else None
        text = read_text(self.path, encoding) if parts is None else parts[-1]
        found, known = tokens(text, level), set(self.words)
        unknown = [word for word in found if word not in known]
        if unknown and UNKNOWN not in known:
            names = list(dict.fromkeys(unknown))
            raise UserError(
                f"dataset.path={self.path}: {len(names)} words are not those of training, which has no "
                f"{UNKNOWN} for them: {shown(names)}"
            )
        self.unknown = len(unknown)
        return [word if word in known else UNKNOWN for word in found]

    def sources(self) -> dict[str, Path]:
        """The file, or the folder of the three."""
        return {"text": self.path}

    def read(self) -> Words:
        """The three splits."""
        return self.text


@cache
def text_of(path: str, level: Level, kept_from: int, encoding: str) -> Words:
    """The tokens of each split, rare ones replaced."""
    file = Path(path).expanduser()
    found = [tokens(part, level) for part in _parts(file, encoding)]
    how = "" if file.is_dir() else ", as its lines are divided, 80 %, 10 % and 10 %"
    for split, part in zip(SPLITS, found, strict=True):
        few = f"it leaves {len(part)} token{'s' * (len(part) != 1)} for {split}{how} (valid: at least 2)"
        check("path", path, len(part) >= 2, few)
    counts = Counter(found[0])
    kept = {token for token, count in counts.items() if count >= kept_from}
    words = [[token if token in kept else UNKNOWN for token in part] for part in found]
    if any(UNKNOWN in part for part in words[1:]) and UNKNOWN not in words[0]:
        # a language model must know the token: the training split has it once
        words[0].append(UNKNOWN)
    return dict(zip(SPLITS, words, strict=True))


def _parts(path: Path, encoding: str) -> list[str]:
    """The text of each split."""
    if path.is_dir():
        return [read_text(_one_of(path, names), encoding) for names in FILES]
    lines = read_text(path, encoding).splitlines()
    first, second = len(lines) * 8 // 10, len(lines) * 9 // 10
    return ["\n".join(part) for part in (lines[:first], lines[first:second], lines[second:])]


def _one_of(folder: Path, names: tuple[str, ...]) -> Path:
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])
