"""NAO's way to propose: gradient steps in the space of embeddings, from the best that were evaluated."""

from typing import Any, ClassVar, cast

import torch

from common.architectures.record import Record
from common.architectures.searchers import ArchitectureSearcher, Planned
from common.architectures.space import A, ArchitectureSpace, Random
from common.base.errors import UserError
from common.base.limits import require
from papers.nao.epd import EPD, EPDSettings
from papers.nao.gradient_search import Fitting, Predicts, Steps, fit_epd, new_architectures, scaled
from papers.nao.grammar import Grammar


class EmbeddingGradient(ArchitectureSearcher):
    """Luo et al., NeurIPS 2018, algorithm 1: random first, then rounds of gradient steps.

    A round trains encoder, predictor and decoder anew on everything evaluated, and moves the embeddings of
    the best uphill. Where that gives fewer new architectures than the round wants, the rest is drawn at
    random.

    Args:
        initial: architectures drawn at random before the first round.
        top: K, how many of the best are moved.
        eta: [first, step, last] of the step's size.
        predicts: whether the predictor learns the "score" and embeddings go up, or a "loss" and they go down.
        embedding, hidden, layers, width, fold, encoder_dropout, predictor_dropout, decoder_dropout: see
            `EPDSettings`.
        epochs, batch_size, lr, weight_decay, clip, trade_off, symmetry: see `Fitting`.

    Raises:
        UserError: a value out of range, a pool smaller than K.
    """

    NAME: ClassVar = "nao"

    def __init__(
        self,
        *,
        initial: int,
        top: int,
        eta: list[float],
        predicts: Predicts,
        embedding: int,
        hidden: int,
        layers: int,
        width: int,
        fold: int,
        encoder_dropout: float,
        predictor_dropout: float,
        decoder_dropout: float,
        epochs: int,
        batch_size: int,
        lr: float,
        weight_decay: float,
        clip: float,
        trade_off: float,
        symmetry: bool,
    ) -> None:
        require("at least 1", "method.searcher", initial=initial, top=top)
        if top > initial:
            raise UserError(
                f"method.searcher.top={top}; valid: 1 to the {initial} of the first pool (initial)"
            )
        if len(eta) != 3:
            raise UserError(f"method.searcher.eta={eta}; valid: [first, step, last]")
        self.initial, self.top, self.steps, self.predicts = initial, top, Steps(*eta), predicts
        self.settings = EPDSettings(
            embedding, hidden, layers, width, fold, encoder_dropout, predictor_dropout, decoder_dropout
        )
        self.fitting = Fitting(epochs, batch_size, lr, weight_decay, clip, trade_off, symmetry)
        self.fitting.check()

    def propose(self, space: ArchitectureSpace[A], record: Record[A], random: Random) -> A:
        """At random: the first pool, and what a round is short of."""
        return space.sample(random)

    def plan(
        self, space: ArchitectureSpace[A], record: Record[A], count: int, random: Random
    ) -> list[Planned[A]]:
        """A round of at most `count`, with the score that the predictor expects at the point decoded from."""
        best = record.best(len(record))
        if len(record) < self.initial or len(best) < 2:
            return []
        grammar = grammar_of(space)
        epd, _ = self.fitted(grammar, record, int(random.integers(2**62)))
        seeds = grammar.tensor([item.architecture for item in best[: self.top]])
        found = new_architectures(epd, grammar, seeds, self.steps, self.predicts, count, record.keys)
        low, high = best[-1].score, best[0].score
        return [Planned(one.architecture, self._score_of(one.predicted, low, high)) for one in found]

    def fitted(self, grammar: Grammar[A], record: Record[A], seed: int) -> tuple[EPD, torch.Tensor]:
        """The three networks trained on the valid items of a record, and their sentences [n, T]."""
        valid = [item for item in record if item.valid]
        tokens = grammar.tensor([item.architecture for item in valid])
        targets = scaled(torch.tensor([item.score for item in valid], dtype=torch.float64), self.predicts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            epd = EPD(grammar, self.settings)
            fit_epd(epd, grammar, tokens, targets, self.fitting, seed)
        return epd, tokens

    def _score_of(self, predicted: float, low: float, high: float) -> float:
        share = predicted if self.predicts == "score" else 1 - predicted
        return low + share * (high - low)


def grammar_of(space: ArchitectureSpace[A]) -> Grammar[A]:
    """The language of a space.

    Raises:
        UserError: the space has none.
    """
    grammar: Any = getattr(space, "grammar", None)
    if grammar is None:
        raise UserError(
            f"method.searcher: {type(space).__name__} has no grammar (valid: spaces of paper=nao)"
        )
    return cast(Grammar[A], grammar)
