"""Cosine basis functions on a box, at random or learned, and the weights of training functions in them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.numerics.linalg import cholesky


@dataclass(frozen=True)
class CosineBasis:
    """Phi(x) = scale cos(B x + c), K functions.

    Attributes:
        B: [K, d]; c: [K].
    """

    B: Tensor
    c: Tensor
    scale: float

    def __call__(self, x: Tensor) -> Tensor:
        """Features of points [..., d]: [..., K]."""
        return self.scale * (x @ self.B.T + self.c).cos()

    def slopes(self, x: Tensor) -> Tensor:
        """d Phi / dx at one point [d]: [K, d]."""
        return -self.scale * (self.B @ x + self.c).sin()[:, None] * self.B

    def to(self, device: torch.device) -> "CosineBasis":
        return CosineBasis(self.B.to(device), self.c.to(device), self.scale)


def random_cosines(features: int, dim: int, lengthscale: float, seed: int) -> CosineBasis:
    """Random Fourier features of an SE kernel: B ~ N(0, 1 / l^2), c ~ U(0, 2 pi), scale sqrt(2 / K)."""
    generator = torch.Generator().manual_seed(seed)
    B = torch.randn(features, dim, generator=generator, dtype=torch.float64) / lengthscale
    c = 2 * torch.pi * torch.rand(features, generator=generator, dtype=torch.float64)
    return CosineBasis(B, c, (2 / features) ** 0.5)


def learned_cosines(
    x: Tensor, y: Tensor, *, features: int, epochs: int, lr: float, batch: int, patience: int, seed: int
) -> CosineBasis:
    """The hidden layer of a net x -> cos(B x + c) -> one linear output without bias for each function.

    Squared error on all (x_j, y_ij), Glorot-uniform weights, biases 0, Adam. The last tenth of the points is
    for validation: training ends when its loss has not fallen for `patience` epochs. The last weights, not
    the best, are kept, as in the authors' code.

    Args:
        x: points [m, d]; y: functions [N, m].
        features, epochs, lr, batch, patience: K and the settings of training.
        seed: of first weights and the order of points.
    """
    device = x.device
    generator = torch.Generator().manual_seed(seed)
    hidden = nn.Parameter(_glorot(features, x.shape[1], generator).to(device))
    bias = nn.Parameter(torch.zeros(features, device=device))
    heads = nn.Parameter(_glorot(len(y), features, generator).to(device))
    optimizer = torch.optim.Adam([hidden, bias, heads], lr=lr)
    # single precision, as the authors' net: the weights of functions are found anew in double precision
    points, targets = x.float(), y.T.float()
    known = max(1, int(0.9 * len(x)))
    best, waited = float("inf"), 0

    def loss(index: Tensor | slice) -> Tensor:
        return ((points[index] @ hidden.T + bias).cos() @ heads.T - targets[index]).square().mean()

    for _ in range(epochs):
        for index in torch.randperm(known, generator=generator).to(device).split(batch):
            optimizer.zero_grad()
            loss(index).backward()
            optimizer.step()
        with torch.no_grad():
            validation = float(loss(slice(known, None) if known < len(x) else slice(None)))
        waited = 0 if validation < best else waited + 1
        best = min(best, validation)
        if waited >= patience:
            break
    return CosineBasis(hidden.detach().double(), bias.detach().double(), 1.0)


def _glorot(outputs: int, inputs: int, generator: torch.Generator) -> Tensor:
    limit = (6 / (outputs + inputs)) ** 0.5
    return limit * (2 * torch.rand(outputs, inputs, generator=generator) - 1)


def fit_weights(features: Tensor, y: Tensor, ridge: float) -> Tensor:
    """W_i = (Phi Phi' + ridge I)^-1 Phi y_i for all functions at once: one factorisation.

    Args:
        features: Phi' at the m training points, [m, K].
        y: [N, m].

    Returns:
        W, [N, K].

    Raises:
        UserError: m < K without a ridge.
    """
    m, K = features.shape
    if ridge == 0 and m < K:
        raise UserError(
            f"method.features={K}: more than the {m} training points (valid: {m}, or method.ridge > 0)"
        )
    gram = features.T @ features + ridge * torch.eye(K, dtype=features.dtype, device=features.device)
    L = cholesky(gram, "the Gram matrix of the basis (method.ridge)")
    return torch.cholesky_solve(features.T @ y.T, L).T
