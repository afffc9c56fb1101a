"""Evaluating architectures: one after the other here, or several at once in processes, on a cluster too."""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal

import torch
from joblib import Parallel, delayed, parallel_config

from common.architectures.objective import ArchitectureObjective
from common.architectures.record import Evaluated
from common.architectures.space import A
from common.base.errors import UserError
from common.base.files import whole

Launcher = Literal["joblib", "ray", "submitit"]


@dataclass(frozen=True)
class Workers:
    """Who evaluates.

    Attributes:
        processes: at once; 1 for this process.
        launcher: of more than one: `joblib` on this machine; `ray` its cluster; `submitit` a job for each on
            Slurm, or a process where there is none.
        threads: of each worker process.
    """

    processes: int = 1
    launcher: Launcher = "joblib"
    threads: int = 1


@dataclass(frozen=True)
class Job(Generic[A]):
    """One evaluation: picklable, kept as a file when it is done, and read from there the next time.

    Attributes:
        objective, architecture, budget: see `ArchitectureObjective.train`.
        path: of the file.
    """

    objective: ArchitectureObjective[A]
    architecture: A
    budget: int
    path: Path

    def __call__(self, threads: int | None = None) -> Evaluated[A]:
        """Evaluate, or read.

        A failure is a part of what comes out; a user's own mistake is raised on.

        Args:
            threads: that torch may use; None leaves them.

        Raises:
            UserError: see above.
        """
        if self.path.exists():
            return Evaluated.from_json(json.loads(self.path.read_text()), self.objective.space)
        if threads is not None:
            torch.set_num_threads(threads)
        start, measures, failure = time.perf_counter(), {}, None
        with torch.random.fork_rng():
            try:
                measures = self.objective.train(self.architecture, self.budget)
            except UserError:
                raise
            except Exception as error:
                failure = f"{type(error).__name__}: {error}".splitlines()[0]
        seconds = time.perf_counter() - start
        if failure is None and not math.isfinite(measures.get("score", math.nan)):
            failure = "its score is not finite"
        costs = self.objective.count(self.architecture)
        found = Evaluated(self.architecture, measures, costs, seconds, failure)
        self._keep(found)
        return found

    def _keep(self, found: Evaluated[A]) -> None:
        with whole(self.path) as partial:
            partial.write_text(json.dumps(found.to_json()))


def evaluate_all(jobs: Sequence[Job[A]], workers: Workers) -> list[Evaluated[A]]:
    """All evaluations, in the order of the jobs.

    Raises:
        UserError: a mistake of the user, from whichever process; a launcher that is not installed.
    """
    if workers.processes == 1:
        return [job() for job in jobs]
    if workers.launcher == "submitit":
        return _by_submitit(jobs, workers)
    context: AbstractContextManager[Any] = nullcontext()
    if workers.launcher == "ray":
        context = _ray()
    with context:
        found = Parallel(n_jobs=workers.processes)(delayed(_run)(job, workers.threads) for job in jobs)
    return list(found)


def _run(job: Callable[[int], Evaluated[A]], threads: int) -> Evaluated[A]:
    return job(threads)


def _ray() -> AbstractContextManager[Any]:
    try:
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise UserError("paper.launcher=ray needs Ray: pip install -e '.[cluster]'") from error
    register_ray()
    context: AbstractContextManager[Any] = parallel_config(backend="ray")
    return context


def _by_submitit(jobs: Sequence[Job[A]], workers: Workers) -> list[Evaluated[A]]:
    from submitit import AutoExecutor
    from submitit.core.utils import FailedJobError

    executor = AutoExecutor(folder=jobs[0].path.parent / "submitit")
    executor.update_parameters(cpus_per_task=workers.threads, slurm_array_parallelism=workers.processes)
    found: list[Evaluated[A]] = []
    # elsewhere than on Slurm nothing holds back more jobs than there are processes
    for start in range(0, len(jobs), workers.processes):
        some = jobs[start : start + workers.processes]
        tasks = executor.map_array(_run, some, [workers.threads] * len(some))
        try:
            found += [task.result() for task in tasks]
        except FailedJobError as error:
            raise UserError(f"paper.launcher=submitit: {str(error).strip().splitlines()[-1]}") from error
    return found
