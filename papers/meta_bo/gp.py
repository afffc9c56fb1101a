"""Exact Gaussian processes of the baselines: a batch of R posteriors, and fits by marginal likelihood."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.numerics.linalg import cholesky
from common.search.surrogate import Surrogate

# of a fit: L-BFGS iterations, and the least variance of noise
FIT_ITERATIONS, LEAST_NOISE = 200, 1e-6


@dataclass(frozen=True)
class Hyperparameters:
    """Of k(x, x') = sum_j variance_j exp(-|x_j - x'_j|^2 / (2 lengthscale_j^2)), x_j coordinates of part j.

    Attributes:
        lengthscale, variance: [R, P].
        noise: variance of observations, [R].
        mean: [R].
        parts: the coordinates of each of the P parts.
    """

    lengthscale: Tensor
    variance: Tensor
    noise: Tensor
    mean: Tensor
    parts: Sequence[Sequence[int]]

    def row(self, r: int) -> "Hyperparameters":
        """Those of one replicate, as a batch of one."""
        own = slice(r, r + 1)
        return Hyperparameters(
            self.lengthscale[own], self.variance[own], self.noise[own], self.mean[own], self.parts
        )


def initial(surrogate: Surrogate, replicates: int, device: torch.device) -> Hyperparameters:
    """The surrogate's own values; what it leaves open is 1 (lengthscale, variance, noise) or 0 (mean)."""
    parts = surrogate.parts
    scale = surrogate.lengthscale
    scales = (
        [1.0 if scale is None else float(scale)] * len(parts) if not isinstance(scale, Sequence) else scale
    )
    variance = 1.0 if surrogate.variance is None else surrogate.variance
    noise = 1.0 if surrogate.noise is None else surrogate.noise

    def full(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device).expand(replicates, -1).clone()

    share = len(parts) if surrogate.scale_groups == "mean" else 1
    return Hyperparameters(
        full(scales),
        full([variance / share] * len(parts)),
        full([noise**2])[:, 0],
        full([surrogate.mean or 0.0])[:, 0],
        parts,
    )


def kernel(a: Tensor, b: Tensor, hyper: Hyperparameters) -> Tensor:
    """k of inputs [R, n, p] and [R, m, p]: [R, n, m]."""
    total = torch.zeros((), dtype=a.dtype, device=a.device)
    for j, part in enumerate(hyper.parts):
        squares = torch.cdist(a[..., part], b[..., part]).square()
        scale = 2 * hyper.lengthscale[:, j, None, None].square()
        total = total + hyper.variance[:, j, None, None] * torch.exp(-squares / scale)
    return total


class GPPosterior:
    """R posteriors given n observations each, which include noise in their variance as the authors' do.

    Args:
        X: inputs, [R, n, p]; y: values, [R, n]; NaN for those that failed, which are left out.
        hyper: kernel, noise, mean.
        noise: variance of each observation, [R, n]; None: hyper.noise for all.

    Raises:
        UserError: the covariance is singular beyond repair.
    """

    def __init__(self, X: Tensor, y: Tensor, hyper: Hyperparameters, noise: Tensor | None = None) -> None:
        self.X, self.hyper = X, hyper
        self.valid = y.isfinite()
        if noise is None:
            noise = hyper.noise[:, None].expand_as(y)
        both = self.valid[:, :, None] & self.valid[:, None]
        K = torch.where(both, kernel(X, X, hyper), 0.0) + torch.diag_embed(
            torch.where(self.valid, noise, 1.0)
        )
        self.L = cholesky(K, "the covariance of the Gaussian process") if y.shape[1] else K
        residual = torch.where(self.valid, y - hyper.mean[:, None], 0.0)
        self.alpha = torch.cholesky_solve(residual[..., None], self.L) if y.shape[1] else residual[..., None]

    def _cross(self, x: Tensor) -> Tensor:
        return torch.where(self.valid[:, None], kernel(x, self.X, self.hyper), 0.0)

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, noise included, at inputs [R, m, p]: [R, m] each."""
        hyper = self.hyper
        prior = (hyper.variance.sum(1) + hyper.noise)[:, None].expand(-1, x.shape[1])
        mean = hyper.mean[:, None].expand(-1, x.shape[1])
        if self.X.shape[1] == 0:
            return mean, prior
        cross = self._cross(x)
        white = torch.linalg.solve_triangular(self.L, cross.mT, upper=False)
        return mean + (cross @ self.alpha)[..., 0], prior - white.square().sum(1)

    def gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of both of a batch of one at one input [p]: [p] each."""
        if self.X.shape[1] == 0:
            return torch.zeros_like(x), torch.zeros_like(x)
        cross = self._cross(x[None, None])
        slopes = torch.zeros_like(self.X[0])
        for j, part in enumerate(self.hyper.parts):
            own = Hyperparameters(
                self.hyper.lengthscale[:, j : j + 1],
                self.hyper.variance[:, j : j + 1],
                self.hyper.noise,
                self.hyper.mean,
                [part],
            )
            k = kernel(x[None, None], self.X, own)[0, 0] * self.valid[0]
            slopes[:, part] += k[:, None] * (self.X[0][:, part] - x[part]) / own.lengthscale[0, 0] ** 2
        solved = torch.cholesky_solve(cross.mT, self.L)[0, :, 0]
        return slopes.T @ self.alpha[0, :, 0], -2 * slopes.T @ solved


class BoxGP:
    """A posterior of one replicate as a model of points in a box."""

    def __init__(self, posterior: GPPosterior) -> None:
        self.posterior = posterior

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.posterior.predict(x[None])
        return mean[0], variance[0].clamp_min(0)

    def gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.posterior.gradients(x)


def fit(X: Tensor, y: Tensor, start: Hyperparameters, constant_mean: bool) -> Hyperparameters | None:
    """Maximise the marginal likelihood of one data set by BoTorch, from `start` (a batch of one) on.

    Args:
        X: [n, p]; y: finite, [n].
        constant_mean: whether the mean is fitted too; otherwise it is start's.

    Returns:
        A batch of one; None where the fit failed.
    """
    from botorch.exceptions.errors import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan
    from gpytorch.kernels import AdditiveKernel, RBFKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.means import ConstantMean, ZeroMean
    from gpytorch.mlls import ExactMarginalLogLikelihood

    # a few points: the CPU is the faster place for them
    device, X, y = X.device, X.cpu(), y.cpu()
    kernels = []
    for j, part in enumerate(start.parts):
        own = ScaleKernel(RBFKernel(active_dims=tuple(part))).double()
        own.outputscale, own.base_kernel.lengthscale = (
            float(start.variance[0, j]),
            float(start.lengthscale[0, j]),
        )
        kernels.append(own)
    likelihood = GaussianLikelihood(noise_constraint=GreaterThan(LEAST_NOISE)).double()
    likelihood.noise = max(float(start.noise[0]), 2 * LEAST_NOISE)
    mean = (ConstantMean() if constant_mean else ZeroMean()).double()
    offset = 0.0 if constant_mean else float(start.mean[0])
    with warnings.catch_warnings():
        # about inputs that are not in the unit cube, and fits that stopped at their last iteration
        warnings.simplefilter("ignore")
        model = SingleTaskGP(
            X,
            (y - offset)[:, None],
            likelihood=likelihood,
            covar_module=kernels[0] if len(kernels) == 1 else AdditiveKernel(*kernels),
            mean_module=mean,
            outcome_transform=None,
        )
        try:
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(likelihood, model),
                optimizer_kwargs={"options": {"maxiter": FIT_ITERATIONS}},
            )
        except (ModelFittingError, RuntimeError):
            return None
    with torch.no_grad():
        found = Hyperparameters(
            torch.stack([own.base_kernel.lengthscale.reshape(()) for own in kernels])[None].to(device),
            torch.stack([own.outputscale.reshape(()) for own in kernels])[None].to(device),
            likelihood.noise.reshape(1).to(device),
            mean.constant.reshape(1).to(device) if constant_mean else start.mean,
            start.parts,
        )
    values = (found.lengthscale, found.variance, found.noise, found.mean)
    return found if all(bool(value.isfinite().all()) for value in values) else None


def stacked(rows: Sequence[Hyperparameters]) -> Hyperparameters:
    """One batch of many batches of one."""
    return Hyperparameters(
        lengthscale=torch.cat([row.lengthscale for row in rows]),
        variance=torch.cat([row.variance for row in rows]),
        noise=torch.cat([row.noise for row in rows]),
        mean=torch.cat([row.mean for row in rows]),
        parts=rows[0].parts,
    )
