"""Small priors, boxes, models and searches for the tests of QFF."""

from typing import Any

import torch
from torch import Tensor

from common.data.functions.additive import GpSample
from common.numerics.sampling import ReplicateSampler
from common.search.searcher import Task
from common.search.surrogate import Surrogate
from papers.qff.additive import AdditiveModel, ExactModel, FourierModel, Prior
from papers.qff.features import QFF
from papers.qff.maximise import Box

CPU = torch.device("cpu")
UCB: dict[str, Any] = {"beta": 2.0, "bound": 1.0, "delta": 0.1}
GRIDS: dict[str, Any] = {"grid": 101, "grid_2d": 31}


def quadrature(nodes: int = 32, prune: float = 0.0) -> QFF:
    return QFF(nodes=nodes, prune=prune, rule="legendre", stretch=1.0)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    """In [-1/2, 1/2]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.5


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def streams(replicates: int, seed: int = 0) -> ReplicateSampler:
    return ReplicateSampler(seed, replicates, None, CPU, torch.float64)


def unit_box(dim: int) -> Box:
    return Box(torch.full((dim,), -0.5).double(), torch.full((dim,), 0.5).double())


def prior(groups: list[list[int]], kernel: Any = "se", noise: float = 0.1) -> Prior:
    dim = max(max(group) for group in groups) + 1
    lengthscale = torch.tensor([0.3, 0.4, 0.5, 0.35][:dim]).double()
    if max(len(group) for group in groups) > 2:
        lengthscale = 2.0 * lengthscale
    return Prior(groups, kernel, lengthscale, 1.0 / len(groups), noise)


def enough(groups: Any) -> QFF:
    """As many nodes as are exact to rounding, nearly."""
    return quadrature(10 if max(len(group) for group in groups) > 2 else 24)


def models(given: Prior, replicates: int, spread: bool = True) -> list[AdditiveModel]:
    """The same prior on features that are exact to rounding, and exactly."""
    box = unit_box(len(given.lengthscale))
    options: dict[str, Any] = {"spread": spread, **GRIDS}
    family = enough(given.groups)
    features = FourierModel(given, box, replicates, family=family, random=streams(replicates), **options)
    return [features, ExactModel(given, box, replicates, **options)]


def surrogate(dim: int, **given: Any) -> Surrogate:
    settings: dict[str, Any] = {
        "shape": (dim,), "classes": None, "kernel": "se", "lengthscale": None, "variance": None,
        "noise": None, "mean": None, "groups": "one_dim", "scale_groups": "mean", "fit": "fixed",
    }  # fmt: skip
    return Surrogate(**(settings | given))


def sample(dim: int = 3, noise: float = 0.05) -> GpSample:
    return GpSample(kind="objective", dim=dim, noise=noise, lengthscale=0.3, variance=1.0, nodes=64)


def task(objective: Any, model: Surrogate | None = None, seeds: tuple[int, ...] = (0, 1)) -> Task:
    objective.draw(list(seeds))
    random = ReplicateSampler(seeds[0], len(seeds), None, CPU, torch.float64)
    return Task(objective, model or surrogate(objective.space.dim), list(seeds), 20, random, CPU)
