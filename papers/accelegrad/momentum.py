"""AcceleGrad without projection as SGD with Nesterov's momentum: the same points in fewer passes over memory.

With r = z - y after a step, Algorithm 2 without projection is

    r <- (1 - tau_t) r - (alpha_t - 1) eta_t g_t,    x <- x - eta_t g_t + tau_{t+1} r

since z_t - x_{t+1} = (1 - tau_t) r. Nesterov's momentum in torch is b <- mu b + c g, x <- x - lr (g + mu b).
With r = -s b and lr = e (eta_t; or 1 where g is already eta_t times the gradient) the two agree if

    s'^2 = e (1 - tau_t) s / tau_{t+1},   mu = tau_{t+1} s' / e,   c = (alpha_t - 1) e / s'

While alpha_t = 1, r stays 0; at the first alpha_t > 1 b is 0, so s' is free, and is e.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Momentum:
    """One step's coefficients.

    Attributes:
        rate: lr; momentum: mu; gain: c.
        scale: s after the step.
    """

    rate: float
    momentum: float
    gain: float
    scale: float


def momentum_form(alpha: float, following: float, scale: float, unit: float) -> Momentum:
    """The coefficients of step t.

    Args:
        alpha, following: alpha_t and alpha_{t+1}.
        scale: s before the step, 0 while alpha was 1.
        unit: e.
    """
    if alpha == 1:
        return Momentum(unit, 0.0, 0.0, 0.0)
    tau = 1 / following
    new = (unit * (1 - 1 / alpha) * scale / tau) ** 0.5 if scale else unit
    return Momentum(unit, tau * new / unit, (alpha - 1) * unit / new, new)


def momentum_step(
    xs: list[Tensor], gs: list[Tensor], buffers: list[Tensor], form: Momentum, factor: Tensor | None
) -> None:
    """b <- mu b + c g and x <- x - lr (g + mu b), in place, in one pass.

    Args:
        factor: where given, a 0-dim tensor by which the gradients are multiplied first, in place, without
            waiting for the device.
    """
    torch._fused_sgd_(
        xs,
        gs,
        buffers if form.momentum else [],
        weight_decay=0.0,
        momentum=form.momentum,
        lr=form.rate,
        dampening=1 - form.gain,
        nesterov=form.momentum > 0,
        maximize=False,
        is_first_step=False,
        grad_scale=None if factor is None else factor.reciprocal().float(),
        found_inf=None,
    )
