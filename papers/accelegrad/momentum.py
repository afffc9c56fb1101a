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
    """b <- mu b + c g and x <- x - lr (g + mu b), in place, in one pass where the three lie alike in memory.

    Args:
        factor: where given, a 0-dim tensor by which the gradients are multiplied first, without waiting for
            the device; in place in float32.
    """
    if factor is not None and xs[0].dtype != torch.float32:
        # the kernel's own factor is of float32
        gs, factor = list(torch._foreach_mul(gs, factor.to(xs[0].dtype))), None
    alike = [_lie_alike(*tensors) for tensors in zip(xs, gs, buffers, strict=True)]
    if all(alike):
        _fused_step(xs, gs, buffers, form, factor)
        return
    for fused, step in ((True, _fused_step), (False, _strided_step)):
        chosen = [i for i, one in enumerate(alike) if one == fused]
        if chosen:
            step([xs[i] for i in chosen], [gs[i] for i in chosen], [buffers[i] for i in chosen], form, factor)


def coast(
    xs: list[Tensor], gs: list[Tensor], buffers: list[Tensor], alpha: float, following: float, scale: float
) -> float:
    """A step of size 0, in place, where s shrinks and b stays: r <- (1 - tau_t) r, x <- x + tau_{t+1} r.

    Args:
        gs: 0 times them is subtracted, so that NaN and infinite ones are not passed over.
        alpha, following, scale: as in `momentum_form`.

    Returns:
        s after the step.
    """
    new = (1 - 1 / alpha) * scale
    torch._foreach_sub_(xs, gs, alpha=0.0)
    torch._foreach_sub_(xs, buffers, alpha=new / following)
    return new


def _fused_step(
    xs: list[Tensor], gs: list[Tensor], buffers: list[Tensor], form: Momentum, factor: Tensor | None
) -> None:
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


def _strided_step(
    xs: list[Tensor], gs: list[Tensor], buffers: list[Tensor], form: Momentum, factor: Tensor | None
) -> None:
    """The same for any strides, which the kernel of `_fused_step` does not look at."""
    if factor is not None:
        gs = list(torch._foreach_mul(gs, factor.to(xs[0].dtype)))
    if form.momentum:
        torch._foreach_mul_(buffers, form.momentum)
        torch._foreach_add_(buffers, gs, alpha=form.gain)
        torch._foreach_sub_(xs, buffers, alpha=form.rate * form.momentum)
    torch._foreach_sub_(xs, gs, alpha=form.rate)


def _lie_alike(x: Tensor, g: Tensor, b: Tensor) -> bool:
    """Whether each fills its memory without gaps, in one order of elements, and has memory at all."""
    if x.is_meta:
        return False
    if x.is_contiguous() and g.is_contiguous() and b.is_contiguous():
        return True
    return x.stride() == g.stride() == b.stride() and _is_dense(x)


def _is_dense(x: Tensor) -> bool:
    expected = 1
    for stride, size in sorted(
        (stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1
    ):
        if stride != expected:
            return False
        expected *= size
    return True
