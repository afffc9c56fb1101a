"""A function without data, as a module: the parameter is the point."""

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from common.base.errors import UserError


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
