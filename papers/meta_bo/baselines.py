"""The baselines: a Gaussian process on the new function alone, and standardised values of all functions."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from common.base.errors import UserError
from common.numerics.linalg import cholesky
from common.search.searcher import Observations
from common.search.surrogate import Surrogate
from papers.meta_bo.gp import BoxGP, GPPosterior, Hyperparameters, fit, initial, kernel, stacked
from papers.meta_bo.searcher import BoxModel, MetaSearcher
from papers.meta_bo.transfer import TrainingFunctions


class Plain(MetaSearcher):
    """Bayesian optimization with a Gaussian process that sees the new function only.

    The surrogate is the model: an SE kernel, or a sum of them over groups of features. `model.fit=ml`: fitted
    in every round by marginal likelihood, from the model's values on; `model.fit=fixed`: these values.
    `model.mean=null`: a constant mean, fitted too. With no observation all arms are alike: the first one.
    N in zeta is that of the training functions, of which nothing else is used.
    """

    NAME: ClassVar = "plain"

    def learn(self, training: TrainingFunctions) -> None:
        self.hyper = initial(
            se_surrogate(self.task.surrogate, self.NAME), self.task.replicates, self.task.device
        )
        self.failed_fits = 0

    def predict_arms(self, seen: Observations) -> tuple[Tensor, Tensor]:
        space = self.task.objective.space
        assert space.features is not None
        hyper = stacked([self._hyperparameters(seen, r) for r in range(self.task.replicates)])
        everything = space.features.expand(self.task.replicates, -1, -1)
        return GPPosterior(space.inputs(seen.x), seen.y, hyper).predict(everything)

    def box_model(self, seen: Observations, r: int) -> BoxModel:
        own = slice(r, r + 1)
        return BoxGP(GPPosterior(seen.x[own], seen.y[own], self._hyperparameters(seen, r)))

    def _hyperparameters(self, seen: Observations, r: int) -> Hyperparameters:
        start, valid = self.hyper.row(r), seen.valid[r]
        if self.task.surrogate.fit == "fixed" or not valid.any():
            return start
        inputs = self.task.objective.space.inputs(seen.x[r, valid])
        found = fit(inputs, seen.y[r, valid], start, self.task.surrogate.mean is None)
        if found is None:
            self.failed_fits += 1
            self.tell("fit", "a fit by marginal likelihood failed: the model's own values stand in for it")
        return found or start

    def counts(self) -> dict[str, int]:
        return super().counts() | {"failed_fits": self.failed_fits}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"failed_fits": self.failed_fits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.failed_fits = state["failed_fits"]


def se_surrogate(surrogate: Surrogate, method: str) -> Surrogate:
    """The surrogate, if it is one that these methods can use.

    Raises:
        UserError: it has another kernel or fit.
    """
    if surrogate.kernel != "se":
        raise UserError(f"method={method}: model.kernel={surrogate.kernel} (valid: se)")
    if surrogate.fit == "map":
        raise UserError(f"method={method}: model.fit=map (valid: ml, fixed)")
    return surrogate


class Pooled:
    """Standardised training values of all functions at the m shared points, as they enter a Gaussian process.

    n values at one point with noise s^2 are as good as their mean with noise s^2 / n: so all N m pairs cost
    no more than m of them.

    Attributes:
        mean: [R, m]; count: how many functions have a value there, [R, m].
        largest: the largest standardised value of each replicate, [R].
    """

    def __init__(self, y: Tensor, kept: Tensor) -> None:
        standard = standardised_rows(y)
        here = kept.to(y.dtype)
        known = (~y.isnan()).to(y.dtype)
        self.count = here @ known
        self.mean = (here @ standard.nan_to_num(nan=0.0)) / self.count.clamp_min(1)
        top = standard.nan_to_num(nan=-torch.inf).max(1).values
        self.largest = torch.where(kept, top, -torch.inf).max(1).values


def standardised_rows(y: Tensor) -> Tensor:
    """Each function with mean 0 and standard deviation 1 over its known values; a constant one is 0.

    Values that are NaN or infinite are not known: NaN.
    """
    y = torch.where(y.isfinite(), y, torch.nan)
    mean = y.nanmean(1, keepdim=True)
    centred = y - mean
    spread = centred.square().nanmean(1, keepdim=True).sqrt()
    scale = spread > 1e-12 * y.abs().nan_to_num(nan=0.0).amax(1, keepdim=True)
    return torch.where(scale, centred / torch.where(scale, spread, 1.0), centred * 0)


def running_standard(seen: Observations) -> Tensor:
    """The new function's values standardised by their own mean and standard deviation so far, [R, t]."""
    return standardised_rows(seen.y) if seen.count else seen.y


class TLSM(MetaSearcher):
    """TLSM-BO (Yogatama and Mann 2014): a common response surface of standardised functions.

    Every training function is standardised, all its pairs (x, y) go into one Gaussian process with an SE
    kernel, and the new function's values are added, standardised by their mean and deviation so far. The
    surrogate's values are taken as they are (`model.fit=fixed`) or start a fit of lengthscale, variance and
    noise to the pooled means (`model.fit=ml`), once.
    """

    NAME: ClassVar = "tlsm"

    def learn(self, training: TrainingFunctions) -> None:
        R, device, y = self.task.replicates, self.task.device, training.y
        self.hyper = initial(se_surrogate(self.task.surrogate, self.NAME), R, device)
        kept = training.kept
        if kept is None:
            kept = torch.ones(R, len(y), dtype=torch.bool, device=device)
        self.pooled = Pooled(y, kept)
        features = self.task.objective.space.features
        x = features if training.x is None else training.x
        assert x is not None
        self.x = x
        if self.task.surrogate.fit == "ml":
            self.hyper = stacked([self._fitted(r) for r in range(R)])

    def _fitted(self, r: int) -> Hyperparameters:
        """Hyperparameters of the pooled means; the noise found is that of a mean, so times their count."""
        start, count = self.hyper.row(r), self.pooled.count[r].mean()
        found = fit(self.x, self.pooled.mean[r], start, constant_mean=False) or start
        return Hyperparameters(
            found.lengthscale, found.variance, found.noise * count, found.mean, found.parts
        )

    def pi_targets(self) -> Tensor:
        """In standardised units: the largest training value."""
        if self.pi_target == "oracle":
            raise UserError(
                f"method={self.NAME}: method.pi_target=oracle is in other units (valid: train_max)"
            )
        return self.pooled.largest

    def _posterior(self, seen: Observations, rows: slice) -> GPPosterior:
        new = self.task.objective.space.inputs(seen.x[rows])
        X = torch.cat([self.x.expand(len(new), -1, -1), new], 1)
        y = torch.cat([self.pooled.mean[rows], running_standard(seen)[rows]], 1)
        noise = self.hyper.noise[rows, None]
        count = torch.cat([self.pooled.count[rows], torch.ones_like(seen.y[rows])], 1)
        y = torch.where(count > 0, y, torch.nan)
        hyper = self.hyper
        own = Hyperparameters(
            hyper.lengthscale[rows], hyper.variance[rows], hyper.noise[rows], hyper.mean[rows], hyper.parts
        )
        return GPPosterior(X, y, own, noise / count.clamp_min(1))

    def predict_arms(self, seen: Observations) -> tuple[Tensor, Tensor]:
        features = self.task.objective.space.features
        assert features is not None
        every = slice(0, self.task.replicates)
        return self._posterior(seen, every).predict(features.expand(self.task.replicates, -1, -1))

    def box_model(self, seen: Observations, r: int) -> BoxModel:
        return BoxGP(self._posterior(seen, slice(r, r + 1)))


class TLSMUpstream(TLSM):
    """The baseline as the authors' code has it, with its errors: see README.md.

    Points are repeated element by element while values are flattened function by function; of the pairs
    only the first 1,000 are kept, so that (with 1,000 functions or more) all of them are values at the first
    point. The process is a sparse one (Titsias 2009) with 10 inducing points, drawn anew from all pairs in
    each round; its hyperparameters are those of the model. f* of PI is in the units of the function itself.
    """

    NAME: ClassVar = "tlsm_upstream"
    PAIRS: ClassVar = 1000
    INDUCING: ClassVar = 10

    def learn(self, training: TrainingFunctions) -> None:
        super().learn(training)
        y = standardised_rows(training.y).nan_to_num(nan=0.0)
        kept = training.kept
        rows = []
        for r in range(self.task.replicates):
            own = y if kept is None else y[kept[r]]
            rows.append(own.flatten()[: self.PAIRS])
        self.values = torch.stack(rows)
        functions = int(self.N[0])
        pairs = torch.arange(self.values.shape[1], device=self.values.device)
        self.points = self.x[pairs // functions]

    def pi_targets(self) -> Tensor:
        return MetaSearcher.pi_targets(self)

    def propose(self, seen: Observations, q: int) -> Tensor:
        self.order = self.task.random.uniform(len(self.points) + seen.count).argsort(1)[:, : self.INDUCING]
        return super().propose(seen, q)

    def sparse(self, seen: Observations, r: int) -> "SparsePosterior":
        """The sparse process of one replicate."""
        valid = seen.valid[r]
        new = self.task.objective.space.inputs(seen.x[r])
        X = torch.cat([self.points, new])
        y = torch.cat([self.values[r], running_standard(seen)[r]])
        held = torch.cat([torch.ones_like(self.values[r], dtype=torch.bool), valid])
        return SparsePosterior(X[held], y[held], X[self.order[r]], self.hyper.row(r))

    def predict_arms(self, seen: Observations) -> tuple[Tensor, Tensor]:
        features = self.task.objective.space.features
        assert features is not None
        found = [self.sparse(seen, r).predict(features) for r in range(self.task.replicates)]
        return torch.stack([mean for mean, _ in found]), torch.stack([variance for _, variance in found])

    def box_model(self, seen: Observations, r: int) -> BoxModel:
        return self.sparse(seen, r)


class SparsePosterior:
    """The variational sparse Gaussian process of Titsias (2009) at given inducing points Z.

        S = K_zz + K_zx K_xz / s^2,   mean(x) = K_xz S^-1 K_zx y / s^2,
        variance(x) = k(x, x) - K_xz (K_zz^-1 - S^-1) K_zx + s^2

    Args:
        X: [n, p]; y: [n]; Z: [z, p]; hyper: a batch of one, of mean 0.
    """

    def __init__(self, X: Tensor, y: Tensor, Z: Tensor, hyper: Hyperparameters) -> None:
        self.Z, self.hyper = Z, hyper
        noise = hyper.noise[0]
        Kzz = self._kernel(Z, Z)
        # inducing points may coincide
        self.L = cholesky(Kzz + 1e-6 * torch.eye(len(Z), dtype=Z.dtype, device=Z.device), "K_zz")
        A = torch.linalg.solve_triangular(self.L, self._kernel(Z, X), upper=False)
        B = torch.eye(len(Z), dtype=Z.dtype, device=Z.device) + A @ A.T / noise
        self.LB = cholesky(B, "I + A A' / s^2")
        self.weights = torch.cholesky_solve((A @ y)[:, None], self.LB)[:, 0] / noise

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return kernel(a[None], b[None], self.hyper)[0]

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, noise included, at [m, p]."""
        a = torch.linalg.solve_triangular(self.L, self._kernel(self.Z, x), upper=False)
        b = torch.linalg.solve_triangular(self.LB, a, upper=False)
        prior = self.hyper.variance[0].sum() + self.hyper.noise[0]
        return a.T @ self.weights, prior - a.square().sum(0) + b.square().sum(0)

    def gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both at one point [p]."""
        point = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            mean, variance = self.predict(point[None])
            slope = torch.autograd.grad(mean.sum(), point, retain_graph=True)[0]
            return slope, torch.autograd.grad(variance.sum(), point)[0]
