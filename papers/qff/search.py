"""Additive Bayesian optimisation as searchers: Thompson sampling and UCB, on Fourier features or exactly."""

import math
from abc import abstractmethod
from typing import ClassVar, Literal, TypedDict, Unpack, cast

import torch
from torch import Tensor

from common.base.errors import UserError
from common.search.searcher import Observations, Searcher
from papers.qff.additive import AdditiveModel, ExactModel, FourierModel, Prior
from papers.qff.error import LARGE, advice
from papers.qff.features import QFF, FeatureFamily
from papers.qff.maximise import Box, GroupFunction, maximise, structure_of
from papers.qff.quadrature import POWERS, SpectralKernel

# without noise: rho as a fraction of the standard deviation of f, so that repeated points do no harm
LEAST_NOISE = 1e-4


class OptimisticSettings(TypedDict):
    """Keys of `OptimisticSearch`."""

    beta: float | Literal["theory"]
    bound: float
    delta: float
    grid: int
    grid_2d: int


class AdditiveSearch(Searcher):
    """Bayesian optimisation of an additive function with fixed hyperparameters.

    Args:
        grid, grid_2d: points of the grid of a group of one coordinate; on each axis of a group of two.
    """

    def __init__(self, *, grid: int, grid_2d: int) -> None:
        _check("grid", grid, grid >= 2, "at least 2")
        _check("grid_2d", grid_2d, grid_2d >= 2, "at least 2")
        self.grid, self.grid_2d = grid, grid_2d

    @abstractmethod
    def make_model(self, prior: Prior, box: Box) -> AdditiveModel:
        """The model of f before anything is seen."""

    @abstractmethod
    def functions(self) -> list[GroupFunction]:
        """What the next point maximises."""

    def prepare(self) -> None:
        space, surrogate = self.task.objective.space, self.task.surrogate
        if space.arms is not None:
            raise UserError(
                f"dataset={self.task.objective.NAME} is a list of arms; method={self.NAME} searches a box "
                "(valid: method=search/random)"
            )
        if surrogate.fit != "fixed":
            raise UserError(
                f"model.fit={surrogate.fit}: method={self.NAME} keeps its hyperparameters (valid: fixed)"
            )
        self.structure = structure_of(surrogate.parts)
        self.box = Box(space.lower, space.upper)
        self.mean = self._known("mean")
        self.model = self.make_model(self._prior(), self.box)
        self.count = 0

    def _prior(self) -> Prior:
        surrogate, device = self.task.surrogate, self.task.device
        gamma = surrogate.lengthscale if surrogate.lengthscale is not None else self._known("lengthscale")
        lengthscale = torch.as_tensor(gamma, dtype=torch.float64, device=device).expand(surrogate.dim)
        kernel, lengthscale = spectral(surrogate.kernel, lengthscale, max(len(g) for g in surrogate.parts))
        variance = self._known("variance")
        amplitude = variance / len(surrogate.parts) if surrogate.scale_groups == "mean" else variance
        noise = max(self._known("noise"), LEAST_NOISE * variance**0.5)
        return Prior(surrogate.parts, kernel, lengthscale, amplitude, noise)

    def _known(self, name: str) -> float:
        """A hyperparameter: the surrogate's, or the objective's own."""
        given = getattr(self.task.surrogate, name)
        found = given if given is not None else getattr(self.task.objective, name, None)
        if found is None:
            raise UserError(
                f"model.{name}=null: dataset={self.task.objective.NAME} says none of its own; valid: a number"
            )
        return cast(float, found)

    def propose(self, seen: Observations, q: int) -> Tensor:
        self._catch_up(seen)
        start = seen.best() if seen.count else self._centre()
        points = [maximise(self.functions(), self.structure, self.box, start) for _ in range(q)]
        return torch.stack(points, 1)

    def _catch_up(self, seen: Observations) -> None:
        """One by one, so that a search that goes on has the very numbers of one that was never stopped."""
        for t in range(self.count, seen.count):
            self.model.observe(seen.x[:, t], seen.y[:, t] - self.mean)
        self.count = seen.count

    def _centre(self) -> Tensor:
        return ((self.box.lower + self.box.upper) / 2).repeat(self.task.replicates, 1)


class FourierThompson(AdditiveSearch):
    """Thompson sampling on Fourier features (the paper's algorithm, with `QFF`).

    Args:
        features: how they are made.
        grid, grid_2d: see `AdditiveSearch`.
    """

    NAME: ClassVar = "fourier_ts"

    def __init__(self, *, features: FeatureFamily, grid: int, grid_2d: int) -> None:
        super().__init__(grid=grid, grid_2d=grid_2d)
        self.features = features

    def make_model(self, prior: Prior, box: Box) -> FourierModel:
        return fourier_model(self, self.features, prior, box, spread=False)

    def functions(self) -> list[GroupFunction]:
        """A draw of f."""
        return self.model.thompson(self.task.random)


class ExactThompson(AdditiveSearch):
    """Thompson sampling with the exact Gaussian process."""

    NAME: ClassVar = "exact_gp_ts"

    def make_model(self, prior: Prior, box: Box) -> ExactModel:
        return exact_model(self, prior, box, spread=False)

    def functions(self) -> list[GroupFunction]:
        """A draw of f."""
        return self.model.thompson(self.task.random)


class OptimisticSearch(AdditiveSearch):
    """Additive GP-UCB: sum_j mu_j + sqrt(beta) sigma_j, one point a round.

    Args:
        beta: a number, or `theory`: bound rho^2 + log |I + K / rho^2| + 2 log(1 / delta).
        bound, delta: of `theory`: of the squared norm of f, and the probability to be wrong.
        grid, grid_2d: see `AdditiveSearch`.
    """

    def __init__(
        self, *, beta: float | Literal["theory"], bound: float, delta: float, grid: int, grid_2d: int
    ) -> None:
        super().__init__(grid=grid, grid_2d=grid_2d)
        valid = beta == "theory" or (not isinstance(beta, str) and math.isfinite(beta) and beta >= 0)
        _check("beta", beta, valid, "a number >= 0, or theory")
        _check("bound", bound, bound >= 0, ">= 0")
        _check("delta", delta, 0 < delta < 1, "between 0 and 1")
        self.beta, self.bound, self.delta = beta, bound, delta

    def propose(self, seen: Observations, q: int) -> Tensor:
        if q > 1:
            raise UserError(
                f"paper.batch={q}: UCB proposes one point a round (valid: 1, or Thompson sampling)"
            )
        return super().propose(seen, q)

    def functions(self) -> list[GroupFunction]:
        """The upper confidence bounds of the groups."""
        return self.model.optimistic(self._beta())

    def _beta(self) -> Tensor:
        """[R]."""
        information = self.model.information
        if not isinstance(self.beta, str):
            return torch.full_like(information, self.beta)
        return self.bound * self.model.prior.noise**2 + information - 2.0 * math.log(self.delta)


class FourierUCB(OptimisticSearch):
    """UCB on Fourier features.

    Args:
        features: how they are made.
        settings: of `OptimisticSearch`.
    """

    NAME: ClassVar = "fourier_ucb"

    def __init__(self, *, features: FeatureFamily, **settings: Unpack[OptimisticSettings]) -> None:
        super().__init__(**settings)
        self.features = features

    def make_model(self, prior: Prior, box: Box) -> FourierModel:
        return fourier_model(self, self.features, prior, box, spread=True)


class ExactUCB(OptimisticSearch):
    """UCB with the exact Gaussian process."""

    NAME: ClassVar = "exact_gp_ucb"

    def make_model(self, prior: Prior, box: Box) -> ExactModel:
        return exact_model(self, prior, box, spread=True)


def fourier_model(
    search: AdditiveSearch, features: FeatureFamily, prior: Prior, box: Box, *, spread: bool
) -> FourierModel:
    """The feature model of a search; says so where quadrature does not resolve the kernel in the box."""
    task, options = search.task, {"grid": search.grid, "grid_2d": search.grid_2d}
    model = FourierModel(
        prior, box, task.replicates, family=features, random=task.random, spread=spread, **options
    )
    if isinstance(features, QFF) and model.kernel_error > LARGE:
        width = (box.upper - box.lower)[None]
        said = advice(features, prior.kernel, prior.lengthscale[None], width, model.kernel_error)
        print(f"[{search.NAME}] {said}")
    return model


def exact_model(search: AdditiveSearch, prior: Prior, box: Box, *, spread: bool) -> ExactModel:
    """The exact model of a search."""
    options = {"grid": search.grid, "grid_2d": search.grid_2d}
    return ExactModel(prior, box, search.task.replicates, spread=spread, **options)


def spectral(kernel: str, lengthscale: Tensor, size: int) -> tuple[SpectralKernel, Tensor]:
    """The kernel with a product spectral density that a surrogate's kernel is, and its lengthscales.

    Matern-5/2 with lengthscale l is the modified Matern kernel nu = 3 with l / sqrt(5), in one dimension.

    Args:
        size: coordinates of the largest group.

    Raises:
        UserError: the kernel is no such product.
    """
    if kernel == "se" or kernel in POWERS:
        return cast(SpectralKernel, kernel), lengthscale
    if kernel == "matern52" and size == 1:
        return "modified_matern_3", lengthscale / 5.0**0.5
    raise UserError(
        f"model.kernel={kernel} with groups of {size} coordinates is no product over coordinates; valid: se, "
        f"{', '.join(POWERS)}, and matern52 with model.groups=one_dim"
    )


def _check(key: str, value: object, valid: bool, what: str) -> None:
    if not valid:
        raise UserError(f"method.{key}={value}; valid: {what}")
