"""Values that one diverged training would spoil."""

from torch import Tensor

# bad values are drawn in to this many interquartile ranges below the lower quartile
FENCE = 3.0


def drawn_in(y: Tensor) -> Tensor:
    """Values y [n] without outliers at the bad end: none below Q1 - 3 (Q3 - Q1), Tukey's outer fence.

    One diverged training with a loss of 1e19 would make all others equal once they are standardised.
    """
    low, high = y.quantile(0.25), y.quantile(0.75)
    return y if high == low else y.clamp_min(low - FENCE * (high - low))
