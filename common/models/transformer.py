"""The Transformer for translation (Vaswani et al., NeurIPS 2017), with cached keys and values for decoding.

As yogi's co-author has it (`DevSinghSachan/multilingual_nmt`, `models/transformer.py`): normalisation before
each part, attention without biases, one matrix for the embeddings of both languages and for the softmax,
which has a bias, linear layers from U(-sqrt(3 / fan_in), sqrt(3 / fan_in)) (LeCun), biases from 0.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.limits import require
from common.base.sequence import PAD, parted

Norm = Literal["pre", "post"]


class KeysValues(NamedTuple):
    """What attention looks at: keys and values, each [b, heads, t, d / heads]."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Multi-head attention: softmax(Q K^T / sqrt(d / heads)) V in each head, then a linear layer.

    Args:
        width: d.
        heads: how many, a divisor of d.
        dropout: of the attention's weights.
        bias: whether linear layers have one.
    """

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=bias)
        self.keys_values = nn.Linear(width, 2 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def memory(self, inputs: Tensor) -> KeysValues:
        """Keys and values of inputs [b, t, d]."""
        keys, values = self.keys_values(inputs).chunk(2, dim=-1)
        return KeysValues(self._by_head(keys), self._by_head(values))

    def forward(
        self, inputs: Tensor, memory: KeysValues, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """What inputs [b, t, d] find in the memory.

        Args:
            inputs, memory: see above.
            mask: bool, broadcast to [b, heads, t, tokens of the memory]: True where one may look.
            causal: the token i looks at those up to i.
        """
        found = F.scaled_dot_product_attention(
            self._by_head(self.query(inputs)),
            memory.keys,
            memory.values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        return self.out(found.transpose(1, 2).flatten(2))

    def _by_head(self, inputs: Tensor) -> Tensor:
        return inputs.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Residual(nn.Module):
    """The way around a part: x + dropout(part(norm(x))), or norm(x + dropout(part(x))) with `post`."""

    def __init__(self, width: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.norm, self.dropout, self.first = nn.LayerNorm(width), nn.Dropout(dropout), norm == "pre"

    def enter(self, inputs: Tensor) -> Tensor:
        """What the part gets."""
        return self.norm(inputs) if self.first else inputs

    def leave(self, inputs: Tensor, found: Tensor) -> Tensor:
        """The sum with what the part gave."""
        total = inputs + self.dropout(found)
        return total if self.first else self.norm(total)


class Sizes(NamedTuple):
    """What all layers share; see `Transformer`."""

    width: int
    inner: int
    heads: int
    dropout: float
    attention_bias: bool
    norm: Norm

    def attention(self) -> Attention:
        """A new one."""
        return Attention(self.width, self.heads, self.dropout, self.attention_bias)

    def residual(self) -> Residual:
        """A new one."""
        return Residual(self.width, self.dropout, self.norm)

    def feed_forward(self) -> nn.Sequential:
        """W_2 dropout(relu(W_1 x + b_1)) + b_2."""
        return nn.Sequential(
            nn.Linear(self.width, self.inner),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.inner, self.width),
        )


class EncoderLayer(nn.Module):
    """Attention to the whole source, then a feed-forward network at each token."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.own, self.feed = sizes.attention(), sizes.feed_forward()
        self.around_own, self.around_feed = sizes.residual(), sizes.residual()

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        entered = self.around_own.enter(inputs)
        inputs = self.around_own.leave(inputs, self.own(entered, self.own.memory(entered), mask))
        return self.around_feed.leave(inputs, self.feed(self.around_feed.enter(inputs)))


class DecoderLayer(nn.Module):
    """Attention to the target so far, to the source, then a feed-forward network at each token."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.own, self.source, self.feed = sizes.attention(), sizes.attention(), sizes.feed_forward()
        self.around_own, self.around_source = sizes.residual(), sizes.residual()
        self.around_feed = sizes.residual()

    def forward(
        self, inputs: Tensor, source: KeysValues, mask: Tensor, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """The tokens [b, t, d], and the keys and values of all tokens so far.

        Args:
            inputs: tokens; with a `past` one alone.
            source: of the encoded source, see `Attention.memory`; where one may look at it: `mask`.
            past: keys and values of the tokens before.
        """
        entered = self.around_own.enter(inputs)
        own = self.own.memory(entered)
        if past is not None:
            both = zip(past, own, strict=True)
            own = KeysValues(*(torch.cat([old, new], dim=2) for old, new in both))
        inputs = self.around_own.leave(inputs, self.own(entered, own, causal=past is None))
        found = self.source(self.around_source.enter(inputs), source, mask)
        inputs = self.around_source.leave(inputs, found)
        return self.around_feed.leave(inputs, self.feed(self.around_feed.enter(inputs))), own


@dataclass
class Cache:
    """How far the decoding of n sentences is: what the next token needs of those before it.

    Attributes:
        mask: where a source has no padding, bool [n, 1, 1, S].
        source: keys and values of the source, of each layer.
        past: of the tokens so far, of each layer; empty before the first.
        length: how many tokens there are.
    """

    mask: Tensor
    source: list[KeysValues]
    past: list[KeysValues]
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Go on with these of the sentences, int64 [m]; each may be left out or taken several times."""
        self.mask = self.mask[rows]
        self.source = [KeysValues(*(part[rows] for part in layer)) for layer in self.source]
        self.past = [KeysValues(*(part[rows] for part in layer)) for layer in self.past]


class Transformer(nn.Module):
    """Encoder and decoder over a joint vocabulary; `forward` takes pairs as `common.base.sequence.packed`.

    A token's input is sqrt(d) times its row of the embedding, and sinusoids of its position
    (sin and cos of p / 10000^(i / (d / 2 - 1)), i = 0, ..., d / 2 - 1, side by side, as tensor2tensor); they
    go on without end, so that a sentence of any length can be translated.

    Args:
        shape: of a set of pairs; not used.
        classes: V, the size of the joint vocabulary.
        layers: of the encoder, and of the decoder.
        width: d, even.
        inner: units within the feed-forward networks.
        heads: of attention, a divisor of d.
        dropout: of inputs, of each part's outcome, within feed-forward networks and of attention's weights.
        norm: where each part's normalisation stands; with "pre" both stacks end with one more.
        attention_bias: whether the linear layers of attention have biases.
        label_smoothing: of training: so much of the target's probability is spread over the vocabulary.
        beam, length_penalty: of the decoding that is judged (`common.models.decoding.beam_search`).

    Raises:
        UserError: a value out of range; data that are no pairs of texts.
    """

    task: ClassVar = "translation"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        layers: int,
        width: int,
        inner: int,
        heads: int,
        dropout: float,
        norm: Norm,
        attention_bias: bool,
        label_smoothing: float,
        beam: int,
        length_penalty: float,
    ) -> None:
        super().__init__()
        if classes is None:
            raise UserError(
                "model: a Transformer needs pairs of texts (valid: dataset=text_pair, messages, ...)"
            )
        require("at least 1", "model", layers=layers, width=width, inner=inner, heads=heads, beam=beam)
        require("at least 0", "model", length_penalty=length_penalty)
        if width % heads or width % 2 or width < 4:
            raise UserError(f"model.width={width}: must be even, at least 4, and a multiple of heads={heads}")
        for key, value in {"dropout": dropout, "label_smoothing": label_smoothing}.items():
            if not 0 <= value < 1:
                raise UserError(f"model.{key}={value}: must be at least 0 and below 1")
        if norm not in ("pre", "post"):
            raise UserError(f"model.norm={norm} (valid: pre, post)")
        self.width, self.label_smoothing = width, label_smoothing
        self.beam, self.length_penalty = beam, length_penalty
        sizes = Sizes(width, inner, heads, dropout, attention_bias, norm)
        self.embedding = nn.Embedding(classes, width, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(EncoderLayer(sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(sizes) for _ in range(layers))
        last = nn.LayerNorm if norm == "pre" else nn.Identity
        self.encoder_norm, self.decoder_norm = last(width), last(width)
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(1, width), persistent=False)
        self.softmax_bias = nn.Parameter(torch.zeros(classes))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        spread = self.width**-0.5
        nn.init.trunc_normal_(self.embedding.weight, std=spread, a=-2 * spread, b=2 * spread)
        self.embedding.weight[PAD] = 0.0
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = math.sqrt(3 / module.in_features)
                module.weight.uniform_(-bound, bound)
                if module.bias is not None:
                    module.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of each next token [b, T, V] of packed pairs int64 [b, S + T]."""
        source, target = parted(inputs)
        cache = self.begin(source)
        tokens = self._embed(target, 0)
        for layer, memory in zip(self.decoder, cache.source, strict=True):
            tokens, _ = layer(tokens, memory, cache.mask)
        return self._logits(tokens)

    def begin(self, source: Tensor) -> Cache:
        """Encode sources int64 [n, S], padded on the right, to be decoded."""
        mask = (source != PAD)[:, None, None]
        tokens = self._embed(source, 0)
        for layer in self.encoder:
            tokens = layer(tokens, mask)
        tokens = self.encoder_norm(tokens)
        attentions = [cast(Attention, layer.source) for layer in self.decoder]
        return Cache(mask, [attention.memory(tokens) for attention in attentions], [])

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Logits [n, V] of what follows the targets' last tokens, int64 [n]; the cache takes them in."""
        passed = self._embed(tokens[:, None], cache.length)
        known: list[KeysValues | None] = [*cache.past] or [None] * len(self.decoder)
        now = []
        for layer, memory, past in zip(self.decoder, cache.source, known, strict=True):
            passed, own = layer(passed, memory, cache.mask, past)
            now.append(own)
        cache.past, cache.length = now, cache.length + 1
        return self._logits(passed)[:, 0]

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        end = start + tokens.shape[1]
        if end > len(self.positions):
            # by doubling, so that decoding token by token does not make them anew each time
            self.positions = sinusoids(2 * end, self.width).to(self.positions)
        return self.dropout(self.embedding(tokens) * self.width**0.5 + self.positions[start:end])

    def _logits(self, tokens: Tensor) -> Tensor:
        return F.linear(self.decoder_norm(tokens), self.embedding.weight, self.softmax_bias)


def sinusoids(length: int, width: int) -> Tensor:
    """Positions 0 to length - 1 as sinusoids, float32 [length, width]; see `Transformer`."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10_000.0) / (half - 1)))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()
