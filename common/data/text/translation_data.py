"""Pairs of sentences in memory, batched by length: a translation from one language into the other."""

import unicodedata
from abc import abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from common.base.dataset import JUDGING, Batch, SplitName, check
from common.base.errors import UserError
from common.base.phases import counted, phase
from common.base.sequence import EOS, SPECIAL, TOKENISATIONS, Tokenisation, packed
from common.data.shared.sequences import Sequences
from common.data.shared.token_data import TokenData, TokenOptions
from common.data.text.bucketing import BucketLoader, by_length, cuts
from common.data.text.parallel_text import Pairs, Splits, cut
from common.data.text.pieces import LEVELS, Level, Pieces, learned

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
# pairs
SYNTHETIC_SIZES: dict[SplitName, int] = {"train": 512, "validation": 64, "test": 64}
# lines that are encoded together
AT_ONCE = 10_000
# words of the longest
SYNTHETIC_LENGTH = 10


class TranslationOptions(TokenOptions):
    """The constructor arguments that all sets of pairs share, for subclasses that add their own to them."""

    level: Level
    vocabulary: int
    longest: int
    bleu: Tokenisation


class TranslationData(TokenData):
    """Sentences and their translations. White space is made single spaces, and text Unicode's form NFC.

    Inputs are `common.base.sequence.packed` pairs int64 [b, S + T], targets int64 [b, T]; both languages end
    with `EOS` and share one vocabulary, which is learned from the training pairs. Pairs with an empty line
    are left out of all splits, and of training those that are too long; both are counted in `repairs`.

    Attributes:
        classes: the size of the vocabulary as asked for; a small text may fill it only in part.
        shape: (longest,).
        pieces: of `setup`.

    Args:
        limit: train on the first so many pairs.
        batch_size: tokens of one language in a batch, padding and `EOS` among them: the number of pairs times
            the longest sentence of them.
        level: see `common.data.text.pieces.learned`.
        vocabulary: the most tokens of the vocabulary.
        longest: a training pair has at most so many tokens with `EOS` in each language; what is judged has
            any number.
        bleu: how BLEU cuts sentences into words (`common.metrics.bleu`).
        The others as in `TokenData`.

    Raises:
        UserError: a value out of range, here; files that are missing, or no pairs, in `setup`.
    """

    KIND: ClassVar = "translation"
    COUNTED: ClassVar = "pairs"
    CLASSES: ClassVar = None

    def __init__(
        self,
        *,
        level: Level,
        vocabulary: int,
        longest: int,
        bleu: Tokenisation,
        **options: Unpack[TokenOptions],
    ) -> None:
        super().__init__(**options)
        check("longest", longest, longest >= 2, "give at least 2 tokens")
        enough = self.batch_size >= longest
        check("batch_size", self.batch_size, enough, f"give at least longest={longest} tokens")
        check("level", level, level in LEVELS, f"valid: {', '.join(LEVELS)}")
        least = len(SPECIAL) + 1
        check("vocabulary", vocabulary, vocabulary >= least, f"give at least {least}")
        check("bleu", bleu, bleu in TOKENISATIONS, f"valid: {', '.join(TOKENISATIONS)}")
        self.level, self.longest, self.bleu = level, longest, bleu
        self.shape, self.classes, self.normalise = (longest,), vocabulary, "none"
        self.pieces: Pieces
        self._pairs: Splits = {}
        self._tokens: dict[SplitName, tuple[Sequences, Sequences]] = {}

    @abstractmethod
    def read(self) -> Splits:
        """The pairs of each split, as they stand in the files.

        Raises:
            UserError: a file is missing or damaged and cannot be fetched.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read the pairs (once) and learn the vocabulary."""
        if self._pairs:
            return
        found = self._synthetic() if self.source == "synthetic" else self.read()
        pairs = {split: self._clean(found[split], split) for split in SPLITS}
        self.limit = self.within(self.limit, len(pairs["train"]), "pairs")
        pairs["train"] = pairs["train"].take(range(len(pairs["train"]))[: self.limit])
        for split in SPLITS[1:]:
            judged = self.judged(len(pairs[split]))
            pairs[split] = pairs[split] if judged is None else pairs[split].take(judged.tolist())
        assert self.classes is not None
        with phase("learning a vocabulary"):
            both = chain(pairs["train"].sources, pairs["train"].targets)
            self.pieces = learned(both, "word" if self.source == "synthetic" else self.level, self.classes)
        with phase("encoding pairs"):
            for split in SPLITS:
                self._add(split, pairs[split])

    def _clean(self, pairs: Pairs, split: SplitName) -> Pairs:
        sources, targets = (list(map(_plain, side)) for side in (pairs.sources, pairs.targets))
        whole = Pairs(sources, targets, pairs.lines, pairs.name)
        kept = [place for place in range(len(whole)) if sources[place] and targets[place]]
        if len(kept) < len(whole):
            first = next(place for place in range(len(whole)) if not (sources[place] and targets[place]))
            self._note(whole, len(whole) - len(kept), f"{split} pairs with an empty line, left out", first)
        if not kept:
            what = f"all {len(whole)} {split} pairs have an empty line" if len(whole) else f"no {split} pairs"
            where = f" in {pairs.name}" if pairs.name else ""
            raise UserError(f"dataset={self.NAME}: {what}{where} (valid: at least 1 pair in each split)")
        return whole.take(kept) if len(kept) < len(whole) else whole

    def _add(self, split: SplitName, pairs: Pairs) -> None:
        """Keep a split's pairs and their tokens; of training without those that are too long."""
        sides = [Sequences(self._encoded(side)) for side in (pairs.sources, pairs.targets)]
        lengths = torch.maximum(sides[0].lengths, sides[1].lengths)
        if split == "train" and lengths.max() > self.longest:
            kept = (lengths <= self.longest).nonzero()[:, 0]
            first = int((lengths > self.longest).nonzero()[0])
            if not len(kept):
                raise UserError(
                    f"dataset.longest={self.longest}: no training pair of {self.NAME} is as short (the "
                    f"shortest has {int(lengths.min())} tokens)"
                )
            what = f"training pairs longer than {self.longest} tokens, left out"
            self._note(pairs, len(lengths) - len(kept), what, first)
            pairs = pairs.take(kept.tolist())
            for side in sides:
                side.keep(kept)
        self._pairs[split] = pairs
        self._tokens[split] = sides[0], sides[1]

    def _encoded(self, lines: list[str]) -> Iterator[list[int]]:
        for start in range(0, len(lines), AT_ONCE):
            for tokens in self.pieces.encode(lines[start : start + AT_ONCE]):
                yield [*tokens, EOS]

    def _note(self, pairs: Pairs, count: int, what: str, first: int) -> None:
        where = f" of {pairs.name}" if pairs.name else ""
        line = f"line {pairs.lines[first]}{where}: " if pairs.lines else ""
        text = pairs.sources[first] or pairs.targets[first]
        self.repairs[f"{what} (the first: {line}{cut(text)!r})"] = count

    def _synthetic(self) -> Splits:
        sizes = SYNTHETIC_SIZES if self.limit is None else SYNTHETIC_SIZES | {"train": self.limit}
        generator = torch.Generator().manual_seed(0)

        def sentences(count: int) -> list[str]:
            # shorter ones by one each, again and again
            words = torch.randint(self._words, (count, SYNTHETIC_LENGTH), generator=generator).tolist()
            return [" ".join(f"w{n}" for n in row[: 1 + at % len(row)]) for at, row in enumerate(words)]

        return {split: Pairs(sentences(size), sentences(size)) for split, size in sizes.items()}

    @property
    def _words(self) -> int:
        """How many entries of the vocabulary stand for pieces."""
        assert self.classes is not None
        return self.classes - len(SPECIAL)

    def move(self, device: torch.device | str) -> None:
        """Pairs stay in main memory; batches are made there."""
        self.device = torch.device(device)

    @property
    def has_validation(self) -> bool:
        return True

    def pairs(self, split: SplitName) -> Pairs:
        """A split's sentences."""
        self.setup()
        return self._pairs[split]

    def references(self, split: SplitName) -> list[str]:
        """The targets of a split as text."""
        return self.pairs(split).targets

    def size(self, split: SplitName) -> int:
        """How many pairs a split has."""
        return len(self.pairs(split))

    def text_of(self, tokens: list[int]) -> str:
        """The sentence of these tokens."""
        return self.pieces.decode(tokens)

    def tokens_of(self, lines: list[str]) -> Tensor:
        """Sentences of the source's language as the network gets them: int64 [n, S] on the device."""
        self.setup()
        found = Sequences(self._encoded([_plain(line) for line in lines]))
        return found.padded(torch.arange(len(lines))).to(self.device)

    def sources_of(self, split: SplitName, index: Tensor) -> Tensor:
        """Some of a split's sources, int64 [b, S] on the device."""
        return self._tokens[split][0].padded(index).to(self.device)

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """Some of the pairs."""
        self.setup()
        if isinstance(index, slice):
            index = torch.arange(self.size(split))[index]
        sources, targets = (side.padded(index.cpu()) for side in self._tokens[split])
        return packed(sources, targets).to(self.device), targets.to(self.device)

    def loader(self, seed: int) -> BucketLoader:
        """An endless loader of batches of pairs of like lengths."""
        sources, targets = self._tokens["train"]
        return BucketLoader(sources.lengths, targets.lengths, self.batch_size, seed)

    def ready(self, item: Tensor) -> Batch:
        """The pairs of a batch."""
        return self.batch("train", item, augment=True)

    def judged_batches(self, split: SplitName) -> list[Tensor]:
        """The places of all pairs of a split, by their lengths, in batches of `batch_size` tokens."""
        self.setup()
        sources, targets = (side.lengths for side in self._tokens[split])
        order = by_length(sources, targets, torch.arange(len(sources)))
        return list(order.split(cuts(sources[order], targets[order], self.batch_size)))

    def batches(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """The whole split, not in its order but by length; the batches are those of `judged_batches`."""
        found = self.judged_batches(split)
        for index in counted(found, JUDGING[split], len(found), "batches"):
            yield self.batch(split, index, augment=False)


def _plain(line: str) -> str:
    return unicodedata.normalize("NFC", " ".join(line.split()))
