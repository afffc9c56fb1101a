"""A strict saddle that first-order methods cannot see: every component's gradient vanishes at 0."""

import torch
from torch import Tensor

from common.numerics.sampling import ReplicateSampler
from papers.spider.problems.protocol import Batch, Problem


class QuarticProblem(Problem):
    """f_i(x) = x'(A + s_i B)x / 2 + ||x||_4^4 with signs s_i that sum to 0, started at the saddle x = 0.

    With -c = lambda_min(A) < 0: f(x) <= 0 implies max_j x_j^2 <= u = (c / 4)(1 + sqrt d) (there,
    ||x||_4^4 <= (c/2)||x||^2, and the other coordinates' fourth powers are least when all are equal).
    On that level set, which contains every iterate worth having,
    L = ||A|| + ||B|| + 12 u and rho = 24 sqrt u. inf f >= -c^2 d / 16. sigma = ||B|| sqrt(d u) bounds
    ||s_i B x||.

    Args:
        A, B: symmetric, [d, d].
        signs: s_i = +-1, [n].
    """

    def __init__(self, A: Tensor, B: Tensor, signs: Tensor) -> None:
        self.A, self.B, self.signs = A, B, signs
        self.n = self.pass_size = len(signs)
        self.dim = len(A)
        self.device, self.dtype = A.device, A.dtype
        eigenvalues = torch.linalg.eigvalsh(A)
        c = -float(eigenvalues.min())
        radius = c / 4 * (1 + self.dim**0.5)
        norm_B = float(torch.linalg.matrix_norm(B, 2))
        self.smoothness = float(eigenvalues.abs().max()) + norm_B + 12 * radius
        self.hessian_lipschitz = 24 * radius**0.5
        self.sigma = norm_B * (self.dim * radius) ** 0.5
        self.lower_bound = -(c**2) * self.dim / 16

    def start(self, replicates: int) -> Tensor:
        """The saddle."""
        return torch.zeros(replicates, self.dim, device=self.device, dtype=self.dtype)

    def draw(self, sampler: ReplicateSampler, size: int, rows: list[int] | None) -> Batch:
        return Batch(self.signs[sampler.indices(size, rows)], None, size)

    def everything(self) -> Batch:
        return Batch(self.signs, None, len(self.signs))

    def _linear(self, v: Tensor, batch: Batch) -> Tensor:
        """Mean of (A + s_i B) v over the batch: [R, d]."""
        mean_sign = batch.inputs.mean(-1, keepdim=True)
        return v @ self.A + mean_sign * (v @ self.B)

    def value(self, x: Tensor, batch: Batch) -> Tensor:
        return (x * self._linear(x, batch)).sum(1) / 2 + x.pow(4).sum(1)

    def gradient(self, x: Tensor, batch: Batch) -> Tensor:
        return self._linear(x, batch) + 4 * x.pow(3)

    def hvp(self, x: Tensor, v: Tensor, batch: Batch) -> Tensor:
        return self._linear(v, batch) + 12 * x.square() * v

    def paired_values(self, points: Tensor, batch: Batch) -> Tensor:
        signs = batch.inputs.expand(points.shape[:2]).unsqueeze(-1)
        product = points @ self.A + signs * (points @ self.B)
        return (points * product).sum(-1) / 2 + points.pow(4).sum(-1)
