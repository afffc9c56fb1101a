"""A tagger of sentences: convolution over the letters of each word, LSTM both ways, a chain of tags."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.base.errors import UserError
from common.models.classifier import require_dropout
from common.models.crf import ConditionalRandomField
from common.models.shapes import require_classes, require_positive

# bytes of UTF-8, and the padding behind a word
BYTES = 257


class CharacterConvolution(nn.Module):
    """Words as bytes int64 [n, L], 0 behind their end, to features [n, filters].

    The bytes are embedded, a convolution reads three of them around each, and each filter gives its largest
    value over the bytes of the word: what stands behind the end, and how much of it, changes nothing. A word
    without bytes is 0.

    Args:
        size: of the embedding.
        filters: how many.
        dropout: of the embedding.
    """

    def __init__(self, size: int, filters: int, dropout: float) -> None:
        super().__init__()
        self.embedding = _embedding(BYTES, size)
        self.dropout = nn.Dropout(dropout)
        self.convolution = nn.Conv1d(size, filters, kernel_size=3, padding=1)

    def forward(self, words: Tensor) -> Tensor:
        """See the class."""
        found = self.convolution(self.dropout(self.embedding(words)).transpose(1, 2))
        absent = words == 0
        found = found.masked_fill(absent[:, None], -math.inf).amax(2)
        return found.masked_fill(absent.all(1)[:, None], 0.0)


class CharLstmCrf(nn.Module):
    """The tagger of Ma and Hovy, "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF", ACL 2016.

    Here without vectors that were trained elsewhere: words start uniform in +-sqrt(3 / size), as letters do.

    Args:
        shape: of one input, (length, 1 + L): of each word its number, 0 for padding, and its L bytes, each
            plus 1, 0 behind the end. Sentences may be of any length and words of any L.
        classes: number of tags.
        words: how many numbers there are, 0 for padding and 1 for words that are not known among them.
        word_size, char_size: of the embeddings.
        filters: of the convolution over letters.
        hidden: of the LSTM, each way.
        dropout: of the embedded words and letters and of what the LSTM gives.

    Raises:
        UserError: inputs that are no sentences, fewer than two tags, sizes below 1, a dropout outside [0, 1).
    """

    task: ClassVar[Literal["tagging"]] = "tagging"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        words: int,
        word_size: int,
        char_size: int,
        filters: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            raise UserError(
                f"model: char_lstm_crf cannot take inputs of shape {tuple(shape)}; valid: sentences (words, "
                "1 + bytes), as dataset=python_tags"
            )
        sizes = {"words": words, "word_size": word_size, "char_size": char_size, "filters": filters}
        for key, value in (sizes | {"hidden": hidden}).items():
            require_positive(key, value)
        require_dropout(dropout)
        tags = require_classes("char_lstm_crf", classes)
        self.words = words
        self.embedding = _embedding(words, word_size)
        self.letters = CharacterConvolution(char_size, filters, dropout)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(word_size + filters, hidden, batch_first=True, bidirectional=True)
        self.scores = nn.Linear(2 * hidden, tags)
        self.crf = ConditionalRandomField(tags)

    def forward(self, inputs: Tensor) -> Tensor:
        """Sentences int64 [b, T, 1 + L] to the scores of single tags [b, T, K]; padding gets some too."""
        numbers, letters = inputs[:, :, 0], inputs[:, :, 1:]
        spelled = self.letters(letters.flatten(0, 1)).view(*numbers.shape, -1)
        seen = self.dropout(torch.cat([self.embedding(numbers), spelled], 2))
        # on the CPU, where packing wants them; a sentence of padding alone is read as one word
        lengths = (numbers != 0).sum(1).clamp_min(1).cpu()
        packed = pack_padded_sequence(seen, lengths, batch_first=True, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=numbers.shape[1])
        return self.scores(self.dropout(read))


def _embedding(count: int, size: int) -> nn.Embedding:
    """Vectors uniform in +-sqrt(3 / size), of variance 1 / size; that of number 0 is 0 and stays so."""
    layer = nn.Embedding(count, size, padding_idx=0)
    bound = math.sqrt(3 / size)
    nn.init.uniform_(layer.weight, -bound, bound)
    with torch.no_grad():
        layer.weight[0] = 0
    return layer
