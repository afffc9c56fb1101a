"""Products with the rows of a sparse matrix, for points of many replicates at once."""

from functools import cached_property

import torch
from torch import Tensor

from common.data.shared.sparse import row_norms, scale_rows, take_rows


class SparseRows:
    """Rows a_i, shared by all replicates or drawn for each: only what is not 0 is stored and multiplied.

    Args:
        matrix: sparse_csr, [n, d] (shared) or [R b, d], b rows a replicate.
        replicates: R, or None where all share the rows.
    """

    def __init__(self, matrix: Tensor, replicates: int | None) -> None:
        self.matrix, self.replicates = matrix, replicates
        self.shape, self.device, self.dtype = matrix.shape, matrix.device, matrix.dtype

    def __len__(self) -> int:
        return len(self.matrix)

    @cached_property
    def _transposed(self) -> Tensor:
        return self.matrix.t().to_sparse_csr()

    @cached_property
    def _row_of(self) -> Tensor:
        """The row of each stored number, int64 [m]."""
        counts = self.matrix.crow_indices().diff()
        return torch.arange(len(counts), device=self.device).repeat_interleave(counts)

    @cached_property
    def _place(self) -> Tensor:
        """Where each stored number meets the flattened points [R d], int64 [m]."""
        assert self.replicates is not None
        replicate = self._row_of // (len(self) // self.replicates)
        return replicate * self.shape[1] + self.matrix.col_indices()

    def draw(self, index: Tensor) -> "SparseRows":
        """The rows that `index` [R, b] names, for each replicate its own."""
        return SparseRows(take_rows(self.matrix, index.reshape(-1)), len(index))

    def norms(self) -> Tensor:
        """||a_i||: [n]."""
        return row_norms(self.matrix)

    def scaled(self, factors: Tensor) -> "SparseRows":
        """Row i multiplied by factors[i]."""
        return SparseRows(scale_rows(self.matrix, factors), self.replicates)

    def scores(self, points: Tensor) -> Tensor:
        """a_i'x for points [R, d] or [R, p, d]: [R, n] or [R, n, p]."""
        columns = points.unsqueeze(1) if points.dim() == 2 else points
        found = self._shared_scores(columns) if self.replicates is None else self._own_scores(columns)
        return found.squeeze(2) if points.dim() == 2 else found

    def _shared_scores(self, points: Tensor) -> Tensor:
        count, each, _ = points.shape
        return (self.matrix @ points.flatten(0, 1).mT).view(-1, count, each).transpose(0, 1)

    def _own_scores(self, points: Tensor) -> Tensor:
        """A gather of the points' coordinates and a sum over each row."""
        met = points.transpose(1, 2).reshape(-1, points.shape[1]).index_select(0, self._place)
        met = met * self.matrix.values()[:, None]
        sums = met.new_zeros(len(self), points.shape[1]).index_add_(0, self._row_of, met)
        return sums.view(len(points), -1, points.shape[1])

    def combine(self, weights: Tensor) -> Tensor:
        """sum_i weights_i a_i for weights [R, n] (or [R, b]): [R, d]."""
        if self.replicates is None:
            return (self._transposed @ weights.mT).mT.contiguous()
        parts = weights.reshape(-1).index_select(0, self._row_of) * self.matrix.values()
        total = parts.new_zeros(self.replicates * self.shape[1]).index_add_(0, self._place, parts)
        return total.view(self.replicates, -1)
