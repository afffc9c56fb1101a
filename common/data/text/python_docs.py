"""CPython's own documentation of its language, `pydoc_data.topics`, which comes with Python: no network."""

import re
from collections import Counter
from functools import cache
from importlib import import_module
from typing import ClassVar, Literal, Unpack

from common.base.errors import UserError
from common.data.text.text_data import EOS, SPLITS, UNKNOWN, TextData, TextOptions, Words

Level = Literal["word", "character"]

# a run of letters, digits and underscores, or one other character that is no white space
WORD = re.compile(r"\w+|[^\w\s]")
# as often a word must be in the training split to be kept
KEPT_FROM = 3


class PythonDocs(TextData):
    """What `help("topics")` lists, as prose and code, upper and lower case kept.

    The topics in alphabetical order: the first 80% are for training, the next 10% for validation, the
    last 10% for testing. Words that the training split has fewer than 3 times are `<unk>`. The text, and
    with it the sizes and the vocabulary, depend on the version of Python: about 85,000 training tokens
    and 1,800 words with 3.11.

    Args:
        level: a token is a "word" (letters, digits and underscores, or one punctuation mark) or a
            "character"; the end of a line is `<eos>` in both.
        The others as in `TextData`.

    Raises:
        UserError: this Python comes without its documentation.
    """

    NAME: ClassVar = "python_docs"

    def __init__(self, *, level: Level, **options: Unpack[TextOptions]) -> None:
        self.level = level
        super().__init__(**options)

    @property
    def vocabulary_size(self) -> int:
        return len(set(documentation(self.level)["train"]))

    @property
    def train_size(self) -> int:
        return len(documentation(self.level)["train"])

    def read(self) -> Words:
        """The three splits."""
        return documentation(self.level)


@cache
def documentation(level: Level) -> Words:
    """The tokens of each split, rare ones replaced."""
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise UserError(
            "dataset=python_docs: this Python comes without pydoc_data, its documentation; "
            "take a full Python, or dataset=ptb"
        ) from error
    names = sorted(topics)
    first, second = len(names) * 8 // 10, len(names) * 9 // 10
    parts = (names[:first], names[first:second], names[second:])
    found = [[token for name in part for token in tokens(topics[name], level)] for part in parts]
    counts = Counter(found[0])
    kept = {token for token, count in counts.items() if count >= KEPT_FROM}
    known = [[token if token in kept else UNKNOWN for token in part] for part in found]
    return dict(zip(SPLITS, known, strict=True))


def tokens(text: str, level: Level) -> list[str]:
    """The words or characters of a text, with `<eos>` for the end of each line."""
    lines = text.splitlines()
    return [token for line in lines for token in (*(WORD.findall(line) if level == "word" else line), EOS)]
