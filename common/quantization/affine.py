"""The affine quantiser: numbers as integers times a step, from a lowest value on.

Banner, Hubara, Hoffer, Soudry, "Scalable Methods for 8-bit Training of Neural Networks", NeurIPS 2018
(arXiv 1805.11046), section 4; Jacob and others, GEMMLOWP, for the form with a true zero.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Self

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
# so many numbers are quantised at once by each thread of a CPU, and get random bits of their own; a multiple
# of the four that a draw of random bits gives
BLOCK = 2**15
# by so many more words the random bits of each block are turned round; odd, so that no two blocks of a
# tensor have the same place before there are as many as words in one
TURN = 3129


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


def rounded(values: Tensor, noise: Tensor | None = None) -> Tensor:
    """Whole numbers: the nearest, or with noise floor(y) + 1 where it is below y - floor(y), else floor(y).

    With noise uniform in (0, 1) the second form is stochastic: floor(y) + 1 with probability y - floor(y).
    It is unbiased, and leaves whole numbers alone. Writes over `values`.
    """
    if noise is None:
        return values.round_()
    lower = torch.floor(values)
    return torch.lt(noise, values.sub_(lower), out=values).add_(lower)


def uniform(like: Tensor, bits: Tensor | None = None) -> Tensor:
    """Random numbers (k + 1/2) / 2^16, k uniform in 0 .. 2^16 - 1, of the shape and type of a tensor.

    Four of them from one draw of 64 bits, as on a CPU the draws would take longer than all else.

    Args:
        like: the tensor.
        bits: words of 64 bits, enough for it; drawn where there are none.
    """
    words = random_words((like.numel() + 3) // 4, like.device) if bits is None else bits
    whole = words.view(torch.int16)[: like.numel()].to(like.dtype)
    # signed k, so that 1/2 is added too
    half = torch.full((), 0.5 + 0.5 * 2.0**-NOISE_BITS, dtype=like.dtype, device=like.device)
    return torch.add(half, whole, alpha=2.0**-NOISE_BITS, out=whole).view(like.shape)


def random_words(count: int, device: torch.device) -> Tensor:
    """Words of 64 random bits."""
    return torch.empty(count, dtype=torch.int64, device=device).random_(-(2**63), None)


def random_blocks(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Words of 64 random bits for the numbers of blocks: those of the first, and for each other block the
    same, turned round by some words and joined by exclusive or with a random word of its own.

    So every number is uniform and any two of them are independent, on which the means and variances of sums
    depend; as many draws as there are numbers would take most of a quantiser's time.

    Args:
        count: of blocks.
        size: of a block, in numbers.
        device: where.
    """
    words = (size + 3) // 4
    first = random_words(words, device)
    yield first
    twice = torch.cat([first, first])
    for number, word in enumerate(random_words(count - 1, device), start=1):
        begin = number * TURN % words
        yield twice[begin : begin + words] ^ word


def with_zero(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The range widened to hold 0, as a form with a true zero needs."""
    return low.clamp(max=0), high.clamp(min=0)


@dataclass(frozen=True)
class Grid:
    """The levels q s + offset, q = 0 .. 2^b - 1, of a range.

    q = clamp(round((x - low) / s), 0, 2^b - 1), offset = low. With a true zero the range holds 0 and
    z = clamp(round(-low / s), 0, 2^b - 1), q = clamp(round(x / s) + z, 0, 2^b - 1), offset = -z s: so x^ is
    0 where x is 0.

    Attributes:
        step, offset: s and the offset, scalars, or of a shape that is broadcast.
        zero: z, None without a true zero.
        top: 2^b - 1.
    """

    step: Tensor
    offset: Tensor
    zero: Tensor | None
    top: int

    @classmethod
    def of_range(cls, low: Tensor, high: Tensor, bits: int, true_zero: bool = False) -> Self:
        """The grid of b = 1 to 31 bits from `low` to `high`."""
        if not true_zero:
            return cls(step_size(low, high, bits), low, None, levels(bits))
        low, high = with_zero(low, high)
        step = step_size(low, high, bits)
        zero = (-low / step).round().clamp(0, levels(bits))
        return cls(step, -zero * step, zero, levels(bits))

    def codes(self, values: Tensor, noise: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """The integers q of values, as floats of their shape; written into `out` where there is one."""
        if self.zero is None:
            whole = rounded(torch.sub(values, self.offset, out=out).div_(self.step), noise)
        else:
            whole = rounded(torch.div(values, self.step, out=out), noise).add_(self.zero)
        return whole.clamp_(0, self.top)

    def values(self, codes: Tensor) -> Tensor:
        """q s + offset, written over the integers."""
        return codes.mul_(self.step).add_(self.offset)


@torch.no_grad()
def quantised(
    values: Tensor, low: Tensor, high: Tensor, bits: int, stochastic: bool = False, true_zero: bool = False
) -> Tensor:
    """x^ = q s + offset of `Grid`, without gradient; the values themselves for 32 bits.

    Args:
        values: x, of any shape.
        low, high: of the range, scalars, or of a shape that is broadcast.
        bits: b, from 1 to 32.
        stochastic: see `rounded`.
        true_zero: whether 0 stays 0.
    """
    if bits == FLOAT_BITS:
        return values
    grid = Grid.of_range(low, high, bits, true_zero)
    if low.ndim or high.ndim:
        return grid.values(grid.codes(values, uniform(values) if stochastic else None))
    found = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    for whole in code_blocks(values, found, grid, stochastic):
        grid.values(whole)
    return found


def block_size(values: Tensor) -> int:
    """How many numbers of a tensor are worked on at once: so many as stay in the CPU's caches, or all."""
    return BLOCK * torch.get_num_threads() if values.device.type == "cpu" else max(values.numel(), 1)


def code_blocks(values: Tensor, found: Tensor, grid: Grid, stochastic: bool) -> Iterator[Tensor]:
    """Write the integers of values into `found`, block by block, and give each block that was written.

    Numbers that stay in a CPU's cache take a fraction of the time.

    Args:
        values: of any shape.
        found: contiguous, of the same shape; its blocks have `block_size` numbers.
        grid: of scalars.
        stochastic: see `rounded`.
    """
    size = block_size(values)
    given, places = values.reshape(-1).split(size), found.view(-1).split(size)
    bits = _bits_of_blocks(values, size) if stochastic else None
    for block, place in zip(given, places, strict=True):
        yield grid.codes(block, uniform(block, next(bits)) if bits else None, out=place)


def _bits_of_blocks(values: Tensor, size: int) -> Iterator[Tensor]:
    """Random bits for each `size` numbers of a tensor, on a CPU the same whatever the number of threads."""
    on_cpu = values.device.type == "cpu"
    own, together = (BLOCK, size // BLOCK) if on_cpu else (size, 1)
    bits = random_blocks(max(1, -(-values.numel() // own)), min(own, values.numel()), values.device)
    while words := list(islice(bits, together)):
        yield words[0] if len(words) == 1 else torch.cat(words)


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
        UserError: bits out of range, values that are no floats, or a range that is NaN, infinite or upside
            down.
    """
    require_bits(bits=bits)
    if not values.is_floating_point():
        raise UserError(f"quantise: values of type {values.dtype} (valid: floats, as of values.float())")
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
