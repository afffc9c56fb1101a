"""Training the three networks on what was evaluated, and new architectures by steps along the gradient."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from common.architectures.space import A
from common.base.errors import UserError
from common.base.limits import require
from papers.nao.epd import EPD
from papers.nao.grammar import Grammar

Predicts = Literal["score", "loss"]


class Fitting(NamedTuple):
    """How the three networks are trained.

    Attributes:
        epochs: passes over the pool.
        batch_size: architectures of a step.
        lr: of Adam.
        weight_decay: w of the penalty (w / 2) ||weights||^2.
        clip: largest norm of a gradient.
        trade_off: lambda of lambda MSE + (1 - lambda) cross-entropy.
        symmetry: exchange the branches of one node of each cell in every draw.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    clip: float
    trade_off: float
    symmetry: bool

    def check(self) -> None:
        """Refuse what means nothing.

        Raises:
            UserError: see above.
        """
        require("at least 1", "method.searcher", epochs=self.epochs, batch_size=self.batch_size)
        require("positive", "method.searcher", lr=self.lr, clip=self.clip)
        require("at least 0", "method.searcher", weight_decay=self.weight_decay)
        require("from 0 to 1", "method.searcher", trade_off=self.trade_off)


def scaled(scores: Tensor, predicts: Predicts) -> Tensor:
    """Targets in [0, 1] of scores [n]: (s - min) / (max - min), 1 less that of a "loss"; 1/2 if all agree."""
    scores = scores.double()
    low, high = scores.aminmax()
    if low == high:
        return torch.full(scores.shape, 0.5)
    found = ((scores - low) / (high - low)).float()
    return found if predicts == "score" else 1 - found


def epd_loss(epd: EPD, tokens: Tensor, targets: Tensor, trade_off: float) -> Tensor:
    """lambda (f(e) - target)^2 + (1 - lambda) cross-entropy of the tokens, both means."""
    memory = epd.encode(tokens)
    fit = functional.mse_loss(epd.predict(memory), targets)
    words = functional.cross_entropy(epd.write_logits(tokens, memory).flatten(0, 1), tokens.flatten())
    return trade_off * fit + (1 - trade_off) * words


def fit_epd(
    epd: EPD,
    grammar: Grammar[A],
    tokens: Tensor,
    targets: Tensor,
    fitting: Fitting,
    seed: int,
    tell: Callable[[int], None] | None = None,
) -> None:
    """Train in place by Adam; the penalty is in the gradient.

    Args:
        tokens: int64 [n, T].
        targets: float32 [n] in [0, 1].
        seed: of the order and of the exchanged branches; dropout draws from torch's global generator.
        tell: called after each epoch.
    """
    fitting.check()
    optimizer = torch.optim.Adam(
        epd.parameters(), lr=fitting.lr, weight_decay=fitting.weight_decay, fused=True
    )
    generator = torch.Generator().manual_seed(seed)
    epd.train()
    parameters = list(epd.parameters())
    for epoch in range(fitting.epochs):
        for rows in torch.randperm(len(tokens), generator=generator).split(fitting.batch_size):
            chosen = tokens[rows]
            if fitting.symmetry:
                chosen = grammar.swapped(chosen, generator)
            optimizer.zero_grad(set_to_none=True)
            epd_loss(epd, chosen, targets[rows], fitting.trade_off).backward()
            torch.nn.utils.clip_grad_norm_(parameters, fitting.clip)
            optimizer.step()
        if tell is not None:
            tell(epoch + 1)
    epd.eval()


def gradient(epd: EPD, memory: Tensor) -> Tensor:
    """d f / d o of memories [n, T', H], each of its own f, through the mean, both norms and the predictor."""
    memory = memory.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(epd.predict(memory).sum(), memory)[0]


def moved(memory: Tensor, slope: Tensor, eta: float, predicts: Predicts) -> Tensor:
    """normalise(o + eta g), or o - eta g where f predicts a loss; rows are unit vectors: [n, T', H]."""
    sign = 1 if predicts == "score" else -1
    return functional.normalize(memory + sign * eta * slope, dim=-1)


class Steps(NamedTuple):
    """How far from known architectures new ones are looked for.

    Attributes:
        first: eta of the first step.
        step: what eta grows by.
        last: the largest eta.
    """

    first: float
    step: float
    last: float

    def etas(self) -> list[float]:
        """first, first + step, ... up to last."""
        count = int((self.last - self.first) / self.step + 1e-9) + 1
        return [self.first + number * self.step for number in range(count)]


class Candidate(NamedTuple):
    """A decoded architecture, with the eta that led to it and the f of the point that it was decoded from."""

    architecture: Any
    eta: float
    predicted: float


@torch.no_grad()
def new_architectures(
    epd: EPD,
    grammar: Grammar[A],
    seeds: Tensor,
    steps: Steps,
    predicts: Predicts,
    wanted: int,
    known: set[str],
) -> list[Candidate]:
    """Architectures that are not known, by gradient steps from seeds; eta grows until there are enough.

    Args:
        seeds: sentences int64 [k, T], the best first: at each eta new ones are taken in their order.
        wanted: how many at most.
        known: keys that do not count as new.

    Raises:
        UserError: etas that do not grow.
    """
    if not (steps.first > 0 and steps.step > 0 and steps.last >= steps.first):
        raise UserError(
            f"method.searcher.eta={list(steps)}; valid: [first, step, last], positive, last at least first"
        )
    epd.eval()
    memory = epd.encode(seeds)
    slope = gradient(epd, memory)
    known, found = set(known), []
    for eta in steps.etas():
        there = moved(memory, slope, eta, predicts)
        values = epd.predict(there).tolist()
        for tokens, value in zip(epd.greedy(there).tolist(), values, strict=True):
            architecture = grammar.decode(tokens)
            if architecture.key not in known:
                known.add(architecture.key)
                found.append(Candidate(architecture, eta, value))
                if len(found) == wanted:
                    return found
    return found


def pairwise_accuracy(predicted: Tensor, true: Tensor) -> float:
    """The share of pairs that two lists [n] order alike; ties as the official code has them.

    A pair i < j counts where both a_i >= a_j and b_i >= b_j, or both a_i < a_j and b_i < b_j.

    Raises:
        UserError: fewer than two.
    """
    if len(predicted) < 2:
        raise UserError(f"{len(predicted)} architectures make no pair (valid: at least 2)")
    i, j = torch.triu_indices(len(predicted), len(predicted), 1)
    return float(((predicted[i] >= predicted[j]) == (true[i] >= true[j])).double().mean())


def hamming_distance(one: Tensor, other: Tensor) -> float:
    """The mean number of tokens in which sentences int64 [n, T] differ."""
    return float((one != other).sum(1).double().mean())
