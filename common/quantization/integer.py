"""Products of quantised layers on int8 matrices, as hardware with integer arithmetic makes them.

With x = a + s q and w = c + t p, q and p int8, and zeros around the image that are no level of x:

    sum x w = s t sum q p + a t sum p + c s sum q + a c n

over the n pairs that lie within the image. The sum of q p is of two int8 matrices, accumulated in int32.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from common.quantization.affine import codes
from common.quantization.bifurcated import Convolution, LinearProduct, Operation

# so many products of int8 numbers cannot leave int32
LONGEST_SUM = (2**31 - 1) // 2**14


@dataclass(frozen=True)
class Coded:
    """Numbers as int8: values = offset + step * codes.

    Attributes:
        codes: int8, q - 2^(b-1) of the quantiser's integers q.
        step, offset: scalars.
    """

    codes: Tensor
    step: Tensor
    offset: Tensor


def coded(values: Tensor, low: Tensor, high: Tensor, bits: int, true_zero: bool = False) -> Coded:
    """The int8 codes of numbers that are levels of a quantiser already (`quantised`), of at most 8 bits.

    Args:
        values: of any shape.
        low, high, bits, true_zero: with which they were quantised.
    """
    whole, step, offset = codes(values, low, high, bits, true_zero=true_zero)
    middle = 2 ** (bits - 1)
    return Coded((whole - middle).to(torch.int8), step, offset + middle * step)


def int_matmul(first: Tensor, second: Tensor) -> Tensor:
    """first @ second of int8 matrices, exactly: int32, or int64 where the sums may not fit int32.

    Shapes: [n, k], [k, m] to [n, m].
    """
    if first.shape[1] <= LONGEST_SUM:
        return _int_mm(first, second)
    pieces = zip(first.split(LONGEST_SUM, 1), second.split(LONGEST_SUM, 0), strict=True)
    return torch.stack([_int_mm(*piece).long() for piece in pieces]).sum(0)


def _int_mm(first: Tensor, second: Tensor) -> Tensor:
    """`torch._int_mm`; on a GPU with zeros added: its kernels take multiples of 8 and more than 16 rows."""
    if not first.is_cuda:
        return torch._int_mm(first.contiguous(), second.contiguous())
    rows, inner, columns = first.shape[0], first.shape[1], second.shape[1]
    more_rows, more_inner, more_columns = max(0, 32 - rows), -inner % 8, -columns % 8
    padded = functional.pad(first, (0, more_inner, 0, more_rows))
    other = functional.pad(second, (0, more_columns, 0, more_inner))
    return torch._int_mm(padded, other)[:rows, :columns]


def integer_product(operation: Operation, inputs: Coded, weight: Coded, bias: Tensor | None) -> Tensor:
    """What `operation.forward` gives of the values, by integers; the parts are joined in float64.

    Args:
        operation: `Convolution` or `LinearProduct`.
        inputs, weight: as the operation takes them.
        bias: added at the end, as float.
    """
    if isinstance(operation, LinearProduct):
        rows = inputs.codes.reshape(-1, inputs.codes.shape[-1])
        sums = _joined(rows, torch.ones_like(rows[:1]), weight.codes.t(), inputs, weight)
        return _with_bias(sums, bias, inputs.step.dtype).view(*inputs.codes.shape[:-1], -1)
    assert isinstance(operation, Convolution)
    given, inside, kernel, places = _as_plain(operation, inputs.codes, weight.codes)
    sizes = tuple(kernel.shape[2:])
    columns, positions = windows(given, sizes, places)
    # every channel has the same places within the image
    mask = windows(inside, sizes, places)[0][0].expand(-1, kernel.shape[1], -1).flatten(1)
    parts = zip(columns.chunk(operation.groups, 2), kernel.chunk(operation.groups, 0), strict=True)
    joined = [
        _joined(part.flatten(0, 1).flatten(1), mask, own.flatten(1).t(), inputs, weight)
        for part, own in parts
    ]
    found = _with_bias(torch.cat(joined, 1), bias, inputs.step.dtype)
    return found.view(len(given), *positions, -1).movedim(-1, 1).contiguous()


def _with_bias(sums: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The float64 sums [n, m] with the bias [m], in the type of the network."""
    return (sums if bias is None else sums + bias.double()).to(dtype)


def _joined(rows: Tensor, inside: Tensor, matrix: Tensor, inputs: Coded, weight: Coded) -> Tensor:
    """The four sums of the module's formula, joined: float64 [n, m].

    Args:
        rows: q, int8 [n, k], 0 outside the image.
        inside: int8 [positions, k], 1 within the image and 0 outside; n is a multiple of the positions.
        matrix: p, int8 [k, m].
        inputs, weight: for steps and offsets.
    """
    s, t, a, c = (part.double() for part in (inputs.step, weight.step, inputs.offset, weight.offset))
    repeats = rows.shape[0] // inside.shape[0]
    products = int_matmul(rows, matrix).double()
    of_weights = int_matmul(inside, matrix).double().repeat(repeats, 1)
    of_inputs = rows.sum(1, dtype=torch.int64).double()[:, None]
    pairs = inside.sum(1, dtype=torch.int64).double().repeat(repeats)[:, None]
    return s * t * products + a * t * of_weights + c * s * of_inputs + a * c * pairs


@dataclass(frozen=True)
class _Places:
    """Where the windows of a convolution without padding lie."""

    stride: tuple[int, ...]
    dilation: tuple[int, ...]


def _as_plain(
    operation: Convolution, inputs: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, _Places]:
    """A convolution, transposed or not, as a plain one of padded inputs: inputs, inside, kernel, windows.

    A transposed convolution is a plain one of the inputs with stride - 1 zeros between them, by the mirrored
    kernel, with dilation * (kernel - 1) - padding zeros around.
    """
    inside = torch.ones_like(inputs[:1, :1])
    if not operation.transposed:
        sides = [
            size
            for padding, behind in zip(reversed(operation.padding), reversed(operation.behind), strict=True)
            for size in (padding, padding + behind)
        ]
        padded = (functional.pad(part, sides) for part in (inputs, inside))
        return *padded, weight, _Places(operation.stride, operation.dilation)  # type: ignore[return-value]
    dims = len(operation.stride)
    around = [
        dilation * (kernel - 1) - padding
        for dilation, kernel, padding in zip(
            operation.dilation, weight.shape[2:], operation.padding, strict=True
        )
    ]
    sides = [
        size
        for reach, more in zip(reversed(around), reversed(operation.output_padding), strict=True)
        for size in (reach, reach + more)
    ]
    spread = [functional.pad(_spaced(part, operation.stride), sides) for part in (inputs, inside)]
    groups = operation.groups
    # [in, out / groups, ...] to [out, in / groups, ...]
    kernel = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(list(range(2, 2 + dims)))
    return spread[0], spread[1], kernel, _Places((1,) * dims, operation.dilation)


def _spaced(values: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Values with stride - 1 zeros between neighbours."""
    sizes = [(size - 1) * step + 1 for size, step in zip(values.shape[2:], stride, strict=True)]
    found = values.new_zeros(*values.shape[:2], *sizes)
    index: Any = (..., *(slice(None, None, step) for step in stride))
    found[index] = values
    return found


def windows(values: Tensor, kernel: tuple[int, ...], places: _Places) -> tuple[Tensor, tuple[int, ...]]:
    """All windows of a plain convolution: [b, positions, channels, kernel's area], and the output's sizes."""
    reaches = [
        range(0, size - dilation * (side - 1), stride)
        for size, side, stride, dilation in zip(
            values.shape[2:], kernel, places.stride, places.dilation, strict=True
        )
    ]
    positions = tuple(len(reach) for reach in reaches)
    parts = []
    for offsets in itertools.product(*(range(side) for side in kernel)):
        spots = [
            slice(offset * dilation, offset * dilation + reach.stop, stride)
            for offset, dilation, stride, reach in zip(
                offsets, places.dilation, places.stride, reaches, strict=True
            )
        ]
        index: Any = (slice(None), slice(None), *spots)
        parts.append(values[index].flatten(2))
    return torch.stack(parts, 3).transpose(1, 2), positions
