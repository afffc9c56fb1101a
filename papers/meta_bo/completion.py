"""Missing training values by soft-impute (Mazumder, Hastie, Tibshirani 2010), with the authors' settings."""

import torch
from torch import Tensor

from common.base.errors import UserError

# the defaults of fancyimpute's SoftImpute, which the authors call: shrinkage is the largest singular value
# of the matrix with zeros for what is missing, over this; iterations; relative change at which to stop
SHRINKAGE_DIVISOR = 50.0
ITERATIONS = 100
TOLERANCE = 1e-3


def soft_threshold(Y: Tensor, shrinkage: float) -> Tensor:
    """U (S - shrinkage)_+ V' for Y = U S V' [n, m]: the proximal point of the nuclear norm."""
    tall = Y if Y.shape[0] >= Y.shape[1] else Y.T
    # singular values near the threshold, not the smallest ones, decide: the Gram matrix is exact enough
    squares, V = torch.linalg.eigh(tall.T @ tall)
    values = squares.clamp_min(0).sqrt()
    kept = values > shrinkage
    V, scale = V[:, kept], 1 - shrinkage / values[kept]
    result = (tall @ (V * scale)) @ V.T
    return result if tall is Y else result.T


def soft_impute(Y: Tensor, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> Tensor:
    """Y [n, m] with its NaN replaced by what a matrix of small nuclear norm has there.

    Repeats X <- soft_threshold(Y where known, X elsewhere) from X = 0, until the missing entries change by
    less than `tolerance` of their norm.

    Raises:
        UserError: nothing is known.
    """
    missing = Y.isnan()
    if missing.all():
        raise UserError("dataset.missing: no training value is left; valid: a smaller probability")
    filled = Y.masked_fill(missing, 0.0)
    if not missing.any():
        return filled
    shrinkage = float(torch.linalg.matrix_norm(filled, 2)) / SHRINKAGE_DIVISOR
    for _ in range(iterations):
        X = soft_threshold(filled, shrinkage)
        old, new = filled[missing], X[missing]
        filled = torch.where(missing, X, filled)
        if float(old.norm()) > 0 and float((new - old).norm() / old.norm()) < tolerance:
            break
    return filled
