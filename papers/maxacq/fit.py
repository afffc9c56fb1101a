"""Hyperparameters of the surrogate: as given, or by a MAP (or ML) fit of each replicate in each round."""

import warnings
from typing import Any

import gpytorch
import torch
from botorch.models import SingleTaskGP
from botorch.optim.fit import fit_gpytorch_mll_scipy
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel, MaternKernel, RBFKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import HorseshoePrior, LogNormalPrior
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from papers.maxacq.posterior import Prior

# in units of the cube, of f, and of f^2
LENGTHSCALES = (0.01, 2.0)
AMPLITUDES = (1e-3, 1e4)
NOISES = (1e-8, 1.0)
INITIAL_NOISE = 0.01
HORSESHOE = 0.1


def fit(prior: Prior, x: Tensor, y: Tensor, with_priors: bool) -> Prior:
    """The prior with lengthscales, variance and noise variance fitted to y [R, n] at x [R, n, d] in [0, 1]^d.

    L-BFGS-B from the values of `prior` (noise variance 0.01), one replicate after the other, so that none
    depends on the others. Lengthscales are in [0.01, 2]; the amplitude, the root of the variance, in
    [1e-3, 1e4], with a log-normal(0, 1) prior; the noise variance at most 1, with a horseshoe(0.1) prior.
    The mean stays. Values of y that are not finite are left out; without any, or where the covariance becomes
    singular on the way, the initial values stay.

    Args:
        with_priors: MAP; without, maximum likelihood in the same box.
    """
    found = [_fit_one(_of(prior, r), x[r], y[r], with_priors) for r in range(len(y))]
    return Prior(
        prior.kernel,
        torch.stack([one.lengthscale for one in found]),
        torch.stack([one.variance for one in found]),
        prior.mean,
        torch.stack([one.noise_variance for one in found]),
    )


def _of(prior: Prior, r: int) -> Prior:
    """Of replicate r, without the batch dimension."""
    return Prior(
        prior.kernel, prior.lengthscale[r], prior.variance[r], prior.mean[r], prior.noise_variance[r]
    )


def _fit_one(prior: Prior, x: Tensor, y: Tensor, with_priors: bool) -> Prior:
    valid = y.isfinite()
    if not bool(valid.any()):
        return prior
    model = _model(prior, x[valid], y[valid], with_priors)
    before = _values(model)
    try:
        with warnings.catch_warnings(), gpytorch.settings.max_cholesky_size(10**6):
            # an abnormal end of the line search leaves the best values so far
            warnings.simplefilter("ignore")
            fit_gpytorch_mll_scipy(ExactMarginalLogLikelihood(model.likelihood, model))
    except (NanError, NotPSDError):
        found = before
    else:
        found = _values(model)
        found = found if all(bool(value.isfinite().all()) for value in found) else before
    return Prior(prior.kernel, found[0], found[1], prior.mean, found[2])


def _values(model: SingleTaskGP) -> tuple[Tensor, Tensor, Tensor]:
    """Lengthscales [d], variance and noise variance."""
    kernel: Any = model.covar_module
    found = kernel.base_kernel.lengthscale[0], kernel.outputscale, model.likelihood.noise[0]
    lengthscale, variance, noise = (value.detach().clone() for value in found)
    return lengthscale, variance, noise


def _model(prior: Prior, x: Tensor, y: Tensor, with_priors: bool) -> SingleTaskGP:
    """BoTorch's model with the constraints and priors of the authors' code, at its initial values."""
    base = _base(prior.kernel, x.shape[1])
    amplitudes = Interval(AMPLITUDES[0] ** 2, AMPLITUDES[1] ** 2)
    kernel = ScaleKernel(base, outputscale_constraint=amplitudes)
    likelihood = GaussianLikelihood(noise_constraint=Interval(*NOISES))
    if with_priors:
        kernel.register_prior("amplitude_prior", LogNormalPrior(0.0, 1.0), lambda m: m.outputscale.sqrt())
        likelihood.noise_covar.register_prior("noise_prior", HorseshoePrior(HORSESHOE), lambda m: m.noise)
    model = SingleTaskGP(
        x, y[:, None] - prior.mean, likelihood=likelihood, covar_module=kernel, outcome_transform=None
    ).to(x)
    # the mean is known
    model.mean_module.constant.data.zero_()
    model.mean_module.constant.requires_grad_(False)
    base.lengthscale = prior.lengthscale.clamp(1.001 * LENGTHSCALES[0], 0.999 * LENGTHSCALES[1])
    kernel.outputscale = prior.variance
    likelihood.noise = torch.full((1,), INITIAL_NOISE).to(x)
    return model


def _base(kernel: str, dim: int) -> Kernel:
    lengthscales = Interval(*LENGTHSCALES)
    if kernel == "matern52":
        return MaternKernel(2.5, ard_num_dims=dim, lengthscale_constraint=lengthscales)
    return RBFKernel(ard_num_dims=dim, lengthscale_constraint=lengthscales)
