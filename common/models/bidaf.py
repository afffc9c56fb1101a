"""BiDAF, a reader that points at the answer of a question in a passage."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.passages import PADDING, SPECIAL, disjoined
from common.models.char_lstm_crf import CharacterConvolution
from common.models.classifier import require_dropout
from common.models.shapes import require_positive

# bytes that a filter reads at once (Seo et al. 2017, section 4.1)
WIDTH = 5
LAYERS = 2
# what the LSTM before the last word of the answer reads
End = Literal["attended", "modelled"]


class WideConvolution(CharacterConvolution):
    """Words as bytes int64 [n, L] to features [n, filters] by filters that read `WIDTH` bytes.

    Each gives its largest value over the bytes of the word, or 0 where that is below 0.

    Args:
        size, filters, dropout: see `CharacterConvolution`.
    """

    def __init__(self, size: int, filters: int, dropout: float) -> None:
        super().__init__(size, filters, dropout)
        self.convolution = nn.Conv1d(size, filters, kernel_size=WIDTH, padding=WIDTH // 2)

    def forward(self, words: Tensor) -> Tensor:
        """See the class."""
        return super().forward(words).relu()


class Highway(nn.Module):
    """Layers y = t * relu(W x + b) + (1 - t) * x with t = sigmoid(V x + c), one after the other.

    Srivastava, Greff and Schmidhuber, "Highway Networks", 2015.

    Args:
        size: of x.
        layers: how many.
    """

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(size, size) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(size, size) for _ in range(layers))

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., size] to [..., size]."""
        for layer, gate in zip(self.maps, self.gates, strict=True):
            share = gate(inputs).sigmoid()
            inputs = share * layer(inputs).relu() + (1 - share) * inputs
        return inputs


class BothWays(nn.Module):
    """An LSTM onward and one backward over sequences [b, T, size], side by side: [b, T, 2 hidden].

    What `torch.nn.LSTM` gives of packed sequences, without packing them: the backward one reads each sequence
    turned round within its length, so that both come to padding last. Packed ones take time of the order of T
    squared to differentiate on the CPU, and on a GPU they wait for the lengths.

    Args:
        size: of what is read.
        hidden: each way.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.onward = nn.LSTM(size, hidden, batch_first=True)
        self.back = nn.LSTM(size, hidden, batch_first=True)

    def forward(self, seen: Tensor, absent: Tensor) -> Tensor:
        """See the class; 0 for what is `absent`, bool [b, T], padding behind the last word."""
        places, lengths = torch.arange(seen.shape[1], device=seen.device), (~absent).sum(1, keepdim=True)
        order = (lengths - 1 - places).where(~absent, places)[:, :, None]
        turned = seen.gather(1, order.expand_as(seen))
        onward, backward = self.onward(seen)[0], self.back(turned)[0]
        both = torch.cat([onward, backward.gather(1, order.expand_as(backward))], 2)
        return both.masked_fill(absent[:, :, None], 0.0)


class AttentionFlow(nn.Module):
    """Attention of a passage H [b, C, n] to a question U [b, Q, n] and back.

    With S[c, q] = w . [h_c; u_q; h_c * u_q] (the trilinear similarity), u~_c = sum_q softmax_q(S[c, q]) u_q
    and h~ = sum_c softmax_c(max_q S[c, q]) h_c it gives [h_c; u~_c; h_c * u~_c; h_c * h~], [b, C, 4 n].

    Args:
        size: n.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.passage, self.question = nn.Linear(size, 1, bias=False), nn.Linear(size, 1, bias=False)
        self.both = nn.Parameter(torch.empty(size))
        # as a linear layer of all three parts starts
        bound = 1 / math.sqrt(3 * size)
        for weight in (self.passage.weight, self.question.weight, self.both):
            nn.init.uniform_(weight, -bound, bound)

    def similarity(self, passage: Tensor, question: Tensor) -> Tensor:
        """S [b, C, Q]; neither of the three parts is laid out for all pairs."""
        alone = self.passage(passage) + self.question(question).transpose(1, 2)
        return alone + (passage * self.both) @ question.transpose(1, 2)

    def forward(self, passage: Tensor, question: Tensor, absent: Tensor, unasked: Tensor) -> Tensor:
        """See the class; `absent` bool [b, C] and `unasked` bool [b, Q] are padding."""
        scores = self.similarity(passage, question).masked_fill(unasked[:, None], -math.inf)
        # a row of padding alone has no largest score
        best = scores.amax(2).masked_fill(absent, -math.inf)
        asked = scores.softmax(2) @ question
        read = best.softmax(1)[:, None] @ passage
        return torch.cat([passage, asked, passage * asked, passage * read], 2)


class BiDAF(nn.Module):
    """The reader of Seo et al., "Bidirectional Attention Flow for Machine Comprehension", ICLR 2017.

    Words and their letters through a highway network; an LSTM both ways, the same for passage and question;
    the attention flow G; two LSTMs both ways, which give M; the first word of the answer by a linear layer on
    [G; M], its last word by another one on [G; M2], with M2 of one more LSTM both ways.

    Args:
        shape: of one passage, (length, 1 + L), see `common.base.passages.joined`. Any length goes.
        classes: must be None.
        words: how many numbers of words there are.
        word_size, char_size: of the embeddings.
        filters: of the convolution over letters.
        hidden: of each LSTM, each way.
        dropout: of embedded letters, of what each LSTM reads and of what the last linear layers read.
        end: what the LSTM of M2 reads: "attended" [G; M; a; M * a] with a = sum_c p_first(c) M_c, as the
            authors' code has it (by which there are 2.6 million parameters beside words); "modelled" M, as
            the paper's text has it.
        longest_answer: words that an answer has at most where it is decoded.

    Raises:
        UserError: inputs that are no passages, sizes below 1, a dropout outside [0, 1), another end.
    """

    vectors: Tensor | None

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
        end: End,
        longest_answer: int,
    ) -> None:
        super().__init__()
        if len(shape) != 2 or classes is not None:
            raise UserError(
                f"model: bidaf cannot take inputs of shape {tuple(shape)}{' with classes' * bool(classes)}; "
                "valid: passages with questions (words, 1 + bytes), as dataset=python_questions"
            )
        sizes = {"word_size": word_size, "char_size": char_size, "filters": filters, "hidden": hidden}
        for key, value in (sizes | {"words": words, "longest_answer": longest_answer}).items():
            require_positive(key, value)
        require_dropout(dropout)
        if end not in get_args(End):
            raise UserError(f"model.end={end}; valid: {', '.join(get_args(End))}")
        self.words, self.word_size, self.end, self.longest_answer = words, word_size, end, longest_answer
        self.embedding = nn.Embedding(words, word_size, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=word_size**-0.5)
        with torch.no_grad():
            self.embedding.weight[PADDING] = 0
        # of words with numbers from SPECIAL on, where they come from a file
        self.register_buffer("vectors", None, persistent=False)
        self.letters = WideConvolution(char_size, filters, dropout)
        self.dropout = nn.Dropout(dropout)
        self.highway = Highway(word_size + filters, LAYERS)
        self.context = BothWays(word_size + filters, hidden)
        self.attention = AttentionFlow(2 * hidden)
        self.modelling = nn.ModuleList([BothWays(8 * hidden, hidden), BothWays(2 * hidden, hidden)])
        self.last = BothWays(14 * hidden if end == "attended" else 2 * hidden, hidden)
        self.first_score, self.last_score = nn.Linear(10 * hidden, 1), nn.Linear(10 * hidden, 1)

    def use_vectors(self, vectors: Tensor) -> None:
        """Give words the vectors of a file, float32 [n, word_size], which are not trained.

        Raises:
            UserError: they have another size.
        """
        if vectors.shape[1] != self.word_size:
            raise UserError(
                f"model.word_size={self.word_size}: the vectors of dataset.vectors have {vectors.shape[1]} "
                f"numbers (valid: model.word_size={vectors.shape[1]})"
            )
        self.vectors = vectors
        with torch.no_grad():
            # of these, padding and what is no word of the file are still its own
            self.embedding = nn.Embedding.from_pretrained(
                self.embedding.weight[:SPECIAL].clone(), freeze=False, padding_idx=PADDING
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Passages with questions int64 [b, C + 1 + Q, 1 + L] to scores of the first and the last word of the
        answer [b, 2, C], minus infinity for padding."""
        passages, questions = disjoined(inputs)
        absent, unasked = passages[:, :, 0] == PADDING, questions[:, :, 0] == PADDING
        read = self.context(self.dropout(self._embedded(passages)), absent)
        asked = self.context(self.dropout(self._embedded(questions)), unasked)
        flow = self.attention(read, asked, absent, unasked)
        modelled = flow
        for lstm in self.modelling:
            modelled = lstm(self.dropout(modelled), absent)
        first = self._scores(self.first_score, flow, modelled, absent)
        seen = modelled
        if self.end == "attended":
            attended = (first.softmax(1)[:, None] @ modelled).expand_as(modelled)
            seen = torch.cat([flow, modelled, attended, modelled * attended], 2)
        last = self._scores(self.last_score, flow, self.last(self.dropout(seen), absent), absent)
        return torch.stack([first, last], 1)

    def _embedded(self, words: Tensor) -> Tensor:
        """Words int64 [b, T, 1 + L] to [b, T, word_size + filters]."""
        numbers, letters = words[:, :, 0], words[:, :, 1:]
        spelled = self.letters(letters.flatten(0, 1)).view(*numbers.shape, -1)
        if self.vectors is None:
            known = self.embedding(numbers)
        else:
            special = self.embedding(numbers.clamp_max(SPECIAL - 1))
            given = self.vectors[(numbers - SPECIAL).clamp_min(0)]
            known = torch.where((numbers < SPECIAL)[:, :, None], special, given)
        return self.highway(torch.cat([known, spelled], 2))

    def _scores(self, layer: nn.Linear, flow: Tensor, modelled: Tensor, absent: Tensor) -> Tensor:
        found = layer(self.dropout(torch.cat([flow, modelled], 2)))[:, :, 0]
        return found.masked_fill(absent, -math.inf)


def best_spans(scores: Tensor, longest: int) -> Tensor:
    """The spans whose first and last words have the largest sum of scores, int64 [b, 2].

    Of equal ones it is the one that begins first, and of those the shortest.

    Only spans with first <= last and up to `longest` words count.

    Args:
        scores: of the first and of the last word, [b, 2, C], minus infinity where no answer may be.
        longest: at least 1.
    """
    first, last = scores.unbind(1)
    longest = min(longest, last.shape[1])
    # of each first word the scores of so many last ones: no table of all pairs
    padded = nn.functional.pad(last, (0, longest - 1), value=-math.inf)
    sums = first[:, :, None] + padded.unfold(1, longest, 1)
    place = sums.flatten(1).argmax(1)
    begin = place // longest
    return torch.stack([begin, begin + place % longest], 1)
