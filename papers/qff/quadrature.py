"""Quadrature of spectral densities: the frequencies and weights of quadrature Fourier features.

A stationary kernel is k(r) = E[cos(omega . r)] over its spectral density. A rule with nodes omega_a and
weights v_a replaces it by sum_a v_a cos(omega_a . r). Rules here are for unit lengthscale; frequencies of
lengthscale gamma are u / gamma. Sources: Mutny & Krause, NeurIPS 2018, section 3; `Mojusko/QFF`
(embedding.py) for kernels other than the squared exponential.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import roots_hermite
from torch import Tensor

from common.base.errors import UserError

SpectralKernel = Literal["se", "laplace", "modified_matern_2", "modified_matern_3", "modified_matern_4"]
Rule = Literal["legendre", "trapezoid"]

# nu of the spectral density prod_i (1 + gamma^2 omega_i^2)^-nu
POWERS = {"laplace": 1, "modified_matern_2": 2, "modified_matern_3": 3, "modified_matern_4": 4}
# numpy's Gauss-Hermite rule overflows from about 400 nodes on
NUMPY_NODES = 350
# coordinates of a group: a grid has nodes^p points
MAX_GROUP = 4
MAX_GRID = 2**22


@dataclass(frozen=True)
class HalfGrid:
    """One frequency of each pair omega, -omega of a product grid, for unit lengthscale.

    Attributes:
        frequencies: float64 [M, p]; the zero frequency, if the grid has it, comes first.
        weights: float64 [M], of pairs; they sum to 1.
        has_zero: whether the first is the zero frequency, which needs no sine.
        dropped: the sum of the weights of the full grid that were pruned.
    """

    frequencies: Tensor
    weights: Tensor
    has_zero: bool
    dropped: float

    @property
    def pruning_error(self) -> float:
        """A bound of what pruning changes in the kernel, at any r: what is left is rescaled to sum to 1."""
        return 2.0 * self.dropped


def hermite(nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes and weights for the standard normal density.

    u_a = sqrt(2) x_a with x_a the zeros of the physicists' Hermite polynomial H_q, and
    v_a = 2^(q-1) q! / (q^2 H_{q-1}(x_a)^2). Exact for polynomials of degree 2 q - 1.

    Returns:
        u [q], ascending and exactly antisymmetric, and v [q], which sum to 1.

    Raises:
        UserError: fewer than 1 node.
    """
    _check_nodes(nodes)
    x, w = np.polynomial.hermite.hermgauss(nodes) if nodes <= NUMPY_NODES else roots_hermite(nodes)
    return _symmetric(math.sqrt(2.0) * x, w)


def cotangent(nu: int, nodes: int, rule: Rule, stretch: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights for the density proportional to (1 + u^2)^-nu: Laplace (nu 1), modified Matern.

    By u = stretch cot(theta), theta in (0, pi), where `legendre` is Gauss-Legendre and `trapezoid` has
    theta_j = j pi / (q + 1): v_a is proportional to stretch / sin(theta_a)^2 (1 + u_a^2)^-nu times the rule's
    weight. The density has no scale but the lengthscale's with stretch 1; the authors' code has frequencies
    cot(theta) whatever gamma is, which is stretch = gamma.

    Returns:
        u [q], ascending and exactly antisymmetric, and v [q], which sum to 1.

    Raises:
        UserError: a value out of range.
    """
    _check_nodes(nodes)
    if nu < 1 or not stretch > 0:
        raise UserError(f"nu={nu}, stretch={stretch}; valid: nu at least 1, stretch > 0")
    if rule == "legendre":
        t, w = np.polynomial.legendre.leggauss(nodes)
        theta = (t + 1.0) * (np.pi / 2)
    else:
        theta, w = np.pi * np.arange(1, nodes + 1) / (nodes + 1), np.ones(nodes)
    u = stretch / np.tan(theta)
    density = w / np.sin(theta) ** 2 * (1.0 + u**2) ** (-nu)
    return _symmetric(u[::-1], density[::-1])


def rule_of(kernel: SpectralKernel, nodes: int, rule: Rule, stretch: float) -> tuple[Tensor, Tensor]:
    """The one-dimensional rule for a kernel: `hermite` for se, `cotangent` for the others."""
    return hermite(nodes) if kernel == "se" else cotangent(POWERS[kernel], nodes, rule, stretch)


def half_grid(u: Tensor, v: Tensor, dim: int, prune: float) -> HalfGrid:
    """The product grid of a one-dimensional rule in `dim` coordinates, one of each pair +-omega.

    cos and sin of omega and -omega are the same features, so one with twice the weight stands for both:
    q^p real features instead of 2 q^p, with the very same kernel. Kept is the one whose first non-zero
    coordinate is positive (the authors' release of 2019 keeps those that are positive in every coordinate,
    which is right in one dimension only).

    Args:
        u, v: nodes [q] and weights [q], symmetric.
        dim: p, 1 to 4.
        prune: points of the grid with a weight below this are left out.

    Raises:
        UserError: a value out of range.
    """
    if not 1 <= dim <= MAX_GROUP:
        raise UserError(
            f"a group of {dim} coordinates has nodes^{dim} features; valid: groups of at most {MAX_GROUP} "
            "(model.groups=one_dim, chain, or lists of coordinates)"
        )
    if len(u) ** dim > MAX_GRID:
        raise UserError(f"nodes={len(u)}: a grid of {len(u) ** dim} points; valid: at most {MAX_GRID}")
    if not 0 <= prune < 1:
        raise UserError(f"prune={prune}; valid: 0 up to 1")
    grid = torch.cartesian_prod(*[u] * dim).reshape(-1, dim)
    weight = torch.cartesian_prod(*[v] * dim).reshape(-1, dim).prod(1)
    sign = torch.zeros(len(grid), dtype=u.dtype)
    for i in reversed(range(dim)):
        sign = torch.where(grid[:, i] != 0, grid[:, i].sign(), sign)
    kept = (weight > 0) & (weight >= prune)
    if not kept.any():
        raise UserError(f"prune={prune} leaves no node; valid: below {float(weight.max()):.3g}")
    zero, positive = kept & (sign == 0), kept & (sign > 0)
    frequencies = torch.cat([grid[zero], grid[positive]])
    weights = torch.cat([weight[zero], 2.0 * weight[positive]])
    dropped = float(weight[~kept].sum())
    return HalfGrid(frequencies, weights / weights.sum(), bool(zero.any()), dropped)


def hermite_error_bound(r: Tensor, lengthscale: Tensor, nodes: int) -> Tensor:
    """A bound of |k_QFF(r) - k(r)| for the squared exponential kernel: sum_i q!/(2q)! (|r_i|/gamma_i)^(2q).

    One dimension: the error term of Gauss-Hermite quadrature of cos. Several: factors of both products are at
    most 1 in absolute value, so errors add.

    Args:
        r: [..., p].
        lengthscale: gamma, broadcast against r.
        nodes: q.

    Returns:
        [...], not cut off at 2.
    """
    log_ratio = math.lgamma(nodes + 1) - math.lgamma(2 * nodes + 1)
    return (log_ratio + 2 * nodes * (r.abs() / lengthscale).log()).exp().sum(-1)


def _check_nodes(nodes: int) -> None:
    if nodes < 1:
        raise UserError(f"nodes={nodes}; valid: at least 1")


def _symmetric(u: np.ndarray, v: np.ndarray) -> tuple[Tensor, Tensor]:
    u, v = (u - u[::-1]) / 2, (v + v[::-1]) / 2
    return torch.tensor(u, dtype=torch.float64), torch.tensor(v / v.sum(), dtype=torch.float64)
