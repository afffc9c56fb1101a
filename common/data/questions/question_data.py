"""Questions upon passages: words numbered, spelled as bytes, and padded to the longest of their batch."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch import Tensor

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.base.passages import SPECIAL, UNKNOWN, joined
from common.data.questions.passages import Asked, Passage, Question, Splits
from common.data.shared.sequences import Sequences
from common.data.shared.word_data import WordData, WordOptions
from common.data.shared.word_vectors import first_words, word_vectors

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
SYNTHETIC_SIZES: dict[SplitName, int] = {"train": 256, "validation": 64, "test": 64}
# of a synthetic passage: so many different ones of so many words
SYNTHETIC_WORDS, SYNTHETIC_LENGTH = 40, 8


class QuestionOptions(WordOptions):
    """The constructor arguments that all sets share, for subclasses that add their own to them."""

    longest_passage: int
    longest_question: int
    vectors: str | None


class QuestionData(WordData):
    """Questions whose answers are spans of passages.

    A batch of b questions is inputs `common.base.passages.joined` int64 [b, C + 1 + Q, 1 + L], C and Q the
    words of the longest passage and question of them, and targets int64 [b, 2], the first and the last word
    of the (first) answer. Of each word stands there its number (0 padding, 1 unknown) and its first L bytes
    in UTF-8 plus 1, 0 behind its end. Words are numbered in lower case by how often they occur in training;
    with `vectors` in the file's order and case, or in lower case where the file has only that.

    Subclasses implement `read`.

    Attributes:
        vocabulary: the words that have numbers, from 3 on; empty before `setup`.
        shape: (longest_passage, 1 + longest); passages that are judged may be of any length.

    Args:
        source: "real", or "synthetic" for random words: 256 questions to train on, 64 to test on.
        limit: train on so many questions, drawn by `seed`; null for all.
        verify: whether an answer that does not stand at its place is refused, and sizes of published sets
            are compared.
        batch_size: questions of a step.
        words: so many numbers there are at most; rarer words are unknown, but for their letters.
        longest: bytes of a word that are read, the first ones; longer words are counted.
        longest_passage, longest_question: words; training questions with longer ones are left out and
            counted, what is judged may have any number.
        vectors: a file of word vectors in GloVe's format; null for none. Its first words are the vocabulary.
        The others as in `WordData`.

    Raises:
        UserError: a value out of range, here; what `read` refuses and a `limit` above the size, in `setup`.
    """

    KIND: ClassVar = "question_answering"
    CLASSES: ClassVar = None
    COUNTED: ClassVar = "questions"
    FIRST: ClassVar = SPECIAL
    EVALUATION_BATCH: ClassVar = 60

    def __init__(
        self,
        *,
        longest_passage: int,
        longest_question: int,
        vectors: str | None,
        **options: Unpack[WordOptions],
    ) -> None:
        super().__init__(**options)
        check("words", self.words, self.words > SPECIAL, f"give at least {SPECIAL + 1}")
        for key, value in {"longest_passage": longest_passage, "longest_question": longest_question}.items():
            check(key, value, value >= 1, "give at least 1")
        self.longest_passage, self.longest_question = longest_passage, longest_question
        self.vectors = None if vectors is None else Path(vectors).expanduser()
        self.shape, self.classes = (longest_passage, 1 + self.longest), None
        self._asked: Splits = {}

    @property
    def train_size(self) -> int:
        """Questions of the training split."""
        return self.TRAIN_SIZE

    @abstractmethod
    def read(self) -> Splits:
        """The questions of train, validation (none, where there is no such split) and test.

        Raises:
            UserError: a file is missing or damaged.
        """

    def word_vectors(self) -> Tensor | None:
        """The vectors of the words that have numbers, float32 [n, size], from number 3 on; None: no file.

        Reads no questions.

        Raises:
            UserError: as `common.data.shared.word_vectors.word_vectors`.
        """
        return None if self.vectors is None else word_vectors(self.vectors, self.words - SPECIAL)

    def setup(self, stage: str | None = None) -> None:
        """Read the set (once), take the subset and number the words of training."""
        if self._asked:
            return
        found = self._synthetic() if self.source == "synthetic" else self.read()
        for split in SPLITS:
            self.repairs |= {f"{split} {what}": count for what, count in found[split].notes.items()}
        found["train"] = self._short(found["train"])
        kept = self.limited(len(found["train"].questions))
        if kept is not None:
            found["train"] = found["train"].take(kept)
        for split in ("validation", "test"):
            chosen = self.judged(len(found[split].questions))
            if chosen is not None:
                found[split] = found[split].take(chosen.tolist())
        self._asked = found
        self._cut_words(found)
        if not self.vocabulary:
            self.vocabulary = self._numbered(found["train"])
        self._encode()

    def _short(self, train: Asked) -> Asked:
        """The training questions whose passage and words are not too long."""
        fits = [len(passage.places) <= self.longest_passage for passage in train.passages]
        kept = [
            place
            for place, one in enumerate(train.questions)
            if fits[one.passage] and len(one.words()) <= self.longest_question
        ]
        left = len(train.questions) - len(kept)
        if not left:
            return train
        if not kept:
            raise UserError(
                f"dataset.longest_passage={self.longest_passage}, dataset.longest_question="
                f"{self.longest_question}: no training question of {self.NAME} is as short"
            )
        self.repairs[
            f"training questions of more than {self.longest_question} words or with passages of more than "
            f"{self.longest_passage}, left out"
        ] = left
        return train.take(kept)

    def _cut_words(self, found: Splits) -> None:
        words = {word for asked in found.values() for word in _counted(asked)}
        cut = [word for word in words if len(word.encode(errors="surrogatepass")) > self.longest]
        if cut:
            first = min(cut, key=lambda word: (-len(word), word))
            self.repairs[
                f"words of more than {self.longest} bytes, of which the first are read (the longest: "
                f"{first[:40]!r})"
            ] = len(cut)

    def _numbered(self, train: Asked) -> list[str]:
        """The words that get numbers."""
        if self.vectors is not None:
            return first_words(self.vectors, self.words - SPECIAL)
        counts: Counter[str] = Counter()
        for word, count in _counted(train).items():
            counts[word.lower()] += count
        return self.frequent(counts)

    def _encode(self) -> None:
        numbers = self.numbers()
        self._encoded = {
            split: Encoded.of(asked.passages, asked.questions, numbers, self.longest)
            for split, asked in self._asked.items()
        }
        self.move(self.device)

    def _synthetic(self) -> Splits:
        random = np.random.default_rng(0)
        sizes = SYNTHETIC_SIZES if self.limit is None else SYNTHETIC_SIZES | {"train": self.limit}

        def asked(count: int) -> Asked:
            found = Asked()
            for number in range(count):
                words = [f"word{n}" for n in random.permutation(SYNTHETIC_WORDS)[:SYNTHETIC_LENGTH]]
                place = int(random.integers(SYNTHETIC_LENGTH - 1))
                found.passages.append(Passage.of(" ".join(words), ""))
                # what follows a word can be learned
                text, span = f"after {words[place]} ?", (place + 1, place + 1)
                found.questions.append(Question(str(number), text, number, (words[place + 1],), span))
            return found

        return {split: asked(size) for split, size in sizes.items()}

    @property
    def has_validation(self) -> bool:
        return bool(self.asked("validation").questions)

    def asked(self, split: SplitName) -> Asked:
        """The passages and questions of a split, as they are read."""
        self.setup()
        return self._asked[split]

    def references(self, split: SplitName) -> list[tuple[str, ...]]:
        """All right answers of each question of a split."""
        return [question.answers for question in self.asked(split).questions]

    def said(self, split: SplitName, spans: Iterable[Sequence[int]]) -> list[str]:
        """The text of a span of words for each question of a split; they are in its order."""
        asked = self.asked(split)
        return [
            asked.passages[one.passage].said((span[0], span[1]))
            for one, span in zip(asked.questions, spans, strict=True)
        ]

    def size(self, split: SplitName) -> int:
        """How many questions a split has."""
        return len(self.asked(split).questions)

    def encoding(self) -> dict[str, Any]:
        """The words by their numbers, from 3 on, and how words become numbers."""
        self.setup()
        return {
            "vocabulary": list(self.vocabulary),
            "preparation": "words are runs of letters, digits and underscores, and single other signs; of "
            "each its number in the vocabulary, from 3 on (as it stands or else in lower case; 1 unknown), "
            f"then its first {self.longest} bytes in UTF-8, each plus 1; 0 is padding; passage, a word of "
            "number 2, question",
        }

    def adopt(self, facts: dict[str, Any]) -> None:
        """Give the words the numbers that they have in `facts`."""
        self.setup()
        self.vocabulary = list(facts["vocabulary"])
        self._encode()

    def encoded(self, asked: Asked) -> "Encoded":
        """Questions that stand in no split, as batches of them are made; on the device."""
        return Encoded.of(asked.passages, asked.questions, self.numbers(), self.longest).to(self.device)


def _counted(asked: Asked) -> Counter[str]:
    """How often each word stands in passages and questions."""
    counts: Counter[str] = Counter()
    for passage in asked.passages:
        counts.update(passage.words())
    for question in asked.questions:
        counts.update(question.words())
    return counts


class Encoded:
    """Passages and questions in numbers.

    Args:
        spelled: int64 [W, 1 + L], of each different word its number and its bytes plus 1; 0 is padding.
        passages, questions: which word stands where.
        about: int64 [questions], the passage of each.
        spans: int64 [questions, 2], first and last word of the answer.
    """

    def __init__(
        self, spelled: Tensor, passages: Sequences, questions: Sequences, about: Tensor, spans: Tensor
    ) -> None:
        self.spelled, self.passages, self.questions = spelled, passages, questions
        self.about, self.spans = about, spans

    @classmethod
    def of(
        cls,
        passages: Sequence[Passage],
        questions: Sequence[Question],
        numbers: dict[str, int],
        longest: int,
    ) -> "Encoded":
        """Number words; those without a number are unknown, but for their first `longest` bytes."""
        known: dict[str, int] = {}

        def run(words: Iterable[str]) -> list[int]:
            return [known.setdefault(word, len(known) + 1) for word in words]

        passage_runs = Sequences(run(one.words()) for one in passages)
        question_runs = Sequences(run(one.words()) for one in questions)
        spelled = np.zeros((len(known) + 1, 1 + longest), np.int64)
        for word, row in known.items():
            letters = np.frombuffer(word.encode(errors="surrogatepass")[:longest], np.uint8)
            spelled[row, 0] = numbers.get(word, numbers.get(word.lower(), UNKNOWN))
            spelled[row, 1 : 1 + len(letters)] = letters.astype(np.int64) + 1
        return cls(
            torch.from_numpy(spelled),
            passage_runs,
            question_runs,
            torch.tensor([one.passage for one in questions], dtype=torch.int64),
            torch.tensor([one.span for one in questions], dtype=torch.int64).view(-1, 2),
        )

    def to(self, device: torch.device) -> "Encoded":
        """The same on a device."""
        return Encoded(
            self.spelled.to(device),
            self.passages.to(device),
            self.questions.to(device),
            self.about.to(device),
            self.spans.to(device),
        )

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs int64 [b, C + 1 + Q, 1 + L] and targets int64 [b, 2] of questions."""
        passages = self.spelled[self.passages.padded(self.about[index])]
        inputs = joined(passages, self.spelled[self.questions.padded(index)])
        letters = int((inputs[:, :, 1:] != 0).any(1).any(0).sum())
        return inputs[:, :, : 1 + letters], self.spans[index]
