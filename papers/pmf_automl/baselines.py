"""What the paper compares with, or should have: a portfolio, factorisations, Oboe's design."""

from typing import ClassVar, Literal

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from common.base.limits import require
from papers.pmf_automl.recommender import Recommender, WarmStarted
from papers.pmf_automl.warm_start import Units

Array = np.ndarray


class Portfolio(Recommender):
    """The pipelines by their average rank over the training data sets, best first: one order for all.

    A pipeline's rank on a data set is its share among those observed there; one that is nowhere observed
    comes last.
    """

    NAME: ClassVar = "portfolio"

    def prepare(self) -> None:
        share = mean_shares(self.problem.scores.matrix.train)
        self.order = torch.from_numpy(np.argsort(-share, kind="stable").copy()).to(self.problem.device)

    def propose(self, r: int, x: Tensor, y: Tensor, free: Tensor) -> int:
        return int(self.order[free[self.order]][0])


def mean_shares(scores: Array) -> Array:
    """Of each pipeline the mean over data sets of its rank / number observed there, [N]; -inf without any."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0, nan_policy="omit") / np.maximum((~np.isnan(scores)).sum(0), 1)
    observed = (~np.isnan(ranks)).sum(1)
    return np.where(observed > 0, np.nansum(ranks, 1) / np.maximum(observed, 1), -np.inf)


def filled(scores: Array) -> tuple[Array, Array]:
    """Scores [N, D] with each missing entry its pipeline's mean, and those means [N]."""
    everything = np.nanmean(scores)
    observed = ~np.isnan(scores)
    count = observed.sum(1)
    mean = np.where(count > 0, np.nansum(scores, 1) / np.maximum(count, 1), everything)
    return np.where(observed, scores, mean[:, None]), mean


def pca_factors(scores: Array, rank: int) -> tuple[Array, Array]:
    """Factors U [N, Q] and means [N] with scores = means + U B, scaled so that B B' = D I."""
    full, mean = filled(scores)
    U, S, _ = np.linalg.svd(full - mean[:, None], full_matrices=False)
    return U[:, :rank] * S[:rank] / full.shape[1] ** 0.5, mean


def als_factors(scores: Array, rank: int, ridge: float, sweeps: int) -> tuple[Array, Array]:
    """As `pca_factors`, by alternating least squares on what is observed alone.

    Minimised in turn over U and B: sum over observed (y - mean - u'b)^2 + ridge (|U|^2 + |B|^2).
    """
    U, mean = pca_factors(scores, rank)
    observed = ~np.isnan(scores)
    rest = np.where(observed, scores - mean[:, None], 0.0)
    B = np.zeros((rank, scores.shape[1]))
    for _ in range(sweeps):
        B = _solve(U, observed, rest, ridge)
        U = _solve(B.T, observed.T, rest.T, ridge).T
    return U * np.sqrt((B**2).mean(1)), mean


def _solve(U: Array, observed: Array, rest: Array, ridge: float) -> Array:
    """Of each column the ridge regression [Q, D] of what is observed of it on the rows of U."""
    own = observed.T.astype(float)
    gram = np.einsum("dn,nq,np->dqp", own, U, U, optimize=True) + ridge * np.eye(U.shape[1])
    return np.asarray(np.linalg.solve(gram, (rest.T @ U)[..., None])[..., 0].T)


class Factorisation(WarmStarted):
    """Plain matrix factorisation: what is observed is regressed on the factors, the best prediction is next.

    b ~ N(0, I), y = mean + U b + noise: ridge regression with the variance of the noise that the
    factorisation leaves in the training matrix.

    Args:
        solver: `pca` (missing entries at their pipeline's mean) or `als` (what is observed alone).
        ridge, sweeps: of `als`.
        warm_start, neighbours, initial: see `WarmStarted`.
    """

    NAME: ClassVar = "factorisation"

    def __init__(
        self,
        *,
        solver: Literal["pca", "als"],
        ridge: float,
        sweeps: int,
        warm_start: Units | Literal["none"],
        neighbours: int,
        initial: int,
    ) -> None:
        super().__init__(warm_start=warm_start, neighbours=neighbours, initial=initial)
        require("positive", "method", ridge=ridge)
        require("at least 1", "method", sweeps=sweeps)
        self.solver, self.ridge, self.sweeps = solver, ridge, sweeps

    def prepare(self) -> None:
        super().prepare()
        scores = self.problem.scores.matrix.train
        rank = min(self.problem.model.latent_dim, *scores.shape)
        if self.solver == "pca":
            self.U, self.mean = pca_factors(scores, rank)
        else:
            self.U, self.mean = als_factors(scores, rank, self.ridge, self.sweeps)
        observed = ~np.isnan(scores)
        rest = np.where(observed, scores - self.mean[:, None], 0.0)
        left = np.where(observed, rest - self.U @ _solve(self.U, observed, rest, 1e-6), 0.0)
        self.noise = max(float((left**2).sum() / max(observed.sum(), 1)), 1e-8)

    def informed(self, r: int, x: Tensor, y: Tensor, free: Tensor) -> int:
        valid = y.isfinite().cpu().numpy()
        own, values = x.cpu().numpy()[valid], y.cpu().numpy()[valid]
        predicted = self.predict(own, values)
        return int(np.where(free.cpu().numpy(), predicted, -np.inf).argmax())

    def predict(self, own: Array, values: Array) -> Array:
        """The scores of all pipelines [N], from those of some."""
        U = self.U[own]
        gram = U.T @ U + self.noise * np.eye(U.shape[1])
        b = np.linalg.solve(gram, U.T @ (values - self.mean[own]))
        return np.asarray(self.mean + self.U @ b)


class Oboe(Recommender):
    """Oboe (Yang et al. 2019): factors of rank k, k pipelines by QR with pivoting, then the best predicted.

    The first k pipelines are those whose factors are as independent as can be (column-pivoted QR); the
    coordinates of the data set follow by least squares of what is observed.

    Args:
        rank: k; null: the least at which the singular values hold 99% of the energy, at most half of T.
    """

    NAME: ClassVar = "oboe"

    def __init__(self, *, rank: int | None) -> None:
        require("at least 1", "method", rank=rank)
        self.rank = rank

    def prepare(self) -> None:
        full, _ = filled(self.problem.scores.matrix.train)
        U, S, _ = np.linalg.svd(full, full_matrices=False)
        energy = np.cumsum(S**2) / (S**2).sum()
        enough = int(np.searchsorted(energy, 0.99)) + 1
        rank = self.rank or max(min(enough, self.problem.iterations // 2), 1)
        self.U = U[:, : min(rank, U.shape[1])] * S[: min(rank, U.shape[1])]
        order = scipy.linalg.qr(self.U.T, pivoting=True, mode="r")[1]
        self.design = [int(i) for i in order[: self.U.shape[1]]]

    def propose(self, r: int, x: Tensor, y: Tensor, free: Tensor) -> int:
        for pipeline in self.design[len(x) :]:
            if bool(free[pipeline]):
                return pipeline
        valid = y.isfinite().cpu().numpy()
        own, values = x.cpu().numpy()[valid], y.cpu().numpy()[valid]
        predicted = self.U @ np.linalg.lstsq(self.U[own], values, rcond=None)[0]
        return int(np.where(free.cpu().numpy(), predicted, -np.inf).argmax())
