import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.base.loader import IndexLoader, RoundLoader, minibatches, steps_of


def batches(loader: IndexLoader, count: int) -> list[list[int]]:
    """The next `count` minibatches, whatever the blocks."""
    found: list[list[int]] = []
    for block in loader:
        found += [index.tolist() for index in block]
        if len(found) >= count:
            return found[:count]
    raise AssertionError("the loader ended")


@given(st.integers(1, 40), st.integers(1, 15), st.integers(1, 7))
def test_an_epoch_holds_every_sample_once(size: int, batch_size: int, block: int) -> None:
    loader = IndexLoader(size, batch_size, seed=0)
    loader.block = block
    epoch = batches(loader, loader.steps_per_epoch)
    assert sorted(itertools.chain(*epoch)) == list(range(size))
    assert all(len(batch) == batch_size for batch in epoch[:-1])


@given(st.integers(1, 5), st.integers(1, 5))
def test_the_block_does_not_change_the_batches(first: int, second: int) -> None:
    one, other = IndexLoader(23, 4, seed=3), IndexLoader(23, 4, seed=3)
    one.block, other.block = first, second
    assert batches(one, 20) == batches(other, 20)


@given(st.integers(0, 17))
def test_a_loader_restored_anywhere_goes_on_with_the_same_batches(done: int) -> None:
    unbroken = batches(IndexLoader(20, 3, seed=1), 30)
    broken = IndexLoader(20, 3, seed=1)
    iterator = iter(broken)
    for _ in range(done):
        next(iterator)
    resumed = IndexLoader(20, 3, seed=1)
    resumed.load_state_dict(broken.state_dict())
    assert batches(resumed, 30 - done) == unbroken[done:]


def test_seeds_and_epochs_give_different_orders() -> None:
    first, second = batches(IndexLoader(50, 50, 0), 2), batches(IndexLoader(50, 50, 1), 2)
    orders = {tuple(order) for order in [*first, *second]}
    assert len(orders) == 4


def test_rounds_go_on_where_they_stopped() -> None:
    loader = RoundLoader()
    assert list(itertools.islice(loader, 3)) == [0, 1, 2]
    resumed = RoundLoader()
    resumed.load_state_dict(loader.state_dict())
    assert next(iter(resumed)) == 3


def test_the_default_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    batches(IndexLoader(10, 2, 0), 5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [*range(1, 30), 129, 257])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 128])
def test_a_batch_of_one_is_there_only_where_it_is_asked_for_and_no_sample_is_lost(
    size: int, batch_size: int
) -> None:
    order = torch.randperm(size)
    found = minibatches(order, batch_size)
    assert torch.equal(torch.cat(found), order)
    assert len(found) == steps_of(size, batch_size)
    sizes = [len(batch) for batch in found]
    assert all(count == batch_size for count in sizes[:-1])
    if batch_size > 1 and size > 1:
        assert 2 <= sizes[-1] <= batch_size + 1
    if size % batch_size != 1 or batch_size == 1:
        assert all(map(torch.equal, found, order.split(batch_size)))


def test_an_epoch_whose_rest_is_one_goes_on_after_a_break_as_if_unbroken() -> None:
    unbroken = batches(IndexLoader(9, 4, seed=1), 6)
    assert [len(batch) for batch in unbroken] == [4, 5] * 3
    for broken_at in range(1, 6):
        loader = IndexLoader(9, 4, seed=1)
        first = batches(loader, broken_at)
        resumed = IndexLoader(9, 4, seed=1)
        resumed.load_state_dict(loader.state_dict())
        assert first + batches(resumed, 6 - broken_at) == unbroken


@pytest.mark.parametrize("block", [1, 2, 64])
def test_batches_that_are_left_out_of_the_epochs_are_in_no_block(block: int) -> None:
    loader = IndexLoader(37, 16, seed=0)
    loader.steps_per_epoch, loader.block = 2, block
    assert [len(batch) for batch in batches(loader, 6)] == [16] * 6
    assert loader.epoch == 2
