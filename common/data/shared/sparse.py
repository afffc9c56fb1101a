"""Rows of sparse matrices in compressed row storage (`torch.sparse_csr`), without loops."""

import warnings

import torch
from torch import Tensor


def csr(starts: Tensor, columns: Tensor, values: Tensor, width: int) -> Tensor:
    """The sparse_csr tensor [n, width] whose row i holds `values[starts[i]:starts[i + 1]]`.

    Shapes: starts int64 [n + 1]; columns int64 [m]; values [m].
    """
    with warnings.catch_warnings():
        # torch says once a process that its CSR tensors are in beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(
            starts, columns, values, (len(starts) - 1, width), check_invariants=False
        )


def take_rows(matrix: Tensor, index: Tensor | slice) -> Tensor:
    """The rows of a sparse_csr matrix that `index` names, in its order, as a sparse_csr matrix.

    Shapes: matrix [n, d]; index int64 [k] on any device, or a slice (of step 1: views, nothing copied)
    -> [k, d].
    """
    starts, columns, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    if isinstance(index, slice):
        first, last, step = index.indices(len(starts) - 1)
        if step != 1:
            return take_rows(matrix, torch.tensor(range(first, last, step), dtype=torch.int64))
        kept = starts[first : max(first, last) + 1]
        inside = slice(int(kept[0]), int(kept[-1]))
        return csr(kept - kept[0], columns[inside], values[inside], matrix.shape[1])
    index = index.to(starts.device)
    counts = (starts[1:] - starts[:-1]).index_select(0, index)
    taken = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    # where each row begins, less where it begins in the result, once for each of its values
    shift = (starts.index_select(0, index) - taken[:-1]).repeat_interleave(counts)
    place = shift + torch.arange(len(shift), device=starts.device)
    return csr(taken, columns.index_select(0, place), values.index_select(0, place), matrix.shape[1])


def row_norms(matrix: Tensor) -> Tensor:
    """The Euclidean norm of each row of a sparse_csr matrix [n, d]: [n]."""
    squares = matrix.values().square()
    return torch.segment_reduce(squares, "sum", offsets=matrix.crow_indices(), initial=0).sqrt()


def scale_rows(matrix: Tensor, factors: Tensor) -> Tensor:
    """A sparse_csr matrix [n, d] with row i multiplied by `factors[i]`."""
    starts = matrix.crow_indices()
    each = factors.repeat_interleave(starts[1:] - starts[:-1])
    return csr(starts, matrix.col_indices(), matrix.values() * each, matrix.shape[1])
