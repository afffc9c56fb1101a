"""How sentences become tokens and tokens become sentences again: byte-pair encoding, words or characters."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Literal, Protocol

from common.base.errors import UserError
from common.base.sequence import SPECIAL, UNKNOWN

Level = Literal["bpe", "word", "character"]
LEVELS = ("bpe", "word", "character")
# letters, digits and underscores, or one punctuation mark
WORD = re.compile(r"\w+|[^\w\s]")


class Pieces(Protocol):
    """A vocabulary, whose first numbers are those of `common.base.sequence`, and what it does."""

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The tokens of each line, as numbers."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The line of these numbers, without those of `common.base.sequence` and those of no piece."""


# a longer word is none, and teaches no pieces: learning takes time with the square of its length
LONGEST_WORD = 1000


def learned(lines: Iterable[str], level: Level, vocabulary: int) -> Pieces:
    """A vocabulary that is learned from lines, which have no white space but single spaces.

    Args:
        lines: of the training split, of both languages.
        level: "bpe" for byte-pair encoding (Sennrich et al. 2016) with spaces as a part of pieces, so that
            every line comes back as it was; "word" for words and punctuation marks, between which spaces are
            put; "character".
        vocabulary: the most entries, with the four of `common.base.sequence`; there are fewer where the lines
            have not as many.

    Raises:
        UserError: "bpe" without the package tokenizers.
    """
    lines = (line for line in lines if len(line) <= LONGEST_WORD or _has_words(line))
    return _BytePairs(lines, vocabulary) if level == "bpe" else _Tokens(lines, level, vocabulary)


def as_json(pieces: Pieces) -> dict[str, Any]:
    """A learned vocabulary as plain JSON data, from which `from_json` makes it again.

    Returns:
        level: as in `learned`; tokenizer: what the package tokenizers writes of byte pairs, a text; names:
        the words or characters by their numbers.
    """
    if isinstance(pieces, _BytePairs):
        return {"level": "bpe", "tokenizer": pieces.tokenizer.to_str()}
    assert isinstance(pieces, _Tokens)
    return {"level": "word" if pieces.by_word else "character", "names": list(pieces.names)}


def from_json(told: dict[str, Any]) -> Pieces:
    """The vocabulary that `as_json` has written down.

    Raises:
        UserError: byte pairs without the package tokenizers.
    """
    if told["level"] == "bpe":
        return _KnownBytePairs(told["tokenizer"])
    return _KnownTokens(told["names"], told["level"])


def _has_words(line: str) -> bool:
    """Whether no word of a line is longer than any is."""
    return max(map(len, line.split(" "))) <= LONGEST_WORD


class _Tokens:
    """The most frequent words or characters, ties in the order in which they first appear."""

    def __init__(self, lines: Iterable[str], level: Level, vocabulary: int) -> None:
        self.by_word = level == "word"
        counts = Counter(chain.from_iterable(map(self._cut, lines)))
        kept = [token for token, _ in counts.most_common(vocabulary - len(SPECIAL))]
        self.names = [*SPECIAL, *kept]
        self.numbers = {token: number for number, token in enumerate(kept, len(SPECIAL))}

    def _cut(self, line: str) -> list[str]:
        return WORD.findall(line) if self.by_word else list(line)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        return [[self.numbers.get(token, UNKNOWN) for token in self._cut(line)] for line in lines]

    def decode(self, tokens: Sequence[int]) -> str:
        known = range(len(SPECIAL), len(self.names))
        names = (self.names[token] for token in tokens if token in known)
        return (" " if self.by_word else "").join(names)


class _BytePairs:
    """Byte-pair encoding by the package tokenizers."""

    def __init__(self, lines: Iterable[str], vocabulary: int) -> None:
        tokenizers = _tokenizers()
        self.tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=SPECIAL[UNKNOWN]))
        # spaces begin pieces, and punctuation stands by itself
        self.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [tokenizers.pre_tokenizers.Metaspace(), tokenizers.pre_tokenizers.Punctuation()]
        )
        self.tokenizer.decoder = tokenizers.decoders.Metaspace()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            # as many characters as there is room for, the most frequent ones
            limit_alphabet=max(1, vocabulary - len(SPECIAL)),
            show_progress=False,
        )
        self.tokenizer.train_from_iterator(lines, trainer)
        # "</s>" in a line is four characters
        self.tokenizer.encode_special_tokens = True

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in self.tokenizer.encode_batch(list(lines), add_special_tokens=False)]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)


class _KnownTokens(_Tokens):
    """Words or characters whose numbers are known: those of `names`, the special ones first."""

    def __init__(self, names: Sequence[str], level: Level) -> None:
        self.by_word, self.names = level == "word", list(names)
        self.numbers = {name: number for number, name in enumerate(names) if number >= len(SPECIAL)}


class _KnownBytePairs(_BytePairs):
    """Byte pairs that were learned before, from what the package tokenizers wrote of them."""

    def __init__(self, text: str) -> None:
        self.tokenizer = _tokenizers().Tokenizer.from_str(text)
        # the package does not write this down
        self.tokenizer.encode_special_tokens = True


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            "dataset.level=bpe needs the package tokenizers: pip install -e '.[translation]' "
            "(valid without it: dataset.level=word, character)"
        ) from error
    return tokenizers
