"""Cholesky factors of covariance matrices that may be singular."""

import warnings

from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from common.base.errors import UserError
from common.numerics.scaling import power_of_four


def cholesky(K: Tensor, what: str, variance: Tensor | None = None) -> Tensor:
    """L with L L' = K [..., n, n], or K + jitter I with the least jitter of 1e-8, ..., 1e-3 that will do.

    Duplicate points make a covariance singular; what that costs is the jitter. Entries of a batch that need
    none get none. The jitter is in units of the variance (of the power of 4 below it), so that K in other
    units has L in other units.

    Args:
        variance: [...]; None: the largest of K's diagonal.

    Raises:
        UserError: K is not finite, or no covariance even with the largest jitter; `what` names it.
    """
    if variance is None:
        variance = K.diagonal(dim1=-2, dim2=-1).amax(-1) if K.shape[-1] else K.new_ones(K.shape[:-2])
    unit = power_of_four(variance)[..., None, None]
    try:
        with warnings.catch_warnings():
            # a jitter of 1e-8 is no news to a user
            warnings.simplefilter("ignore")
            return psd_safe_cholesky(K / unit, max_tries=6) * unit.sqrt()
    except NanError as error:
        raise UserError(f"{what} has entries that are not finite") from error
    except NotPSDError as error:
        raise UserError(
            f"{what} is singular beyond repair (a jitter of 1e-3 does not help): give more noise"
        ) from error
