"""Where searches run: tasks by name, a space of designs, and what a design scores on a task.

A data set of kind `design_tasks` has the tasks, a model of task `design` the space; together they make a
`Ground`, which trains, reads a table or computes.
"""

import difflib
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from common.architectures.evaluate import Job, Workers, evaluate_all
from common.architectures.objective import ArchitectureObjective
from common.architectures.space import ArchitectureSpace
from common.base.errors import UserError
from common.base.generated import Function
from papers.transfer_automl.space import ChoicesOf, DesignSpace, OwnSpace


class Ground(ABC):
    """Tasks and designs, and the scores of these on those.

    Attributes:
        names: of the tasks.
        space: of the architectures that are searched.
        counts: choices of each decision of a code, for those that choose decision by decision; None where
            architectures are no such sequences.
        unit: what results print for a score of 1: 100 for shares that are printed in per cent.
        failure: why the last failed training failed.
    """

    names: list[str]
    space: ArchitectureSpace[Any]
    counts: tuple[int, ...] | None
    unit: float = 1.0
    failure: str | None = None

    @abstractmethod
    def scores(self, tasks: Tensor, codes: Tensor, noise: Tensor) -> Tensor:
        """Validation and test scores.

        Shapes: tasks int64 [n], codes int64 [n, L], noise standard normal [n] (for grounds whose scores are
        noisy) -> float64 [n, 2], NaN where a training failed or there is no test score.

        Raises:
            UserError: a code that is not in the space.
        """

    def code(self, architecture: Any) -> tuple[int, ...]:
        """An architecture as the whole numbers of a code."""
        return self.space.encode(architecture)

    def architecture(self, code: Sequence[int]) -> Any:
        """The inverse of `code`."""
        return self.space.decode(tuple(int(c) for c in code))

    def key(self, code: Sequence[int]) -> str:
        """Equal for codes of the same architecture."""
        return str(self.architecture(code).key)

    def describe(self, code: Sequence[int]) -> Any:
        """An architecture as plain data that a person can read."""
        return self.architecture(code).to_json()

    def facts(self) -> dict[str, float]:
        """What a result says of the ground, as numbers."""
        return {}

    def best(self) -> list[float]:
        """The largest validation score of each task that there is; NaN where it is not known."""
        return [math.nan] * len(self.names)

    def prepare(self, folder: Path, workers: Workers) -> None:  # noqa: B027
        """Told before the first scores: the run's folder, and who evaluates."""

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on must have again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Put back what `state_dict` gave."""


class TrainedGround(Ground):
    """Designs are trained, each once and as a file of the run's folder as soon as it is done.

    Args:
        objectives: by the names of the tasks.
        space: of all of them.
        budget: of each training.

    Raises:
        UserError: no task.
    """

    def __init__(
        self, objectives: dict[str, ArchitectureObjective[Any]], space: ArchitectureSpace[Any], budget: int
    ) -> None:
        if not objectives:
            raise UserError("dataset.tasks=[]; valid: at least one task")
        self.names, self.objectives, self.budget = list(objectives), list(objectives.values()), budget
        self.space, self.workers, self.folder = space, Workers(), Path()
        self.counts = getattr(space, "counts", None)
        # architectures without `counts` are known by the numbers in which they came up
        self.known: list[Any] = []
        self.numbers: dict[str, int] = {}
        # validation and test of what was trained, by task and key
        self.made: dict[tuple[int, str], tuple[float, float]] = {}

    def prepare(self, folder: Path, workers: Workers) -> None:
        self.folder, self.workers = folder, workers

    def scores(self, tasks: Tensor, codes: Tensor, noise: Tensor) -> Tensor:
        jobs: dict[tuple[int, str], Job[Any]] = {}
        wanted = []
        for task, code in zip(tasks.tolist(), codes.tolist(), strict=True):
            architecture = self.architecture(code)
            at = (task, architecture.key)
            wanted.append(at)
            if at in self.made:
                continue
            name = hashlib.sha256(architecture.key.encode()).hexdigest()[:24]
            path = self.folder / self.names[task].replace("/", "_") / f"{name}.json"
            jobs.setdefault(at, Job(self.objectives[task], architecture, self.budget, path))
        found = dict(zip(jobs, evaluate_all(list(jobs.values()), self.workers), strict=True))
        self.made |= {at: (one.score, one.measures.get("test", math.nan)) for at, one in found.items()}
        self.failure = next((one.failure for one in found.values() if one.failure is not None), self.failure)
        rows = [self.made[at] for at in wanted]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, 2)

    def key(self, code: Sequence[int]) -> str:
        return super().key(code) if self.counts is not None else str(int(code[0]))

    def code(self, architecture: Any) -> tuple[int, ...]:
        if self.counts is not None:
            return super().code(architecture)
        if architecture.key not in self.numbers:
            self.numbers[architecture.key] = len(self.known)
            self.known.append(architecture)
        return (self.numbers[architecture.key],)

    def architecture(self, code: Sequence[int]) -> Any:
        return super().architecture(code) if self.counts is not None else self.known[int(code[0])]

    def describe(self, code: Sequence[int]) -> Any:
        return self.space.values(code) if isinstance(self.space, DesignSpace) else super().describe(code)

    def state_dict(self) -> dict[str, Any]:
        return {"known": [one.to_json() for one in self.known]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.known = [self.space.from_json(one) for one in state["known"]]
        self.numbers = {one.key: number for number, one in enumerate(self.known)}


class TableGround(Ground):
    """Scores of every design of a space on every task, read from arrays.

    Args:
        names: of the tasks, T.
        space: of the designs.
        validation, test: float64 [T, designs], in the order of `DesignSpace.number`.
    """

    def __init__(self, names: list[str], space: DesignSpace, validation: Tensor, test: Tensor) -> None:
        self.names, self.space, self.counts = names, space, space.counts
        self.designs, self.table = space, torch.stack([validation, test], -1)

    def scores(self, tasks: Tensor, codes: Tensor, noise: Tensor) -> Tensor:
        return self.table[tasks, self.designs.number(codes)]

    def describe(self, code: Sequence[int]) -> Any:
        return self.designs.values(code)

    def best(self) -> list[float]:
        return [float(row.nan_to_num(nan=-math.inf).max()) for row in self.table[..., 0]]


class DesignTasks(Function):
    """Tasks in the place of a data set: there are no examples that a searcher could see.

    Attributes:
        names: of the tasks that are searched.

    Args:
        kind: must be `design_tasks`.
        all_names: what there is.
        tasks: which of them; None: all.

    Raises:
        UserError: another kind; a task that there is not, or that stands twice, or none.
    """

    KIND: ClassVar = "design_tasks"

    def __init__(self, *, kind: str, all_names: Sequence[str], tasks: Sequence[str] | None) -> None:
        super().__init__()
        if kind != self.KIND:
            raise UserError(f"dataset.kind={kind}: must be {self.KIND}")
        names = list(all_names) if tasks is None else list(tasks)
        for name in names:
            if name not in all_names:
                near = difflib.get_close_matches(name, all_names, n=2, cutoff=0.5)
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                raise UserError(
                    f"dataset.tasks: {self.NAME} has no task {name}{hint} (valid: {', '.join(all_names)})"
                )
        if not names or len(set(names)) < len(names):
            raise UserError(f"dataset.tasks={names}; valid: one or more tasks, each once")
        self.names = names
        self.shape, self.classes, self.batch_size, self.normalise = (len(names),), None, 1, "none"

    def groups(self) -> list[int] | None:
        """The group of each searched task, where tasks come in groups that are alike; None: it is not
        known.
        """
        return None

    @abstractmethod
    def ground(self, space: DesignSpace, seed: int, budget: float) -> Ground:
        """The tasks with the designs of a space.

        Args:
            space: the run's model.
            seed: of the run.
            budget: the share of a design's own training that it gets; 1 for all of it.

        Raises:
            UserError: a space that the tasks are not of.
        """


class ObjectiveTask(DesignTasks):
    """Any objective over architectures as one task, by config: a table of another paper, or trainings.

    Args:
        kind: must be `design_tasks`.
        objective: what is maximised; its `train` gives `score`, and `test` where it can.
        steps: of a training; tables that need none take it as it is.
        name: of the task.

    Raises:
        UserError: no objective.
    """

    NAME: ClassVar = "objective"

    def __init__(self, *, kind: str, objective: Any, steps: int, name: str) -> None:
        super().__init__(kind=kind, all_names=[name], tasks=None)
        if not isinstance(objective, ArchitectureObjective):
            raise UserError(f"dataset.objective: {type(objective).__name__} is no ArchitectureObjective")
        self.objective, self.steps = objective, steps

    def sources(self) -> dict[str, Path]:
        return self.objective.sources()

    def ground(self, space: DesignSpace, seed: int, budget: float) -> Ground:
        if not isinstance(space, OwnSpace):
            raise UserError("dataset.objective has a space of its own (valid: model=own_space)")
        steps = max(1, round(budget * self.steps))
        return TrainedGround({self.names[0]: self.objective}, self.objective.space, steps)


def designs_of(space: ArchitectureSpace[Any]) -> DesignSpace:
    """A space as decisions that a controller can go through."""
    return space if isinstance(space, DesignSpace) else ChoicesOf(space)
