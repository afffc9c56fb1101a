"""Sentences whose words have tags: numbered, spelled as bytes, and padded to the longest of their batch."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import Batch, SplitName, check
from common.base.errors import UserError
from common.base.loader import IndexLoader
from common.data.shared.subsets import stratified_subset
from common.data.shared.token_data import TokenData, TokenOptions
from common.data.tagging.schemes import Scheme, tag_list
from common.data.tagging.tagged_file import Sentence

# the numbers of what is no word of the vocabulary, and the target of padding
PADDING, UNKNOWN, IGNORE = 0, 1, -100
DIGIT = re.compile(r"\d")
# words of a sentence that sizes in memory are reckoned with
USUAL_LENGTH = 32
SYNTHETIC_SIZES: dict[SplitName, int] = {"train": 256, "validation": 64, "test": 64}

Splits = dict[SplitName, Sequence[Sentence]]


class TaggingOptions(TokenOptions):
    """The constructor arguments that all sets of tagged sentences share, for subclasses that add theirs."""

    seed: int
    scheme: Scheme
    words: int
    kept_from: int
    longest: int


class TaggingData(TokenData):
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
        seed: of `limit`.
        source: "synthetic" gives random words and tags: 256 sentences to train on, 64 to test on.
        limit: train on so many sentences, drawn by `seed`.
        verify: whether sizes of published sets are compared.
        batch_size: sentences of a step.
        scheme: of the tags that are learned, "bio" or "bioes".
        words: so many numbers there are at most; rarer words are unknown.
        kept_from: how often a word must occur in training to have a number.
        longest: bytes that a word may have.
        The others as in `TokenData`.

    The validation split is the official one, or as the set says.

    Raises:
        UserError: a value out of range, here; what `read` refuses and a `limit` above the size, in `setup`.
    """

    KIND: ClassVar = "sequence_tagging"
    COUNTED: ClassVar = "sentences"
    TYPES: ClassVar[tuple[str, ...]] = ()
    EVALUATION_BATCH: ClassVar = 256

    def __init__(
        self,
        *,
        seed: int,
        scheme: Scheme,
        words: int,
        kept_from: int,
        longest: int,
        **options: Unpack[TokenOptions],
    ) -> None:
        super().__init__(**options)
        check("words", words, words > UNKNOWN, "give at least 2")
        check("kept_from", kept_from, kept_from >= 1, "give at least 1")
        check("longest", longest, longest >= 1, "give at least 1 byte")
        self.seed, self.scheme = seed, scheme
        self.words, self.kept_from, self.longest = words, kept_from, longest
        self.shape, self.normalise = (USUAL_LENGTH, 1 + longest), "none"
        self.tags = tag_list(self.types, scheme)
        self.classes = len(self.tags)
        self.vocabulary: list[str] = []
        self._sentences: Splits = {}
        self._encoded: dict[SplitName, Encoded] = {}

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
        found["train"] = self._limited(found["train"])
        for split in ("validation", "test"):
            chosen = self.judged(len(found[split]))
            if chosen is not None:
                found[split] = [found[split][n] for n in chosen.tolist()]
        self._sentences = found
        if not self.vocabulary:
            counts = Counter(plain(word) for sentence in found["train"] for word in sentence.words)
            kept = (word for word, count in counts.most_common() if count >= self.kept_from)
            self.vocabulary = [word for word, _ in zip(kept, range(self.words - UNKNOWN - 1), strict=False)]
        self._encode()

    def _limited(self, train: Sequence[Sentence]) -> Sequence[Sentence]:
        self.limit = self.within(self.limit, len(train), "sentences")
        if self.limit is None or self.limit == len(train):
            return train
        generator = torch.Generator().manual_seed(self.seed)
        return [train[n] for n in stratified_subset(None, len(train), self.limit, generator).tolist()]

    def _encode(self) -> None:
        numbers = {word: number for number, word in enumerate(self.vocabulary, UNKNOWN + 1)}
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

    def move(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._encoded = {split: encoded.to(self.device) for split, encoded in self._encoded.items()}

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

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """Sentences of a split, see the class; nothing is augmented."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(self.size(split)))
        return self._encoded[split].batch(index.to(self.device))

    def loader(self, seed: int) -> IndexLoader:
        return IndexLoader(self.size("train"), self.batch_size, seed)

    def ready(self, item: Tensor) -> Batch:
        return self.batch("train", item, augment=True)

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
    """The words of many sentences, one after the other, and where each sentence begins.

    Args:
        numbers: int64 [n], of the words.
        letters: uint8 or int16 [n, L], bytes plus 1.
        tags: int64 [n].
        starts: int64 [sentences + 1].
    """

    def __init__(self, numbers: Tensor, letters: Tensor, tags: Tensor, starts: Tensor) -> None:
        self.numbers, self.letters, self.tags, self.starts = numbers, letters, tags, starts

    @classmethod
    def of(cls, sentences: Sequence[Sentence], numbers: dict[str, int], tags: dict[str, int]) -> "Encoded":
        """Number words and tags; those without a number are unknown."""
        words = [word for sentence in sentences for word in sentence.words]
        spelled = [np.frombuffer(word.encode(errors="surrogatepass"), np.uint8) for word in words]
        letters = np.zeros((len(words), max(map(len, spelled), default=1)), np.int16)
        for row, found in zip(letters, spelled, strict=True):
            row[: len(found)] = found.astype(np.int16) + 1
        lengths = [len(sentence.words) for sentence in sentences]
        return cls(
            torch.tensor([numbers.get(plain(word), UNKNOWN) for word in words], dtype=torch.int64),
            torch.from_numpy(letters),
            torch.tensor([tags[tag] for sentence in sentences for tag in sentence.tags], dtype=torch.int64),
            torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64),
        )

    def to(self, device: torch.device) -> "Encoded":
        """The same on a device."""
        return Encoded(*(part.to(device) for part in (self.numbers, self.letters, self.tags, self.starts)))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs int64 [b, T, 1 + L] and targets int64 [b, T] of sentences."""
        starts = self.starts[index]
        lengths = self.starts[index + 1] - starts
        places = torch.arange(int(lengths.max()), device=index.device)
        inside = places < lengths[:, None]
        # any word stands for padding until it is blanked
        words = (starts[:, None] + places).where(inside, starts[:, None])
        letters = self.letters[words].long()
        letters = letters[:, :, : int((letters != 0).sum(2).max())]
        inputs = torch.cat([self.numbers[words][:, :, None], letters], 2) * inside[:, :, None]
        return inputs, self.tags[words].where(inside, IGNORE)
