"""Text as one long stream of tokens for each split, for language models trained by truncated BPTT."""

from abc import abstractmethod
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import JUDGING, Batch, SplitName, check
from common.base.errors import UserError
from common.base.loader import BlockLoader
from common.base.phases import counted
from common.data.shared.download import DamagedError
from common.data.shared.prepare import Checksum, check_content
from common.data.shared.token_data import TokenData, TokenOptions

EOS, UNKNOWN = "<eos>", "<unk>"
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
# tokens
SYNTHETIC_SIZES: dict[SplitName, int] = {"train": 20_000, "validation": 5_000, "test": 5_000}

Words = dict[SplitName, list[str]]


class TextOptions(TokenOptions):
    """The constructor arguments that all sets of running text share, for subclasses that add theirs."""

    bptt: int


class PositionLoader(BlockLoader):
    """Blocks of positions 0, bptt, 2 bptt, ... of parallel streams, in the text's order in every epoch.

    Position 0 is where the state of a recurrent model begins anew.

    Args:
        length: tokens of each stream, at least 2.
        bptt: tokens from one position to the next.
    """

    def __init__(self, length: int, bptt: int) -> None:
        super().__init__(-(-(length - 1) // bptt), seed=0)
        self.length, self.bptt = length, bptt

    def items(self) -> Iterator[int]:
        return iter(range(self.position * self.bptt, self.length - 1, self.bptt))


class TextData(TokenData):
    """The next token from those before it; `<eos>` ends each line.

    Subclasses state their facts as class attributes (sizes in tokens) and implement `read`. A batch is
    (inputs, targets), both int64 [b, bptt], targets one token ahead; the last of a pass is shorter.
    Consecutive batches go on where the last one ended, so that a recurrent state can be carried over.

    Attributes:
        vocabulary: the words by their numbers, in the order in which they first appear in the training
            split; empty before `setup`.
        classes: the size of the vocabulary, known before anything is read.
        shape: (bptt,).

    Args:
        source: "synthetic" gives random tokens of the same vocabulary size: as many for training as `limit`
            asks for, else 20,000; 5,000 for each of the others.
        limit: train on the first so many tokens.
        verify: compare checksums of files; counts of tokens and words are always checked.
        batch_size: parallel streams in training.
        bptt: tokens that a batch has of each stream.
        The others as in `TokenData`.

    The validation split is the official one.

    Raises:
        UserError: a value out of range, here; a missing or damaged file, a `limit` above the size of the
            set, or too few tokens for `batch_size` streams, in `setup`.
    """

    KIND: ClassVar = "language_modelling"
    COUNTED: ClassVar = "tokens"
    LEAST: ClassVar = 2
    VALIDATION_SIZE: ClassVar[int]
    # parallel streams where no gradient is needed: each begins without a context
    EVALUATION_BATCH: ClassVar = 10

    def __init__(self, *, bptt: int, **options: Unpack[TokenOptions]) -> None:
        super().__init__(**options)
        check("bptt", bptt, bptt >= 1, "give at least 1 token")
        self.bptt = bptt
        self.shape, self.classes, self.normalise = (bptt,), self.vocabulary_size, "none"
        self.vocabulary: list[str] = []
        self._tokens: dict[SplitName, Tensor] = {}
        self._train_streams: Tensor

    @property
    def vocabulary_size(self) -> int:
        """How many words there are."""
        assert self.CLASSES is not None
        return self.CLASSES

    @property
    def train_size(self) -> int:
        """Tokens of the official training split."""
        return self.TRAIN_SIZE

    @abstractmethod
    def read(self) -> Words:
        """The words of each split, whole, with `<eos>` for the end of each line.

        Raises:
            UserError: a file is missing or damaged and cannot be fetched.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read the set (once) and number its words."""
        if self._tokens:
            return
        self.limit = limit = self.within(self.limit, self.train_size, "tokens", least=2)
        tokens = self._synthetic() if self.source == "synthetic" else self._numbered(self.read())
        tokens["train"] = tokens["train"][:limit]
        for split in ("validation", "test"):
            tokens[split] = tokens[split][: self.judged_on]
        self._tokens = tokens
        self.move(self.device)

    def _numbered(self, words: Words) -> dict[SplitName, Tensor]:
        self.vocabulary = list(dict.fromkeys(words["train"]))
        numbers = {word: number for number, word in enumerate(self.vocabulary)}
        tokens = {}
        for split in SPLITS:
            try:
                found = np.fromiter(map(numbers.__getitem__, words[split]), np.int64, len(words[split]))
            except KeyError as error:
                raise UserError(
                    f"{self.NAME}: {error.args[0]!r} of its {split} split is not among the "
                    f"{len(numbers)} words of its training split; the files do not belong together"
                ) from error
            tokens[split] = torch.from_numpy(found)
        return tokens

    def _synthetic(self) -> dict[SplitName, Tensor]:
        self.vocabulary = [f"word{number}" for number in range(self.vocabulary_size)]
        sizes = SYNTHETIC_SIZES if self.limit is None else SYNTHETIC_SIZES | {"train": self.limit}
        generator = torch.Generator().manual_seed(0)
        return {
            split: torch.randint(self.vocabulary_size, (size,), generator=generator)
            for split, size in sizes.items()
        }

    def move(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        if self._tokens:
            self._tokens = {split: tokens.to(self.device) for split, tokens in self._tokens.items()}
        if "train" in self._tokens:
            self._train_streams = self.streams("train", self.batch_size)

    @property
    def has_validation(self) -> bool:
        return True

    def tokens(self, split: SplitName) -> Tensor:
        """A whole split as one stream: int64 [size] on the device."""
        if not self._tokens:
            raise RuntimeError("call setup() before using the data")
        return self._tokens[split]

    def size(self, split: SplitName) -> int:
        """How many tokens a split has."""
        return len(self.tokens(split))

    def streams(self, split: SplitName, batch_size: int) -> Tensor:
        """A split cut into contiguous streams of equal length, its tail dropped: [batch_size, length].

        Raises:
            UserError: a stream would have fewer than two tokens.
        """
        tokens = self.tokens(split)
        length = len(tokens) // batch_size
        advice = f"the {len(tokens)} tokens of the {split} split give at most {len(tokens) // 2} streams"
        check("batch_size", batch_size, length >= 2, advice)
        return tokens[: batch_size * length].view(batch_size, length)

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """Windows of a split that begin at the tokens `index`, which need not follow one another.

        Shapes: index int64 [b] in 0..size - bptt - 1 on any device, or a slice -> inputs, targets int64
        [b, bptt].
        """
        tokens = self.tokens(split)
        if isinstance(index, slice):
            first, last, step = index.indices(max(len(tokens) - self.bptt, 0))
            index = torch.tensor(range(first, last, step), dtype=torch.int64)
        window = torch.arange(self.bptt + 1, device=self.device)
        chosen = tokens[index.to(self.device)[:, None] + window]
        return chosen[:, :-1], chosen[:, 1:]

    def loader(self, seed: int) -> PositionLoader:
        """An endless loader of positions for `ready`; the text's order, whatever the seed."""
        return PositionLoader(self._train_streams.shape[1], self.bptt)

    def ready(self, item: int | tuple[int, int]) -> Batch:
        """The batch at a position of the training streams; of (position, length) so many tokens of it."""
        position, length = (item, self.bptt) if isinstance(item, int) else item
        return self._window(self._train_streams, position, length)

    def batches(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """The whole split (but the tail of `streams`) as consecutive batches of `batch_size` streams."""
        streams = self.streams(split, batch_size)
        window = partial(self._window, streams, length=self.bptt)
        starts = range(0, streams.shape[1] - 1, self.bptt)
        return counted(map(window, starts), JUDGING[split], len(starts), "windows")

    def _window(self, streams: Tensor, position: int, length: int) -> tuple[Tensor, Tensor]:
        end = min(position + length, streams.shape[1] - 1)
        return streams[:, position:end], streams[:, position + 1 : end + 1]


def read_words(
    path: Path, count: int, vocabulary_size: int | None, known: Collection[Checksum], verify: bool
) -> list[str]:
    """The words of a file of lines, separated by white space, with `<eos>` for the end of each line.

    Args:
        count: of words, with `<eos>`.
        vocabulary_size: of different words, with `<eos>`; None is not checked.
        known: checksums of the file, one of which it must have; where there are none, none is compared.

    Raises:
        DamagedError: the content is another.
        OSError: the file is missing or cannot be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DamagedError("not UTF-8 text") from error
    if not text.endswith("\n"):
        raise DamagedError("it ends within a line")
    words = text.replace("\n", f" {EOS} ").split()
    if len(words) != count:
        raise DamagedError(f"{len(words)} tokens instead of {count}")
    if vocabulary_size is not None and len(set(words)) != vocabulary_size:
        raise DamagedError(f"{len(set(words))} different words instead of {vocabulary_size}")
    check_content(path, content, known, verify)
    return words
