"""PEM-BO (point estimate meta Bayesian optimization): the prior is estimated from training functions."""

from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from common.base.errors import UserError
from common.search.searcher import Observations
from papers.meta_bo.basis import CosineBasis, fit_weights, learned_cosines, random_cosines
from papers.meta_bo.completion import soft_impute
from papers.meta_bo.estimators import (
    ArmsPosterior,
    ArmsPrior,
    BasisPosterior,
    BasisPrior,
    Correction,
    correction_factor,
)
from papers.meta_bo.searcher import MetaSearcher, Shared, check_method
from papers.meta_bo.transfer import TrainingFunctions

# of the learned basis, as in the authors' code
LEARNING_RATE, BATCH, PATIENCE = 0.1, 32, 10


class BasisModel:
    """A posterior over weights as a model of points, its variance corrected by a factor."""

    def __init__(self, basis: CosineBasis, posterior: BasisPosterior, factor: float) -> None:
        self.basis, self.posterior, self.factor = basis, posterior, factor

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.posterior.predict(self.basis(x))
        return mean, self.factor * variance

    def gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.posterior.gradients(self.basis(x), self.basis.slopes(x))
        return mean, self.factor * variance


class PEMBO(MetaSearcher):
    """Algorithm 1 with the estimators of `papers.meta_bo.estimators`.

    Args:
        correction: of the variance, `once` or `recursive` (the authors' code over arms).
        completion: `soft_impute` for missing training values; `refuse`: they are an error.
        basis: of a box: `cosine`, random ones; `learned`, a net's hidden layer.
        features: K; basis_seed: of the basis.
        lengthscale: of random cosines.
        basis_epochs: at most, of the net's training.
        ridge: of the weights; jitter: of the covariance of observations.
        shared: see `MetaSearcher`.

    Raises:
        UserError: a value out of range; see also `MetaSearcher`.
    """

    NAME: ClassVar = "pem_bo"

    def __init__(
        self,
        *,
        correction: Correction,
        completion: Literal["soft_impute", "refuse"],
        basis: Literal["cosine", "learned"],
        features: int,
        basis_seed: int,
        lengthscale: float,
        basis_epochs: int,
        ridge: float,
        jitter: float,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(**shared)
        check_method("features", features, features >= 1, "at least 1")
        check_method("lengthscale", lengthscale, lengthscale > 0, "a number > 0")
        check_method("basis_epochs", basis_epochs, basis_epochs >= 1, "at least 1")
        check_method("ridge", ridge, ridge >= 0, "a number >= 0")
        check_method("jitter", jitter, jitter >= 0, "a number >= 0")
        self.correction, self.completion = correction, completion
        self.basis_kind, self.features, self.basis_seed = basis, features, basis_seed
        self.lengthscale, self.basis_epochs = lengthscale, basis_epochs
        self.ridge, self.jitter = ridge, jitter
        self.singular_seen = 0

    def learn(self, training: TrainingFunctions) -> None:
        if training.x is not None:
            self._learn_basis(training.x, self._complete(training.y))
            return
        kept = training.kept
        if kept is None:
            kept = torch.ones(self.task.replicates, len(training.y), dtype=torch.bool, device=self.N.device)
        prior = ArmsPrior(self._completed_arms(training.y, kept), kept)
        flat = prior.constant.sum(1)
        if flat.any():
            self.tell(
                "constant",
                f"{int(flat.max())} of {prior.mean.shape[1]} arms are the same in all "
                "training functions: their observations are kept, but say nothing of other arms",
            )
        self.arms_posterior = ArmsPosterior(prior)
        self.absorbed = 0

    def _completed_arms(self, y: Tensor, kept: Tensor) -> Tensor:
        """y, or of each replicate its own functions completed without the others, [R, N, M]."""
        if not y.isnan().any():
            return y
        completed = y.nan_to_num(nan=0.0).repeat(len(kept), 1, 1)
        same = bool((kept == kept[:1]).all())
        for r in range(1 if same else len(kept)):
            completed[r, kept[r]] = self._complete(y[kept[r]])
        return completed[0] if same else completed

    def _complete(self, y: Tensor) -> Tensor:
        if self.completion == "refuse" and y.isnan().any():
            raise UserError(
                f"method.completion=refuse: {int(y.isnan().sum())} training values are missing "
                "(valid: soft_impute, or dataset.missing=0.0)"
            )
        return soft_impute(y)

    def _learn_basis(self, x: Tensor, y: Tensor) -> None:
        dim = x.shape[1]
        if self.task.evaluations > self.features:
            raise UserError(
                f"method.features={self.features}; valid: at least paper.evaluations={self.task.evaluations}"
            )
        if self.basis_kind == "learned":
            self.basis = learned_cosines(
                x,
                y,
                features=self.features,
                epochs=self.basis_epochs,
                lr=LEARNING_RATE,
                batch=BATCH,
                patience=PATIENCE,
                seed=self.basis_seed,
            )
        else:
            self.basis = random_cosines(self.features, dim, self.lengthscale, self.basis_seed).to(x.device)
        self.basis_prior = BasisPrior(fit_weights(self.basis(x), y, self.ridge))

    def predict_arms(self, seen: Observations) -> tuple[Tensor, Tensor]:
        """Absorb what is new, one observation after the other: a resumed search does the same sums."""
        posterior = self.arms_posterior
        for t in range(self.absorbed, seen.count):
            posterior.observe(seen.x[:, t, 0].long(), seen.y[:, t])
            if posterior.singular.any():
                self.tell(
                    "singular",
                    f"K[I, I] is singular after {t + 1} observations (more than the training functions vary "
                    "in, or an arm twice): its pseudo-inverse is used, no observation is lost",
                )
        self.absorbed = seen.count
        self.singular_seen = int(posterior.singular.sum())
        factor = correction_factor(posterior.count, self.N, self.correction)
        return posterior.mean, factor[:, None] * posterior.variance

    def box_model(self, seen: Observations, r: int) -> BasisModel:
        valid = seen.valid[r]
        features = self.basis(seen.x[r, valid])
        posterior = self.basis_prior.posterior(features, seen.y[r, valid], self.jitter)
        factor = correction_factor(valid.sum(), self.N[r], self.correction)
        return BasisModel(self.basis, posterior, float(factor))

    def counts(self) -> dict[str, int]:
        return super().counts() | {"singular_replicates": self.singular_seen}
