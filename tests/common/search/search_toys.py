"""Small objectives and searchers for the tests of the search loop."""

from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from common.base.objective import Objective, Space, box
from common.numerics.sampling import ReplicateSampler
from common.search.module import SearchModule
from common.search.searcher import Observations, RandomSearch, Searcher, Task
from common.search.surrogate import Surrogate

Module = TypeVar("Module", bound=SearchModule)

SETTINGS: dict[str, Any] = {
    "seed": 0, "evaluations": 12, "initial": 3, "design": "sobol", "batch": 2, "repeats": 1, "workers": 1,
}  # fmt: skip


class Bowl(Objective):
    """-||x - c||^2 on the unit square, with c of each seed."""

    NAME = "bowl"

    def __init__(self, noise: float = 0.1, space: Space | None = None) -> None:
        super().__init__(kind="objective", space=space or box(2, 0.0, 1.0), noise=noise)

    def draw(self, seeds: list[int]) -> None:
        draws = [
            torch.rand(2, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds
        ]
        self.centres = torch.stack(draws)

    def values(self, x: Tensor) -> Tensor:
        return -(x - self.centres[:, None]).square().sum(-1)

    def optimum(self) -> Tensor:
        return torch.zeros(len(self.centres), dtype=torch.float64)


class Broken(Bowl):
    """NaN, or an exception, where x_1 > 1/2."""

    NAME = "broken"

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.raises = raises

    def values(self, x: Tensor) -> Tensor:
        beyond = x[..., 0] > 0.5
        if self.raises and bool(beyond.any()):
            raise ArithmeticError("the oven\nis cold")
        return torch.where(beyond, torch.nan, super().values(x))


class Same(Searcher):
    """Always the centre, or another point."""

    NAME = "same"

    def __init__(self, point: float = 0.5) -> None:
        self.point = point

    def propose(self, seen: Observations, q: int) -> Tensor:
        return torch.full((self.task.replicates, q, 2), self.point, dtype=torch.float64)


def surrogate(dim: int = 2, **given: Any) -> Surrogate:
    settings = {
        "shape": (dim,), "classes": None, "kernel": "se", "lengthscale": 0.3, "variance": 1.0, "noise": 0.1,
        "mean": 0.0, "groups": "full", "scale_groups": "mean", "fit": "fixed",
    }  # fmt: skip
    return Surrogate(**(settings | given))


def module(data: Objective | None = None, method: Searcher | None = None, **given: Any) -> SearchModule:
    data = data or Bowl()
    parts: dict[str, Any] = {"data": data, "model": surrogate(data.space.dim)}
    parts["method"] = method or RandomSearch()
    return SearchModule(**parts, **(SETTINGS | given))


class SaveAfter(pl.Callback):
    """Saves a checkpoint between two training steps, as the runner does."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        if rest[-1] == self.step:
            assert isinstance(module, SearchModule) and not module.done
            trainer.save_checkpoint(self.path)


def fit(m: Module, root: Path, save: SaveAfter | None = None, resume: Path | None = None) -> Module:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, default_root_dir=root,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[save] if save else [],
    )  # fmt: skip
    trainer.fit(m, ckpt_path=resume, weights_only=True)
    return m


def task(objective: Objective, replicates: int = 2, evaluations: int = 10) -> Task:
    seeds = list(range(replicates))
    objective.draw(seeds)
    random = ReplicateSampler(0, replicates, None, torch.device("cpu"), torch.float64)
    return Task(objective, surrogate(objective.space.dim), seeds, evaluations, random, torch.device("cpu"))
