"""Functions that come one a step, for the online game and for gradients with noise."""

import torch
from torch import Tensor, nn

from common.models.online_function import OnlineFunction


class OnlineLinear(OnlineFunction):
    """f_t(x) = c_t'x on the box [-1, 1]^d, from x = 0, for coefficients that are positive on average.

    The regret of a step is f_t(x) - f_t(-1): -1 is the best fixed point.
    """

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__(shape=shape, classes=classes)
        self.x = nn.Parameter(torch.zeros(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.x

    def project(self) -> None:
        """Put x back into the box."""
        self.x.clamp_(-1, 1)

    def watch(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"average_regret": (inputs @ (self.x + 1)).mean()}

    def final(self) -> dict[str, Tensor]:
        return {"x": self.x.mean()}


class NoisyQuadratic(OnlineFunction):
    """f_t(x) = f(x) + e_t'x with f(x) = sum_i x_i^2 / 2 - cos(3 x_i) / 4: its gradient is grad f(x) + e_t.

    f is nonconvex with smoothness 3.25 and minimum -d/4 at 0; x starts at a standard normal vector.
    """

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__(shape=shape, classes=classes)
        self.x = nn.Parameter(torch.randn(shape))

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.x
        return (x.square() / 2 - torch.cos(3 * x) / 4).sum() + inputs @ x

    def watch(self, inputs: Tensor) -> dict[str, Tensor]:
        x = self.x
        return {"mean_grad_norm_sq": (x + 0.75 * torch.sin(3 * x)).square().sum()}
