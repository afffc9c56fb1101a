"""Quadrature Fourier features as a GPyTorch kernel."""

from typing import Any

import torch
from gpytorch.kernels import Kernel
from gpytorch.models.exact_prediction_strategies import LinearPredictionStrategy
from linear_operator.operators import (
    LinearOperator,
    LowRankRootLinearOperator,
    MatmulLinearOperator,
    RootLinearOperator,
)
from torch import Tensor

from papers.qff.features import FourierFeatures, qff
from papers.qff.quadrature import SpectralKernel


class QFFKernel(Kernel):
    """k(x, y) = Phi(x) . Phi(y) with QFF: a drop-in for `RBFKernel` in up to 4 dimensions.

    Covariances are low-rank roots, so GPyTorch solves by Woodbury's identity where there are more points than
    features. The lengthscale (one, or one a dimension by `ard_num_dims`) is learnt as any kernel's; the
    approximation is sharp while `num_nodes` is well above (width of the data / lengthscale)^2.

        covar = ScaleKernel(AdditiveKernel(*[QFFKernel(num_nodes=32, active_dims=[i]) for i in range(d)]))

    Args:
        num_nodes: nodes a dimension; num_nodes^p features.
        family: the kernel that is approximated.
        prune: leave out grid points with a smaller weight.
        options: of `gpytorch.kernels.Kernel` (active_dims, ard_num_dims, batch_shape, priors, ...).

    Raises:
        UserError: more than 4 dimensions, or a value out of range.
    """

    has_lengthscale = True

    def __init__(
        self, num_nodes: int, family: SpectralKernel = "se", prune: float = 0.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.num_nodes, self.family, self.prune = num_nodes, family, prune
        self._unit: FourierFeatures | None = None

    def features(self, x: Tensor) -> Tensor:
        """Phi at x [..., n, p]: [..., n, m], differentiable in x and in the lengthscale."""
        if self._unit is None or self._unit.frequencies.shape[-1] != x.shape[-1]:
            unit = torch.ones(x.shape[-1], dtype=torch.float64, device=x.device)
            options = {"nodes": self.num_nodes, "prune": self.prune}
            self._unit = qff(self.family, unit, rule="legendre", stretch=1.0, **options)  # type: ignore[arg-type]
        unit_map = FourierFeatures(self._unit.frequencies.to(x), self._unit.scale.to(x), self._unit.sines)
        return unit_map(x / self.lengthscale)

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **options: Any
    ) -> Tensor | LinearOperator:
        """The covariance of x1 [..., n, p] and x2 [..., l, p], or its diagonal."""
        if last_dim_is_batch:
            x1, x2 = x1.transpose(-1, -2).unsqueeze(-1), x2.transpose(-1, -2).unsqueeze(-1)
        same = torch.equal(x1, x2)
        phi1 = self.features(x1)
        phi2 = phi1 if same else self.features(x2)
        if diag:
            return (phi1 * phi2).sum(-1)
        if not same:
            return MatmulLinearOperator(phi1, phi2.mT)
        low_rank = phi1.shape[-1] < phi1.shape[-2]
        return LowRankRootLinearOperator(phi1) if low_rank else RootLinearOperator(phi1)

    def prediction_strategy(self, *given: Any) -> LinearPredictionStrategy:
        """GPyTorch's strategy for kernels that are features."""
        return LinearPredictionStrategy(*given)
