"""Functions without data, as modules: the parameter is the point."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.runs.errors import UserError


class Quartic(nn.Module):
    """f_i(x) = x'(A + s_i B)x / 2 + ||x||_4^4: a strict saddle at x = 0, where the module starts.

    A has one eigenvalue -curvature and the others uniform in [0.1, 1]; B is symmetric with spectral norm
    `noise`. As the signs s_i sum to 0, f(x) = x'Ax / 2 + ||x||_4^4.

    Args:
        shape: (d,).
        classes: None.
        curvature: of the escape direction, > 0.
        noise: spectral norm of B, >= 0.
        design_seed: seed of A and B.

    Raises:
        UserError: classes, or a value out of range.
    """

    task: ClassVar[Literal["analytic"]] = "analytic"
    features: ClassVar[tuple[str, ...]] = ()
    A: Tensor
    B: Tensor

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        curvature: float,
        noise: float,
        design_seed: int,
    ) -> None:
        super().__init__()
        if classes is not None or len(shape) != 1:
            raise UserError("model=quartic: is a function without data; valid: dataset=quartic_saddle")
        if not curvature > 0:
            raise UserError(f"model.curvature={curvature}; valid: a number > 0")
        if not noise >= 0:
            raise UserError(f"model.noise={noise}; valid: a number >= 0")
        random = np.random.default_rng(design_seed)
        rotation, _ = np.linalg.qr(random.standard_normal((shape[0], shape[0])))
        eigenvalues = np.concatenate([[-curvature], random.uniform(0.1, 1.0, shape[0] - 1)])
        symmetric = random.standard_normal((shape[0], shape[0]))
        symmetric = symmetric + symmetric.T
        symmetric *= noise / np.linalg.norm(symmetric, 2)
        self.register_buffer("A", torch.as_tensor((rotation * eigenvalues) @ rotation.T).float())
        self.register_buffer("B", torch.as_tensor(symmetric).float())
        self.x = nn.Parameter(torch.zeros(shape))

    def forward(self, signs: Tensor) -> Tensor:
        """Signs s [b] or [b, 1] to f_i(x): [b]."""
        curved = self.x @ self.A @ self.x + signs.flatten() * (self.x @ self.B @ self.x)
        return curved / 2 + self.x.pow(4).sum()


class OnlineFunction(nn.Module, ABC):
    """Functions f_t(x) that come one a step; the parameter `x` is the point.

    Args:
        shape: (d,).
        classes: None.

    Raises:
        UserError: classes, or inputs that are no vectors.
    """

    task: ClassVar[Literal["online"]] = "online"
    features: ClassVar[tuple[str, ...]] = ()
    x: nn.Parameter

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__()
        if classes is not None or len(shape) != 1:
            raise UserError(
                f"model: {type(self).__name__} is a function of a vector, without data; "
                "valid: dataset=online_counterexample, noisy_quadratic"
            )

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """What came at some steps, [b, d], to the f_t(x) of each: [b]."""

    @abstractmethod
    def watch(self, inputs: Tensor) -> dict[str, Tensor]:
        """Scalars at the current x, to be averaged over the steps of an epoch."""

    def final(self) -> dict[str, Tensor]:
        """Scalars of the last x."""
        return {}


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
