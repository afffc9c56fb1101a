"""The paper's search as a run: proposals, cells trained briefly on cached maps, the best in full."""

from typing import Any, ClassVar, Literal, Unpack

from common.architectures.module import ArchitectureSearchModule, SearchLength, search_settings
from common.architectures.searchers import ArchitectureSearcher
from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.limits import require
from common.base.stages import Stage, require_stage
from papers.dpc.cell import Cell, cell_of
from papers.dpc.cell_training import CellObjective, NetworkObjective, Recipe
from papers.dpc.network import DeepLab
from papers.dpc.space import CellSpace

InFull = Literal["cached", "end_to_end"]


class CellSearch:
    """What is searched, by what, and how cells are trained.

    Args:
        searcher: what proposes.
        optimizer: of the trainings.
        features: the run that makes the cache of the backbone's maps.
        full_features: the run of another cache, for the trainings in full; null: the same.
        branches, rates, grids: of the space, see `CellSpace`.
        power: of the decay of the learning rate, (1 - t / T)^power.

    Raises:
        UserError: a value out of range.
    """

    STAGES: ClassVar[tuple[str, ...]] = ("features", "full_features")

    def __init__(
        self,
        *,
        searcher: ArchitectureSearcher,
        optimizer: Any,
        features: Stage | str | None,
        full_features: Stage | str | None,
        branches: int,
        rates: list[int],
        grids: list[int],
        power: float,
    ) -> None:
        require("at least 0", "method", power=power)
        self.space = CellSpace(branches, rates, grids)
        self.searcher, self.optimizer, self.power = searcher, optimizer, power
        self.features, self.full_features = features, full_features


class SearchBudget(SearchLength):
    """The keys of `paper` of a search; see also `SearchLength`.

    Attributes:
        in_full: of the trainings in full: `cached` maps, or whole networks `end_to_end`.
        references: cells (names, see `papers.dpc.cell`) that are trained in full to compare with.
        score_split: the split whose mIoU is maximised: `validation`, or `test` as the paper did.
    """

    in_full: InFull
    references: list[str]
    score_split: SplitName


class CellSearchModule(ArchitectureSearchModule[Cell]):
    """Chen et al., NeurIPS 2018, section 3.2 and 3.3.

    Args:
        data: the images.
        model: a `DeepLab`: its backbone is frozen, its head exchanged.
        method: see `CellSearch`.
        seed: of proposals and trainings.
        settings: see `SearchBudget`.

    Raises:
        UserError: no cache, one of another network, a value out of range.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        model: DeepLab,
        method: CellSearch,
        seed: int,
        **settings: Unpack[SearchBudget],
    ) -> None:
        self.in_full = settings["in_full"]
        if self.in_full == "end_to_end" and method.full_features is not None:
            raise UserError(
                "paper.in_full=end_to_end trains on images: leave method.full_features=null (valid: cached)"
            )
        stage = require_stage(method.features, "method.features")
        recipe = Recipe(
            method.optimizer,
            method.power,
            settings["steps"],
            data.batch_size,
            seed,
            model.weight_decay,
            model.class_weights,
            settings["score_split"],
            "cpu",
        )
        objective = _on_cache(method.space, stage, recipe, measure_test=False)
        if self.in_full == "end_to_end":
            template = _network_of(stage, "method.features")
            full: CellObjective = NetworkObjective(method.space, template, data, recipe, measure_test=True)
        else:
            other = stage if method.full_features is None else method.full_features
            full = _on_cache(
                method.space, require_stage(other, "method.full_features"), recipe, measure_test=True
            )
        super().__init__(
            objective=objective,
            full=full,
            searcher=method.searcher,
            references={name: cell_of(name) for name in settings["references"]},
            **search_settings(seed, settings),
        )
        self.data = data

    def setup(self, stage: str) -> None:
        if self.in_full == "end_to_end":
            self.data.setup(stage)
            assert isinstance(self.full, CellObjective)
            self.data.size(self.full.recipe.score)

    def on_fit_start(self) -> None:
        for objective in (self.objective, self.full):
            assert isinstance(objective, CellObjective)
            objective.recipe = objective.recipe._replace(device=str(self.device))

    def results(self) -> dict[str, Any]:
        """The shared results, and what the paper's tables print.

        space_size: cells of the space. top2, top3: scores in full of the second and third. proxy_minutes,
        full_minutes: of one training in the search and in full, means.
        """
        scores = [item.score for item in self.ranked.best(3)]
        named = {f"top{place}": score for place, score in enumerate(scores, 1) if place > 1}
        spans = {"proxy_minutes": self.evaluated, "full_minutes": self.ranked}
        minutes = {name: sum(i.seconds for i in part) / len(part) / 60 for name, part in spans.items()}
        return super().results() | named | minutes | {"space_size": self.objective.space.size}


def _network_of(stage: Stage, key: str) -> DeepLab:
    if not isinstance(stage.model, DeepLab) or stage.folder is None:
        raise UserError(f"{key}={stage.words}: is no run that makes a cache (valid: method=caching/backbone)")
    return stage.model


def _on_cache(space: CellSpace, stage: Stage, recipe: Recipe, measure_test: bool) -> CellObjective:
    template = _network_of(stage, "method.features")
    assert stage.folder is not None
    return CellObjective(space, template, stage.folder, recipe, measure_test)
