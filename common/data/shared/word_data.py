"""What sets of words that have numbers share, each word with its letters: tagged sentences, questions."""

from collections import Counter
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from common.base.dataset import Batch, SplitName, check
from common.base.loader import IndexLoader
from common.data.shared.subsets import stratified_subset
from common.data.shared.token_data import TokenData, TokenOptions


class WordOptions(TokenOptions):
    """The constructor arguments that these sets share, for subclasses that add their own to them."""

    seed: int
    words: int
    kept_from: int
    longest: int


class WordData(TokenData):
    """A set whose words have numbers by how often they occur in training.

    Subclasses say which number is the first of a word (`FIRST`; those below it are of padding and the like),
    and put what `batch` gives into `_encoded`, whose parts have `to(device)` and `batch(index)`.

    Attributes:
        vocabulary: the words that have numbers, from `FIRST` on; empty before `setup`.

    Args:
        seed: of `limit`: which examples are trained on.
        words: so many numbers there are at most; rarer words are unknown.
        kept_from: how often a word must occur in training to have a number.
        longest: bytes of a word, at least 1.
        The others as in `TokenData`.

    Raises:
        UserError: a value out of range.
    """

    FIRST: ClassVar[int]

    def __init__(
        self, *, seed: int, words: int, kept_from: int, longest: int, **options: Unpack[TokenOptions]
    ) -> None:
        super().__init__(**options)
        check("kept_from", kept_from, kept_from >= 1, "give at least 1")
        check("longest", longest, longest >= 1, "give at least 1 byte")
        self.seed, self.words, self.kept_from, self.longest = seed, words, kept_from, longest
        self.normalise = "none"
        self.vocabulary: list[str] = []
        self._encoded: dict[SplitName, Any] = {}

    def limited(self, size: int) -> list[int] | None:
        """Which of `size` examples are trained on, drawn by the seed; None: all of them.

        Raises:
            UserError: a `limit` above the size.
        """
        self.limit = self.within(self.limit, size, self.COUNTED)
        if self.limit is None or self.limit == size:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        return stratified_subset(None, size, self.limit, generator).tolist()

    def frequent(self, counts: Counter[str]) -> list[str]:
        """The words that get numbers, the most frequent first."""
        kept = (word for word, count in counts.most_common() if count >= self.kept_from)
        return [word for word, _ in zip(kept, range(self.words - self.FIRST), strict=False)]

    def numbers(self) -> dict[str, int]:
        """The words that have numbers, with these."""
        return {word: number for number, word in enumerate(self.vocabulary, self.FIRST)}

    def move(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._encoded = {split: encoded.to(self.device) for split, encoded in self._encoded.items()}

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """Some examples of a split, see the class; nothing is augmented."""
        if isinstance(index, slice):
            index = torch.arange(*index.indices(self.size(split)))
        found: Batch = self._encoded[split].batch(index.to(self.device))
        return found

    def loader(self, seed: int) -> IndexLoader:
        return IndexLoader(self.size("train"), self.batch_size, seed)

    def ready(self, item: Tensor) -> Batch:
        return self.batch("train", item, augment=True)
