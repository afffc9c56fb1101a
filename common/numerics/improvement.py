"""Expected improvement of a normal belief, E[max(y - best, 0)] of y ~ N(mean, deviation^2), to be maximised.

    EI = s h(u),   u = (mean - best) / s,   h(u) = phi(u) + u Phi(u)

For u << 0 the two terms of h cancel, so there it is phi(u) (1 + u Phi(u) / phi(u)) by the scaled erfc.
"""

import math

import torch
from torch import Tensor

# beyond, h(u) is phi(u) / u^2 to double precision
FAR = -1e4


def expected_improvement(mean: Tensor, deviation: Tensor, best: Tensor | float) -> Tensor:
    """EI, in the unit of the mean, never negative; without deviation max(mean - best, 0).

    Args:
        mean, deviation: of any shape, deviation >= 0; best: broadcast to it.
    """
    gain = mean - best
    certain = deviation <= 0
    u = gain / torch.where(certain, torch.ones_like(deviation), deviation)
    density = torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi)
    low = u.clamp_max(-1.0)
    tail = density * (1 + low * _mills(low)).clamp_min(0.0)
    found = deviation * torch.where(u < -1, tail, density + u * torch.special.ndtr(u))
    return torch.where(certain, gain.clamp_min(0.0), found)


def log_expected_improvement(mean: Tensor, deviation: Tensor, best: Tensor | float) -> Tensor:
    """log EI = log s + log h(u), deviation > 0.

    h(u) is 0 in floating point from u = -38 on, its logarithm is not: for u < -1 it is
    log phi(u) + log(1 + u Phi(u) / phi(u)), for u < -1e4 log phi(u) - 2 log |u| (Ament et al. 2023, eq. 9).

    Args:
        mean, deviation, best: as of `expected_improvement`.
    """
    u = (mean - best) / deviation
    high = u.clamp_min(-1.0)
    density = torch.exp(-0.5 * high.square()) / math.sqrt(2 * math.pi)
    near = torch.log(density + high * torch.special.ndtr(high))
    low = u.clamp(FAR, -1.0)
    bottom = torch.log1p(low * _mills(low))
    far = -2 * torch.log(-u.clamp_max(FAR))
    tail = -0.5 * u.square() - 0.5 * math.log(2 * math.pi) + torch.where(u < FAR, far, bottom)
    return torch.log(deviation) + torch.where(u < -1, tail, near)


def _mills(u: Tensor) -> Tensor:
    """Phi(u) / phi(u) of u < 0."""
    return math.sqrt(math.pi / 2) * torch.special.erfcx(-u / math.sqrt(2))
