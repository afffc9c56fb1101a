"""Small searches with training functions."""

from typing import Any

from torch import Tensor

from common.base.objective import Objective
from common.search.searcher import Searcher
from common.search.surrogate import Surrogate
from papers.meta_bo.gp_family import GP2d, GPArms
from papers.meta_bo.module import MetaBOModule
from papers.meta_bo.pem_bo import PEMBO

COMMON: dict[str, Any] = {
    "acquisition": "ucb", "zeta": "paper", "delta": 0.01, "zeta_fallback": "numerator_only",
    "pi_target": "train_max", "candidates": 50,
}  # fmt: skip
PEM: dict[str, Any] = COMMON | {
    "correction": "once", "completion": "soft_impute", "basis": "cosine", "features": 40, "basis_seed": 0,
    "lengthscale": 1.0, "basis_epochs": 2, "ridge": 1e-5, "jitter": 1e-5,
}  # fmt: skip
RUN: dict[str, Any] = {
    "seed": 0, "evaluations": 8, "initial": 0, "design": "uniform", "batch": 1, "repeats": 3, "workers": 1,
}  # fmt: skip


def pem(**given: Any) -> PEMBO:
    return PEMBO(**(PEM | given))


def arms(**given: Any) -> GPArms:
    settings = {
        "kind": "objective", "arms": 15, "functions": 50, "lengthscale": 0.2, "noise": 0.1, "portion": 1.0,
        "missing": 0.0,
    }  # fmt: skip
    return GPArms(**(settings | given))


def plane(**given: Any) -> GP2d:
    settings = {
        "kind": "objective", "features": 60, "functions": 50, "points": 80, "noise": 0.01, "portion": 1.0,
        "missing": 0.0,
    }  # fmt: skip
    return GP2d(**(settings | given))


def surrogate(data: Objective, **given: Any) -> Surrogate:
    settings = {
        "shape": data.shape, "classes": None, "kernel": "se", "lengthscale": 0.3, "variance": 1.0,
        "noise": 0.1, "mean": 0.0, "groups": "full", "scale_groups": "sum", "fit": "fixed",
    }  # fmt: skip
    return Surrogate(**(settings | given))


def module(
    data: Objective, method: Searcher, model: dict[str, Any] | None = None, **given: Any
) -> MetaBOModule:
    return MetaBOModule(data=data, model=surrogate(data, **(model or {})), method=method, **(RUN | given))


class Broken(GPArms):
    """An evaluation of arm 3 gives NaN."""

    NAME = "broken"

    def values(self, x: Tensor) -> Tensor:
        return super().values(x).masked_fill(x[..., 0] == 3, float("nan"))


def broken() -> Broken:
    whole = arms()
    return Broken(
        kind="objective",
        arms=15,
        functions=50,
        lengthscale=whole.lengthscale,
        noise=0.1,
        portion=1.0,
        missing=0.0,
    )
