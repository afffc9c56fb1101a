"""The affine quantiser: numbers as integers times a step, from a lowest value on.

Banner, Hubara, Hoffer, Soudry, "Scalable Methods for 8-bit Training of Neural Networks", NeurIPS 2018
(arXiv 1805.11046), section 4; Jacob and others, GEMMLOWP, for the form with a true zero.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from common.base.errors import UserError

Gradient = Literal["straight", "clipped"]
# from so many bits on a number is left as float32 has it
FLOAT_BITS = 32
# random bits of a stochastic rounding; as fine as a float32 of 8 bits before the point
NOISE_BITS = 16
# so many numbers are quantised at once on a CPU; a multiple of the four that a draw of random bits gives
BLOCK = 2**15


def require_bits(**bits: int) -> None:
    """Refuse numbers of bits that no quantiser has.

    Args:
        bits: by the method's key.

    Raises:
        UserError: one is not a whole number from 1 to 32.
    """
    for name, count in bits.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= FLOAT_BITS:
            raise UserError(
                f"method.{name}={count}: valid: whole numbers from 1 to {FLOAT_BITS} ({FLOAT_BITS}: float32)"
            )


def levels(bits: int) -> int:
    """2^b - 1, the largest integer of b bits."""
    return 2**bits - 1


def step_size(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """s = (high - low) / (2^b - 1); 1 where that is 0, so that a constant tensor stays what it is.

    There is no smallest step (the authors' code has 1e-8), so that x and a x have the same integers.
    """
    step = (high - low) / levels(bits)
    return torch.where(step == 0, torch.ones_like(step), step)


def rounded(values: Tensor, stochastic: bool) -> Tensor:
    """Whole numbers: the nearest, or floor(y) + 1 with probability y - floor(y), else floor(y).

    The stochastic form is unbiased, and leaves whole numbers alone. Writes over `values`.
    """
    if not stochastic:
        return values.round_()
    lower = values.floor()
    return lower.add_(uniform(values).lt_(values.sub_(lower)))


def uniform(like: Tensor) -> Tensor:
    """Random numbers (k + 1/2) / 2^16, k uniform in 0 .. 2^16 - 1, of the shape and type of a tensor.

    Four of them from one draw of 64 bits, as on a CPU the draws would take longer than all else.
    """
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None)
    noise = words.view(torch.int16)[: like.numel()].to(like.dtype)
    return noise.add_(2 ** (NOISE_BITS - 1) + 0.5).mul_(2.0**-NOISE_BITS).view(like.shape)


def with_zero(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The range widened to hold 0, as a form with a true zero needs."""
    return low.clamp(max=0), high.clamp(min=0)


def codes(
    values: Tensor, low: Tensor, high: Tensor, bits: int, stochastic: bool = False, true_zero: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The integers q of x^ = q s + offset, with s and the offset.

    q = clamp(round((x - low) / s), 0, 2^b - 1), offset = low. With a true zero the range holds 0 and
    z = clamp(round(-low / s), 0, 2^b - 1), q = clamp(round(x / s) + z, 0, 2^b - 1), offset = -z s: so x^ is
    0 where x is 0.

    Args:
        values: x, of any shape.
        low, high: of the range, scalars, or of a shape that is broadcast.
        bits: b, from 1 to 31.
        stochastic: see `rounded`.
        true_zero: whether 0 stays 0.

    Returns:
        q as floats of the shape of x, s, offset.
    """
    if not true_zero:
        step = step_size(low, high, bits)
        whole = rounded((values - low).div_(step), stochastic)
        return whole.clamp_(0, levels(bits)), step, low
    low, high = with_zero(low, high)
    step = step_size(low, high, bits)
    zero = (-low / step).round().clamp(0, levels(bits))
    whole = rounded(values / step, stochastic).add_(zero)
    return whole.clamp_(0, levels(bits)), step, -zero * step


@torch.no_grad()
def quantised(
    values: Tensor, low: Tensor, high: Tensor, bits: int, stochastic: bool = False, true_zero: bool = False
) -> Tensor:
    """x^ = q s + offset of `codes`, without gradient; the values themselves for 32 bits."""
    if bits == FLOAT_BITS:
        return values
    if values.device.type != "cpu" or values.numel() <= BLOCK or low.ndim or high.ndim:
        return _quantised(values, low, high, bits, stochastic, true_zero)
    # block by block, as numbers that stay in the processor's cache take a fraction of the time
    found = torch.empty(values.shape, dtype=values.dtype)
    for given, place in zip(values.reshape(-1).split(BLOCK), found.view(-1).split(BLOCK), strict=True):
        place.copy_(_quantised(given, low, high, bits, stochastic, true_zero))
    return found


def _quantised(
    values: Tensor, low: Tensor, high: Tensor, bits: int, stochastic: bool, true_zero: bool
) -> Tensor:
    whole, step, offset = codes(values, low, high, bits, stochastic, true_zero)
    return whole.mul_(step).add_(offset)


def value_range(values: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest of all values, as scalars on their device."""
    return torch.aminmax(values.detach())


class _Quantise(Function):
    """`quantised`, whose backward is the identity, or 0 outside the range."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        low: Tensor,
        high: Tensor,
        bits: int,
        stochastic: bool,
        true_zero: bool,
        gradient: Gradient,
    ) -> Tensor:
        if gradient == "clipped":
            lowest, highest = with_zero(low, high) if true_zero else (low, high)
            ctx.save_for_backward((values >= lowest) & (values <= highest))
        return quantised(values, low, high, bits, stochastic, true_zero)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        inside = ctx.saved_tensors
        return (gradient * inside[0] if inside else gradient, None, None, None, None, None, None)


class _QuantiseGradient(Function):
    """The identity, whose backward quantises the gradient by its smallest and largest number.

    The output has the input's memory, and the next layer may write over it (ReLU in place).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, bits: int, stochastic: bool) -> Tensor:
        ctx.settings = bits, stochastic
        return values.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        return quantised(gradient, *value_range(gradient), *ctx.settings), None, None


def quantise_within(
    values: Tensor,
    low: Tensor,
    high: Tensor,
    bits: int,
    *,
    stochastic: bool = False,
    true_zero: bool = False,
    gradient: Gradient = "straight",
) -> Tensor:
    """`quantised` as a step of a network; nothing is checked, so that no step waits for the device.

    Args:
        values, low, high, bits, stochastic, true_zero: see `codes`; 32 bits give the values themselves.
        gradient: "straight": as if nothing had been done, also where values were clipped (the authors'
            code). "clipped": 0 outside the range.
    """
    if bits == FLOAT_BITS:
        return values
    return _Quantise.apply(values, low, high, bits, stochastic, true_zero, gradient)


def quantise_gradient(values: Tensor, bits: int, stochastic: bool) -> Tensor:
    """The values as they are; the gradient that comes back is quantised, its range its extremes."""
    return values if bits == FLOAT_BITS else _QuantiseGradient.apply(values, bits, stochastic)


def quantise(
    values: Tensor,
    bits: int,
    *,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    stochastic: bool = False,
    true_zero: bool = False,
    gradient: Gradient = "straight",
) -> Tensor:
    """Quantise a tensor by hand, checked: `quantise_within` of a range that is finite.

    Args:
        values: of any shape.
        bits: from 1 to 32.
        low, high: of the range; what is left out is the smallest, the largest value.
        stochastic, true_zero, gradient: see `quantise_within`.

    Raises:
        UserError: bits out of range, or a range that is NaN, infinite or upside down.
    """
    require_bits(bits=bits)
    smallest, largest = value_range(values) if values.numel() else (values.sum(), values.sum())
    ends = [
        end if end is None else torch.as_tensor(end, dtype=values.dtype, device=values.device)
        for end in (low, high)
    ]
    lowest = smallest if ends[0] is None else ends[0]
    highest = largest if ends[1] is None else ends[1]
    if not bool((torch.isfinite(lowest) & torch.isfinite(highest) & (lowest <= highest)).all()):
        shown = f"[{lowest.min().item():g}, {highest.max().item():g}]"
        raise UserError(f"quantise: the range {shown} is none (valid: finite numbers, low <= high)")
    return quantise_within(
        values, lowest, highest, bits, stochastic=stochastic, true_zero=true_zero, gradient=gradient
    )


def mid_rise(values: Tensor, m: float) -> Tensor:
    """Q(x) = D (floor(x / D) + 1/2), D = max|x| / 2^M, of section 5: 2^(M+1) levels, none of them 0.

    The largest value, which would open a level of its own, is put into the last one.
    """
    step = values.abs().max() / 2**m
    step = torch.where(step == 0, torch.ones_like(step), step)
    top = math.ceil(2**m) - 1
    return step * ((values / step).floor().clamp(-top - 1, top) + 0.5)
