"""Encoder, predictor and decoder: architectures as points, their scores, and the way back.

The encoder reads a sequence of tokens and gives a memory o_1, ..., o_T' of unit vectors; the embedding is
e = normalise(mean_t o_t). The predictor is f(e) in (0, 1). The decoder is a language model that starts from e
and looks at the memory at every step (dot attention).
"""

from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.limits import require
from papers.nao.grammar import START, Grammar


class EPDSettings(NamedTuple):
    """Sizes of the three networks.

    Attributes:
        embedding: E, of a token in the encoder.
        hidden: H, of both LSTMs and of the embedding of an architecture.
        layers, width: the predictor's hidden layers; 0 layers for a linear one.
        fold: how many tokens the encoder reads in one step.
        encoder_dropout, predictor_dropout, decoder_dropout: of the outputs of the encoder, of the hidden
            layers, of the decoder's outputs.
    """

    embedding: int
    hidden: int
    layers: int
    width: int
    fold: int
    encoder_dropout: float
    predictor_dropout: float
    decoder_dropout: float


class LookedAt(NamedTuple):
    """A memory o as attention sees it: q . o = output . key for q = W_q output, W_c context = sum a value.

    Attributes:
        keys: o W_q, [n, T', H].
        values: W_c o, [n, T', H].
    """

    keys: Tensor
    values: Tensor


class EPD(nn.Module):
    """The three networks of one grammar.

    First weights: orthogonal matrices of the LSTMs, all else uniform in [-0.1, 0.1].

    Args:
        grammar: what is read and written.
        settings: see `EPDSettings`.

    Raises:
        UserError: a size below 1, a dropout outside [0, 1), a fold that does not divide a sentence.
    """

    def __init__(self, grammar: Grammar, settings: EPDSettings) -> None:
        super().__init__()
        require("at least 0", "method.searcher", layers=settings.layers)
        require("at least 1", "method.searcher", embedding=settings.embedding, hidden=settings.hidden,
                width=settings.width, fold=settings.fold)  # fmt: skip
        for name in ("encoder_dropout", "predictor_dropout", "decoder_dropout"):
            if not 0 <= getattr(settings, name) < 1:
                raise UserError(f"method.searcher.{name}={getattr(settings, name)}; valid: 0 to below 1")
        if grammar.length % settings.fold:
            raise UserError(
                f"method.searcher.fold={settings.fold}; valid: a divisor of the {grammar.length} tokens"
            )
        self.settings, self.length, self.vocabulary = settings, grammar.length, grammar.vocabulary
        hidden = settings.hidden
        self.read = nn.Embedding(grammar.vocabulary, settings.embedding)
        self.encoder = nn.LSTM(settings.fold * settings.embedding, hidden, batch_first=True)
        sizes = [hidden, *[settings.width] * settings.layers]
        parts: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            parts += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(settings.predictor_dropout)]
        self.predictor = nn.Sequential(*parts, nn.Linear(sizes[-1], 1), nn.Sigmoid(), nn.Flatten(0))
        self.write = nn.Embedding(grammar.vocabulary, hidden)
        self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.attended = nn.Linear(2 * hidden, hidden, bias=False)
        self.logits = nn.Linear(hidden, grammar.vocabulary)
        self.register_buffer("allowed", grammar.allowed, persistent=False)
        for name, parameter in self.named_parameters():
            if "weight_hh" in name or "weight_ih" in name:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.uniform_(parameter, -0.1, 0.1)

    def encode(self, tokens: Tensor) -> Tensor:
        """Sentences int64 [n, T] to memories of unit vectors [n, T / fold, H]."""
        folded = self.read(tokens).view(len(tokens), self.length // self.settings.fold, -1)
        outputs = functional.dropout(self.encoder(folded)[0], self.settings.encoder_dropout, self.training)
        return functional.normalize(outputs, dim=-1)

    @staticmethod
    def embed(memory: Tensor) -> Tensor:
        """Memories [n, T', H] to embeddings, the normalised mean: unit vectors [n, H]."""
        return functional.normalize(memory.mean(1), dim=-1)

    def predict(self, memory: Tensor) -> Tensor:
        """f(e) of memories [n, T', H]: [n] in (0, 1)."""
        return cast(Tensor, self.predictor(self.embed(memory)))

    def write_logits(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """What the decoder expects at each position, the true tokens before given.

        The LSTM runs once over the whole sentence, and attention is one matrix product.

        Shapes: tokens int64 [n, T], memory [n, T', H] to logits [n, T, V].
        """
        start = torch.full_like(tokens[:, :1], START)
        before = torch.cat([start, tokens[:, :-1]], 1)
        embedding = self.embed(memory)[None]
        outputs = self.decoder(self.write(before), (embedding, embedding))[0]
        return self._attend(outputs, self._looked_at(memory))

    def _looked_at(self, memory: Tensor) -> LookedAt:
        """What attention needs of a memory [n, T', H], whose steps are fewer than the sentence's."""
        return LookedAt(memory @ self.query.weight, memory @ self.attended.weight.chunk(2, 1)[0].T)

    def _attend(self, outputs: Tensor, memory: LookedAt) -> Tensor:
        """Outputs of the decoder's LSTM [n, t, H] to logits [n, t, V]: tanh(W [context; output])."""
        outputs = functional.dropout(outputs, self.settings.decoder_dropout, self.training)
        weights = (outputs @ memory.keys.mT).softmax(-1)
        joined = outputs @ self.attended.weight.chunk(2, 1)[1].T + weights @ memory.values
        return cast(Tensor, self.logits(torch.tanh(joined)))

    @torch.no_grad()
    def greedy(self, memory: Tensor) -> Tensor:
        """The likeliest allowed token at each position, one after the other: sentences int64 [n, T].

        Args:
            memory: [n, T', H]; all are decoded side by side.
        """
        token = torch.full((len(memory),), START, device=memory.device)
        embedding, looked_at = self.embed(memory)[None], self._looked_at(memory)
        state, found = (embedding, embedding), []
        for position in range(self.length):
            outputs, state = self.decoder(self.write(token)[:, None], state)
            logits = self._attend(outputs, looked_at)[:, 0]
            allowed = cast(Tensor, self.allowed)[position, token]
            token = logits.masked_fill(~allowed, -torch.inf).argmax(-1)
            found.append(token)
        return torch.stack(found, 1)
