"""Objectives that come with evaluations of related tasks: quadratics, and recorded tables."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Generator, Tensor

from common.base.dataset import check
from common.base.errors import UserError
from common.base.objective import Objective, arms, box
from papers.ablr.openml_runs import FLOWS, read_runs

# the seed of what is drawn once: the quadratics, made-up tables; and of points of source tasks
FAMILY_SEED, POINTS_SEED = 20_183, 20_184
TABLE = "automl/xgboost_evals.npz"


@dataclass(frozen=True)
class RelatedTask:
    """Evaluations of another task.

    Attributes:
        x: points of the box [n, d], or inputs of arms [n, p]; y: values, larger is better, [n].
        context: numbers that describe the task, [c]; c = 0 where nothing does.
    """

    x: Tensor
    y: Tensor
    context: Tensor


class TransferObjective(Objective):
    """A family of tasks of which one is searched, leave-one-out: replicate with seed s has task s (mod T)."""

    def arms_of(self, replicate: int) -> Tensor:
        """Of a finite space the inputs of the replicate's arms, [M, p] in [0, 1]."""
        assert self.space.features is not None
        return self.space.features

    @abstractmethod
    def related(self, replicate: int) -> list[RelatedTask]:
        """The evaluations of the other tasks."""

    @abstractmethod
    def context(self, replicate: int) -> Tensor:
        """What describes the replicate's own task, [c]."""


class Quadratics(TransferObjective):
    """f_t(x) = -(a2/2 |x|^2 + a1 sum(x) + offset a0) on [-5, 5]^d, coefficients uniform in [0.1, 10].

    The optimum is x_i = -a1 / a2, or the box's edge. The context is (a2, a1, a0).

    Args:
        kind: must be `objective`.
        dim: d. tasks: T, the searched one among them. points: uniform ones of each other task.
        offset_scale: of a0. noise: standard deviation.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "quadratics"

    def __init__(
        self, *, kind: str, dim: int, tasks: int, points: int, offset_scale: float, noise: float
    ) -> None:
        check("dim", dim, dim >= 1, "give at least 1")
        check("tasks", tasks, tasks >= 1, "give at least 1")
        check("points", points, points >= 1, "give at least 1")
        super().__init__(kind=kind, space=box(dim, -5.0, 5.0), noise=noise)
        self.tasks, self.points, self.offset_scale = tasks, points, offset_scale
        generator = Generator().manual_seed(FAMILY_SEED)
        # (a2, a1, a0) of each task
        self.coefficients = 0.1 + 9.9 * torch.rand(tasks, 3, generator=generator, dtype=torch.float64)

    def draw(self, seeds: list[int]) -> None:
        self.seeds, self.own = seeds, [seed % self.tasks for seed in seeds]

    def of(self, task: int, x: Tensor) -> Tensor:
        """f of one task at points [..., d]."""
        a2, a1, a0 = self.coefficients[task].to(x)
        return -(a2 / 2 * x.square().sum(-1) + a1 * x.sum(-1) + self.offset_scale * a0)

    def values(self, x: Tensor) -> Tensor:
        return torch.stack([self.of(task, points) for task, points in zip(self.own, x, strict=True)])

    def optimum(self) -> Tensor:
        a2, a1, _ = self.coefficients[self.own].T
        x = (-a1 / a2).clamp(-5.0, 5.0)[:, None].expand(-1, self.space.dim)
        return self.values(x[:, None].to(self.device))[:, 0]

    def context(self, replicate: int) -> Tensor:
        return self.coefficients[self.own[replicate]]

    def related(self, replicate: int) -> list[RelatedTask]:
        generator = Generator().manual_seed(POINTS_SEED + self.seeds[replicate])
        found = []
        for task in range(self.tasks):
            unit = torch.rand(self.points, self.space.dim, generator=generator, dtype=torch.float64)
            noise = self.noise * torch.randn(self.points, generator=generator, dtype=torch.float64)
            if task != self.own[replicate]:
                x = -5.0 + 10.0 * unit
                found.append(RelatedTask(x, self.of(task, x) + noise, self.coefficients[task]))
        return found


class RecordedTasks(TransferObjective):
    """Recorded evaluations of T tasks: the searched one is a table, its rows are arms.

    f = -error. Of the other tasks `points` evaluations each are known, drawn by the replicate's seed. Nothing
    else describes a task.

    Attributes:
        inputs: of each task [M, p] in [0, 1]; errors: [M].
    """

    inputs: list[Tensor]
    errors: list[Tensor]
    metric: str = "error"
    sign: float = -1.0

    def __init__(self, *, kind: str, points: int, size: int, numbers: int) -> None:
        check("points", points, points >= 1, "give at least 1")
        super().__init__(kind=kind, space=arms(torch.zeros(size, numbers, dtype=torch.float64)), noise=0.0)
        self.points = points

    @abstractmethod
    def load(self) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs [M, p] and errors [M] of each task; as many rows in all.

        Raises:
            UserError: a file is missing or damaged.
        """

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "inputs"):
            return
        inputs, errors = self.load()
        least = min(map(len, errors))
        every = torch.cat(inputs)
        low, width = every.min(0).values, every.max(0).values - every.min(0).values
        self.inputs = [(own[:least] - low) / torch.where(width > 0, width, 1.0) for own in inputs]
        self.errors = [own[:least] for own in errors]
        # what the arms are differs from task to task, see `arms_of`
        self.space = arms(self.inputs[0])

    def draw(self, seeds: list[int]) -> None:
        self.seeds, self.own = seeds, [seed % len(self.errors) for seed in seeds]
        self.mine = torch.stack([-self.errors[t] for t in self.own]).to(self.device)

    def arms_of(self, replicate: int) -> Tensor:
        return self.inputs[self.own[replicate]]

    def values(self, x: Tensor) -> Tensor:
        return self.mine.gather(1, x[..., 0].long())

    def optimum(self) -> Tensor:
        return self.mine.max(1).values

    def context(self, replicate: int) -> Tensor:
        return torch.zeros(0, dtype=torch.float64)

    def related(self, replicate: int) -> list[RelatedTask]:
        generator = Generator().manual_seed(POINTS_SEED + self.seeds[replicate])
        found = []
        for task, (inputs, errors) in enumerate(zip(self.inputs, self.errors, strict=True)):
            drawn = torch.randperm(len(errors), generator=generator)[: self.points]
            if task != self.own[replicate]:
                found.append(RelatedTask(inputs[drawn], -errors[drawn], self.context(replicate)))
        return found


class XGBoostTasks(RecordedTasks):
    """10 tasks of LIBSVM x 1,000 random settings of XGBoost (8 numbers), and their validation errors.

    Args:
        kind: must be `objective`.
        source: `real`, or `synthetic`: made-up errors.
        data_dir: holds `automl/xgboost_evals.npz`.
        points: known evaluations of each other task.
    """

    NAME: ClassVar = "xgboost_tasks"
    ARMS: ClassVar = 1000

    def __init__(
        self, *, kind: str, source: Literal["real", "synthetic"], data_dir: str, points: int
    ) -> None:
        super().__init__(kind=kind, points=points, size=self.ARMS, numbers=8)
        self.source, self.data_dir = source, Path(data_dir)

    def load(self) -> tuple[list[Tensor], list[Tensor]]:
        return made_up_tasks(6, 60, 4) if self.source == "synthetic" else read_table(self.data_dir)

    def sources(self) -> dict[str, Path]:
        """The table."""
        return {TABLE: self.data_dir / TABLE}


class OpenMLTasks(RecordedTasks):
    """Runs of OpenML's bot: random settings of SVMs (28 tasks) or of XGBoost (30 tasks); error is 1 - AUC.

    Args:
        kind: must be `objective`.
        flow: `svm` or `xgboost`.
        source: `real`: downloaded from OpenML once; `stand_in`: the 10 tasks of `xgboost_tasks` in their
            place, which is said; `synthetic`.
        data_dir: holds `openml_runs/`.
        points: known evaluations of each other task.
        most: runs of each task that are taken.
    """

    NAME: ClassVar = "openml_tasks"

    def __init__(
        self,
        *,
        kind: str,
        flow: Literal["svm", "xgboost"],
        source: Literal["real", "stand_in", "synthetic"],
        data_dir: str,
        points: int,
        most: int,
    ) -> None:
        check("most", most, most >= 2, "give at least 2")
        super().__init__(kind=kind, points=points, size=most, numbers=len(FLOWS[flow].columns))
        self.flow, self.source, self.data_dir, self.most = flow, source, Path(data_dir), most

    def load(self) -> tuple[list[Tensor], list[Tensor]]:
        if self.source == "synthetic":
            return made_up_tasks(6, 60, 4)
        if self.source == "stand_in":
            print(
                f"[{self.NAME}] 10 tasks of LIBSVM x 1,000 settings of XGBoost stand in for OpenML's runs of "
                f"{self.flow}: their errors are no 1 - AUC of OpenML's tasks"
            )
            return read_table(self.data_dir)
        return read_runs(FLOWS[self.flow], self.data_dir, self.most)

    def sources(self) -> dict[str, Path]:
        """The folder of runs; of the stand-in its table."""
        name = "openml_runs" if self.source == "real" else TABLE
        return {name: self.data_dir / name}


def read_table(data_dir: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and errors of the 10 XGBoost tasks.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = data_dir / TABLE
    try:
        with np.load(path, allow_pickle=False) as file:
            X, errors = file["X"].astype(np.float64), file["error"].astype(np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path.resolve()} is missing or damaged ({type(error).__name__}): made from the tables of "
            "github.com/icdishb/hyperparameter-transfer-learning-evaluations (valid: that file, or "
            "dataset.source=synthetic)"
        ) from error
    return [torch.from_numpy(own) for own in X], [torch.from_numpy(own) for own in errors]


def made_up_tasks(tasks: int, rows: int, numbers: int) -> tuple[list[Tensor], list[Tensor]]:
    """Seeded errors of tasks whose best settings lie near each other."""
    generator = Generator().manual_seed(FAMILY_SEED)
    inputs, errors = [], []
    for _ in range(tasks):
        x = torch.rand(rows, numbers, generator=generator, dtype=torch.float64)
        best = 0.3 + 0.1 * torch.randn(numbers, generator=generator, dtype=torch.float64)
        level = 0.1 + 0.3 * torch.rand(1, generator=generator, dtype=torch.float64)
        inputs.append(x)
        errors.append(level + 0.2 * (x - best).square().mean(1))
    return inputs, errors
