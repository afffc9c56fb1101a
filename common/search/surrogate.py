"""The Gaussian process prior by which a searcher models the objective: config, no computation."""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from common.base.errors import UserError

Kernel = Literal["se", "matern52", "laplace", "modified_matern_2", "modified_matern_3", "modified_matern_4"]
Groups = Literal["full", "one_dim", "chain"]
Fit = Literal["fixed", "map", "ml", "standardised"]


class Surrogate:
    """A Gaussian process prior f ~ GP(mean, variance k), k a mean or a sum over groups of coordinates.

    Args:
        shape: (d,); classes: None.
        kernel: its form.
        lengthscale: one for all coordinates, or d of them; null: what the objective says.
        variance: of f; null: what the objective says.
        noise: standard deviation of observations; null: what the objective says.
        mean: of f; null: what the objective says.
        groups: the coordinates of the parts of an additive k: `full` (one part), `one_dim` (d parts), `chain`
            ({1, 2}, {2, 3}, ...) or a list of lists of numbers 0, ..., d - 1.
        scale_groups: `mean`: k = (1/G) sum k_j; `sum`: k = sum k_j.
        fit: `fixed`: the values above throughout; `map`, `ml`: they start a fit in each round;
            `standardised`: nothing is known: values are standardised, and mean, noise and lengthscales are
            fitted in each round by priors that suit any function (the values above must be null).

    Attributes:
        parts: the coordinates of each group.

    Raises:
        UserError: a value out of range.
    """

    task: ClassVar[Literal["surrogate"]] = "surrogate"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        kernel: Kernel,
        lengthscale: float | Sequence[float] | None,
        variance: float | None,
        noise: float | None,
        mean: float | None,
        groups: Groups | Sequence[Sequence[int]],
        scale_groups: Literal["mean", "sum"],
        fit: Fit,
    ) -> None:
        if classes is not None or len(shape) != 1:
            raise UserError("model: a surrogate models an objective; valid: dataset=<an objective>")
        scales = lengthscale if isinstance(lengthscale, Sequence) else [lengthscale]
        for scale in scales:
            _check("lengthscale", scale, scale is None or (math.isfinite(scale) and scale > 0))
        _check("variance", variance, variance is None or (math.isfinite(variance) and variance > 0))
        _check("noise", noise, noise is None or (math.isfinite(noise) and noise >= 0))
        given = {"lengthscale": lengthscale, "variance": variance, "noise": noise, "mean": mean}
        if fit == "standardised" and (known := [name for name, value in given.items() if value is not None]):
            raise UserError(
                f"model.{known[0]}={given[known[0]]}: model.fit=standardised fits it (valid: null)"
            )
        if isinstance(lengthscale, Sequence) and len(lengthscale) != shape[0]:
            raise UserError(f"model.lengthscale has {len(lengthscale)} numbers; valid: one, or {shape[0]}")
        self.dim = shape[0]
        self.kernel, self.lengthscale, self.variance, self.noise = kernel, lengthscale, variance, noise
        self.mean, self.scale_groups, self.fit = mean, scale_groups, fit
        self.parts = _parts(groups, self.dim)


def _parts(groups: Groups | Sequence[Sequence[int]], dim: int) -> list[list[int]]:
    if groups == "full":
        return [list(range(dim))]
    if groups == "one_dim":
        return [[i] for i in range(dim)]
    if groups == "chain":
        return [[i, i + 1] for i in range(dim - 1)] if dim > 1 else [[0]]
    parts = [] if isinstance(groups, str) else [list(part) for part in groups]
    if not parts or any(not part or any(not 0 <= i < dim for i in part) for part in parts):
        raise UserError(
            f"model.groups={groups}; valid: full, one_dim, chain, or lists of numbers 0 to {dim - 1}"
        )
    return parts


def _check(key: str, value: object, valid: bool) -> None:
    if not valid:
        raise UserError(f"model.{key}={value}; valid: a finite number > 0, or null for the objective's own")
