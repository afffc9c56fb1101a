"""NASBOT and its baselines as a run: networks are proposed, trained and compared; the best is trained in
full."""

from typing import Any, Unpack

import numpy as np
from scipy.stats import spearmanr

from common.architectures.module import ArchitectureSearchModule, SearchLength, search_settings
from common.architectures.objective import ArchitectureObjective
from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from papers.nasbot.distances import Otmann
from papers.nasbot.graph import Network
from papers.nasbot.network import GraphClassifier, GraphNetwork, GraphRegression
from papers.nasbot.objectives import Recipe, ShapeObjective, TrainedObjective
from papers.nasbot.pools import InitialPool
from papers.nasbot.searchers import NetworkSearcher, require_budget
from papers.nasbot.space import Limits, NetworkSpace
from papers.nasbot.synthetic import NetworkFunction

# beside the runs' folders: the table of trainings that they share
TRAININGS = "trainings"
# networks whose distances are looked at in the end, and pairs of them that a result tells
COMPARED, PAIRS = 150, 300
# of the embedding: networks for each neighbour, and the fewest networks
PERPLEXITY, FEWEST = 30.0, 5


class NetworkSearch:
    """What proposes, within what limits, and how networks are trained.

    Args:
        searcher: what proposes.
        optimizer: of the trainings.
        layers, units: fewest and most, see `Limits`.
        in_degree, out_degree, edges, mass, halvings: the most, see `Limits`.
        initial_pool: `fixed`, or `official_bug` with the widths that the released code gives perceptrons.
    """

    def __init__(
        self,
        *,
        searcher: NetworkSearcher,
        optimizer: Any,
        layers: list[int],
        units: list[int],
        in_degree: int,
        out_degree: int,
        edges: int,
        mass: float | None,
        halvings: int | None,
        initial_pool: InitialPool,
    ) -> None:
        for name, pair in {"layers": layers, "units": units}.items():
            if len(pair) != 2:
                raise UserError(f"method.{name}={pair}; valid: two numbers, fewest and most")
        require("at least 1", "method", in_degree=in_degree, out_degree=out_degree, edges=edges)
        require("positive", "method", mass=mass)
        require("at least 0", "method", halvings=halvings)
        self.searcher, self.optimizer, self.initial_pool = searcher, optimizer, initial_pool
        self.limits = Limits(
            (layers[0], layers[1]), (units[0], units[1]), in_degree, out_degree, edges, mass, halvings
        )


class SearchBudget(SearchLength):
    """The keys of `paper` of a search; see also `SearchLength`.

    Attributes:
        checks: how often a training measures the validation split.
    """

    checks: int


class NetworkSearchModule(ArchitectureSearchModule[Network]):
    """Kandasamy et al., NeurIPS 2018.

    Trainings are kept in a table beside the runs' folders, which all searches share.

    Args:
        data: a table, images, or a `NetworkFunction`.
        model: a network of a graph, which says of what kind the networks are.
        method: see `NetworkSearch`.
        seed: of proposals and trainings.
        settings: see `SearchBudget`.

    Raises:
        UserError: another model, a budget below the initial pool, data without a validation split, a value
            out of range.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        model: GraphNetwork,
        method: NetworkSearch,
        seed: int,
        **settings: Unpack[SearchBudget],
    ) -> None:
        if not isinstance(model, GraphClassifier | GraphRegression):
            raise UserError(
                "method=network_search/... needs a network of a graph "
                "(valid: model=graph_regression, graph_mlp or graph_cnn)"
            )
        require("at least 1", "paper", checks=settings["checks"])
        require_budget(method.searcher, settings["evaluations"])
        kind, decision = model.graph.kind, model.graph.layers[-2].label
        space = NetworkSpace(kind, decision, method.limits, method.initial_pool)
        objective: ArchitectureObjective[Network]
        if isinstance(data, NetworkFunction):
            if data.function != kind:
                raise UserError(
                    f"dataset.function={data.function}, but model is of kind {kind} (valid: both of one kind)"
                )
            objective = ShapeObjective(space, data)
        else:
            loss = model.kind_of_loss if isinstance(model, GraphRegression) else "cross_entropy"
            recipe = Recipe(method.optimizer, seed, settings["checks"], "cpu")
            objective = TrainedObjective(space, data, loss, recipe, None)
        super().__init__(
            objective=objective,
            full=objective,
            searcher=method.searcher,
            references={},
            **search_settings(seed, settings),
        )
        self.data = data

    def on_fit_start(self) -> None:
        if isinstance(self.objective, TrainedObjective):
            self.objective.recipe = self.objective.recipe._replace(device=str(self.device))
            # raises now what would fail later; the data are read to the device of the recipe
            self.objective.data.size("validation")
            self.objective.folder = self.folder.parent / TRAININGS

    def results(self) -> dict[str, Any]:
        """The shared results, and what the paper's tables print.

        best_validation: of the search, the mean squared error, the error fraction, or the function's value;
            and
        found_error: of the found network on the test split. spearman_d, spearman_normalised: rank
            correlation,
        over pairs of evaluated networks, of their distance with the difference of their scores. curve,
        curve_minutes: the best score after each evaluation, and the minutes of training until then. pair_...
        and embedding_...: of a sample of pairs, and of a t-SNE embedding, for the picture.
        """
        found = super().results()
        values: dict[str, Any] = {"best_validation": self._error(self.evaluated.best(1)[0].score)}
        values["initial_best"] = self._error(
            max((i.score for i in self.evaluated.items[: self._initial] if i.valid), default=float("nan"))
        )
        if "found_test" in found:
            values["found_error"] = self._error(found["found_test"])
        return found | values | self._curve() | self._distances()

    @property
    def _initial(self) -> int:
        assert isinstance(self.searcher, NetworkSearcher)
        return self.searcher.initial

    def _error(self, score: float) -> float:
        """A score as the paper prints it."""
        if isinstance(self.data, NetworkFunction):
            return score
        return -score if self.data.classes is None else 1.0 - score

    def _curve(self) -> dict[str, Any]:
        scores = np.array([item.score for item in self.evaluated])
        best = np.fmax.accumulate(np.where(np.isfinite(scores), scores, -np.inf))
        minutes = np.cumsum([item.measures.get("minutes", 0.0) for item in self.evaluated])
        return {
            "curve": [self._error(float(value)) if np.isfinite(value) else None for value in best],
            "curve_minutes": [round(float(value), 4) for value in minutes],
        }

    def _distances(self) -> dict[str, Any]:
        valid = [item for item in self.evaluated if item.valid]
        chosen = np.unique(np.linspace(0, len(valid) - 1, COMPARED).round().astype(int))
        networks = [valid[k].architecture for k in chosen]
        scores = np.array([valid[k].score for k in chosen])
        weights = getattr(self.searcher, "otmann", Otmann()).weights
        d, normalised = (part.mean(0) for part in Otmann(weights).within(networks))
        rows, columns = np.triu_indices(len(networks), 1)
        apart = np.abs(scores[rows] - scores[columns])
        every = slice(None, None, max(1, -(-len(rows) // PAIRS)))
        return {
            "spearman_d": _correlation(d[rows, columns], apart),
            "spearman_normalised": _correlation(normalised[rows, columns], apart),
            "pair_distance": _short(normalised[rows, columns][every]),
            "pair_difference": _short(apart[every]),
            **_embedding(normalised, scores),
        }


def _correlation(distance: np.ndarray, difference: np.ndarray) -> float | None:
    """Spearman's; None of fewer than three pairs, or where one of both is constant."""
    if len(distance) < 3 or np.ptp(distance) == 0 or np.ptp(difference) == 0:
        return None
    return float(spearmanr(distance, difference).statistic)


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _embedding(distances: np.ndarray, scores: np.ndarray) -> dict[str, list[float]]:
    """Networks in the plane by t-SNE of their normalised distances; nothing of fewer than five."""
    n = len(distances)
    if n < FEWEST:
        return {}
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (n - 1) / 3)
    embedded = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=0)
    places = embedded.fit_transform(distances)
    return {
        "embedding_x": _short(places[:, 0]),
        "embedding_y": _short(places[:, 1]),
        "embedding_score": _short(scores),
    }
