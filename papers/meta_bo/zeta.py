"""The confidence multiplier zeta_t of GP-UCB, and the bounds behind it (Lemma 1 and Theorem 2).

All functions take t as the paper counts it: t = 1, 2, ... is the evaluation about to be chosen, after t - 1
observations; `tau` is that number of observations.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Zeta = Literal["paper", "upstream", "corrected"]
Fallback = Literal["numerator_only", "upstream_nan"]


def zeta(
    tau: Tensor | float, N: Tensor | float, delta: float, variant: Zeta | float, fallback: Fallback
) -> Tensor:
    """zeta_t after tau = t - 1 observations, with N training functions, float64 of their shape.

        zeta_t = ( sqrt(6 (N - 2 + Q) / (delta N (N - t - 1))) + sqrt(2 ln(3 / delta)) )
                 / sqrt(1 - 2 sqrt(ln(6 / delta) / (N - t))),
        Q = tau + 2 sqrt(t ln(6 / delta)) + 2 ln(6 / delta)

    Variants: `paper`: as above (its N - 3 + t is N - 2 + tau); `upstream`: tau in place of t below the root
    of Q, as the authors' code has it; `corrected`: N Q in place of Q, what the variance of the estimated
    mean really asks for (README.md); a number: that number for every t.

    The denominator is a number only for N - t > 4 ln(6 / delta) (25.6 at delta = 0.01). Otherwise
    `numerator_only` puts 1 in its place, and `upstream_nan` gives NaN. The denominator goes to 0 just before,
    so zeta jumps there: for N = 60 and delta = 0.01 it is 119.7 after 33 observations and 10.9 after 34. A
    search counts how often that was so (`zeta_fallbacks`), and says it.
    """
    tau, N = _double(tau), _double(N)
    if isinstance(variant, int | float):
        return torch.full_like(tau + N, float(variant))
    t, log = tau + 1, math.log(6 / delta)
    Q = tau + 2 * ((tau if variant == "upstream" else t) * log).sqrt() + 2 * log
    spread = N - 2 + (N * Q if variant == "corrected" else Q)
    numerator = (6 * spread / (delta * N * (N - t - 1))).sqrt() + math.sqrt(2 * math.log(3 / delta))
    inside = 1 - 2 * (log / (N - t)).sqrt()
    denominator = torch.where(inside > 0, inside, torch.nan).sqrt()
    if fallback == "numerator_only":
        denominator = denominator.nan_to_num(nan=1.0)
    return numerator / denominator


def mean_error_bound(tau: Tensor | float, N: Tensor | float, delta: float, corrected: bool) -> Tensor:
    """a of Lemma 1: with probability 1 - delta / 2, |mu-hat_tau - mu_tau|^2 < a (k_tau + sigma^2).

    a = 4 (N - 2 + Q) / (delta N (N - tau - 2)), Q = tau + 2 sqrt(tau ln(4 / delta)) + 2 ln(4 / delta);
    `corrected`: N Q in place of Q.
    """
    tau, N = _double(tau), _double(N)
    log = math.log(4 / delta)
    Q = tau + 2 * (tau * log).sqrt() + 2 * log
    return 4 * (N - 2 + (N * Q if corrected else Q)) / (delta * N * (N - tau - 2))


def variance_ratio_bounds(tau: Tensor | float, N: Tensor | float, delta: float) -> tuple[Tensor, Tensor]:
    """Lemma 1: with probability 1 - delta / 2, low < K-hat_tau / (k_tau + sigma^2) < high.

    low = 1 - 2 sqrt(b), high = 1 + 2 sqrt(b) + 2 b, b = ln(4 / delta) / (N - tau - 1).
    """
    tau, N = _double(tau), _double(N)
    b = math.log(4 / delta) / (N - tau - 1)
    return 1 - 2 * b.sqrt(), 1 + 2 * b.sqrt() + 2 * b


def _double(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
