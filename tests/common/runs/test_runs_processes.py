"""How the examples of a batch are shared among processes."""

import pytest

from common.runs.processes import Processes, share


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [*range(1, 20), 128, 129])
def test_shares_hold_every_example_once_and_none_is_of_one_example(count: int, size: int) -> None:
    shares = [share(count, Processes(rank, size)) for rank in range(size)]
    seen = [i for mine, weight in shares if weight for i in range(count)[mine]]
    assert sorted(seen) == list(range(count))
    assert sum(weight for _, weight in shares) == pytest.approx(1)
    for mine, weight in shares:
        assert len(range(count)[mine]) >= min(2, count)
        assert weight == 0 or weight == len(range(count)[mine]) / count
