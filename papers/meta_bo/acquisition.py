"""What is maximised to choose the next point, and how it is maximised over a box."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from torch import Tensor

Acquisition = Literal["ucb", "pi"]
PiTarget = Literal["train_max", "oracle"]


def ucb(mean: Tensor, variance: Tensor, zeta: Tensor) -> Tensor:
    """GP-UCB: mean + zeta sqrt(variance)."""
    return mean + zeta * variance.clamp_min(0).sqrt()


def improvement(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Probability of improvement over f*, up to a monotone map: (mean - f*) / sqrt(variance).

    Without variance: the largest float where the mean is above f*, the least where it is below, 0 at f*.
    """
    gain, deviation = mean - target, variance.clamp_min(0).sqrt()
    limit = torch.finfo(mean.dtype).max
    certain = torch.where(gain == 0, 0.0, gain.sign() * limit)
    return torch.where(deviation > 0, (gain / deviation).clamp(-limit, limit), certain)


Array = NDArray[np.float64]
# value and gradient at one point, float64 [d]
ValueAndGradient = Callable[[Array], tuple[float, Array]]


def refine(f: ValueAndGradient, start: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """A local maximum of f in the box, from `start` [d], by L-BFGS-B; `start` where that finds no better.

    L-BFGS-B ends by absolute numbers, so it sees the rise of f above its value at `start`, in units of what
    the slope there makes of the box's width.
    """
    low, high = lower.numpy(force=True), upper.numpy(force=True)
    x0 = start.numpy(force=True).astype(np.float64)
    first, slope = f(x0)
    unit = float(np.abs(slope * (high - low)).max())
    if not (np.isfinite(unit) and unit > 0 and np.isfinite(first)):
        unit, first = 1.0, 0.0

    def negative(x: Array) -> tuple[float, Array]:
        value, gradient = f(x)
        return (first - value) / unit, -gradient / unit

    bounds = scipy.optimize.Bounds(low, high)
    found = scipy.optimize.minimize(negative, x0, jac=True, method="L-BFGS-B", bounds=bounds)
    if not (np.isfinite(found.fun) and f(found.x)[0] > f(x0)[0]):
        return start
    return torch.from_numpy(np.clip(found.x, low, high)).to(start)
