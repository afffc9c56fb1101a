"""One-dimensional convolutions along the channel axis, as products with small banded matrices.

A kernel w of d numbers that slides with stride s over C channels is a matrix with w in each row, s columns
further right than in the row above. Torch's Conv3d does the same with kernels (d, 1, 1), slowly: here the
matrix is made anew in each pass (it is small), and the product is one of torch's fast ones. Gradients follow
by autograd through the matrix's making, so those of w are sums along its diagonals.
"""

from torch import Tensor
from torch.nn import functional as F

# with more channels the whole matrix is mostly zeros: blocks of its rows, which are alike, are cheaper
WHOLE = 128
# rows of a block, at least
SMALLEST_BLOCK = 8


def same_padding(channels: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after C channels so that ceil(C / s) numbers come out, as TensorFlow's SAME has it.

    In total max((ceil(C / s) - 1) s + d - C, 0), of which the smaller half lies before: d - s where s divides
    C and d >= s; 31 before and 32 after for a kernel of 64 and stride 1.
    """
    total = max((-(-channels // stride) - 1) * stride + kernel - channels, 0)
    return total // 2, total - total // 2


def band(kernels: Tensor, rows: int, columns: int, stride: int) -> Tensor:
    """Matrices whose row o holds a kernel from column o s on, and zeros elsewhere.

    Args:
        kernels: [..., rows, d], or [..., 1, d] where all rows of a matrix hold the same.
        rows: of each matrix.
        columns: at least (rows - 1) s + d.
        stride: s.

    Returns:
        [..., rows, columns].
    """
    width = columns + stride
    padded = F.pad(kernels, (0, width - kernels.shape[-1]))
    # rows that are s numbers too long, read on as rows of the right length, begin s further right each time
    flat = padded.expand(*padded.shape[:-2], rows, width).flatten(-2)
    return flat[..., : rows * columns].unflatten(-1, (rows, columns))


def channelwise(inputs: Tensor, kernels: Tensor, *, stride: int, padding: tuple[int, int]) -> Tensor:
    """f kernels of d numbers that slide with stride s along the channels, at every position alike.

        y[j L + o] = sum over t of w_j[t] x[o s + t - p],   L = floor((C + p + q - d) / s) + 1,

    with x = 0 outside of 0..C-1: the outputs of each kernel stand together. It is Conv3d(1, f, (d, 1, 1),
    stride=(s, 1, 1)) on channels as depth. A number that is not finite may spread to all channels of its
    position, as it is multiplied by zeros of a matrix.

    Args:
        inputs: [b, C, ...].
        kernels: [f, d], d <= C + p + q.
        stride: s >= 1.
        padding: (p, q) zeros before and after the channels.

    Returns:
        [b, f L, ...].
    """
    channels, kernel = inputs.shape[1], kernels.shape[-1]
    length = (channels + sum(padding) - kernel) // stride + 1
    block = max(SMALLEST_BLOCK, kernel)
    if channels <= WHOLE or length <= block:
        return _by_matrix(inputs, kernels, length, stride, padding[0])
    return _by_blocks(inputs, kernels, length, stride, padding[0], block)


def matrix(kernels: Tensor, channels: int, length: int, stride: int, before: int) -> Tensor:
    """The matrix [f L, C] that `channelwise` multiplies the channels by.

    Args:
        kernels: [f, d].
        channels: C.
        length: L, outputs of each kernel.
        stride: s.
        before: p, the zeros before the channels.
    """
    columns = max((length - 1) * stride + kernels.shape[-1], before + channels)
    padded = band(kernels.unsqueeze(-2), length, columns, stride)
    return padded[..., before : before + channels].flatten(0, 1)


def _by_matrix(inputs: Tensor, kernels: Tensor, length: int, stride: int, before: int) -> Tensor:
    """One product with the whole matrix: a 1x1 convolution."""
    weight = matrix(kernels, inputs.shape[1], length, stride, before)
    if inputs.dim() == 4:
        return F.conv2d(inputs, weight[..., None, None])
    positions = inputs.reshape(*inputs.shape[:2], inputs.shape[2:].numel())
    return F.conv1d(positions, weight[..., None]).reshape(len(inputs), len(weight), *inputs.shape[2:])


def _by_blocks(inputs: Tensor, kernels: Tensor, length: int, stride: int, before: int, block: int) -> Tensor:
    """Products of windows of the channels with one block of the matrix's rows: all blocks are alike.

    A block of T outputs of each kernel takes (T - 1) s + d channels, the next one begins T s further on.
    """
    count = -(-length // block)
    window = (block - 1) * stride + kernels.shape[-1]
    after = (count - 1) * block * stride + window - before - inputs.shape[1]
    positions = inputs.reshape(*inputs.shape[:2], inputs.shape[2:].numel())
    # negative where the last channels are taken by no output
    padded = F.pad(positions, (0, 0, before, after))
    # [b, blocks, positions, window]
    windows = padded.unfold(1, window, block * stride)
    rows = band(kernels.unsqueeze(-2), block, window, stride).flatten(0, 1)
    products = (rows @ windows.transpose(-1, -2)).unflatten(2, (len(kernels), block))
    # [b, kernels, blocks, outputs of a block, positions]
    outputs = products.transpose(1, 2).flatten(2, 3)[:, :, :length]
    return outputs.reshape(len(inputs), len(kernels) * length, *inputs.shape[2:])
