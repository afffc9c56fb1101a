"""Subsets are exact in size, stratified, without repetition and a function of the generator alone."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from common.data.shared.subsets import class_quotas, complement, stratified_subset


@st.composite
def labels_and_size(draw: st.DrawFn) -> tuple[list[int], int]:
    labels = draw(st.lists(st.integers(0, 6), min_size=1, max_size=200))
    return labels, draw(st.integers(0, len(labels)))


@given(labels_and_size(), st.integers(0, 2**31))
def test_each_class_gets_its_share_to_within_one(case: tuple[list[int], int], seed: int) -> None:
    labels, size = torch.tensor(case[0]), case[1]
    index = stratified_subset(labels, len(labels), size, torch.Generator().manual_seed(seed))
    assert index.unique().tolist() == index.tolist()
    assert len(index) == size
    for label in labels.unique():
        share = (labels == label).sum().item() * size / len(labels)
        assert abs((labels[index] == label).sum().item() - share) < 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_quotas_give_the_rows_left_over_to_the_largest_fractions(
    counts: list[int], data: st.DataObject
) -> None:
    size = data.draw(st.integers(0, sum(counts)))
    quotas = class_quotas(torch.tensor(counts), size).tolist()
    shares = [count * size / sum(counts) for count in counts]
    raised = [share % 1 for share, quota in zip(shares, quotas, strict=True) if quota > share]
    kept = [share % 1 for share, quota in zip(shares, quotas, strict=True) if quota < share]
    assert sum(quotas) == size
    assert not raised or not kept or min(raised) >= max(kept) - 1e-9


def test_without_labels_the_subset_is_plain_random() -> None:
    generator = torch.Generator().manual_seed(3)
    hits = torch.zeros(10)
    for _ in range(2000):
        hits[stratified_subset(None, 10, 3, generator)] += 1
    # 2000 draws with p = 0.3: standard deviation 20.5
    assert (hits - 600).abs().max() < 100


def test_within_a_class_every_row_is_equally_likely() -> None:
    labels = torch.tensor([0] * 8 + [1] * 4)
    generator = torch.Generator().manual_seed(4)
    hits = torch.zeros(12)
    for _ in range(2000):
        hits[stratified_subset(labels, 12, 6, generator)] += 1
    # 2000 draws with p = 0.5: standard deviation 22.4
    assert (hits - 1000).abs().max() < 110


def test_the_generator_decides_alone() -> None:
    labels = torch.arange(100) % 7
    first, again, other = (
        stratified_subset(labels, 100, 40, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_complement_and_index_partition_the_rows() -> None:
    index = torch.tensor([0, 3, 4])
    assert complement(index, 6).tolist() == [1, 2, 5]
