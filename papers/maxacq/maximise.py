"""Maximisers of the inner problem, for R replicates at once: random search, CMA-ES, Adam, BoTorch's L-BFGS-B.

All but random search start from sets drawn with probability proportional to the marginal values of their
points, for which a tenth of the budget is spent on uniform points. What they end with is appraised anew by
common samples, and the best is taken.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from papers.maxacq.acquisition import Draws
from papers.maxacq.budget import Budget
from papers.maxacq.problem import IncrementalProblem, Problem, draw_by_weight

START_SHARE = 0.1
START_SHARD = 256
MOST_START_POINTS = 2**20
# starting points that are valued by one call; those by a discretisation need far more memory
START_CHUNK, DISCRETISED_CHUNK = 4096, 64
# numbers (sets x points x samples) of one call: what stays in a processor's cache
CHUNK = {"cpu": 2**18, "cuda": 2**25}


def starting_sets(problem: Problem, budget: Budget, sets: int) -> Tensor:
    """Sets [R, sets, points, d] whose points are drawn with probability proportional to marginal values.

    A point that a set has already is replaced by a uniform one. Values that may be negative are taken from
    their least. What it costs is spent.
    """
    x = _uniform_pool(problem, budget)
    with torch.no_grad():
        size = START_CHUNK if problem.acquisition.MYOPIC else DISCRETISED_CHUNK
        weights = torch.cat([problem.weights(part) for part in x.split(size, 1)], 1)
    if not problem.acquisition.NONNEGATIVE:
        weights = weights - weights.min(1, keepdim=True).values
    R, k, d = problem.replicates, problem.points, problem.dim
    index = draw_by_weight(weights, problem.random.uniform(sets * k))
    X = x.gather(1, index[..., None].expand(-1, -1, d)).reshape(R, sets, k, d)
    if k == 1:
        return X
    index = index.reshape(R, sets, k)
    again = (index[..., :, None] == index[..., None, :]).tril(-1).any(-1)
    fresh = problem.random.uniform(sets * k * d).reshape(R, sets, k, d)
    return torch.where(again[..., None], fresh, X)


def _uniform_pool(problem: Problem, budget: Budget) -> Tensor:
    """As many uniform points as a tenth of the budget values: [R, P, d]."""
    part, cost = budget.share(START_SHARE), 1 / problem.batch
    pool: list[Tensor] = []
    while not pool or (part.left(cost) and len(pool) * START_SHARD < MOST_START_POINTS):
        size = START_SHARD
        if part.evaluations is not None:
            size = max(1, min(size, int(part.remaining() / cost)))
        drawn = problem.random.uniform(size * problem.dim)
        pool.append(drawn.reshape(-1, size, problem.dim))
        if part.seconds is not None:
            problem.weights(pool[-1])
        part.spend(size * cost)
    budget.spend(part.spent)
    return torch.cat(pool, 1)


@torch.no_grad()
def appraise(problem: Problem, X: Tensor, draws: Draws, samples: int) -> Tensor:
    """Values of X [R, S, points, d] by common samples, [R, S]; in parts, so that memory stays small."""
    each = problem.replicates * problem.points * samples
    size = max(1, CHUNK.get(problem.device.type, 2**18) // each)
    return torch.cat([problem.value(part, draws) for part in X.split(size, 1)], 1)


def best_of(X: Tensor, values: Tensor) -> Tensor:
    """The set with the largest value: [R, S, ...] and [R, S] -> [R, ...]; one that is not finite is last."""
    ranked = torch.where(values.isfinite(), values, torch.full_like(values, -torch.inf))
    return X[torch.arange(len(X), device=X.device), ranked.argmax(1)]


@dataclass(frozen=True)
class Maximiser(ABC):
    """What the maximisers share.

    Attributes:
        starts: sets that are started from, of joint problems and of greedy steps.
        samples: m, of a stochastic estimate.
        appraisal_samples: of the final appraisal, and of random search throughout.
    """

    GRADIENT: ClassVar[bool] = False

    starts: int
    samples: int
    appraisal_samples: int

    @abstractmethod
    def __call__(self, problem: Problem, budget: Budget) -> Tensor:
        """The best set found, [R, points, d]."""

    def _cost(self, sets: int, samples: int) -> float:
        return sets * samples / Budget.SAMPLES

    def _choose(self, problem: Problem, X: Tensor) -> Tensor:
        draws = problem.draw(self.appraisal_samples)
        return best_of(X, appraise(problem, X, draws, self.appraisal_samples))


@dataclass(frozen=True)
class RandomSearch(Maximiser):
    """Uniform sets by one deterministic estimate; `starts` and `samples` do not matter."""

    def __call__(self, problem: Problem, budget: Budget) -> Tensor:
        R, k, d = problem.replicates, problem.points, problem.dim
        shard = 64 if k == 1 else 256
        draws = problem.draw(self.appraisal_samples)
        each = self._cost(1, self.appraisal_samples)
        best, most = torch.empty(0), torch.empty(0)
        while not len(best) or budget.left(each):
            size = shard
            if budget.evaluations is not None:
                size = max(1, min(shard, int(budget.remaining() / each)))
            X = problem.random.uniform(size * k * d).reshape(R, size, k, d)
            values = appraise(problem, X, draws, self.appraisal_samples)
            if len(best):
                X, values = torch.cat([best[:, None], X], 1), torch.cat([most[:, None], values], 1)
            best, most = best_of(X, values), values.max(1).values
            budget.spend(size * each)
        return best


@dataclass(frozen=True)
class Adam(Maximiser):
    """Stochastic gradient ascent from all starts in parallel, fresh samples every step, clipped to [0, 1]^d.

    Attributes:
        lr: the step size.
    """

    GRADIENT: ClassVar[bool] = True

    lr: float

    def __call__(self, problem: Problem, budget: Budget) -> Tensor:
        X = starting_sets(problem, budget, self.starts).requires_grad_()
        optimizer = torch.optim.Adam([X], lr=self.lr, maximize=True)
        cost = Budget.GRADIENT * self._cost(self.starts, self.samples)
        appraisal = self._cost(self.starts, self.appraisal_samples)
        while budget.left(cost + appraisal):
            value = problem.value(X, problem.draw(self.samples)) / problem.unit[:, None]
            (X.grad,) = torch.autograd.grad(value.sum(), X)
            optimizer.step()
            with torch.no_grad():
                X.clamp_(0.0, 1.0)
            budget.spend(cost)
        budget.spend(appraisal)
        return self._choose(problem, X.detach())


@dataclass(frozen=True)
class CMAES(Maximiser):
    """CMA-ES (`cma`), of which the starts are the first generation; it never stops early.

    Its numbers are folded into [0, 1] (the package's own bounds are a loop over numbers). Of every generation
    the best set is kept; all of these are appraised in the end.

    Attributes:
        sigma: the initial standard deviation; the mean is 1/2.
    """

    sigma: float

    def __call__(self, problem: Problem, budget: Budget) -> Tensor:
        R, k, d = problem.replicates, problem.points, problem.dim
        strategies = [self._strategy(seed, k * d) for seed in problem.random.uniform(1)[:, 0].tolist()]
        X = starting_sets(problem, budget, self.starts)
        cost = self._cost(self.starts, self.samples) + self._cost(1, self.appraisal_samples)
        kept: list[Tensor] = []
        while not kept or budget.left(cost):
            asked = [np.stack(strategy.ask()) for strategy in strategies]
            if kept:
                X = folded(torch.from_numpy(np.stack(asked)).to(problem.device)).reshape(R, -1, k, d)
            else:
                # the starts replace what is asked for first
                asked = list(X.flatten(2).cpu().numpy())
            values = appraise(problem, X, problem.draw(self.samples), self.samples)
            losses = torch.where(values.isfinite(), -values, torch.full_like(values, 1e300))
            for strategy, points, loss in zip(strategies, asked, losses, strict=True):
                strategy.tell(list(points), loss.tolist())
            kept.append(best_of(X, values))
            budget.spend(cost)
        return self._choose(problem, torch.stack(kept, 1))

    def _strategy(self, seed: float, dim: int) -> Any:
        from cma import CMAEvolutionStrategy

        generator = np.random.default_rng(int(seed * 2**53))
        options = {
            "popsize": self.starts,
            "randn": lambda *size: generator.standard_normal(size),
            # the global generator stays as it is
            "seed": np.nan,
            "verbose": -9,
        }
        # one number a set: CMA-ES itself asks for two
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return CMAEvolutionStrategy(np.full(dim, 0.5), self.sigma, options)


def folded(x: Tensor) -> Tensor:
    """Numbers folded into [0, 1] by reflection at its ends."""
    return 1 - (1 - x % 2).abs()


@dataclass(frozen=True)
class BoTorchLBFGS(Maximiser):
    """`botorch.optim.optimize_acqf` (L-BFGS-B on a deterministic estimate), one replicate after the other."""

    GRADIENT: ClassVar[bool] = True

    def __call__(self, problem: Problem, budget: Budget) -> Tensor:
        X = starting_sets(problem, budget, self.starts)
        draws = problem.draw(self.samples)
        cost = Budget.GRADIENT * self._cost(self.starts, self.samples)
        left = budget.remaining()
        limits: dict[str, Any] = {"options": {"maxiter": max(1, int(left / cost))}}
        if budget.seconds is not None:
            limits = {"timeout_sec": left / problem.replicates}
        found = [
            _optimize_acqf(_replicate(problem, r), X[r], tuple(z[r : r + 1] for z in draws), limits)
            for r in range(problem.replicates)
        ]
        return torch.stack(found)


def _optimize_acqf(problem: Problem, X: Tensor, draws: Draws, limits: dict[str, Any]) -> Tensor:
    from botorch.acquisition import AcquisitionFunction
    from botorch.optim import optimize_acqf

    class Value(AcquisitionFunction):
        def forward(self, X: Tensor) -> Tensor:
            return problem.value(X[None], draws)[0] / problem.unit

    bounds = torch.stack([torch.zeros_like(X[0, 0]), torch.ones_like(X[0, 0])])
    with warnings.catch_warnings():
        # that the line search ended is no news
        warnings.simplefilter("ignore")
        found, _ = optimize_acqf(
            Value(model=None),  # type: ignore[arg-type]
            bounds=bounds,
            q=X.shape[1],
            num_restarts=len(X),
            batch_initial_conditions=X,
            **limits,
        )
    return found


def _replicate(problem: Problem, r: int) -> Problem:
    """The same problem of replicate r alone; it must not draw."""

    def part(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[r : r + 1]
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: part(getattr(value, f.name)) for f in fields(value)})
        return value

    made = part(problem)
    assert isinstance(made, Problem | IncrementalProblem)
    return made
