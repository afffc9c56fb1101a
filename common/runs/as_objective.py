"""Runs of this project as an objective: a metric of a run against some of its keys."""

import shlex
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.errors import UserError
from common.base.objective import Objective
from common.runs.listed import make_runs
from common.runs.objective import check_metric
from common.search.cube import assigned, cube
from common.search.settings import settings


class Runs(Objective):
    """f(x) = a metric of the run whose keys have the values that x in [0, 1]^d stands for.

    The runs of a round go to the launcher together. Each leaves its own result, so none is made twice,
    whatever happens to the search. A run that fails is a failed evaluation. Replicate r makes its runs with
    its own seed.

    Args:
        kind: must be `objective`.
        words: the override string of the runs.
        metric: of their results, not one of the test set.
        goal: whether it is to be large or small (then f is its negative).
        parameters: what varies, such as `method.lr=log(1e-4,1)`; the forms stand in `common.search.settings`.
        lengthscale: what a surrogate may assume of f in these units.
        launcher: basic, joblib, submitit_local, submitit_slurm or ray.
        output_dir, data_dir: of the runs.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "runs"

    def __init__(
        self,
        *,
        kind: str,
        words: str,
        metric: str,
        goal: Literal["maximize", "minimize"],
        parameters: Sequence[str],
        lengthscale: float,
        launcher: str,
        output_dir: str,
        data_dir: str,
    ) -> None:
        check("parameters", parameters, len(parameters) > 0, "give at least one, as method.lr=log(1e-4,1)")
        self.settings = settings(parameters)
        super().__init__(kind=kind, space=cube(self.settings), noise=0.0)
        check("goal", goal, goal in ("maximize", "minimize"), "give maximize or minimize")
        check_metric(metric)
        self.words, self.metric = shlex.split(words), metric
        self.sign = 1.0 if goal == "maximize" else -1.0
        self.lengthscale = lengthscale
        self.shared = [f"output_dir={output_dir}", f"data_dir={data_dir}", "logger=none"]
        self.shared += [] if launcher == "basic" else [f"hydra/launcher={launcher}"]

    def draw(self, seeds: list[int]) -> None:
        self.seeds = seeds

    def assigned(self, point: Tensor) -> dict[str, str]:
        return assigned(self.settings, self.space, point)

    def command(self, replicate: int, point: Tensor) -> list[str]:
        own = [f"{key}={value}" for key, value in self.assigned(point).items()]
        seeded = any(word.startswith("seed=") for word in self.words)
        return [*self.words, *own, *([] if seeded else [f"seed={self.seeds[replicate]}"])]

    def values(self, x: Tensor) -> Tensor:
        jobs = [[self.command(r, point) for point in points] for r, points in enumerate(x)]
        evidence = make_runs([job for row in jobs for job in row], self.shared)
        found = [[self._metric(evidence.find(job)) for job in row] for row in jobs]
        return self.sign * torch.tensor(found, dtype=torch.float64, device=x.device)

    def value(self, replicate: int, point: Tensor) -> float:
        evidence = make_runs([job := self.command(replicate, point)], self.shared)
        return self.sign * self._metric(evidence.find(job))

    def _metric(self, result: dict[str, Any] | None) -> float:
        if result is None:
            return float("nan")
        if self.metric not in result["metrics"]:
            names = [name for name in result["metrics"] if not name.startswith("test_")]
            raise UserError(
                f"dataset.metric={self.metric}: the run has no such metric (valid: {', '.join(names)})"
            )
        value = result["metrics"][self.metric]
        return float("nan") if value is None else float(value)

    def optimum(self) -> None:
        return None
