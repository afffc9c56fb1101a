"""Bayesian optimisation of functions of which nothing is known, over numbers, whole numbers and choices.

What the paper's searcher assumes (a scale near 1, a box of numbers, no failures) does not hold of a training
run. This searcher is built of the same posterior; the rest is the practice of its field, and not the paper's:

    surrogate     values standardised, all hyperparameters fitted in every round
                  (`papers.maxacq.standardised`);
                  where other functions are known, of what their trend leaves over (`papers.maxacq.trend`)
    acquisition   log EI(x) + log p(x), EI over the largest posterior mean of the points that were observed,
                  p the belief that an evaluation at x succeeds
    batches       one point after the other, the outcomes of pending ones at their means
    maximisation  the best of many points and of neighbours of the best observations, then in turn L-BFGS-B
                  over the numbers and the best neighbour in whole numbers and choices
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.quasirandom import SobolEngine

from common.base.errors import UserError
from common.base.objective import Coordinate, Earlier, Space
from common.numerics.improvement import log_expected_improvement
from common.numerics.outliers import drawn_in
from common.search.searcher import Observations, Searcher, require_box
from papers.maxacq.posterior import KERNELS, Kernel, Posterior, Prior, condition
from papers.maxacq.standardised import fit_standardised
from papers.maxacq.trend import Trend, trend_of

# points of a first look: spread over the space, and near each of the best observations
SPREAD, AROUND, LEADERS = 1024, 64, 4
# distances of the latter
NEAR = (0.2, 0.05, 0.01)
# of these so many are improved by turns of numbers and choices
STARTS, TURNS, STEPS = 6, 2, 60
# values of one coordinate that are all looked at; of more, those next to the point's
ALL_LEVELS = 16
# of the belief in success: its lengthscale over sqrt(d), as where runs fail has an edge; its noise; and what
# is left of it where all fails
EDGE, FEASIBLE_NOISE, LEAST_FEASIBLE = 0.15, 1e-2, 1e-6
# a tie within this many nats is none
SAME_VALUE = 1e-9


@dataclass(frozen=True)
class Encoding:
    """Points of a space as a surrogate sees them, [..., d] -> [..., e].

    Numbers and whole numbers stay as they are; a choice among k becomes k columns, one of them 1 / sqrt(2),
    so that any two choices are at distance 1.
    """

    coordinates: tuple[Coordinate, ...]

    def __call__(self, u: Tensor) -> Tensor:
        columns: list[Tensor] = []
        for i, one in enumerate(self.coordinates):
            if one.levels is None or one.ordered:
                columns.append(u[..., i : i + 1])
            else:
                columns.append(torch.nn.functional.one_hot(one.level(u[..., i]), one.levels) / math.sqrt(2))
        return torch.cat([column.to(u) for column in columns], -1)


class PracticalSearch(Searcher):
    """Log expected improvement on a standardised surrogate; see the module's text.

    A point that was evaluated, or is under way, is not proposed again, unless nothing else is left. Without a
    valid observation it proposes points that fill the space. One replicate is searched after the other: none
    depends on them.

    Raises:
        UserError: arms, or a kernel that is not one of all coordinates.
    """

    NAME: ClassVar = "practical"
    PENDING: ClassVar = True

    def prepare(self) -> None:
        space, surrogate = self.task.objective.space, self.task.surrogate
        require_box(self.task, "method=search/practical")
        if surrogate.kernel not in KERNELS or surrogate.parts != [list(range(space.dim))]:
            raise UserError(
                f"model.kernel={surrogate.kernel}: method=search/practical takes {', '.join(KERNELS)} of all "
                "coordinates (model.groups=full)"
            )
        self._made: tuple[Trend | None] | None = None
        self.kernel: Kernel = "se" if surrogate.kernel == "se" else "matern52"

    def propose(self, seen: Observations, q: int) -> Tensor:
        space = self.task.objective.space
        trend = self._trend()
        # all draws of a round at once: they depend on its size alone
        draws = self.task.random.uniform(1 + LEADERS * AROUND * space.dim * q)
        x = []
        for r in range(self.task.replicates):
            known_x = torch.cat([seen.x[r], *(one.x.to(seen.x) for one in self._same())])
            known_y = torch.cat([seen.y[r], *(one.y.to(seen.y) for one in self._same())])
            step = Round(space, self.kernel, known_x, known_y, draws[r], trend)
            if seen.pending is not None:
                step.await_all(seen.pending[r])
            x.append(step.points(q))
        return torch.stack(x)

    def _same(self) -> list[Earlier]:
        """What was observed of the very function before, which counts as an observation."""
        return [one for one in self.task.earlier if one.same]

    def _trend(self) -> Trend | None:
        """That of the task's other functions, made once."""
        if self._made is None:
            space = self.task.objective.space
            encode = Encoding(space.coordinates or (Coordinate(),) * space.dim)
            known = [
                ((one.x - space.lower) / (space.upper - space.lower), one.y)
                for one in self.task.earlier
                if not one.same
            ]
            self._made = (trend_of(self.kernel, [(encode(u), y) for u, y in known]),)
        return self._made[0]


class Round:
    """The choice of the next points of one replicate.

    Args:
        space: where; x [n, d], y [n]: what was observed, y NaN where an evaluation failed.
        draws: numbers in [0, 1): the seed of the spread points, then those that move points.
        trend: what other functions say of this one; None: nothing.
    """

    def __init__(
        self, space: Space, kernel: Kernel, x: Tensor, y: Tensor, draws: Tensor, trend: Trend | None = None
    ) -> None:
        self.width = space.upper - space.lower
        self.lower, self.space = space.lower, space
        self.coordinates = space.coordinates or (Coordinate(),) * space.dim
        self.encode = Encoding(self.coordinates)
        self.discrete = [i for i, one in enumerate(self.coordinates) if one.levels is not None]
        self.u, self.y, self.draws = (x - self.lower) / self.width, y, draws
        self.pending = self.u[:0]
        self.trend: Trend | None = None
        ok = y.isfinite()
        self.ranked = self.u[ok][y[ok].argsort(descending=True)]
        self.belief: Posterior | None = None
        self.feasible: Posterior | None = None
        if bool(ok.any()):
            values = drawn_in(y[ok])
            if trend is not None:
                known = len(values) > 1 and bool(values.std() > 0)
                # of one value no scale can be told: then that of the other functions
                values = values if known else values / trend.scale
                self.trend = trend.fitted(self.encode(self.u[ok]), values) if known else trend.believed()
                values = values - self.trend(self.encode(self.u[ok]))
            prior = fit_standardised(kernel, self.encode(self.u[ok]), values)
            self.belief = condition(prior, self.encode(self.u[ok])[None], values[None])
            # of noisy observations the largest is not the best
            seen = self.encode(self.u[ok])
            self.alpha = self._mean(seen, self.belief.marginal(seen[None])[0][0]).max()
            if not bool(ok.all()):
                self.feasible = self._success(prior, ok)

    def _success(self, prior: Prior, ok: Tensor) -> Posterior:
        """The belief that an evaluation succeeds: 1 where nothing is known, 0 and 1 where it is."""
        one = torch.ones_like(prior.mean)
        scale = torch.full_like(prior.lengthscale, EDGE * prior.lengthscale.shape[1] ** 0.5)
        known = Prior("matern52", scale, one, one, FEASIBLE_NOISE * one)
        return condition(known, self.encode(self.u)[None], ok.to(self.u)[None])

    def await_all(self, x: Tensor) -> None:
        """Take points x [p, d], whose evaluation is under way, as if they had come out at their means."""
        for point in (x - self.lower) / self.width:
            self._await(point)

    def _await(self, point: Tensor) -> None:
        if self.belief is not None:
            self.belief = self.belief.with_pending(self.encode(point)[None])
        self.pending = torch.cat([self.pending, point[None]])

    def points(self, q: int) -> Tensor:
        """The next q points [q, d]."""
        for i in range(q):
            self._await(self._next(i))
        return self.lower + self.pending[len(self.pending) - q :] * self.width

    def _next(self, number: int) -> Tensor:
        pool = self._pool(number)
        fresh = pool[~self._known(pool)]
        pool = fresh if len(fresh) else pool
        if self.belief is None:
            return pool[0]
        value = self.value(pool)
        best = value.topk(min(STARTS, len(pool))).indices
        found, value = self._improved(pool[best], value[best])
        known = self._known(found)
        if not bool(known.all()):
            value = torch.where(known, torch.full_like(value, -torch.inf), value)
        return found[value.argmax()]

    def value(self, u: Tensor) -> Tensor:
        """log EI + log p at points u [P, d], the pending outcomes at their means."""
        assert self.belief is not None
        points = self.encode(u)[None]
        mean, variance = self.belief.marginal(points)
        awaited = self._mean(self.encode(self.pending), self.belief.pending_mean[0])
        level = torch.cat([self.alpha[None], awaited]).max()
        value = log_expected_improvement(self._mean(points[0], mean[0]), variance[0].sqrt(), level)
        if self.feasible is not None:
            value = value + self.feasible.marginal(points)[0][0].clamp(LEAST_FEASIBLE, 1.0).log()
        return value

    def _mean(self, points: Tensor, residual: Tensor) -> Tensor:
        """The posterior mean of f at encoded points, by that of what the trend leaves over."""
        return residual if self.trend is None else residual + self.trend(points)

    def _known(self, u: Tensor) -> Tensor:
        """Which of the points [P, d] were evaluated, or are about to be."""
        earlier = torch.cat([self.u, self.pending])
        return (u[:, None] == earlier).all(-1).any(-1)

    def _pool(self, number: int) -> Tensor:
        """Points of a first look [P, d]: spread ones first, then some near the best observations."""
        dim = len(self.width)
        seed = int(self.draws[0] * 2**31) + number
        spread = SobolEngine(dim, scramble=True, seed=seed).draw(SPREAD, dtype=torch.float64).to(self.u)
        leaders = self.ranked[:LEADERS]
        size = AROUND * dim * LEADERS
        moves = self.draws[1 + number * size : 1 + (number + 1) * size].reshape(LEADERS, AROUND, dim)
        near = torch.tensor(NEAR).to(self.u)[torch.arange(AROUND) % len(NEAR), None]
        around = leaders[:, None] + near * (2 * moves[: len(leaders)] - 1)
        for i in self.discrete:
            # another value at every second point, drawn anew
            around[:, 1::2, i] = moves[: len(leaders), 1::2, i]
        points = torch.cat([spread, around.reshape(-1, dim).clamp(0.0, 1.0)])
        return self.space.snapped(points)

    def _improved(self, u: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Points [P, d] moved uphill, by turns in their numbers and in their whole numbers and choices."""
        for _ in range(TURNS if self.discrete else 1):
            u, value = self._along_numbers(u)
            if not self.discrete:
                break
            u, value, moved = self._to_neighbours(u, value)
            if not moved:
                break
        return u, value

    def _along_numbers(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """By L-BFGS-B over the numbers of all points [P, d] at once, which do not depend on each other."""
        free = self.space.meaningful(u)
        free[:, self.discrete] = False
        if not bool(free.any()):
            return u, self.value(u)

        def downhill(numbers: np.ndarray) -> tuple[float, np.ndarray]:
            at = u.clone()
            at[free] = torch.from_numpy(numbers).to(u)
            at.requires_grad_()
            total = -self.value(at).sum()
            (slope,) = torch.autograd.grad(total, at)
            return float(total.detach()), slope[free].cpu().numpy()

        start = u[free].cpu().numpy()
        found = minimize(
            downhill, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(start),
            options={"maxiter": STEPS},
        ).x  # fmt: skip
        moved = u.clone()
        moved[free] = torch.from_numpy(found).to(u)
        with torch.no_grad():
            return moved, self.value(moved)

    def _to_neighbours(self, u: Tensor, value: Tensor) -> tuple[Tensor, Tensor, bool]:
        """The best of each point and of those that have one other whole number or choice."""
        moved = False
        found, values = u.clone(), value.clone()
        for p in range(len(u)):
            others = self.space.snapped(self._neighbours(u[p]))
            others = others[~self._known(others)]
            if not len(others):
                continue
            with torch.no_grad():
                there = self.value(others)
            best = int(there.argmax())
            if there[best] > values[p] + SAME_VALUE:
                found[p], values[p], moved = others[best], there[best], True
        return found, values, moved

    def _neighbours(self, u: Tensor) -> Tensor:
        """The points that differ from u [d] in one coordinate of several values, [P, d]."""
        found = [u]
        means = self.space.meaningful(u)
        for i in self.discrete:
            one = self.coordinates[i]
            if not bool(means[i]):
                continue
            assert one.values is not None and one.levels is not None
            here = int(one.level(u[i]))
            near = range(one.levels) if one.levels <= ALL_LEVELS else range(max(here - 1, 0), here + 2)
            for level in near:
                if level != here and level < one.levels:
                    other = u.clone()
                    other[i] = one.values[level]
                    found.append(other)
        return torch.stack(found)
