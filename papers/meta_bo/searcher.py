"""What PEM-BO and its baselines share: an acquisition of a mean and a variance, over arms or in a box."""

from abc import abstractmethod
from typing import Any, Protocol, TypedDict

import torch
from torch import Tensor

from common.base.errors import UserError
from common.search.searcher import Observations, Searcher
from papers.meta_bo.acquisition import Acquisition, Array, PiTarget, improvement, refine, ucb
from papers.meta_bo.transfer import MetaObjective, TrainingFunctions
from papers.meta_bo.zeta import Fallback, Zeta, zeta


class BoxModel(Protocol):
    """A model of one replicate's function in a box."""

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at points [C, d]: [C] each."""
        ...

    def gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of both at one point [d]: [d] each."""
        ...


class Shared(TypedDict):
    """The settings of every `MetaSearcher`."""

    acquisition: Acquisition
    zeta: Zeta | float
    delta: float
    zeta_fallback: Fallback
    pi_target: PiTarget
    candidates: int


class MetaSearcher(Searcher):
    """Maximises GP-UCB or the probability of improvement, one point a round.

    Args:
        acquisition: `ucb` or `pi`.
        zeta, delta, zeta_fallback: of GP-UCB, see `papers.meta_bo.zeta`.
        pi_target: f* of PI: `train_max`, the largest training value, or `oracle`, the maximum of the
            function that is searched, which nobody knows (the authors' code takes it for arms).
        candidates: uniform points of a box; the best one is refined by L-BFGS-B.

    Raises:
        UserError: a value out of range; no training functions, or too few.
    """

    def __init__(
        self,
        *,
        acquisition: Acquisition,
        zeta: Zeta | float,
        delta: float,
        zeta_fallback: Fallback,
        pi_target: PiTarget,
        candidates: int,
    ) -> None:
        check_method("delta", delta, 0 < delta < 1, "above 0 and below 1")
        check_method("candidates", candidates, candidates >= 1, "at least 1")
        self.acquisition, self.zeta, self.delta, self.fallback = acquisition, zeta, delta, zeta_fallback
        self.pi_target, self.candidates = pi_target, candidates
        self.said: set[str] = set()
        # proposals, of all replicates, for which zeta was no number
        self.fallbacks = 0

    def prepare(self) -> None:
        objective = self.task.objective
        if not isinstance(objective, MetaObjective):
            raise UserError(
                f"method={self.NAME} learns from training functions, which dataset={objective.NAME} has none "
                "of (valid: the data sets whose names begin with meta_)"
            )
        arms = objective.space.arms
        if arms is not None and self.task.evaluations > arms:
            raise UserError(f"paper.evaluations={self.task.evaluations}; valid: at most {arms}, the arms")
        self.training = objective.training()
        counts = self.training.counts(self.task.replicates)
        self.N = torch.tensor(counts, dtype=torch.float64, device=self.task.device)
        self._check_counts(min(counts))
        self.learn(self.training)
        self.target = self.pi_targets() if self.acquisition == "pi" else torch.zeros_like(self.N)

    def _check_counts(self, fewest: int) -> None:
        """N - t - 1 > 0 in zeta_t for t <= T; the variance after T - 1 observations needs one less."""
        formula = self.acquisition == "ucb" and not isinstance(self.zeta, int | float)
        needed = max(2, self.task.evaluations + (2 if formula else 1))
        if fewest < needed:
            raise UserError(
                f"method={self.NAME} has {fewest} training functions for paper.evaluations="
                f"{self.task.evaluations}; valid: at least {needed} (dataset.portion, or fewer evaluations)"
            )

    @abstractmethod
    def learn(self, training: TrainingFunctions) -> None:
        """What is to be done once with the training functions."""

    @abstractmethod
    def predict_arms(self, seen: Observations) -> tuple[Tensor, Tensor]:
        """Mean and variance of every arm, [R, M] each."""

    @abstractmethod
    def box_model(self, seen: Observations, r: int) -> BoxModel:
        """The model of replicate r in a box."""

    def pi_targets(self) -> Tensor:
        """f* of each replicate, [R]."""
        if self.pi_target == "oracle":
            known = self.task.objective.optimum()
            if known is None:
                raise UserError(
                    f"method.pi_target=oracle: the maximum of dataset={self.task.objective.NAME} is not "
                    "known (valid: train_max)"
                )
            return known
        largest = torch.where(self.training.y.isnan(), -torch.inf, self.training.y).max(1).values
        if self.training.kept is None:
            return largest.max().expand(self.task.replicates)
        return torch.where(self.training.kept, largest, -torch.inf).max(1).values

    def propose(self, seen: Observations, q: int) -> Tensor:
        if q != 1:
            raise UserError(f"method={self.NAME} proposes one point a round (valid: paper.batch=1)")
        tau = seen.valid.sum(1).to(torch.float64)
        multiplier = zeta(tau, self.N, self.delta, self.zeta, self.fallback)
        if self.acquisition == "ucb" and not isinstance(self.zeta, int | float):
            self._tell_fallback(
                zeta(tau, self.N, self.delta, self.zeta, "upstream_nan").isnan(), seen.count + 1
            )
        if self.task.objective.space.arms is None:
            chosen = [self._best_point(seen, r, x, multiplier[r]) for r, x in enumerate(self._uniform())]
            return torch.stack(chosen)[:, None]
        mean, variance = self.predict_arms(seen)
        return self._best_arm(seen, self._score(mean, variance, multiplier[:, None], self.target[:, None]))

    def _score(self, mean: Tensor, variance: Tensor, multiplier: Tensor, target: Tensor) -> Tensor:
        if self.acquisition == "ucb":
            return ucb(mean, variance, multiplier)
        return improvement(mean, variance, target)

    def _best_arm(self, seen: Observations, score: Tensor) -> Tensor:
        """The first of the best arms that were not evaluated, [R, 1, 1]; arm 0 where no score is a number."""
        known = score.clone().scatter_(1, seen.x[..., 0].long(), -torch.inf)
        best = known.nan_to_num(nan=-torch.inf, neginf=-torch.inf).argmax(1)
        best = torch.where(score.isnan().all(1), 0, best)
        return best[:, None, None].to(torch.float64)

    def _uniform(self) -> Tensor:
        """Candidates of each replicate, [R, C, d]."""
        dim = self.task.objective.space.dim
        unit = self.task.random.uniform(self.candidates * dim).reshape(-1, self.candidates, dim)
        return self.task.objective.space.scaled(unit)

    def _best_point(self, seen: Observations, r: int, points: Tensor, multiplier: Tensor) -> Tensor:
        """The first of the best candidates, refined; the first candidate where no score is a number."""
        model, target = self.box_model(seen, r), self.target[r]
        score = self._score(*model.predict(points), multiplier, target)
        if score.isnan().all():
            return points[0]
        start = points[score.argmax()]

        def value_and_gradient(x: Array) -> tuple[float, Array]:
            point = torch.from_numpy(x).to(start)
            mean, variance = (part[0] for part in model.predict(point[None]))
            mean_slope, variance_slope = model.gradients(point)
            deviation = variance.sqrt().clamp_min(1e-12)
            slope = variance_slope / (2 * deviation)
            if self.acquisition == "ucb":
                gradient = mean_slope + multiplier * slope
            else:
                gradient = (mean_slope - (mean - target) / deviation * slope) / deviation
            return float(self._score(mean, variance, multiplier, target)), gradient.numpy(force=True)

        space = self.task.objective.space
        return refine(value_and_gradient, start, space.lower, space.upper)

    def _tell_fallback(self, nan: Tensor, t: int) -> None:
        self.fallbacks += int(nan.sum())
        if nan.any():
            does = {
                "numerator_only": "its denominator is left out, so that zeta falls (method.zeta_fallback="
                "numerator_only)",
                "upstream_nan": "the first arm or point is taken (method.zeta_fallback=upstream_nan)",
            }
            self.tell(
                "fallback",
                f"zeta is no number for {int(self.N[nan].min())} training functions and delta={self.delta} "
                f"(N - t is at most 4 ln(6 / delta)) from evaluation {t} on: {does[self.fallback]}",
            )

    def tell(self, what: str, line: str) -> None:
        """Say a line once a run."""
        if what not in self.said:
            self.said.add(what)
            print(f"[{self.NAME}] {line}")

    def state_dict(self) -> dict[str, Any]:
        return {"said": sorted(self.said), "fallbacks": self.fallbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.said, self.fallbacks = set(state["said"]), state["fallbacks"]

    def counts(self) -> dict[str, int]:
        """What a result says of the search besides its curves; zeta_fallbacks: proposals, of all replicates,
        for which zeta was no number, so that `zeta_fallback` stood in for it."""
        return {"training_functions": int(self.N.min()), "zeta_fallbacks": self.fallbacks}


def check_method(key: str, value: object, valid: bool, advice: str) -> None:
    """Raise UserError "method.KEY=VALUE; valid: ADVICE" unless `valid`."""
    if not valid:
        raise UserError(f"method.{key}={value}; valid: {advice}")
