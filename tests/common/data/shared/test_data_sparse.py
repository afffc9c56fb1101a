"""Rows of sparse matrices against scipy's."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from common.data.shared.in_memory import Split
from common.data.shared.sparse import csr, row_norms, scale_rows, take_rows


def random_matrix(rows: int, columns: int, density: float, seed: int) -> scipy.sparse.csr_matrix:
    matrix = scipy.sparse.random(rows, columns, density, dtype=np.float32, random_state=seed)
    return scipy.sparse.csr_matrix(matrix.toarray())


def to_torch(matrix: scipy.sparse.csr_matrix) -> Tensor:
    starts, columns = (torch.from_numpy(part).long() for part in (matrix.indptr, matrix.indices))
    return csr(starts, columns, torch.from_numpy(matrix.data), matrix.shape[1])


def same(found: Tensor, expected: scipy.sparse.csr_matrix) -> bool:
    return found.layout == torch.sparse_csr and np.array_equal(found.to_dense().numpy(), expected.toarray())


@given(st.integers(1, 20), st.integers(1, 9), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.data())
def test_rows_by_index_are_scipys_in_the_order_asked_for_with_repetitions(
    rows: int, columns: int, density: float, data: st.DataObject
) -> None:
    matrix = random_matrix(rows, columns, density, seed=rows)
    index = data.draw(st.lists(st.integers(0, rows - 1), max_size=30))
    found = take_rows(to_torch(matrix), torch.tensor(index, dtype=torch.int64))
    assert same(found, matrix[np.array(index, dtype=int)])


@given(st.slices(12))
@example(slice(1, 0, 2))
def test_rows_by_slice_are_scipys(where: slice) -> None:
    matrix = random_matrix(12, 7, 0.3, seed=0)
    expected = matrix[np.arange(12)[where]]
    assert same(take_rows(to_torch(matrix), where), expected)


def test_a_slice_copies_no_values() -> None:
    matrix = to_torch(random_matrix(50, 7, 0.5, seed=0))
    part = take_rows(matrix, slice(10, 40))
    storage = matrix.values().untyped_storage().data_ptr()
    assert part.values().untyped_storage().data_ptr() == storage


def test_norms_and_scaled_rows_are_those_of_the_dense_matrix_also_for_empty_rows() -> None:
    matrix = random_matrix(40, 30, 0.05, seed=3)
    dense = torch.from_numpy(matrix.toarray())
    assert (dense.norm(dim=1) == 0).any()
    assert torch.allclose(row_norms(to_torch(matrix)), dense.norm(dim=1))
    factors = torch.randn(40)
    assert torch.allclose(scale_rows(to_torch(matrix), factors).to_dense(), dense * factors[:, None])


def test_a_split_of_sparse_inputs_has_their_length_and_takes_their_rows() -> None:
    matrix = random_matrix(9, 5, 0.4, seed=1)
    split = Split(to_torch(matrix), torch.arange(9))
    taken = split.take(torch.tensor([7, 2]))
    assert (len(split), len(taken)) == (9, 2)
    assert same(taken.inputs, matrix[[7, 2]]) and taken.targets is not None
    assert taken.targets.tolist() == [7, 2]


def test_making_one_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take_rows(to_torch(random_matrix(5, 5, 0.5, seed=0)), torch.tensor([1]))


@pytest.mark.parametrize("index", [torch.tensor([5]), torch.tensor([-1])])
def test_a_row_outside_is_an_error(index: Tensor) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        take_rows(to_torch(random_matrix(5, 5, 0.5, seed=0)), index)
