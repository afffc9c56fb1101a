"""Runs of this project as an objective: a metric of a run against some of its keys."""

import shlex
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.base.dataset import check
from common.base.errors import UserError
from common.base.objective import Objective, box
from common.runs.listed import make_runs
from common.runs.objective import check_metric


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
        parameters: by key `low` and `high`; optional `log` (x is in logarithms) and `integer`.
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
        parameters: dict[str, dict[str, Any]],
        lengthscale: float,
        launcher: str,
        output_dir: str,
        data_dir: str,
    ) -> None:
        check("parameters", parameters, len(parameters) > 0, "give at least one key with low and high")
        for key, parameter in parameters.items():
            _check_parameter(key, parameter)
        super().__init__(kind=kind, space=box(len(parameters), 0.0, 1.0), noise=0.0)
        check("goal", goal, goal in ("maximize", "minimize"), "give maximize or minimize")
        check_metric(metric)
        self.words, self.metric, self.parameters = shlex.split(words), metric, parameters
        self.sign = 1.0 if goal == "maximize" else -1.0
        self.lengthscale = lengthscale
        self.shared = [f"output_dir={output_dir}", f"data_dir={data_dir}", "logger=none"]
        self.shared += [] if launcher == "basic" else [f"hydra/launcher={launcher}"]

    def draw(self, seeds: list[int]) -> None:
        self.seeds = seeds

    def overrides(self, replicate: int, point: Tensor) -> list[str]:
        """The words of one run, its numbers to six digits."""
        own = [
            f"{key}={_setting(p, float(u))}"
            for (key, p), u in zip(self.parameters.items(), point, strict=True)
        ]
        seed = (
            [] if any(word.startswith("seed=") for word in self.words) else [f"seed={self.seeds[replicate]}"]
        )
        return [*self.words, *own, *seed]

    def values(self, x: Tensor) -> Tensor:
        jobs = [[self.overrides(r, point) for point in points] for r, points in enumerate(x)]
        evidence = make_runs([job for row in jobs for job in row], self.shared)
        found = [[self._metric(evidence.find(job)) for job in row] for row in jobs]
        return self.sign * torch.tensor(found, dtype=torch.float64, device=x.device)

    def value(self, replicate: int, point: Tensor) -> float:
        evidence = make_runs([job := self.overrides(replicate, point)], self.shared)
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


def _check_parameter(key: str, parameter: dict[str, Any]) -> None:
    unknown = set(parameter) - {"low", "high", "log", "integer"}
    if unknown or not {"low", "high"} <= set(parameter):
        raise UserError(f"dataset.parameters.{key}={parameter}; valid: low, high, and optional log, integer")
    low, high = parameter["low"], parameter["high"]
    if not low < high or (parameter.get("log") and low <= 0):
        raise UserError(
            f"dataset.parameters.{key}: low={low}, high={high}; valid: low < high, low > 0 with log"
        )


def _setting(parameter: dict[str, Any], unit: float) -> str:
    low, high = float(parameter["low"]), float(parameter["high"])
    value = low * (high / low) ** unit if parameter.get("log") else low + unit * (high - low)
    return str(round(value)) if parameter.get("integer") else f"{value:.6g}"
