"""What proposes pipelines for new data sets, one an iteration, having learnt from a matrix of scores."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.limits import require
from common.search.searcher import Observations
from papers.pmf_automl.chance import best_of
from papers.pmf_automl.gp_lvm import LatentSettings
from papers.pmf_automl.posterior import GrowingPosterior, most_promising
from papers.pmf_automl.scores import PipelineScores
from papers.pmf_automl.warm_start import Units, in_units, warm_start

Array = np.ndarray


@dataclass(frozen=True)
class Problem:
    """What a recommender is set.

    Attributes:
        scores: the objective, of R data sets that were drawn; of these it may use what it has observed.
        model: the settings of the latent variable model.
        seed: of what is random. iterations: T. device: where tensors are.
    """

    scores: PipelineScores
    model: LatentSettings
    seed: int
    iterations: int
    device: torch.device

    @property
    def replicates(self) -> int:
        """R."""
        return len(self.scores.columns)

    def features(self, r: int) -> Array:
        """Meta-features of replicate r's data set, [p]."""
        return self.scores.matrix.test_features[self.scores.columns[r]]


class Competitor(ABC):
    """One way to find a good pipeline on R data sets within T iterations.

    First it learns from the training matrix (`train`, some seconds a time), then it takes iterations.
    """

    NAME: ClassVar[str]
    problem: Problem
    # of the training: steps taken and to be taken
    taken: int = 0
    steps: int = 0

    def start(self, problem: Problem) -> None:
        """Take the problem; called once.

        Raises:
            UserError: it cannot solve such a one.
        """
        self.problem = problem
        self.prepare()

    def prepare(self) -> None:  # noqa: B027
        """What is to be done once, `problem` being set."""

    def train(self, seconds: float) -> None:  # noqa: B027
        """Learn for about so long."""

    @abstractmethod
    def iterate(self) -> None:
        """One iteration on all data sets."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Iterations that were taken."""

    @abstractmethod
    def outcomes(self, t: int) -> list[tuple[Array, Array]]:
        """Of each data set what the best score after t iterations may be (NaN: none), and how probable."""

    def results(self) -> dict[str, Any]:
        """What it has to say of itself besides its curve."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Put back what `state_dict` gave."""


class Known(Competitor):
    """A competitor whose outcomes are known without a search: its iterations are only counted."""

    made = 0

    def iterate(self) -> None:
        self.made += 1

    @property
    def count(self) -> int:
        return self.made

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.made = state["made"]


class Recommender(Competitor):
    """A competitor that evaluates one pipeline on each data set an iteration.

    A pipeline without a score there is a failure: the iteration is spent.
    """

    def start(self, problem: Problem) -> None:
        empty = torch.zeros(problem.replicates, 0, 1, dtype=torch.float64, device=problem.device)
        self.seen = Observations(empty, empty[..., 0])
        super().start(problem)

    @abstractmethod
    def propose(self, r: int, x: Tensor, y: Tensor, free: Tensor) -> int:
        """The next pipeline on data set r.

        Args:
            x: pipelines so far, int64 [t]; y: their scores, NaN where there is none, [t].
            free: which pipelines have a score there and were not tried, bool [N], at least one.
        """

    def iterate(self) -> None:
        free = self.problem.scores.candidates.clone()
        free.scatter_(1, self.seen.x[..., 0].long(), False)
        chosen = []
        for r in range(self.problem.replicates):
            x, y = self.seen.x[r, :, 0].long(), self.seen.y[r]
            # all that there is was tried: nothing is left to find
            chosen.append(self.propose(r, x, y, free[r]) if bool(free[r].any()) else 0)
        points = torch.tensor(chosen, dtype=torch.float64, device=self.problem.device)[:, None, None]
        self.seen = self.seen.plus(points, self.problem.scores.values(points))

    @property
    def count(self) -> int:
        return self.seen.count

    def outcomes(self, t: int) -> list[tuple[Array, Array]]:
        best = self.seen.y[:, :t].nan_to_num(nan=-torch.inf).max(1).values.cpu().numpy()
        return [(np.array([value if np.isfinite(value) else np.nan]), np.ones(1)) for value in best]

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.seen.x, "y": self.seen.y}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.problem.device
        self.seen = Observations(state["x"].to(device), state["y"].to(device))


class Chance(Known):
    """Uniform choice without repeats, some evaluations an iteration, in expectation: nothing is drawn.

    Args:
        evaluations: an iteration, at least 1.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "random"

    def __init__(self, *, evaluations: int) -> None:
        require("at least 1", "method", evaluations=evaluations)
        self.evaluations = evaluations

    def outcomes(self, t: int) -> list[tuple[Array, Array]]:
        found = []
        for own in self.problem.scores.mine.cpu().numpy():
            values = np.sort(own[~np.isnan(own)])[::-1]
            found.append((values, best_of(len(values), t * self.evaluations)))
        return found


class WarmStarted(Recommender):
    """A recommender whose first pipelines are those that did best on the most similar data sets.

    Args:
        warm_start: the units of the L1 distance of meta-features, see `warm_start.in_units`; `none`: no such
            start.
        neighbours: training data sets that are asked. initial: pipelines that are taken from them.

    Raises:
        UserError: a value out of range; a warm start where there are no meta-features.
    """

    def __init__(self, *, warm_start: Units | str, neighbours: int, initial: int) -> None:
        require("at least 1", "method", neighbours=neighbours, initial=initial)
        valid = ("raw", "standardised", "ranks", "none")
        if warm_start not in valid:
            raise UserError(f"method.warm_start={warm_start}; valid: {', '.join(valid)}")
        self.units, self.neighbours, self.initial = warm_start, neighbours, initial

    def prepare(self) -> None:
        matrix = self.problem.scores.matrix
        replicates = range(self.problem.replicates)
        self.first: list[Array] = [np.zeros(0, int) for _ in replicates]
        if self.units == "none":
            return
        if not matrix.train_features.shape[1]:
            print(
                f"[{self.problem.scores.NAME}] there are no meta-features, so that no data set is known to "
                "be like "
                "another: the warm start asks all of them"
            )
            mean = np.nan_to_num(np.nanmean(_ranks(matrix.train), 1), nan=-np.inf)
            self.first = [np.argsort(-mean, kind="stable")[: self.initial] for _ in replicates]
            return
        new = np.array([self.problem.features(r) for r in replicates])
        train, told = in_units(matrix.train_features, new, self.units)  # type: ignore[arg-type]
        self.first = [
            warm_start(matrix.train, train, told[r], self.neighbours, self.initial) for r in replicates
        ]

    def propose(self, r: int, x: Tensor, y: Tensor, free: Tensor) -> int:
        if len(x) < len(self.first[r]):
            return int(self.first[r][len(x)])
        return self.informed(r, x, y, free)

    @abstractmethod
    def informed(self, r: int, x: Tensor, y: Tensor, free: Tensor) -> int:
        """As `propose`, after the warm start."""


class Growing(WarmStarted):
    """A warm-started recommender by expected improvement on a posterior that grows with the observations.

    Args:
        warm_start, neighbours, initial: see `WarmStarted`.
        predictive_variance: `official`: with white noise, as the authors' code has it; `latent`: without.
        xi: how far above the best an improvement begins.
    """

    def __init__(
        self, *, predictive_variance: str, xi: float, warm_start: Units | str, neighbours: int, initial: int
    ) -> None:
        super().__init__(warm_start=warm_start, neighbours=neighbours, initial=initial)
        require("at least 0", "method", xi=xi)
        valid = ("official", "latent")
        if predictive_variance not in valid:
            raise UserError(f"method.predictive_variance={predictive_variance}; valid: {', '.join(valid)}")
        self.white, self.xi = predictive_variance == "official", xi
        self.posteriors: dict[int, GrowingPosterior] = {}
        self.told: dict[int, int] = {}

    @abstractmethod
    def fresh(self) -> GrowingPosterior:
        """A posterior without observations."""

    def informed(self, r: int, x: Tensor, y: Tensor, free: Tensor) -> int:
        if r not in self.posteriors:
            self.posteriors[r], self.told[r] = self.fresh(), 0
        posterior = self.posteriors[r]
        for t in range(self.told[r], len(x)):
            if bool(y[t].isfinite()):
                posterior.observe(int(x[t]), float(y[t]))
        self.told[r] = len(x)
        valid = y[y.isfinite()]
        best = float(valid.max()) if len(valid) else float(posterior.prior_mean.max())
        return most_promising(posterior.mean, posterior.variance, free, best, self.xi)


def _ranks(scores: Array) -> Array:
    """Of each column the ranks of its entries as shares of their number, NaN where there is none."""
    from scipy.stats import rankdata

    found = rankdata(scores, axis=0, nan_policy="omit")
    return np.asarray(found / np.maximum((~np.isnan(scores)).sum(0), 1))
