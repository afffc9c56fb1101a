"""The inner problem: a batch of q points for the next round, chosen jointly, greedily or incrementally.

A maximiser sees one `Problem` (sets of `points` free points in [0, 1]^d); the forms differ in which they put
to it. Greedy maximisation (Algorithm 2) chooses one point at a time, the earlier ones being pending; for a
myopic maximal acquisition it is within 1 - 1/e of the best.
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from common.numerics.sampling import ReplicateSampler
from papers.maxacq.acquisition import (
    Acquisition,
    Draws,
    ExpectedImprovement,
    Setting,
    incremental_improvement,
)
from papers.maxacq.budget import Budget

Form = Literal["joint", "greedy", "incremental"]


@dataclass(frozen=True)
class Problem:
    """Maximise an acquisition over sets of free points, given the pending ones.

    Attributes:
        points: free points of a set; batch: q, the points of the whole round.
        dim: d.
        random: each replicate's own stream.
    """

    acquisition: Acquisition
    given: Setting
    points: int
    batch: int
    dim: int
    random: ReplicateSampler

    @property
    def replicates(self) -> int:
        """R."""
        return len(self.given.incumbent)

    @property
    def device(self) -> torch.device:
        return self.given.incumbent.device

    @property
    def unit(self) -> Tensor:
        """What values are of the size of, [R]: the prior's standard deviation, or 1 where they have no units.

        Optimizers have absolute constants, which are meant for values about 1.
        """
        variance = self.given.posterior.prior.variance
        return variance.sqrt() if self.acquisition.UNITS else torch.ones_like(variance)

    def draw(self, samples: int) -> Draws:
        """Fresh samples, of every replicate its own."""
        points = self.points + self.given.pending.shape[1]
        return self.acquisition.draw(self.random.normal, points, samples)

    def value(self, X: Tensor, draws: Draws) -> Tensor:
        """Estimates at X [R, S, points, d] by common samples: [R, S]."""
        return self.acquisition.value(self.given, X, draws)

    def weights(self, x: Tensor) -> Tensor:
        """Marginal values of single points x [R, P, d], by which starting sets are drawn."""
        return self.acquisition.marginal(self.given, x)


@dataclass(frozen=True)
class IncrementalProblem(Problem):
    """Maximise incremental EI of one point, averaged over m fantasy states (no other sampling).

    Attributes:
        z: of the states' outcomes at the pending points, [R, p, m].
        best: each state's largest outcome so far, [R, m].
    """

    z: Tensor
    best: Tensor

    def draw(self, samples: int) -> Draws:
        return ()

    def value(self, X: Tensor, draws: Draws) -> Tensor:
        return incremental_improvement(self.given.posterior.belief(X), self.z, self.best)

    def following(self, x: Tensor) -> "IncrementalProblem":
        """Once x [R, d] is chosen: every state draws its outcome there."""
        given = self.given.with_pending(x)
        z = torch.cat([self.z, self.random.normal((1, self.best.shape[1]))], 1)
        row = given.posterior.pending_root[:, -1:]
        outcome = given.posterior.pending_mean[:, -1:] + (row @ z)[:, 0]
        return replace(self, given=given, z=z, best=torch.maximum(self.best, outcome))


class Maximise(Protocol):
    """A maximiser: the best set that it finds, [R, points, d]."""

    def __call__(self, problem: Problem, budget: Budget) -> Tensor: ...


def joint(problem: Problem, maximise: Maximise, budget: Budget) -> Tensor:
    """All q points at once, [R, q, d]."""
    return maximise(problem, budget)


def greedy(problem: Problem, maximise: Maximise, budget: Budget) -> Tensor:
    """x_j = argmax_x L(X_<j + {x}), j = 1, ..., q, with a q-th of the budget each: [R, q, d]."""
    step, chosen = replace(problem, points=1), []
    for _ in range(problem.batch):
        x = maximise(step, budget.share(1 / problem.batch))[:, 0]
        chosen.append(x)
        step = replace(step, given=step.given.with_pending(x))
    return torch.stack(chosen, 1)


def incremental(problem: Problem, maximise: Maximise, budget: Budget, states: int, pending: Tensor) -> Tensor:
    """Greedy maximisation of the incremental form of q-EI by `states` fantasy states: [R, q, d].

    Args:
        pending: points that were chosen before, [R, p, d].
    """
    incumbent = problem.given.incumbent
    step = IncrementalProblem(
        ExpectedImprovement(),
        problem.given,
        1,
        problem.batch,
        problem.dim,
        problem.random,
        incumbent.new_zeros(len(incumbent), 0, states),
        incumbent[:, None].expand(-1, states),
    )
    for x in pending.unbind(1):
        step = step.following(x)
    chosen = []
    for _ in range(problem.batch):
        x = maximise(step, budget.share(1 / problem.batch))[:, 0]
        chosen.append(x)
        step = step.following(x)
    return torch.stack(chosen, 1)


def discretise(given: Setting, count: int, pool: int, dim: int, random: ReplicateSampler) -> Tensor:
    """Points [R, count, d] drawn among `pool` uniform ones, with weights log EI minus its least value."""
    x = random.uniform(pool * dim).reshape(-1, pool, dim)
    level = ExpectedImprovement().marginal(given, x).clamp_min(torch.finfo(x.dtype).tiny).log()
    weights = level - level.min(1, keepdim=True).values
    index = draw_by_weight(weights, random.uniform(count))
    return x.gather(1, index[..., None].expand(-1, -1, dim))


def draw_by_weight(weights: Tensor, uniform: Tensor) -> Tensor:
    """Indices [R, k] with probabilities proportional to weights [R, P] >= 0, by uniforms [R, k].

    Where no weight is positive and finite, all are taken as equal.
    """
    finite = torch.where(weights.isfinite(), weights, torch.zeros_like(weights))
    none = finite.sum(1, keepdim=True) <= 0
    mass = torch.where(none, torch.ones_like(finite), finite).cumsum(1)
    index = torch.searchsorted(mass, uniform * mass[:, -1:], right=True)
    return index.clamp_max(weights.shape[1] - 1)
