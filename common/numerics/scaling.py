"""Scales that change no digit."""

import torch
from torch import Tensor


def power_of_four(x: Tensor) -> Tensor:
    """The largest power of 4 up to x (float64), of its shape; 1 where x is not above 0, or not finite.

    Dividing by it is exact, and so is taking its square root: what is computed of scaled numbers has the
    digits of what is computed of the numbers themselves, unless there is something absolute in it.
    """
    _, exponent = x.frexp()
    even = (exponent.long() - 1).div(2, rounding_mode="floor") * 2
    even = torch.where((x > 0) & x.isfinite(), even, 0)
    # by its bits: powers by exp and log are not exact
    return ((even.clamp(-1022, 1022) + 1023) << 52).view(torch.float64)
