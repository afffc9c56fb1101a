"""Products of quantised layers on int8 matrices, as hardware with integer arithmetic makes them.

With x = a + s q and w = c + t p, q and p int8, and zeros around the image that are no level of x:

    sum x w = s t sum q p + a t sum p + c s sum q + a c n

over the n pairs that lie within the image. The sum of q p is of two int8 matrices, accumulated in int32.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from common.quantization.affine import Grid, block_size, code_blocks
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


@torch.no_grad()
def coded(values: Tensor, low: Tensor, high: Tensor, bits: int, true_zero: bool = False) -> Coded:
    """The int8 codes of the nearest levels of numbers, of at most 8 bits; those of levels are their own.

    Args:
        values: of any shape.
        low, high, bits, true_zero: of the quantiser (`quantised`), scalars.
    """
    grid, middle = Grid.of_range(low, high, bits, true_zero), 2 ** (bits - 1)
    codes = torch.empty(values.shape, dtype=torch.int8, device=values.device)
    whole = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    blocks, places = (
        code_blocks(values, whole, grid, stochastic=False),
        codes.view(-1).split(block_size(values)),
    )
    for block, place in zip(blocks, places, strict=True):
        place.copy_(block.sub_(middle))
    return Coded(codes, grid.step, grid.offset + middle * grid.step)


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
        rows = inputs.codes.reshape(1, -1, inputs.codes.shape[-1])
        found = _product(rows, torch.ones_like(rows[:, :1]), weight.codes, inputs, weight, bias)
        return found[0].t().reshape(*inputs.codes.shape[:-1], -1)
    assert isinstance(operation, Convolution)
    kernel = _plain_kernel(operation, weight.codes)
    image = _image(operation, inputs.codes, kernel)
    inside = _image(operation, torch.ones_like(inputs.codes[:1, : kernel.shape[1]]), kernel)
    columns = _windows(operation, image, kernel)
    mask = _windows(operation, inside, kernel).flatten(2)[0]
    biases = [None] * operation.groups if bias is None else bias.chunk(operation.groups)
    parts = [
        _product(rows.reshape(len(rows), len(mask), -1), mask[None], matrix, inputs, weight, own)
        for rows, matrix, own in zip(
            columns.chunk(operation.groups, 3),
            # the order of the windows: pixels, then channels
            kernel.flatten(2).transpose(1, 2).flatten(1).chunk(operation.groups),
            biases,
            strict=True,
        )
    ]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return joined.view(*joined.shape[:2], *_positions(operation, image, kernel))


def _product(
    rows: Tensor, inside: Tensor, matrix: Tensor, inputs: Coded, weight: Coded, bias: Tensor | None
) -> Tensor:
    """The four sums of the module's formula, joined in float64, and the bias.

    Args:
        rows: q, int8 [b, positions, k], 0 outside the image.
        inside: int8 [1, positions, k], 1 within the image and 0 outside; or [1, 1, k], for all positions.
        matrix: p, int8 [m, k].
        inputs, weight: for steps and offsets.
        bias: [m].

    Returns:
        [b, m, positions], in the type of the network.
    """
    s, t, a, c = (part.double() for part in (inputs.step, weight.step, inputs.offset, weight.offset))
    examples, positions, length = rows.shape
    # a column of ones adds up the row
    columns = torch.cat([matrix, torch.ones_like(matrix[:1])]).t()
    places = inside.reshape(-1, length)
    # of every example the same: a t sum p + a c n + bias
    fixed = int_matmul(places, columns).double()
    fixed = fixed[:, :-1] * (a * t) + fixed[:, -1:] * (a * c)
    if bias is not None:
        fixed += bias
    fixed = fixed.t().contiguous()
    sums = int_matmul(rows.reshape(-1, length), columns).view(examples, positions, -1)
    dtype, device = inputs.step.dtype, inputs.codes.device
    found = torch.empty(examples, len(matrix), positions, dtype=dtype, device=device)
    some = max(1, block_size(sums) // max(1, positions * len(matrix)))
    for part, place in zip(sums.split(some), found.split(some), strict=True):
        exact = part.transpose(1, 2).contiguous().double()
        joined = exact[:, :-1].mul_(s * t).add_(exact[:, -1:].mul_(c * s)).add_(fixed)
        place.copy_(joined)
    return found


def _plain_kernel(operation: Convolution, weight: Tensor) -> Tensor:
    """The kernel [out, in / groups, ...] of a convolution; of a transposed one that of the plain one.

    A transposed convolution is a plain one of the inputs with stride - 1 zeros between them, by the mirrored
    kernel, with dilation * (kernel - 1) - padding zeros around.
    """
    if not operation.transposed:
        return weight
    kernel = weight.unflatten(0, (operation.groups, -1)).transpose(1, 2).flatten(0, 1)
    return kernel.flip(list(range(2, kernel.ndim)))


def _image(operation: Convolution, codes: Tensor, kernel: Tensor) -> Tensor:
    """What the kernel passes over, with zeros around and between: [b, ..., channels]."""
    sides = list(zip(operation.padding, operation.padding, operation.behind, strict=True))
    spacing = (1,) * len(sides)
    if operation.transposed:
        around = [
            dilation * (size - 1) - padding
            for dilation, size, padding in zip(
                operation.dilation, kernel.shape[2:], operation.padding, strict=True
            )
        ]
        sides, spacing = list(zip(around, around, operation.output_padding, strict=True)), operation.stride
    # without the zeros that a negative padding takes off
    lengths = [(size - 1) * step + 1 for size, step in zip(codes.shape[2:], spacing, strict=True)]
    starts = [max(0, before) for before, _, _ in sides]
    ends = [max(0, after + more) for _, after, more in sides]
    sizes = [sum(parts) for parts in zip(starts, lengths, ends, strict=True)]
    whole = codes.new_zeros(len(codes), *sizes, codes.shape[1])
    spots = [
        slice(start, start + length, step)
        for start, length, step in zip(starts, lengths, spacing, strict=True)
    ]
    whole[(slice(None), *spots)] = codes.movedim(1, -1)
    cut = [
        slice(max(0, -before), size - max(0, -(after + more)))
        for (before, after, more), size in zip(sides, sizes, strict=True)
    ]
    return whole[(slice(None), *cut)]


def _positions(operation: Convolution, image: Tensor, kernel: Tensor) -> tuple[int, ...]:
    """How many windows there are in each dimension of an image [b, ..., channels]."""
    strides = (1,) * len(operation.stride) if operation.transposed else operation.stride
    return tuple(
        (size - dilation * (side - 1) - 1) // stride + 1
        for size, side, stride, dilation in zip(
            image.shape[1:-1], kernel.shape[2:], strides, operation.dilation, strict=True
        )
    )


def _windows(operation: Convolution, image: Tensor, kernel: Tensor) -> Tensor:
    """All windows of an image [b, ..., channels]: [b, positions, kernel's area, channels].

    A kernel of one pixel and stride 1 has the image's own memory; else it is copied once.
    """
    strides = (1,) * len(operation.stride) if operation.transposed else operation.stride
    positions = _positions(operation, image, kernel)
    along = image.stride()[1:-1]
    views = image.as_strided(
        (len(image), *positions, *kernel.shape[2:], image.shape[-1]),
        (
            image.stride(0),
            *(step * own for step, own in zip(strides, along, strict=True)),
            *(dilation * own for dilation, own in zip(operation.dilation, along, strict=True)),
            1,
        ),
        image.storage_offset(),
    )
    return views.reshape(len(image), math.prod(positions), -1, image.shape[-1])
