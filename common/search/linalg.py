"""Cholesky factors of covariance matrices that may be singular."""

import warnings

from linear_operator.utils.cholesky import psd_safe_cholesky
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from common.runs.errors import UserError


def cholesky(K: Tensor, what: str) -> Tensor:
    """L with L L' = K [..., n, n], or K + jitter I with the least jitter of 1e-8, ..., 1e-3 that will do.

    Duplicate points make a covariance singular; what that costs is the jitter. Entries of a batch that need
    none get none.

    Raises:
        UserError: K is not finite, or no covariance even with the largest jitter; `what` names it.
    """
    try:
        with warnings.catch_warnings():
            # a jitter of 1e-8 is no news to a user
            warnings.simplefilter("ignore")
            return psd_safe_cholesky(K, max_tries=6)
    except NanError as error:
        raise UserError(f"{what} has entries that are not finite") from error
    except NotPSDError as error:
        raise UserError(
            f"{what} is singular beyond repair (a jitter of 1e-3 does not help): give more noise"
        ) from error
