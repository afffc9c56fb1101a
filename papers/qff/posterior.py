"""The Gaussian process on features: a Bayesian linear model of m weights, R replicates at once.

f(x) = Phi(x) . theta with theta ~ N(0, I) and y = f(x) + N(0, rho^2). After n observations (Mutny & Krause,
section 2): A = I + Phi' Phi / rho^2 (the paper's V is rho^2 A), mean A^-1 Phi' y / rho^2, covariance A^-1.
Nothing here is n x n; an observation costs O(m^2).
"""

import math

import torch
from torch import Tensor

from common.numerics.linalg import cholesky


class WeightPosterior:
    """theta given n observations, by a square root S of its covariance, A^-1 = S S'.

    A square root never loses symmetry or definiteness, as A^-1 itself does in long runs of rank-one updates
    with little noise, and a sample is mean + S z.

    Attributes:
        mean: [R, m].
        root: S, [R, m, m].
        log_determinant: log |A|, [R].
        log_likelihood: log p(y_1, ..., y_n), [R].

    Args:
        replicates, size: R and m.
        noise: rho > 0, or of each replicate [R].
        device: where tensors are.
    """

    def __init__(self, replicates: int, size: int, noise: float, device: torch.device) -> None:
        self.noise = noise
        self.mean = torch.zeros(replicates, size, dtype=torch.float64, device=device)
        self.root = torch.eye(size, dtype=torch.float64, device=device).repeat(replicates, 1, 1)
        self.log_determinant = self.mean.new_zeros(replicates)
        self.log_likelihood = self.mean.new_zeros(replicates)

    @classmethod
    def fit(cls, features: Tensor, y: Tensor, noise: float) -> "WeightPosterior":
        """All observations at once, O(n m^2 + m^3).

        Args:
            features: Phi, [R, n, m].
            y: [R, n], finite.
            noise: rho.
        """
        replicates, n, m = features.shape
        self = cls.__new__(cls)
        self.noise = noise
        A = features.mT @ features / noise**2
        A.diagonal(dim1=-2, dim2=-1).add_(1.0)
        L = cholesky(A, "the posterior precision")
        identity = torch.eye(m, dtype=features.dtype, device=features.device).expand(replicates, m, m)
        self.root = torch.linalg.solve_triangular(L, identity, upper=False).mT.contiguous()
        projected = (features.mT @ y[..., None]) / noise**2
        self.mean = torch.cholesky_solve(projected, L)[..., 0]
        self.log_determinant = 2.0 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        explained = (projected[..., 0] * self.mean).sum(-1)
        quadratic = y.square().sum(-1) / noise**2 - explained
        constant = n * (2.0 * math.log(noise) + math.log(2.0 * math.pi))
        self.log_likelihood = -0.5 * (quadratic + self.log_determinant + constant)
        return self

    def update(self, features: Tensor, y: Tensor) -> Tensor:
        """Take one observation a replicate, O(m^2).

        With u = S' phi / rho and s = 1 + |u|^2: S <- S (I - c u u'), c = (1 - 1 / sqrt(s)) / |u|^2 (Potter's
        square-root form of the rank-one update).

        Args:
            features: phi, [R, m].
            y: [R]; NaN: no observation, nothing changes.

        Returns:
            g [R, m], by which the covariance falls: A^-1 <- A^-1 - g g'.
        """
        phi = torch.where(y.isfinite()[:, None], features, torch.zeros_like(features)) / self.noise
        u = (phi[:, None] @ self.root)[:, 0]
        length = u.square().sum(-1)
        s = 1.0 + length
        direction = (self.root @ u[..., None])[..., 0]
        error = torch.where(y.isfinite(), y / self.noise, 0.0) - (phi * self.mean).sum(-1)
        self.mean = self.mean + direction * (error / s)[:, None]
        # (1 - s^-1/2) / |u|^2 without cancellation, and without 0 / 0
        c = 1.0 / (s + s.sqrt())
        self.root.baddbmm_(direction[..., None], (c[:, None] * u)[:, None], alpha=-1.0)
        self.log_determinant = self.log_determinant + s.log()
        density = error.square() / s + s.log() + 2.0 * math.log(self.noise) + math.log(2.0 * math.pi)
        self.log_likelihood = self.log_likelihood - 0.5 * torch.where(y.isfinite(), density, 0.0)
        return direction / s.sqrt()[:, None]

    def sample(self, normals: Tensor) -> Tensor:
        """Draws of theta from standard normals [R, ..., m]: mean + S z."""
        flat = normals.flatten(1, -2) if normals.dim() > 2 else normals[:, None]
        drawn = self.mean[:, None] + flat @ self.root.mT
        return drawn.reshape(normals.shape)

    def mean_at(self, features: Tensor) -> Tensor:
        """The mean of f at features [R, n, m]: [R, n]."""
        return (features @ self.mean[..., None])[..., 0]

    def variance_at(self, features: Tensor) -> Tensor:
        """The variance of f (without noise) at features [R, n, m]: [R, n]."""
        return (features @ self.root).square().sum(-1)
