"""Sparse rows against the same rows, dense."""

import pytest
import torch
from torch import Tensor

from common.base.errors import UserError
from common.numerics.sampling import ReplicateSampler
from papers.spider.problems.linear import LogisticProblem
from papers.spider.problems.protocol import Batch
from papers.spider.problems.regulariser import Regulariser
from papers.spider.problems.sparse import SparseRows

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")

N, D, R = 40, 15, 3


@pytest.fixture
def rows() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(N, D, generator=generator, dtype=torch.float64)
    dense[torch.rand(N, D, generator=generator) < 0.8] = 0
    dense[7] = 0
    return dense


@pytest.fixture
def problems(rows: Tensor) -> tuple[LogisticProblem, LogisticProblem]:
    """The same problem with sparse rows and with dense ones."""
    labels = torch.arange(N) % 2
    regulariser = Regulariser("nonconvex", 0.1, D)
    sparse = LogisticProblem(SparseRows(rows.to_sparse_csr(), None), labels, regulariser)
    return sparse, LogisticProblem(rows, labels, regulariser)


def batches(problem: LogisticProblem, drawn: bool) -> Batch:
    sampler = ReplicateSampler(0, R, N, torch.device("cpu"), torch.float64)
    return problem.draw(sampler, 6, None) if drawn else problem.everything()


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("method", ["value", "gradient", "gradient_difference", "hvp", "values"])
def test_sparse_rows_give_what_dense_ones_give(
    method: str, drawn: bool, problems: tuple[LogisticProblem, LogisticProblem]
) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, R, D, generator=generator, dtype=torch.float64)
    arguments = {"gradient_difference": (x, y), "hvp": (x, y), "values": (torch.stack((x, y, x + y), 1),)}
    found, expected = (
        getattr(problem, method)(*arguments.get(method, (x,)), batches(problem, drawn))
        for problem in problems
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_constants_are_those_of_dense_rows(problems: tuple[LogisticProblem, LogisticProblem]) -> None:
    sparse, dense = problems
    assert (sparse.n, sparse.dim) == (dense.n, dense.dim)
    for constant in ("smoothness", "hessian_lipschitz", "sigma"):
        assert getattr(sparse, constant) == pytest.approx(getattr(dense, constant), rel=1e-12)


def test_values_of_single_samples_are_refused(problems: tuple[LogisticProblem, LogisticProblem]) -> None:
    with pytest.raises(UserError, match="no values of single samples"):
        problems[0].paired_values(torch.zeros(R, 6, D, dtype=torch.float64), batches(problems[0], True))
