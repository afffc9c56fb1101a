"""The Transformer for translation: a step of training, decoding with a cache, the padding of batches.

Run: python -m benchmarks.translation. A step of Transformer base (forward, label-smoothed loss, backward)
beside `torch.nn.Transformer` of the same sizes with the same embedding and loss, in turn; greedy decoding of
60 tokens with cached keys and values beside computing all tokens again for each new one; the padding of
batches of pairs whose lengths are spread as those of sentences are.
"""

import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.figures import Figure, command
from common.base.sequence import EOS, PAD, packed, parted
from common.data.text.bucketing import BucketLoader, padding
from common.models.decoding import Recomputed, greedy
from common.models.transformer import Transformer, sinusoids

ROUNDS = 3
VOCABULARY, TOKENS = 32_000, 60


class Peer(nn.Module):
    """`torch.nn.Transformer` between the embedding and the softmax of `Transformer`."""

    def __init__(self, width: int, heads: int, layers: int, inner: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(classes, width, padding_idx=PAD)
        self.bias, self.dropout = nn.Parameter(torch.zeros(classes)), nn.Dropout(0.1)
        self.body = nn.Transformer(
            width, heads, layers, layers, inner, 0.1, norm_first=True, batch_first=True
        )

    def _embed(self, tokens: Tensor) -> Tensor:
        positions = sinusoids(tokens.shape[1], self.width)
        return self.dropout(self.embedding(tokens) * self.width**0.5 + positions)

    def forward(self, inputs: Tensor) -> Tensor:
        """As `Transformer.forward`."""
        source, target = parted(inputs)
        hidden = source == PAD
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        found = self.body(
            self._embed(source),
            self._embed(target),
            tgt_mask=causal,
            src_key_padding_mask=torch.zeros_like(hidden, dtype=torch.float32).masked_fill(hidden, -math.inf),
            memory_key_padding_mask=torch.zeros_like(hidden, dtype=torch.float32).masked_fill(
                hidden, -math.inf
            ),
            tgt_is_causal=True,
        )
        return F.linear(found, self.embedding.weight, self.bias)


def transformer(layers: int, width: int, inner: int, heads: int, classes: int) -> Transformer:
    """That of the papers, of any size."""
    torch.manual_seed(0)
    return Transformer(
        shape=(70,), classes=classes, layers=layers, width=width, inner=inner, heads=heads, dropout=0.1,
        norm="pre", attention_bias=False, label_smoothing=0.1, beam=5, length_penalty=0.6,
    )  # fmt: skip


def in_turn(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each, every round in turn; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def step(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """A step without its optimizer, which is the same for all."""
    model.zero_grad(set_to_none=True)
    logits = model(inputs)
    F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, label_smoothing=0.1).backward()


def pairs(rows: int, length: int, classes: int) -> tuple[Tensor, Tensor]:
    """Sources and targets of so many tokens, in each second row two fewer and padding."""
    generator = torch.Generator().manual_seed(0)
    source, targets = torch.randint(4, classes, (2, rows, length), generator=generator)
    for side in (source, targets):
        side[:, -1] = EOS
        side[1::2, -3], side[1::2, -2:] = EOS, PAD
    return source, targets


def sentence_lengths(count: int) -> tuple[Tensor, Tensor]:
    """Log-normal lengths of sources around 20 tokens, and targets that are about as long, from 2 to 70."""
    generator = torch.Generator().manual_seed(0)
    sources = (20 * torch.exp(0.6 * torch.randn(count, generator=generator))).round()
    targets = (sources * torch.exp(0.25 * torch.randn(count, generator=generator))).round()
    return sources.long().clamp(2, 70), targets.long().clamp(2, 70)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure all three."""
    classes, rows, rounds = (50, 2, 1) if tiny else (VOCABULARY, 8, ROUNDS)
    sizes = (1, 8, 16, 2) if tiny else (6, 512, 2048, 8)
    model = transformer(*sizes, classes)
    peer = Peer(sizes[1], sizes[3], sizes[0], sizes[2], classes)
    source, targets = pairs(rows, 8 if tiny else 25, classes)
    inputs = packed(source, targets)
    steps = in_turn(
        {"ours": lambda: step(model, inputs, targets), "torch": lambda: step(peer, inputs, targets)}, rounds
    )

    model.eval()
    with torch.no_grad():
        # so that no sentence ends before its time
        model.softmax_bias[EOS] = -1e9
    few, longest = source[:4], torch.full((len(source[:4]),), 4 if tiny else TOKENS + 1)
    decoding = in_turn(
        {
            "cached": lambda: greedy(model, few, longest),
            "recomputed": lambda: greedy(Recomputed(model), few, longest),
        },
        1,
    )

    lengths = sentence_lengths(200 if tiny else 133_317)
    waste = padding(*lengths, list(BucketLoader(*lengths, 3_000, seed=0).items()))
    for name, value in (steps | decoding).items():
        print(f"{name:12} {value:8.3f} s")
    peers = {
        "torch": "`torch.nn.Transformer` of the same sizes",
        "recomputed": "all tokens again for each new one",
    }
    return {
        "step": Figure(
            steps["ours"] / steps["torch"],
            "x its time",
            "A step of Transformer base",
            peers["torch"],
            at_most=1.0,
        ),
        "decoding": Figure(
            decoding["recomputed"] / decoding["cached"],
            "x as fast",
            "Greedy decoding of 60 tokens with cached keys and values",
            peers["recomputed"],
            at_least=5.0,
        ),
        "padding": Figure(
            100 * waste,
            "% of the tokens",
            "Padding of batches of 3,000 tokens, 133,317 pairs",
            "none",
            at_most=10.0,
        ),
    }


if __name__ == "__main__":
    command(main)
