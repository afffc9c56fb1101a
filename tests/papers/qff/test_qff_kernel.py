"""The GPyTorch kernel: values, gradients, low rank, exact models, additive models."""

import gpytorch
import numpy as np
import pytest
import torch
from gpytorch.kernels import AdditiveKernel, Kernel, MaternKernel, RBFKernel, ScaleKernel
from linear_operator.operators import LowRankRootLinearOperator
from qff_toys import normal, uniform
from torch import Tensor

from common.base.errors import UserError
from papers.qff.kernel import QFFKernel


class Model(gpytorch.models.ExactGP):
    def __init__(self, x: Tensor, y: Tensor, kernel: Kernel, likelihood: gpytorch.likelihoods.Likelihood):
        super().__init__(x, y, likelihood)
        self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), kernel

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def posterior(kernel: Kernel, x: Tensor, y: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 0.05
    model = Model(x, y, kernel.double(), likelihood).double().eval()
    with torch.no_grad():
        found = model(at)
        return found.mean, found.variance


def lengthscale(kernel: Kernel, value: object) -> Kernel:
    kernel = kernel.double()
    kernel.lengthscale = value
    return kernel


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_it_is_the_rbf_kernel_to_rounding(dim: int) -> None:
    gamma = [0.6, 0.8, 0.7][:dim]
    ours = lengthscale(QFFKernel(num_nodes=16, ard_num_dims=dim), gamma)
    exact = lengthscale(RBFKernel(ard_num_dims=dim), gamma)
    x, y = uniform(12, dim), uniform(9, dim, seed=1)
    torch.testing.assert_close(ours(x, y).to_dense(), exact(x, y).to_dense(), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours(x).to_dense(), exact(x).to_dense(), rtol=0, atol=1e-9)
    torch.testing.assert_close(ours(x, diag=True), torch.ones(12).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("family", "nu", "factor"), [("modified_matern_2", 1.5, 3), ("modified_matern_3", 2.5, 5)]
)
def test_modified_matern_kernels_of_one_dimension_are_matern_kernels(
    family: str, nu: float, factor: int
) -> None:
    ours = lengthscale(QFFKernel(num_nodes=256, family=family), 0.5)  # type: ignore[arg-type]
    exact = lengthscale(MaternKernel(nu=nu), 0.5 * factor**0.5)
    x, y = uniform(12, 1), uniform(9, 1, seed=1)
    torch.testing.assert_close(ours(x, y).to_dense(), exact(x, y).to_dense(), rtol=0, atol=2e-5)


def test_gradients_in_points_and_lengthscale_are_the_rbf_kernels() -> None:
    x, y = uniform(5, 2).requires_grad_(), uniform(4, 2, seed=1)
    found = []
    for kernel in (QFFKernel(num_nodes=20), RBFKernel()):
        lengthscale(kernel, 0.7)
        total = (kernel(x, y).to_dense() * normal(5, 4)).sum()
        found.append(torch.autograd.grad(total, [x, kernel.raw_lengthscale]))
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours, exact, rtol=0, atol=1e-9)


def test_many_points_make_a_low_rank_root_and_the_posterior_of_the_rbf_kernel() -> None:
    x, at = uniform(200, 1), uniform(30, 1, seed=1)
    y = torch.sin(7 * x[:, 0]) + 0.1 * normal(200)
    ours, exact = lengthscale(QFFKernel(num_nodes=24), 0.4), lengthscale(RBFKernel(), 0.4)
    assert isinstance(ours(x).evaluate_kernel(), LowRankRootLinearOperator)
    for mine, theirs in zip(posterior(ours, x, y, at), posterior(exact, x, y, at), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)


def test_it_adds_up_over_groups_and_learns_its_lengthscale() -> None:
    x = uniform(60, 3)
    y = torch.sin(7 * x[:, 0]) + x[:, 1] ** 2
    kernels = [ScaleKernel(QFFKernel(num_nodes=12, active_dims=[i])) for i in range(3)]
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    model = Model(x, y, AdditiveKernel(*kernels), likelihood).double()
    likelihood_of = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = -likelihood_of(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    assert not np.isclose(kernels[0].base_kernel.lengthscale.item(), 0.6931, atol=1e-3)


def test_five_dimensions_get_one_line() -> None:
    with pytest.raises(UserError, match="a group of 5 coordinates"):
        QFFKernel(num_nodes=4).double()(uniform(3, 5)).to_dense()
