"""What a search maximises: the score of trained networks, or a function of their shape."""

import copy
import hashlib
import inspect
import math
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule
from torch import Tensor, nn

from common.architectures.objective import ArchitectureObjective, seed_of
from common.base.dataset import DataSet, SplitName
from common.data.shared.fingerprint import fingerprint_of
from common.training.made_optimizer import made_optimizer
from papers.nasbot import graph, network
from papers.nasbot.graph import Network
from papers.nasbot.network import GraphClassifier, GraphRegression
from papers.nasbot.space import NetworkSpace
from papers.nasbot.synthetic import NetworkFunction
from papers.nasbot.trainings import Measures, Trainings

# steps between two looks at whether the loss is finite
LOOK = 50


class Recipe(NamedTuple):
    """How a network is trained.

    Attributes:
        optimizer: makes one of parameters.
        seed: of the run.
        checks: how often the validation split is measured; the best of them is the score.
        device: where.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    seed: int
    checks: int
    device: str


class ShapeObjective(ArchitectureObjective[Network]):
    """A function of a network's shape; nothing is trained.

    Args:
        space: of the networks.
        function: see `NetworkFunction`.
    """

    def __init__(self, space: NetworkSpace, function: NetworkFunction) -> None:
        self.space, self.function = space, function

    def build(self, architecture: Network) -> nn.Module:
        """The network, as if it were for data of the function's shape."""
        return _built(architecture, self.function.shape, self.function.classes, "l1")

    def count(self, architecture: Network) -> dict[str, float]:
        return counts(architecture, self)

    def train(self, architecture: Network, budget: int) -> dict[str, float]:
        """score, the function's value."""
        return {"score": self.function(architecture)}


class TrainedObjective(ArchitectureObjective[Network]):
    """Scores of networks that are trained: minus the mean squared error of targets of variance 1, or
    accuracy.

    Trainings are read from the shared table where it has them. What is random about one follows from the
    run's seed and the network's key.

    Args:
        space: of the networks.
        data: with a validation split.
        loss: of regression, `l1` or `mse`.
        recipe: see `Recipe`.
        folder: of the table.
    """

    def __init__(
        self, space: NetworkSpace, data: DataSet, loss: str, recipe: Recipe, folder: Path | None
    ) -> None:
        self.space, self.loss, self.recipe, self.folder = space, loss, recipe, folder
        # as it was before it read its files: what goes to other processes
        self.source = copy.deepcopy(data)
        self._data: DataSet | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_data": None}

    @property
    def data(self) -> DataSet:
        """The data, read and on the device."""
        if self._data is None:
            self._data = copy.deepcopy(self.source)
            self._data.setup()
            self._data.move(self.recipe.device)
        return self._data

    def build(self, architecture: Network) -> nn.Module:
        return _built(architecture.canonical, self.source.shape, self.source.classes, self.loss)

    def count(self, architecture: Network) -> dict[str, float]:
        return counts(architecture, self)

    def words(self, architecture: Network, budget: int) -> dict[str, Any]:
        """All that decides what a training gives, as plain data."""
        optimizer = self.recipe.optimizer
        made = optimizer.func if isinstance(optimizer, partial) else optimizer
        settings = {name: repr(value) for name, value in getattr(optimizer, "keywords", {}).items()}
        return {
            "network": architecture.key,
            "data": {"files": fingerprint_of(self.source), **_settings_of(self.source)},
            "seed": self.recipe.seed,
            "steps": budget,
            "checks": self.recipe.checks,
            "loss": self.loss,
            "optimizer": {"name": getattr(made, "__name__", repr(made)), **settings},
            "device": torch.device(self.recipe.device).type,
            "code": _code(),
        }

    def train(self, architecture: Network, budget: int) -> dict[str, float]:
        """score, test (as score, on the test split), the last loss, and the minutes that it took.

        The network is that of the check with the best score.
        """
        if self.folder is None:
            return self._train(architecture, budget)
        words = self.words(architecture, budget)
        return Trainings(self.folder).get(words, lambda: self._train(architecture, budget))

    def _train(self, architecture: Network, budget: int) -> Measures:
        began = time.perf_counter()
        seed = seed_of(self.recipe.seed, architecture.key)
        torch.manual_seed(seed)
        module = self.build(architecture).to(self.recipe.device)
        optimizer = made_optimizer(self.recipe.optimizer, list(module.parameters()), "method.optimizer")
        every = max(1, budget // self.recipe.checks)
        best, weights, loss = -math.inf, copy.deepcopy(module.state_dict()), math.nan
        loader = self.data.loader(seed % 2**31)
        loader.block = min(LOOK, every)
        step = 0
        for block in loader:
            for item in block[: budget - step]:
                inputs, targets = self.data.ready(item)
                assert targets is not None
                module.train()
                optimizer.zero_grad(set_to_none=True)
                value = self._loss(module(inputs), targets)
                value.backward()
                optimizer.step()
                step += 1
                if step % every == 0 or step == budget:
                    score = self._score(module, "validation")
                    if score > best:
                        best, weights = score, copy.deepcopy(module.state_dict())
            loss = float(value.detach())
            if step >= budget or not math.isfinite(loss):
                break
        minutes = (time.perf_counter() - began) / 60
        if not math.isfinite(best):
            return {"score": math.nan, "loss": loss, "minutes": minutes}
        module.load_state_dict(weights)
        return {"score": best, "test": self._score(module, "test"), "loss": loss, "minutes": minutes}

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.source.classes is not None:
            return F.cross_entropy(outputs, targets)
        return F.l1_loss(outputs, targets) if self.loss == "l1" else F.mse_loss(outputs, targets)

    @torch.no_grad()
    def _score(self, module: nn.Module, split: SplitName) -> float:
        module.eval()
        count, total = self.data.size(split), 0.0
        for start in range(0, count, self.data.EVALUATION_BATCH):
            rows = slice(start, min(start + self.data.EVALUATION_BATCH, count))
            inputs, targets = self.data.batch(split, rows, augment=False)
            assert targets is not None
            outputs = module(inputs)
            if self.source.classes is None:
                total -= float((outputs - targets).square().sum())
            else:
                total += float((outputs.argmax(1) == targets).sum())
        return total / count


def counts(architecture: Network, objective: ArchitectureObjective[Network]) -> dict[str, float]:
    """parameters of the network in torch; its mass, layers and edges."""
    with torch.device("meta"):
        module = objective.build(architecture)
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "mass": float(architecture.masses.sum()),
        "layers": len(architecture),
        "edges": len(architecture.edges),
    }


def _built(architecture: Network, shape: tuple[int, ...], classes: int | None, loss: Any) -> nn.Module:
    told = architecture.to_json()
    if classes is None:
        return GraphRegression(shape=shape, classes=None, network=told, loss=loss)
    return GraphClassifier(shape=shape, classes=classes, kind=architecture.kind, network=told)


def _settings_of(data: DataSet) -> dict[str, Any]:
    """The settings of a data set that decide its examples, as plain data; where its files lie is none."""
    plain = (str, int, float, bool, list, tuple, type(None))
    # what any data set has, and where and how files are read
    others = {*vars(LightningDataModule()), "data_dir", "verify", "repairs", "notes"}
    own = {
        name: value
        for name, value in vars(data).items()
        if not name.startswith("_") and name not in others and isinstance(value, plain)
    }
    return {"name": data.NAME, **own}


@cache
def _code() -> str:
    """A hash of the code that builds and trains: other code, other trainings."""
    modules: list[ModuleType | None] = [graph, network, inspect.getmodule(_code)]
    text = "".join(inspect.getsource(module) for module in modules if module is not None)
    return hashlib.sha256(f"{torch.__version__} {text}".encode()).hexdigest()[:16]
