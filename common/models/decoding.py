"""The best target of a source, token by token: greedily, or by beam search with a length penalty."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.base.sequence import BOS, EOS, PAD, packed


class State(Protocol):
    """How far the decoding of n sentences is."""

    def select(self, rows: Tensor) -> None:
        """Go on with these of the sentences, int64 [m]; each may be left out or taken several times."""


class Decoder(Protocol):
    """A network that goes on token by token from a state, as `common.models.transformer.Transformer`."""

    def begin(self, source: Tensor) -> Any:
        """The `State` of sources int64 [n, S], padded on the right."""

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """Logits [n, V] of what follows the last tokens of the targets, int64 [n]; at first `BOS`."""


class Prefixes:
    """The `State` of `Recomputed`: sources [n, S] and targets so far [n, t]."""

    def __init__(self, source: Tensor) -> None:
        self.source, self.target = source, source[:, :0]

    def select(self, rows: Tensor) -> None:
        """See `State`."""
        self.source, self.target = self.source[rows], self.target[rows]


class Recomputed:
    """Decoding with nothing but a network's `forward`, which goes over all tokens again for each new one.

    Args:
        network: takes packed pairs [b, S + T] and gives logits [b, T, V].
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def begin(self, source: Tensor) -> Prefixes:
        """See `Decoder`."""
        return Prefixes(source)

    def step(self, tokens: Tensor, state: Prefixes) -> Tensor:
        """See `Decoder`."""
        # the targets one token late begin with BOS, which `packed` puts there
        state.target = torch.cat([state.target, tokens[:, None]], dim=1)
        late = torch.cat([state.target[:, 1:], state.target[:, :1]], dim=1)
        return self.network(packed(state.source, late))[:, -1]


def decoder_of(network: nn.Module) -> Decoder:
    """The network itself where it keeps what it has computed, else `Recomputed`."""
    return network if hasattr(network, "begin") and hasattr(network, "step") else Recomputed(network)  # type: ignore[return-value]


@torch.no_grad()
def greedy(decoder: Decoder, source: Tensor, longest: Tensor) -> list[list[int]]:
    """The most probable next token, again and again, until it is `EOS`.

    Args:
        decoder: in evaluation mode.
        source: int64 [n, S].
        longest: of each sentence, the most tokens with `EOS`, int64 [n], at least 1; the last one is `EOS`.

    Returns:
        The tokens of each sentence, without `EOS`.
    """
    state, last = decoder.begin(source), torch.full_like(source[:, 0], BOS)
    under_way = torch.arange(len(source), device=source.device)
    found = torch.full((len(source), int(longest.max())), EOS, device=source.device)
    for length in range(1, found.shape[1]):
        kept = ((longest[under_way] > length) & (last != EOS)).nonzero()[:, 0]
        if not len(kept):
            break
        if len(kept) < len(last):
            state.select(kept)
            under_way, last = under_way[kept], last[kept]
        logits = decoder.step(last, state)
        logits[:, [PAD, BOS]] = -torch.inf
        last = logits.argmax(-1)
        found[under_way, length - 1] = last
    return [_until_end(row) for row in found.tolist()]


@torch.no_grad()
def beam_search(
    decoder: Decoder, source: Tensor, longest: Tensor, beam: int, penalty: float
) -> list[list[int]]:
    """The target with the highest log p(target | source) / ((5 + length) / 6)^penalty that the beam meets.

    Length counts `EOS` (Wu et al. 2016, equation 14). Of all ways to go on with the hypotheses under way,
    those that end and are among the `beam` most probable are finished; the `beam` most probable of those that
    do not end go on. A sentence is done when `beam` hypotheses are finished, or none under way can become
    better than the best finished one. With a beam of 1 it is `greedy`.

    Args:
        decoder, source, longest: see `greedy`.
        beam: hypotheses of each sentence, at least 1.
        penalty: alpha, at least 0.

    Returns:
        The tokens of each sentence, without `EOS`.
    """
    device, count = source.device, len(source)
    state = decoder.begin(source)
    state.select(torch.arange(count, device=device).repeat_interleave(beam))
    under_way = torch.arange(count, device=device)
    # of the hypotheses: log-probabilities, and their tokens; at first there is one
    scores = torch.full((count, beam), -torch.inf, device=device)
    scores[:, 0] = 0.0
    tokens = torch.full((count, beam, int(longest.max())), EOS, device=device)
    last = torch.full((count * beam,), BOS, device=device)
    best, best_tokens = torch.full((count,), -torch.inf, device=device), tokens[:, 0].clone()
    finished = torch.zeros(count, dtype=torch.int64, device=device)
    for length in range(1, tokens.shape[2] + 1):
        steps = decoder.step(last, state).float().log_softmax(-1).view(len(under_way), beam, -1)
        steps[..., [PAD, BOS]] = -torch.inf
        at_end = longest[under_way] == length
        steps[at_end, :, :EOS], steps[at_end, :, EOS + 1 :] = -torch.inf, -torch.inf
        size = steps.shape[-1]
        total = (scores[..., None] + steps).flatten(1)
        values, places = total.topk(min(2 * beam, total.shape[1]))
        parents, words = places // size, places % size
        ends = words == EOS

        closing = (values / _norm(length, penalty)).masked_fill(~ends, -torch.inf)[:, :beam]
        value, which = closing.max(1)
        better = value > best[under_way]
        best[under_way] = torch.where(better, value, best[under_way])
        rows = better.nonzero()[:, 0]
        best_tokens[under_way[rows]] = tokens[rows, parents[rows, which[rows]]]
        finished[under_way] += closing.isfinite().sum(1)

        scores, kept = values.masked_fill(ends, -torch.inf).topk(beam)
        parents, words = parents.gather(1, kept), words.gather(1, kept)
        tokens = tokens.gather(1, parents[..., None].expand_as(tokens))
        # what has ended leaves `EOS` behind, which a hypothesis without probability may keep
        tokens[..., length - 1] = words
        bound = scores[:, 0] / _norm(longest[under_way], penalty)
        done = at_end | (finished[under_way] >= beam) | (best[under_way] >= bound)
        going = (~done).nonzero()[:, 0]
        if not len(going):
            break
        at = (going[:, None] * beam + parents[going]).flatten()
        state.select(at)
        under_way, scores, tokens = under_way[going], scores[going], tokens[going]
        last = words[going].flatten()
    return [_until_end(row) for row in best_tokens.tolist()]


def _norm(length: Any, penalty: float) -> Any:
    return ((5 + length) / 6) ** penalty


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS)] if EOS in tokens else tokens
