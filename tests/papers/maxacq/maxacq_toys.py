"""Small posteriors, problems and searches for the tests of maxacq."""

from typing import Any

import torch
from scipy.stats import qmc
from search_toys import SETTINGS, surrogate
from torch import Tensor

from common.base.objective import Objective
from common.numerics.sampling import ReplicateSampler
from common.search.module import SearchModule
from papers.maxacq.acquisition import (
    Acquisition,
    EntropySearch,
    ExpectedImprovement,
    KnowledgeGradient,
    MyopicMaximal,
    ProbabilityOfImprovement,
    Setting,
    SimpleRegret,
    UpperConfidenceBound,
    setting,
)
from papers.maxacq.posterior import Posterior, Prior, condition
from papers.maxacq.problem import Problem
from papers.maxacq.searcher import AcquisitionSearch

MYOPIC: dict[str, MyopicMaximal] = {
    "ei": ExpectedImprovement(),
    "pi": ProbabilityOfImprovement(tau=0.05),
    "sr": SimpleRegret(),
    "ucb": UpperConfidenceBound(beta=2.0),
}
ALL: dict[str, Acquisition] = MYOPIC | {
    "kg": KnowledgeGradient(discretisation=12),
    "es": EntropySearch(discretisation=12, tau=0.1, inner=16),
}
METHOD: dict[str, Any] = {
    "form": "greedy", "maximiser": "adam", "budget": "evals", "evaluations": 32, "seconds": None, "starts": 8,
    "samples": 32, "appraisal_samples": 128, "lr": 0.025, "sigma": 0.5, "fantasies": 8,
    "answer": "best_observed",
}  # fmt: skip


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quasi_normal(R: int, width: int, samples: int) -> Tensor:
    """The same scrambled Sobol normals for all replicates, [R, width, samples]."""
    u = qmc.Sobol(width, rng=0).random(samples)
    return torch.special.ndtri(torch.from_numpy(u).clamp(1e-12, 1 - 1e-12)).T.expand(R, -1, -1)


def prior(R: int = 2, d: int = 2, noise_variance: float = 1e-3) -> Prior:
    """Another one for each replicate."""
    return Prior(
        "matern52",
        0.3 + 0.4 * uniform(R, d, seed=1),
        1.0 + uniform(R, seed=2),
        normal(R, seed=3),
        torch.full((R,), noise_variance, dtype=torch.float64),
    )


def posterior(R: int = 2, n: int = 6, d: int = 2) -> Posterior:
    return condition(prior(R, d), uniform(R, n, d, seed=4), normal(R, n, seed=5))


def given(R: int = 2, d: int = 2) -> Setting:
    """Six observations, and a discretisation of 12 points."""
    alpha = normal(R, 6, seed=5).max(1).values
    return setting(posterior(R, d=d), alpha, uniform(R, 12, d, seed=6))


def problem(name: str = "ei", points: int = 2, R: int = 2, d: int = 2, seed: int = 0) -> Problem:
    random = ReplicateSampler(seed, R, None, torch.device("cpu"), torch.float64)
    return Problem(ALL[name], given(R, d), points, points, d, random)


def search(**settings: Any) -> AcquisitionSearch:
    """`name` chooses the acquisition."""
    acquisition = ALL[settings.pop("name", "ei")]
    return AcquisitionSearch(**({"acquisition": acquisition} | METHOD | settings))


def module(data: Objective, method: AcquisitionSearch, fit: str = "fixed", **settings: Any) -> SearchModule:
    known: dict[str, Any] = {"lengthscale": 0.4, "variance": 1.0, "noise": None, "mean": 0.0}
    model = surrogate(data.space.dim, kernel="matern52", fit=fit, **known)
    return SearchModule(data=data, model=model, method=method, **(SETTINGS | settings))
