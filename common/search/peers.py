"""Searchers that model nothing, or are a library's: what others are compared with."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from common.base.objective import Coordinate
from common.search.searcher import Observations, Searcher, require_box


class SobolSearch(Searcher):
    """The points of a Sobol sequence, scrambled anew for each replicate (Owen 1998)."""

    NAME: ClassVar = "sobol"

    def prepare(self) -> None:
        require_box(self.task, "method=search/sobol")

    def propose(self, seen: Observations, q: int) -> Tensor:
        space = self.task.objective.space
        drawn = [
            SobolEngine(space.dim, scramble=True, seed=seed)
            .fast_forward(seen.count)
            .draw(q, dtype=torch.float64)
            for seed in self.task.seeds
        ]
        return space.scaled(torch.stack(drawn).to(seen.x))


class TPESearch(Searcher):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), with its defaults.

    It is told all observations anew in each round, and draws from a stream that follows from the seed and the
    number of observations, so that a search that goes on is the one that was not interrupted.

    Raises:
        UserError: a space of arms.
    """

    NAME: ClassVar = "tpe"

    def prepare(self) -> None:
        require_box(self.task, "method=search/tpe")

    def propose(self, seen: Observations, q: int) -> Tensor:
        space = self.task.objective.space
        width = space.upper - space.lower
        units = (seen.x - space.lower) / width
        points = [self._ask(r, units[r], seen.y[r], q) for r in range(self.task.replicates)]
        return space.lower + torch.stack(points).to(seen.x) * width

    def _ask(self, r: int, units: Tensor, y: Tensor, q: int) -> Tensor:
        """q points of the unit cube [q, d]."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        space = self.task.objective.space
        coordinates = space.coordinates or (Coordinate(),) * space.dim
        names = [f"x{i}" for i in range(space.dim)]
        distributions = {name: _distribution(one) for name, one in zip(names, coordinates, strict=True)}
        sampler = optuna.samplers.TPESampler(seed=self.task.seeds[r] * 100_003 + len(y))
        study = optuna.create_study(direction="maximize", sampler=sampler)
        means = space.meaningful(units)
        for u, value, there in zip(units, y, means, strict=True):
            given = {
                n: _told(c, v) for n, c, v, t in zip(names, coordinates, u, there, strict=True) if bool(t)
            }
            failed = not bool(value.isfinite())
            study.add_trial(
                optuna.trial.create_trial(
                    params=given,
                    distributions={name: distributions[name] for name in given},
                    value=None if failed else float(value),
                    state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
                )
            )
        return torch.stack([self._suggested(study.ask(), names, coordinates) for _ in range(q)])

    def _suggested(self, trial: Any, names: list[str], coordinates: tuple[Coordinate, ...]) -> Tensor:
        space = self.task.objective.space
        u = torch.full((space.dim,), 0.5, dtype=torch.float64)
        for i, (name, one) in enumerate(zip(names, coordinates, strict=True)):
            if not bool(space.meaningful(u)[i]):
                continue
            if one.values is None:
                u[i] = trial.suggest_float(name, 0.0, 1.0)
            elif one.ordered:
                u[i] = one.values[trial.suggest_int(name, 0, len(one.values) - 1)]
            else:
                u[i] = one.values[trial.suggest_categorical(name, list(range(len(one.values))))]
        return u


def _distribution(one: Coordinate) -> Any:
    from optuna.distributions import CategoricalDistribution, IntUniformDistribution, UniformDistribution

    if one.values is None:
        return UniformDistribution(0.0, 1.0)
    if one.ordered:
        return IntUniformDistribution(0, len(one.values) - 1)
    return CategoricalDistribution(list(range(len(one.values))))


def _told(one: Coordinate, u: Tensor) -> float | int:
    return float(u) if one.values is None else int(one.level(u))
