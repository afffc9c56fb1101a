"""Grad-cert: the bound on the gradient of a network with one hidden layer (Raghunathan et al., ICLR 2018).

With v = W_2[y] - W_2[label] and ||x - xbar||_inf <= eps,

    f(x) <= f(xbar) + (eps/4) max {<M, P> : P psd, diag P <= 1},
    M = [[0, (W_1'v)', 0], [W_1'v, 0, W_1'diag v], [0, diag(v) W_1, 0]]

over (1, t in R^d, s in R^m): a MaxCut relaxation that does not depend on xbar, so one solve for each pair of
classes. M joins t with (1, s) alone, B = [W_1'v, W_1'diag v] in R^{d x (1+m)}; the mixing method (Wang,
Chang, Kolter 2017) then alternates T = rows of B S, S = rows of B'T, each row scaled to length 1.
"""

import math

import torch
from torch import Tensor

from common.base.errors import UserError
from papers.sdp_cert.network import ReluNetwork


def gradient_bounds(
    network: ReluNetwork, *, sweeps: int, rank: int | None, seed: int
) -> tuple[Tensor, Tensor]:
    """max <M, P> from above (certified) and from below (the method's value), symmetric [classes, classes].

    The certificate: for any c, sum c + n max(0, lambda_max(M - diag c)) with n = 1 + d + m; c are the row
    norms at the end, for which the primal and the dual value meet at the optimum.

    Args:
        sweeps: of the mixing method.
        rank: of the factors; None for ceil(sqrt(2 n)) + 1, at which there are no spurious optima.
        seed: of the start.

    Raises:
        UserError: the network has not one hidden layer.
    """
    if network.hidden_layers != 1:
        raise UserError(
            f"Grad-cert needs one hidden layer, not {network.hidden_layers} (valid: certifier/sdp)"
        )
    W = network.weights[0]
    m, d = W.shape
    pairs = torch.combinations(torch.arange(network.classes, device=W.device))
    v = network.weights[1][pairs[:, 0]] - network.weights[1][pairs[:, 1]]
    k = rank or math.ceil(math.sqrt(2 * (1 + d + m))) + 1
    generator = torch.Generator().manual_seed(seed)
    S = torch.randn(1 + m, k, generator=generator, dtype=torch.float64).to(W.device)
    S = _rows_of_length_1(S).expand(len(pairs), -1, -1)
    for _ in range(sweeps):
        T = _rows_of_length_1(_times(W, v, S))
        S = _rows_of_length_1(_times_transposed(W, v, T))
    rows = _times(W, v, S)
    value = 2 * rows.norm(dim=2).sum(1)
    T = _rows_of_length_1(rows)
    c_s = _times_transposed(W, v, T).norm(dim=2)
    c = torch.cat([c_s[:, :1], rows.norm(dim=2), c_s[:, 1:]], 1)
    upper = torch.stack([_certificate(W, v[i], c[i]) for i in range(len(pairs))])
    return _square(network.classes, pairs, upper), _square(network.classes, pairs, value)


def grad_matrix(W: Tensor, v: Tensor) -> Tensor:
    """M [n, n] for weights W [m, d] and v [m]."""
    m, d = W.shape
    M = W.new_zeros(1 + d + m, 1 + d + m)
    M[0, 1 : 1 + d] = W.T @ v
    M[1 : 1 + d, 1 + d :] = W.T * v
    return M + M.T


def _certificate(W: Tensor, v: Tensor, c: Tensor) -> Tensor:
    shifted = grad_matrix(W, v) - torch.diag(c)
    rounding = 4 * len(c) * torch.finfo(torch.float64).eps * torch.linalg.matrix_norm(shifted)
    largest = torch.linalg.eigvalsh(shifted)[-1] + rounding
    return c.sum() + len(c) * largest.clamp_min(0)


def _times(W: Tensor, v: Tensor, S: Tensor) -> Tensor:
    """B S for each pair: W_1'(v (S_0 + S_rest)) with one product for all: [p, d, k]."""
    weighted = v[:, :, None] * (S[:, :1] + S[:, 1:])
    p, m, k = weighted.shape
    return (W.T @ weighted.permute(1, 0, 2).reshape(m, p * k)).view(-1, p, k).permute(1, 0, 2)


def _times_transposed(W: Tensor, v: Tensor, T: Tensor) -> Tensor:
    """B'T for each pair: [p, 1 + m, k]."""
    p, d, k = T.shape
    rest = (W @ T.permute(1, 0, 2).reshape(d, p * k)).view(-1, p, k).permute(1, 0, 2) * v[:, :, None]
    return torch.cat([rest.sum(1, keepdim=True), rest], 1)


def _rows_of_length_1(A: Tensor) -> Tensor:
    return A / A.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(A.dtype).tiny)


def _square(classes: int, pairs: Tensor, values: Tensor) -> Tensor:
    square = values.new_zeros(classes, classes)
    square[pairs[:, 0], pairs[:, 1]] = values
    return square + square.T
