"""NAO's search as a run: a random pool, rounds of gradient steps, the best in full."""

from typing import Any, ClassVar, Unpack

import torch

from common.architectures.module import ArchitectureSearchModule, SearchLength, search_settings
from common.architectures.objective import ArchitectureObjective
from common.architectures.record import Record
from common.architectures.searchers import ArchitectureSearcher
from common.architectures.space import A
from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.limits import require
from papers.nao.cell import ConvArchitecture, conv_architecture_of
from papers.nao.child_training import ChildObjective, ChildRecipe, Score
from papers.nao.gradient_search import hamming_distance, pairwise_accuracy
from papers.nao.lookup import TableObjective
from papers.nao.network import NAONet
from papers.nao.searcher import EmbeddingGradient, grammar_of
from papers.nao.space import ConvSpace, Tokens


class ConvSearch:
    """What is searched, by what, and how networks are trained.

    Args:
        searcher: what proposes.
        optimizer: of the trainings.
        nodes, operations, one_cell, tokens: of the space, see `ConvSpace`.
        table: a table of trainings, by name or file, that is read in the place of training; null: train.
        horizon: the cosine of the learning rate is as long as so many trainings of the search.
        clip: largest norm of a gradient in trainings.
        cutout: side of the square blanked in training images; 0: none.
        full_cells, full_filters, full_drop_path, full_dropout, full_auxiliary, full_cutout: of the networks
            that are trained in full; null: as in the search.

    Raises:
        UserError: a value out of range.
    """

    STAGES: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        searcher: ArchitectureSearcher,
        optimizer: Any,
        nodes: int,
        operations: list[str],
        one_cell: bool,
        tokens: Tokens,
        table: str | None,
        horizon: float,
        clip: float,
        cutout: int,
        full_cells: int | None,
        full_filters: int | None,
        full_drop_path: float | None,
        full_dropout: float | None,
        full_auxiliary: float | None,
        full_cutout: int | None,
    ) -> None:
        require("positive", "method", clip=clip)
        require("at least 1", "method", horizon=horizon)
        require("at least 0", "method", cutout=cutout, full_cutout=full_cutout)
        self.space = ConvSpace(nodes, tuple(operations), one_cell, tokens)
        self.searcher, self.optimizer, self.table = searcher, optimizer, table
        self.horizon, self.clip, self.cutout = horizon, clip, cutout
        self.full_cutout = cutout if full_cutout is None else full_cutout
        full = {
            "cells": full_cells,
            "filters": full_filters,
            "drop_path": full_drop_path,
            "dropout": full_dropout,
            "auxiliary": full_auxiliary,
        }
        self.full = {name: value for name, value in full.items() if value is not None}


class SearchBudget(SearchLength):
    """The keys of `paper` of a search; see also `SearchLength`.

    Attributes:
        references: architectures that are trained in full to compare with, as `conv_architecture_of` takes
            them.
        score: what is maximised, "accuracy" or "loss" of the split, see `ChildRecipe`.
        score_split: the split.
        looks: so many points of each training are measured for its curve; 0: none.
        held_out: the last so many architectures of the first pool, on which the predictor is judged that is
            trained on the others; 0: it is not. With `in_sample` it is trained on all.
        in_sample: see there.
    """

    references: list[str]
    score: Score
    score_split: SplitName
    looks: int
    held_out: int
    in_sample: bool


class NAOSearchModule(ArchitectureSearchModule[A]):
    """Luo et al., NeurIPS 2018, algorithm 1, with any searcher in its place, in any space that has a grammar.

    Args:
        data: what is learnt from.
        objective, full: of the search and of the trainings in full.
        searcher: what proposes.
        named: the references by name, see `ArchitectureSearchModule`.
        seed: of proposals and trainings.
        settings: see `SearchBudget`.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        objective: ArchitectureObjective[A],
        full: ArchitectureObjective[A],
        searcher: ArchitectureSearcher,
        named: dict[str, A],
        seed: int,
        **settings: Unpack[SearchBudget],
    ) -> None:
        require("at least 0", "paper", looks=settings["looks"], held_out=settings["held_out"])
        self.held_out, self.in_sample = settings["held_out"], settings["in_sample"]
        super().__init__(
            objective=objective,
            full=full,
            searcher=searcher,
            references=named,
            **search_settings(seed, settings),
        )
        self.data, self.split = data, settings["score_split"]
        for architecture in named.values():
            objective.space.encode(architecture)
        if self.held_out and not isinstance(searcher, EmbeddingGradient):
            raise UserError(
                f"paper.held_out={self.held_out}: method={searcher.NAME} has no predictor (valid: 0)"
            )
        if isinstance(searcher, EmbeddingGradient) and self.held_out > min(searcher.initial, self.total) - 2:
            raise UserError(f"paper.held_out={self.held_out}; valid: up to the first pool less two")

    def setup(self, stage: str) -> None:
        self.data.setup(stage)
        self.data.size(self.split)

    def on_fit_start(self) -> None:
        for objective in (self.objective, self.full):
            recipe = getattr(objective, "recipe", None)
            if recipe is not None:
                objective.recipe = recipe._replace(device=str(self.device))  # type: ignore[attr-defined]

    def results(self) -> dict[str, Any]:
        """The shared results, and what NAO's figure 2 shows.

        space_size: descriptions of architectures. pool_mean, pool_best: scores of the first pool. Of round r
        = 1, 2, ...: round_r_mean, round_r_best, and round_r_expected, the mean of what the predictor
        expected. error: 100 less the found network's test accuracy. pairwise_accuracy (percent),
        hamming_distance: of the predictor and the decoder on the architectures held out.
        """
        found = super().results() | {"space_size": float(self.objective.space.size)}
        for name in ("pool", *(f"round_{number}" for number in range(1, len(self._rounds())))):
            found |= self._round(name)
        if "found_test" in found:
            found["error"] = 100 - found["found_test"]
        if "found_parameters" in found:
            found["found_params_millions"] = found["found_parameters"] / 1e6
        return found | (self._judged() if self.held_out else {})

    def _rounds(self) -> list[slice]:
        """The first pool, and what each round of the searcher has evaluated."""
        searcher, count = self.searcher, len(self.evaluated)
        initial = searcher.initial if isinstance(searcher, EmbeddingGradient) else self.batch
        # a pool ends with the batch that fills it
        start = min(-(-initial // self.batch) * self.batch, count)
        return [slice(0, start), *(slice(at, at + self.batch) for at in range(start, count, self.batch))]

    def _round(self, name: str) -> dict[str, float]:
        number = 0 if name == "pool" else int(name.removeprefix("round_"))
        items = [item for item in self.evaluated.items[self._rounds()[number]] if item.valid]
        if not items:
            return {}
        scores = [item.score for item in items]
        found = {f"{name}_mean": sum(scores) / len(scores), f"{name}_best": max(scores)}
        expected = [self.expected[i.architecture.key] for i in items if i.architecture.key in self.expected]
        return found | ({f"{name}_expected": sum(expected) / len(expected)} if expected else {})

    def _judged(self) -> dict[str, float]:
        """The predictor, trained on the first pool without the last of it, on those."""
        searcher = self.searcher
        assert isinstance(searcher, EmbeddingGradient)
        pool = self.evaluated.items[: min(searcher.initial, self.total)]
        judged = [item for item in pool[-self.held_out :] if item.valid]
        record: Record[A] = Record()
        for item in pool if self.in_sample else pool[: -self.held_out]:
            record.add(item)
        grammar = grammar_of(self.objective.space)
        epd, _ = searcher.fitted(grammar, record, self.seed)
        tokens = grammar.tensor([item.architecture for item in judged])
        with torch.no_grad():
            memory = epd.encode(tokens)
            predicted = epd.predict(memory) if searcher.predicts == "score" else -epd.predict(memory)
            distance = hamming_distance(epd.greedy(memory), tokens)
        true = torch.tensor([item.score for item in judged], dtype=torch.float64)
        return {"pairwise_accuracy": 100 * pairwise_accuracy(predicted, true), "hamming_distance": distance}


class ConvSearchModule(NAOSearchModule[ConvArchitecture]):
    """A search for the cells of a network of images.

    Args:
        data: the images.
        model: a `NAONet`, whose cells are exchanged.
        method: see `ConvSearch`.
        seed: of proposals and trainings; by a table, of its trainings.
        settings: see `SearchBudget`.

    Raises:
        UserError: a model that has no cells, a table that has not the seed, a value out of range.
    """

    def __init__(
        self, *, data: DataSet, model: NAONet, method: ConvSearch, seed: int, **settings: Unpack[SearchBudget]
    ) -> None:
        if not isinstance(model, NAONet):
            raise UserError(f"model: {type(model).__name__} has no cells to search (valid: model=naonet)")
        space, score = method.space, settings["score"]
        objective: ArchitectureObjective[ConvArchitecture]
        full: ArchitectureObjective[ConvArchitecture]
        if method.table is not None:
            objective = full = TableObjective(space, model, method.table, seed, score)
        else:
            recipe = ChildRecipe(
                method.optimizer, method.horizon, method.clip, method.cutout, seed, score,
                settings["score_split"], "cpu",
            )  # fmt: skip
            objective = ChildObjective(space, model, data, recipe, False, settings["looks"])
            larger = NAONet(architecture=model.architecture, **(model.settings | method.full))
            in_full = recipe._replace(horizon=1.0, cutout=method.full_cutout)
            full = ChildObjective(space, larger, data, in_full, True)
        super().__init__(
            data=data,
            objective=objective,
            full=full,
            searcher=method.searcher,
            named={name: conv_architecture_of(name) for name in settings["references"]},
            seed=seed,
            **settings,
        )
