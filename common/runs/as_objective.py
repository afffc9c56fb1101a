"""Runs of this project as an objective: a metric of a run against some of its keys."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.base.crew import Crew
from common.base.dataset import check
from common.base.errors import UserError
from common.base.objective import Earlier, Objective
from common.runs.crew import HERE, LauncherCrew, LocalCrew
from common.runs.evidence import neutral
from common.runs.listed import make_runs
from common.runs.objective import check_metric
from common.runs.recorded import recorded
from common.search.cube import assigned, cube
from common.search.halving import check_rungs
from common.search.settings import settings
from common.tables.tables import ROOT


class Runs(Objective):
    """f(x) = a metric of the run whose keys have the values that x in [0, 1]^d stands for.

    Each run leaves its own result, so none is made twice, whatever happens to the search. A run that fails is
    a failed evaluation. Replicate r makes its runs with its own seed.

    Args:
        kind: must be `objective`.
        words: the override string of the runs.
        metric: of their results, not one of the test set.
        goal: whether it is to be large or small (then f is its negative).
        parameters: what varies, such as `method.lr=log(1e-4,1)`; the forms stand in `common.search.settings`.
        lengthscale: what a surrogate may assume of f in these units.
        launcher: basic or joblib: processes of this machine; submitit_local, submitit_slurm or ray.
        rungs: shares of a run's length at which it pauses, and goes on only if it is among the best there
            (ASHA, `common.search.halving`); null: all runs are made in full.
        warm_start: the words of earlier runs whose recorded results are taken as prior observations; null.
        output_dir, data_dir: of the runs.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "runs"
    LONG: ClassVar = True
    # of the standardised values that a fixed surrogate is told
    variance: ClassVar = 1.0
    mean: ClassVar = 0.0

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
        rungs: Sequence[float] | None,
        warm_start: str | None,
        output_dir: str,
        data_dir: str,
    ) -> None:
        check("parameters", parameters, len(parameters) > 0, "give at least one, as method.lr=log(1e-4,1)")
        self.settings = settings(parameters)
        for one in self.settings:
            decides = one.key != "seed" and not neutral(f"{one.key}=")
            check("parameters", one.key, decides, "give keys that decide a run's result, no seed")
        super().__init__(kind=kind, space=cube(self.settings), noise=0.0)
        check("goal", goal, goal in ("maximize", "minimize"), "give maximize or minimize")
        check_metric(metric)
        self.words, self.metric = shlex.split(words), metric
        self.sign = 1.0 if goal == "maximize" else -1.0
        self.lengthscale = lengthscale
        self.shared = [f"output_dir={output_dir}", f"data_dir={data_dir}", "logger=none"]
        self.launcher = launcher
        self.shared += [] if launcher in HERE else [f"hydra/launcher={launcher}"]
        self.rungs = check_rungs(rungs or ())
        self.warm_start, self.output_dir = warm_start, output_dir

    def draw(self, seeds: list[int]) -> None:
        self.seeds = seeds

    def assigned(self, point: Tensor) -> dict[str, str]:
        return assigned(self.settings, self.space, point)

    def command(self, replicate: int, point: Tensor) -> list[str]:
        own = [f"{key}={value}" for key, value in self.assigned(point).items()]
        seeded = any(word.startswith("seed=") for word in self.words)
        return [*self.words, *own, *([] if seeded else [f"seed={self.seeds[replicate]}"])]

    def crew(self, size: int) -> Crew:
        kind = LocalCrew if self.launcher in HERE else LauncherCrew
        return kind(size, self.command, self._read, self.shared, self.metric)

    def earlier(self) -> Sequence[Earlier]:
        if self.warm_start is None:
            return ()
        words = shlex.split(self.warm_start)
        folders = (Path(self.output_dir), ROOT / "results")
        found = recorded(words, self.settings, self.metric, self.sign, self.words, folders)
        own, others = ([one for one in found if one.same is same] for same in (True, False))
        print(
            f"[{self.NAME}] it begins with what earlier runs have given: {_counted(own)} of these very runs, "
            f"{_counted(others)} of {len(others)} others",
            file=sys.stderr,
        )
        return found

    def values(self, x: Tensor) -> Tensor:
        jobs = [[self.command(r, point) for point in points] for r, points in enumerate(x)]
        evidence = make_runs([job for row in jobs for job in row], self.shared)
        found = [[self._found(evidence.find(job)) for job in row] for row in jobs]
        return torch.tensor(found, dtype=torch.float64, device=x.device)

    def value(self, replicate: int, point: Tensor) -> float:
        evidence = make_runs([job := self.command(replicate, point)], self.shared)
        return self._found(evidence.find(job))

    def _found(self, result: dict[str, Any] | None) -> float:
        return float("nan") if result is None else self._read(result["metrics"])

    def _read(self, metrics: dict[str, Any]) -> float:
        """f of a run's metrics; NaN where it has come out as no number."""
        if self.metric not in metrics:
            names = [name for name in metrics if not name.startswith("test_")]
            raise UserError(
                f"dataset.metric={self.metric}: the run has no such metric (valid: {', '.join(names)})"
            )
        value = metrics[self.metric]
        return float("nan") if value is None else self.sign * float(value)

    def optimum(self) -> None:
        return None


def _counted(some: Sequence[Earlier]) -> str:
    count = sum(len(one.y) for one in some)
    return f"{count} result{'' if count == 1 else 's'}"
