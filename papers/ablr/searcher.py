"""Bayesian optimisation by a model that may have learnt from related tasks, and ABLR as such a model."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Generator, Tensor
from torch.quasirandom import SobolEngine

from common.base.errors import UserError
from common.base.limits import require
from common.base.objective import Coordinate, Objective, Space
from common.numerics.improvement import expected_improvement
from common.search.searcher import Observations, Searcher, Task
from papers.ablr.features import Features
from papers.ablr.model import Points, SharedRegression, copula, standardised
from papers.ablr.tasks import RelatedTask, TransferObjective

# mean and variance without noise [C] at inputs [C, P], of values in the units that a model was given
Belief = Callable[[Tensor], tuple[Tensor, Tensor]]
Transform = Literal["standardise", "copula"]

# candidates that are improved by L-BFGS-B, and its iterations
STARTS, STEPS = 3, 30
# added to a standard deviation, so that its gradient is finite
LEAST_DEVIATION = 1e-12


class Inputs:
    """Points of a space as a model sees them, each number in [0, 1].

    Of a box its coordinates over their ranges, a choice among k as k columns, a coordinate that means nothing
    at a point -1 there. Arms have inputs of their own.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.lower, self.width = space.lower, space.upper - space.lower
        self.coordinates = space.coordinates or (Coordinate(),) * space.dim

    def __call__(self, x: Tensor) -> Tensor:
        """[n, d] -> [n, P]."""
        there = self.space.meaningful(x)
        columns = []
        for i, one in enumerate(self.coordinates):
            u = (x[:, i] - self.lower[i]) / self.width[i]
            if one.levels is None or one.ordered:
                own = u[:, None]
            else:
                own = torch.nn.functional.one_hot(one.level(x[:, i]), one.levels).to(u)
            columns.append(torch.where(there[:, i, None], own, -1.0))
        return torch.cat(columns, 1)


class ModelSearch(Searcher):
    """The largest expected improvement of a model of the task, among candidates that are then improved.

    Candidates are all arms that were not tried, or the first points of a scrambled Sobol sequence, another in
    each round, and near the best so far; the best few of a box are improved by L-BFGS-B. Points of a batch
    come one after the other, pending ones at the model's mean.

    Args:
        transform: of each task's values: `standardise` or `copula` (normal quantiles of their ranks).
        candidates: of a box, at least 1.

    Raises:
        UserError: a value out of range.
    """

    # SciPy fits it
    ON_CPU: ClassVar = True

    def __init__(self, *, transform: Transform, candidates: int) -> None:
        require("at least 1", "method", candidates=candidates)
        if transform not in ("standardise", "copula"):
            raise UserError(f"method.transform={transform}; valid: standardise, copula")
        self.transform, self.candidates = transform, candidates

    def prepare(self) -> None:
        self.inputs = Inputs(self.task.objective.space)

    @abstractmethod
    def belief(self, r: int, own: Points) -> Belief | None:
        """What replicate r's model says, fitted to its observations; None: it cannot say anything yet.

        Args:
            own: inputs and transformed values of what was observed, n >= 0.
        """

    def propose(self, seen: Observations, q: int) -> Tensor:
        chosen = [self._batch(r, seen, q) for r in range(self.task.replicates)]
        return torch.stack(chosen)

    def transformed(self, y: Tensor) -> Tensor:
        """Values in the units that models are given."""
        return copula(y) if self.transform == "copula" and len(y) else standardised(y)[0]

    def encoded(self, r: int, x: Tensor) -> Tensor:
        """Inputs [n, P] of replicate r's points [n, d]."""
        space = self.task.objective.space
        return self.inputs(x) if space.arms is None else arms_of(self.task.objective, r)[x[:, 0].long()]

    def _batch(self, r: int, seen: Observations, q: int) -> Tensor:
        valid = seen.valid[r]
        # the very function, measured before
        same = [one for one in self.task.earlier if one.same]
        x = torch.cat([*(one.x for one in same), seen.x[r][valid]])
        y = torch.cat([*(one.y for one in same), seen.y[r][valid]])
        tried = torch.cat([*(one.x for one in same), seen.x[r]])
        points: list[Tensor] = []
        pool = self._pool(r, x, y)
        values = self.transformed(y)
        inputs = self.encoded(r, x)
        for _ in range(q):
            belief = self.belief(r, Points(inputs, values))
            point = self._best(r, belief, values, pool, torch.cat([tried, *[p[None] for p in points]]))
            points.append(point)
            if belief is not None and q > 1:
                own = self.encoded(r, point[None])
                with torch.no_grad():
                    mean = belief(own)[0]
                inputs, values = torch.cat([inputs, own]), torch.cat([values, mean])
        return torch.stack(points)

    def _pool(self, r: int, x: Tensor, y: Tensor) -> Tensor:
        """Candidates [C, d]."""
        space = self.task.objective.space
        draws = self.task.random.uniform(1)[r]
        if space.arms is not None:
            return torch.arange(space.arms, dtype=torch.float64)[:, None]
        seed = int(draws[0] * 2**31)
        unit = SobolEngine(space.dim, scramble=True, seed=seed).draw(self.candidates, dtype=torch.float64)
        pool = space.scaled(unit.to(space.lower))
        if len(y):
            generator = Generator().manual_seed(seed)
            count = max(self.candidates // 10, 1)
            moves = torch.randn(count, space.dim, generator=generator, dtype=torch.float64)
            near = x[y.argmax()] + 0.05 * moves * (space.upper - space.lower)
            pool = torch.cat([pool, torch.minimum(torch.maximum(near, space.lower), space.upper)])
        return space.snapped(pool)

    def _best(self, r: int, belief: Belief | None, values: Tensor, pool: Tensor, tried: Tensor) -> Tensor:
        fresh = pool[~(pool[:, None] == tried[None]).all(-1).any(-1)] if len(tried) else pool
        pool = fresh if len(fresh) else pool
        if belief is None:
            # spread over the space: a Sobol point, or any arm
            place = 0 if self.task.objective.space.arms is None else int(self._any(r) * len(pool))
            return pool[place]
        score = self._score(belief, values)
        with torch.no_grad():
            found = score(self.encoded(r, pool))
        if self.task.objective.space.arms is not None:
            return pool[found.argmax()]
        return self._improved(r, score, pool[found.topk(min(STARTS, len(pool))).indices], tried)

    def _any(self, r: int) -> float:
        return float(self.task.random.uniform(1)[r, 0])

    @staticmethod
    def _score(belief: Belief, values: Tensor) -> Callable[[Tensor], Tensor]:
        """Expected improvement on the best value; without any, the mean."""

        def score(inputs: Tensor) -> Tensor:
            mean, variance = belief(inputs)
            deviation = variance.clamp_min(0.0).sqrt() + LEAST_DEVIATION
            return expected_improvement(mean, deviation, values.max()) if len(values) else mean

        return score

    def _improved(self, r: int, score: Callable[[Tensor], Tensor], starts: Tensor, tried: Tensor) -> Tensor:
        """The best of the starts [S, d], moved uphill in their numbers, that was not tried."""
        space = self.task.objective.space
        free = space.meaningful(starts)
        for i, one in enumerate(self.inputs.coordinates):
            free[:, i] &= one.levels is None
        if not bool(free.any()):
            return starts[0]
        low, high = space.lower.expand_as(starts)[free], space.upper.expand_as(starts)[free]

        def downhill(numbers: np.ndarray) -> tuple[float, np.ndarray]:
            at = starts.clone()
            at[free] = low + (high - low) * torch.from_numpy(numbers)
            at.requires_grad_()
            total = -score(self.encoded(r, at)).sum()
            (slope,) = torch.autograd.grad(total, at)
            return float(total.detach()), (slope[free] * (high - low)).numpy()

        first = ((starts[free] - low) / (high - low)).numpy()
        found = minimize(
            downhill, first, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * len(first),
            options={"maxiter": STEPS},
        ).x  # fmt: skip
        moved = starts.clone()
        moved[free] = low + (high - low) * torch.from_numpy(found)
        pool = torch.cat([space.snapped(moved), starts])
        pool = pool[pool.isfinite().all(1)]
        with torch.no_grad():
            value = score(self.encoded(r, pool))
        known = (pool[:, None] == tried[None]).all(-1).any(-1)
        return pool[torch.where(known, -torch.inf, value.nan_to_num(nan=-torch.inf)).argmax()]

    def related(self, r: int) -> list[RelatedTask]:
        """The evaluations of other tasks that replicate r may learn from, those with any.

        Nothing where the objective knows of none.
        """
        found = related_to(self.task, r)
        kept = []
        for task in found:
            finite = task.y.isfinite()
            if bool(finite.any()):
                kept.append(RelatedTask(task.x[finite], task.y[finite], task.context))
        return kept

    def related_points(self, r: int) -> list[Points]:
        """The same as inputs and transformed values."""
        space = self.task.objective.space
        return [
            Points(self.inputs(task.x) if space.arms is None else task.x, self.transformed(task.y))
            for task in self.related(r)
        ]


def related_to(task: Task, r: int) -> list[RelatedTask]:
    """The related tasks of replicate r: the objective's own, or what earlier runs say of other functions."""
    if isinstance(task.objective, TransferObjective):
        return task.objective.related(r)
    none = torch.zeros(0, dtype=torch.float64)
    return [RelatedTask(one.x, one.y, none) for one in task.earlier if not one.same]


def arms_of(objective: Objective, r: int) -> Tensor:
    """The inputs [M, p] of the arms of an objective's replicate."""
    if isinstance(objective, TransferObjective):
        return objective.arms_of(r)
    assert objective.space.features is not None
    return objective.space.features


class ABLRSearch(ModelSearch):
    """Adaptive Bayesian linear regression: features shared with the related tasks, a head for each task.

    All is fitted anew after each observation, from the last parameters on. Before the task's own first
    observation candidates are ranked by the mean over the related tasks' heads.

    Args:
        features: the map. transfer: whether the related tasks are learnt from.
        context: whether what describes a task is appended to the inputs.
        signals: names of other quantities that an evaluation gives, each a task with the same points.
        iterations: of the first fit; refits: of those that follow.
        transform, candidates: see `ModelSearch`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "ablr"

    def __init__(
        self,
        *,
        features: Features,
        transfer: bool,
        context: bool,
        signals: Sequence[str],
        iterations: int,
        refits: int,
        transform: Transform,
        candidates: int,
    ) -> None:
        super().__init__(transform=transform, candidates=candidates)
        require("at least 1", "method", iterations=iterations, refits=refits)
        self.features, self.transfer, self.context = features, transfer, context
        self.signals = list(signals)
        self.iterations, self.refits = iterations, refits
        self.kept: dict[int, dict[str, Tensor]] = {}

    def prepare(self) -> None:
        super().prepare()
        data = self.task.objective
        if self.signals and not hasattr(data, "signals"):
            raise UserError(
                f"method.signals={self.signals}: an evaluation of dataset={data.NAME} gives its value alone "
                "(valid: "
                "none, or dataset=tuned_mlp)"
            )
        self.others = {r: self._others(r) for r in range(self.task.replicates)}

    def _others(self, r: int) -> list[Points]:
        if not self.transfer:
            return []
        found = self.related_points(r)
        if not self.context:
            return found
        tasks = self.related(r)
        return [Points(self.with_context(p.x, t.context, r), p.y) for p, t in zip(found, tasks, strict=True)]

    def with_context(self, x: Tensor, context: Tensor, r: int) -> Tensor:
        """Inputs [n, P] with a task's description [c], scaled by those of all tasks to [0, 1]."""
        every = torch.stack([task.context for task in self.related(r)])
        low, width = every.min(0).values, every.max(0).values - every.min(0).values
        scaled = ((context - low) / torch.where(width > 0, width, 1.0)).clamp(-1.0, 2.0)
        return torch.cat([x, scaled.expand(len(x), -1)], 1)

    def _own_inputs(self, r: int, x: Tensor) -> Tensor:
        if not (self.context and self.transfer and isinstance(self.task.objective, TransferObjective)):
            return x
        return self.with_context(x, self.task.objective.context(r), r)

    def model(self, r: int, own: Points) -> SharedRegression | None:
        """The fitted model of replicate r: the task's own head first, then signals, then related tasks."""
        tasks = [Points(self._own_inputs(r, own.x), own.y)] if len(own.y) else []
        tasks += [Points(tasks[0].x, values) for values in self._signals(r, own)] if tasks else []
        first = len(tasks)
        tasks += self.others[r]
        if not tasks:
            return None
        generator = Generator().manual_seed(self.task.seeds[r])
        found = SharedRegression(self.features, tasks, generator)
        kept = self.kept.get(r)
        if kept is not None:
            self._go_on(found, kept, first)
        found.fit(self.iterations if kept is None else self.refits)
        self.kept[r] = {**found.state_dict(), "first": torch.tensor(first)}
        return found

    def _go_on(self, model: SharedRegression, kept: dict[str, Tensor], first: int) -> None:
        """Take over the last parameters; a head that is new begins as all do."""
        model.z = kept["z"]
        before = int(kept["first"])
        for name in ("log_scale", "log_beta"):
            fresh, last = getattr(model, name), kept[name]
            own = last[:before] if before == first else fresh[:first]
            setattr(model, name, torch.cat([own, last[before:]]))

    def _signals(self, r: int, own: Points) -> list[Tensor]:
        if not self.signals:
            return []
        count = len(own.y)
        given = self.task.objective.signals(r, self.signals)  # type: ignore[attr-defined]
        return [self.transformed(values[:count]) for values in given if len(values) >= count]

    def belief(self, r: int, own: Points) -> Belief | None:
        model = self.model(r, own)
        if model is None:
            return None
        tasks = [0] if len(own.y) else list(range(len(model.tasks)))

        def predict(x: Tensor) -> tuple[Tensor, Tensor]:
            mean, variance = model.predict(self._own_inputs(r, x), tasks)
            return mean.mean(0), variance.mean(0)

        return predict

    def state_dict(self) -> dict[str, Any]:
        return {"kept": {str(r): dict(state) for r, state in self.kept.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = {int(r): dict(own) for r, own in state["kept"].items()}
