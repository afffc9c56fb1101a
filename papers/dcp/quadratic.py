"""The reconstruction loss as the quadratic that it is, from Gram matrices: exact minimisers, gradients, 1/L.

With the features phi of an output position (the patch of inputs that it sees, and a 1 for the bias), O = V
phi for V = [W, b], and over all examples and positions

    A = sum phi phi',   B = sum O^b phi',   L_M(V) = (tr V A V' - 2 tr V B' + sum |O^b|^2) / (2 Q),
    dL_M/dV = (V A - B) / Q.

So nothing needs the features once A and B are known. All is float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# inputs of an output above which A is too large to be worth it: 8192^2 float64 are 512 MB
LARGEST = 8192
# singular values of the correlations below this share of the largest are taken as 0
SINGULAR = 1e-12


class Quadratic:
    """L_M of a layer of `inputs` numbers (c p) and `outputs` units, gathered by `add`.

    Attributes:
        A [c p + 1, c p + 1], B [n, c p + 1]: see above; the last feature is the 1 of the bias.
        squares: sum |O^b|^2.
        count: Q.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        self.A = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.B = torch.zeros(outputs, inputs + 1, dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)
        self.count = 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Take in some positions: features [m, c p] without the 1, targets O^b [m, n]; float64."""
        self._to(features.device)
        both = torch.cat([features, features.new_ones(len(features), 1)], dim=1)
        self.A.addmm_(both.T, both)
        self.B.addmm_(targets.T, both)
        self.squares += targets.square().sum()
        self.count += targets.numel()

    def evaluate(self, weight: Tensor, bias: Tensor | None) -> tuple[float, Tensor, Tensor]:
        """L_M, dL_M/dW [n, c p] and dL_M/db [n] at weights [n, c p] and a bias [n], None for 0."""
        V = self._joined(weight, bias)
        product = V @ self.A
        # rounding may leave a perfect fit below 0
        value = ((product - 2 * self.B) * V).sum().add(self.squares).clamp_min(0.0)
        gradient = (product - self.B) / self.count
        return float(value) / (2 * self.count), gradient[:, :-1], gradient[:, -1]

    def minimise(self, chosen: Tensor, bias: Tensor | None, train_bias: bool) -> tuple[Tensor, Tensor | None]:
        """The W, 0 outside of the chosen features, and b at which L_M is least.

        Of several minimisers it is the one of least norm, each feature measured by its own size: duplicate
        features share their weight.

        Args:
            chosen: which of the c p features may be used, bool [c p].
            bias: [n]; kept where it is not trained.
            train_bias: whether b is solved for too.
        """
        free = torch.cat([chosen, chosen.new_full((1,), train_bias)]).to(self.A.device)
        V = self._joined(torch.zeros_like(self.B[:, :-1]), None if train_bias else bias)
        right = (self.B - V @ self.A)[:, free]
        V[:, free] = least_squares(self.A[free][:, free], right.T).T
        return V[:, :-1], V[:, -1] if train_bias else bias

    def inverse(self, chosen: Tensor, train_bias: bool, damping: float) -> Callable[[Tensor], Tensor]:
        """G -> G H^-1 for the Hessian H = A / Q on the chosen features, 0 elsewhere: [n, c p + 1] both.

        Args:
            chosen: see `minimise`.
            train_bias: whether the bias is among the features.
            damping: is added to the diagonal of A, relative to each feature's own entry.
        """
        free = torch.cat([chosen, chosen.new_full((1,), train_bias)]).to(self.A.device)
        A = self.A[free][:, free]
        scale = _inverse_lengths(A)
        correlations = scale.unsqueeze(1) * A * scale
        correlations.diagonal().add_(damping)
        factor = torch.linalg.cholesky(correlations)

        def apply(gradient: Tensor) -> Tensor:
            found = torch.zeros_like(gradient)
            solved = torch.cholesky_solve((gradient[:, free] * scale).T, factor).T
            found[:, free] = self.count * scale * solved
            return found

        return apply

    def lipschitz(self, train_bias: bool) -> float:
        """The largest eigenvalue of A / Q: the gradient of L_M in V changes by no more than this times V's.

        It bounds that of every choice of channels.
        """
        A = self.A if train_bias else self.A[:-1, :-1]
        size = float(A.diagonal().max())
        return size * float(torch.linalg.eigvalsh(A / size)[-1]) / self.count if size > 0 else 0.0

    def _joined(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        last = self.B.new_zeros(len(self.B)) if bias is None else bias.to(self.B)
        return torch.cat([weight.to(self.B), last.unsqueeze(1)], dim=1)

    def _to(self, device: torch.device) -> None:
        if self.A.device != device:
            self.A, self.B, self.squares = self.A.to(device), self.B.to(device), self.squares.to(device)


def least_squares(A: Tensor, right: Tensor) -> Tensor:
    """The solution of least norm of A x = right for a Gram matrix A [d, d], right [d, m]: [d, m].

    Features are brought to length 1 first, so that their units do not matter; a feature that is 0 gets 0.
    """
    scale = _inverse_lengths(A)
    correlations = scale.unsqueeze(1) * A * scale
    values, vectors = torch.linalg.eigh(correlations)
    # of nothing but zeros there is no largest one
    kept = values > SINGULAR * values[-1:].clamp_min(0.0)
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    return scale.unsqueeze(1) * (
        vectors @ (inverse.unsqueeze(1) * (vectors.T @ (scale.unsqueeze(1) * right)))
    )


def _inverse_lengths(A: Tensor) -> Tensor:
    """1 / |feature| from the diagonal of a Gram matrix; 0 of a feature that is 0."""
    lengths = A.diagonal().sqrt()
    return torch.where(lengths > 0, 1 / torch.where(lengths > 0, lengths, 1.0), 0.0)
