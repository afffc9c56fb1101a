"""Sentences whose words have tags: numbered, spelled as bytes, and padded to the longest of their batch."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.data.shared.sequences import Sequences
from common.data.shared.word_data import WordData, WordOptions
from common.data.tagging.schemes import Scheme, tag_list
from common.data.tagging.tagged_file import Sentence

# the numbers of what is no word of the vocabulary, and the target of padding
PADDING, UNKNOWN, IGNORE = 0, 1, -100
DIGIT = re.compile(r"\d")
# words of a sentence that sizes in memory are reckoned with
USUAL_LENGTH = 32
SYNTHETIC_SIZES: dict[SplitName, int] = {"train": 256, "validation": 64, "test": 64}

Splits = dict[SplitName, Sequence[Sentence]]


class TaggingOptions(WordOptions):
    """The constructor arguments that all sets of tagged sentences share, for subclasses that add theirs."""

    scheme: Scheme


class TaggingData(WordData):
    """Named entities: each word has a tag, in a scheme of `common.data.tagging.schemes`.

    A batch of b sentences, the longest of T words, the longest word of L bytes, is inputs int64
    [b, T, 1 + L] and targets int64 [b, T]. Of each word stands there its number (0 padding, 1 unknown) and
    its bytes in UTF-8 plus 1, 0 behind its end; words are numbered in lower case with digits as 0, by how
    often they occur in training. The target of padding is -100.

    Subclasses state the `types` of entities and implement `read`.

    Attributes:
        vocabulary: the words that have numbers, from 2 on; empty before `setup`.
        shape: (32, 1 + longest); sentences may be of any length.

    Args:
        source: "synthetic" gives random words and tags: 256 sentences to train on, 64 to test on.
        limit: train on so many sentences, drawn by `seed`.
        verify: whether sizes of published sets are compared.
        batch_size: sentences of a step.
        scheme: of the tags that are learned, "bio" or "bioes".
        words: so many numbers there are at most; rarer words are unknown.
        longest: bytes that a word may have.
        The others as in `WordData`.

    The validation split is the official one, or as the set says.

    Raises:
        UserError: a value out of range, here; what `read` refuses and a `limit` above the size, in `setup`.
    """

    KIND: ClassVar = "sequence_tagging"
    COUNTED: ClassVar = "sentences"
    FIRST: ClassVar = UNKNOWN + 1
    TYPES: ClassVar[tuple[str, ...]] = ()
    EVALUATION_BATCH: ClassVar = 256

    def __init__(self, *, scheme: Scheme, **options: Unpack[WordOptions]) -> None:
        super().__init__(**options)
        check("words", self.words, self.words > UNKNOWN, "give at least 2")
        self.scheme = scheme
        self.shape = (USUAL_LENGTH, 1 + self.longest)
        self.tags = tag_list(self.types, scheme)
        self.classes = len(self.tags)
        self._sentences: Splits = {}

    @property
    def types(self) -> Sequence[str]:
        """Of the entities, in the order of their tags."""
        return self.TYPES

    @property
    def train_size(self) -> int:
        """Sentences of the training split."""
        return self.TRAIN_SIZE

    @abstractmethod
    def read(self) -> Splits:
        """The sentences of train, validation and test, with tags of `scheme`.

        Raises:
            UserError: a file is missing or damaged.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read the set (once), take the subset and number the words of training."""
        if self._sentences:
            return
        found = self._synthetic() if self.source == "synthetic" else dict(self.read())
        kept = self.limited(len(found["train"]))
        if kept is not None:
            found["train"] = [found["train"][n] for n in kept]
        for split in ("validation", "test"):
            chosen = self.judged(len(found[split]))
            if chosen is not None:
                found[split] = [found[split][n] for n in chosen.tolist()]
        self._sentences = found
        if not self.vocabulary:
            counts = Counter(plain(word) for sentence in found["train"] for word in sentence.words)
            self.vocabulary = self.frequent(counts)
        self._encode()

    def _encode(self) -> None:
        numbers = self.numbers()
        tags = {tag: number for number, tag in enumerate(self.tags)}
        self._encoded = {
            split: Encoded.of(sentences, numbers, tags) for split, sentences in self._sentences.items()
        }
        self.move(self.device)

    def _synthetic(self) -> Splits:
        random = np.random.default_rng(0)
        sizes = SYNTHETIC_SIZES if self.limit is None else SYNTHETIC_SIZES | {"train": self.limit}
        names = [f"word{n}" for n in range(50)]
        first = self.tags.index(f"{'S' if self.scheme == 'bioes' else 'B'}-{self.types[0]}")

        def sentence() -> Sentence:
            chosen = random.integers(0, len(names), random.integers(1, 12))
            # names of one type, and which they are can be learned
            tags = tuple(self.tags[first] if n < 10 else self.tags[0] for n in chosen)
            return Sentence(tuple(names[n] for n in chosen), tags)

        return {split: [sentence() for _ in range(size)] for split, size in sizes.items()}

    @property
    def has_validation(self) -> bool:
        return bool(self._sentences.get("validation"))

    def sentences(self, split: SplitName) -> Sequence[Sentence]:
        """Those of a split, as they are read."""
        if not self._sentences:
            raise RuntimeError("call setup() before using the data")
        return self._sentences[split]

    def size(self, split: SplitName) -> int:
        return len(self.sentences(split))

    def class_names(self) -> list[str]:
        """The tags, O first."""
        return list(self.tags)

    def encoding(self) -> dict[str, Any]:
        """The words by their numbers, from 2 on, and how a word becomes numbers."""
        self.setup()
        return {
            "vocabulary": list(self.vocabulary),
            "preparation": "of each word its number in the vocabulary, from 2 on (in lower case, digits as "
            "0; 1 unknown), then its bytes in UTF-8, each plus 1; 0 is padding",
        }

    def adopt(self, facts: dict[str, Any]) -> None:
        """Give the words the numbers that they have in `facts`.

        Raises:
            UserError: other tags.
        """
        if facts["class_names"] != self.class_names():
            raise UserError(
                f"dataset={self.NAME} has the tags {', '.join(self.tags)}, the network was trained for "
                f"{', '.join(facts['class_names'] or [])}"
            )
        self.setup()
        self.vocabulary = list(facts["vocabulary"])
        self._encode()


def plain(word: str) -> str:
    """A word as it is numbered: in lower case, digits as 0."""
    return DIGIT.sub("0", word.lower())


class Encoded:
    """The words of sentences in numbers.

    Args:
        numbers: of the words of each sentence.
        letters: uint8 or int16 [n, L], bytes plus 1, of all words one after the other.
        tags: int64 [n], alike.
    """

    def __init__(self, numbers: Sequences, letters: Tensor, tags: Tensor) -> None:
        self.numbers, self.letters, self.tags = numbers, letters, tags

    @classmethod
    def of(cls, sentences: Sequence[Sentence], numbers: dict[str, int], tags: dict[str, int]) -> "Encoded":
        """Number words and tags; those without a number are unknown."""
        words = [word for sentence in sentences for word in sentence.words]
        spelled = [np.frombuffer(word.encode(errors="surrogatepass"), np.uint8) for word in words]
        letters = np.zeros((len(words), max(map(len, spelled), default=1)), np.int16)
        for row, found in zip(letters, spelled, strict=True):
            row[: len(found)] = found.astype(np.int16) + 1
        return cls(
            Sequences([numbers.get(plain(word), UNKNOWN) for word in one.words] for one in sentences),
            torch.from_numpy(letters),
            torch.tensor([tags[tag] for sentence in sentences for tag in sentence.tags], dtype=torch.int64),
        )

    def to(self, device: torch.device) -> "Encoded":
        """The same on a device."""
        return Encoded(self.numbers.to(device), self.letters.to(device), self.tags.to(device))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs int64 [b, T, 1 + L] and targets int64 [b, T] of sentences."""
        # any word stands for padding until it is blanked
        words, inside = self.numbers.places(index)
        letters = self.letters[words].long()
        letters = letters[:, :, : int((letters != 0).sum(2).max())]
        inputs = torch.cat([self.numbers.flat[words].long()[:, :, None], letters], 2) * inside[:, :, None]
        return inputs, self.tags[words].where(inside, IGNORE)
