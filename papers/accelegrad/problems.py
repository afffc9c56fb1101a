"""min ||A x - b||_p^p, p = 1 or 2, with its optimum, for a batch of R points at once.

p = 2 is solved by `lstsq`; p = 1, least absolute deviations, by HiGHS as the linear programme
max b'u with A'u = 0 and |u| <= 1, whose multipliers are the minimiser.
"""

import math
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor
from torch.nn.functional import pad

from common.base.errors import UserError

# BLAS multiplies 16 points in two thirds of the time of 15
PADDED = 4


def binary_unit(values: Tensor) -> float:
    """The power of two that divides numbers, exactly, so that their largest is in [1, 2); 1 for zeros."""
    largest = float(values.abs().max()) if values.numel() else 0.0
    return 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0


class LpRegression:
    """f(x) = sum_i |a_i'x - b_i|^p in float64.

    Where p = 2, values and gradients of all rows come from the triangle R of A = QR, the same function from
    d rows instead of m: ||A x - b||^2 = ||R x - Q'b||^2 + ||b - QQ'b||^2.

    Args:
        A: [m, d]; b: [m]; p: 1 or 2.
    """

    def __init__(self, A: Tensor, b: Tensor, p: int) -> None:
        self.A, self.b, self.p = A, b, p
        self.rows, self.targets, self.rest = A, b, 0.0
        if p == 2 and len(A) > A.shape[1]:
            Q, self.rows = torch.linalg.qr(A)
            self.targets = Q.T @ b
            self.rest = float((b - Q @ self.targets).square().sum())
        # the way back from residuals is a fifth faster by rows that lie the other way
        self.columns = self.rows.T.contiguous()

    @property
    def m(self) -> int:
        """How many rows there are."""
        return len(self.A)

    def value(self, x: Tensor) -> Tensor:
        """f at x [R, d]: [R]."""
        residual = x @ self.rows.T - self.targets
        return self._losses(residual).sum(1) + self.rest

    def oracle(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f [R] and a (sub)gradient [R, d] at x [R, d]."""
        count = len(x)
        if count > PADDED:
            x = pad(x, (0, 0, 0, -count % PADDED))
        residual = x @ self.rows.T - self.targets
        values, gradients = self._losses(residual).sum(1) + self.rest, self._slopes(residual) @ self.columns.T
        return values[:count], gradients[:count]

    def minibatch(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Unbiased estimates of both from rows index [R, b] of each point: (m / b) times the rows' sum."""
        chosen = self.A[index]
        residual = torch.einsum("rbd,rd->rb", chosen, x) - self.b[index]
        scale = self.m / index.shape[1]
        return self._losses(residual).sum(1) * scale, torch.einsum(
            "rb,rbd->rd", self._slopes(residual), chosen
        ) * scale

    def _losses(self, residual: Tensor) -> Tensor:
        return residual.square() if self.p == 2 else residual.abs()

    def _slopes(self, residual: Tensor) -> Tensor:
        return 2 * residual if self.p == 2 else residual.sign()

    @property
    def smoothness(self) -> float | None:
        """beta = 2 lambda_max(A'A) for p = 2; None for p = 1, which has none."""
        return None if self.p == 1 else 2 * float(torch.linalg.matrix_norm(self.rows, 2)) ** 2

    @cached_property
    def minimiser(self) -> Tensor:
        """x* [d].

        Raises:
            UserError: the solver of the linear programme failed.
        """
        if self.p == 2:
            return torch.linalg.lstsq(self.A, self.b[:, None], driver="gelsd").solution[:, 0]
        # the tolerances of HiGHS are absolute
        unit_of_A, unit_of_b = binary_unit(self.A), binary_unit(self.b)
        A, b = self.A.numpy() / unit_of_A, self.b.numpy() / unit_of_b
        found = linprog(-b, A_eq=A.T, b_eq=np.zeros(A.shape[1]), bounds=(-1, 1), method="highs-ipm")
        if found.status != 0:
            raise UserError(f"model.p=1: HiGHS found no optimum ({found.message.splitlines()[0]})")
        return torch.from_numpy(-found.eqlin.marginals * (unit_of_b / unit_of_A))

    @cached_property
    def minimum(self) -> float:
        """f* = f(x*)."""
        residual = self.A @ self.minimiser - self.b
        return float(self._losses(residual).sum())

    def gap(self, x: Tensor) -> Tensor:
        """f(x) - f* [R]; for p = 2 as ||A (x - x*)||^2, which is exact where the two values agree."""
        if self.p == 2:
            return ((x - self.minimiser) @ self.rows.T).square().sum(1)
        return self.value(x) - self.minimum
