"""Sequences of different lengths: as padded rows, and where their numbers stand."""

from itertools import pairwise

import pytest
import torch

from common.data.shared.sequences import PAD, Sequences, in_order


def test_sequences_are_padded_on_the_right() -> None:
    sequences = Sequences([[5, 6], [7], [8, 9, 4]])
    assert sequences.padded(torch.tensor([1, 0])).tolist() == [[7, PAD], [5, 6]]
    assert sequences.padded(torch.tensor([2, 1])).tolist() == [[8, 9, 4], [7, PAD, PAD]]
    sequences.keep(torch.tensor([2, 0]))
    assert sequences.lengths.tolist() == [3, 2]
    assert sequences.padded(torch.tensor([0, 1])).tolist() == [[8, 9, 4], [5, 6, PAD]]


def test_behind_the_end_stands_the_place_of_the_first_number() -> None:
    places, inside = Sequences([[5, 6], [7], [8, 9, 4]]).places(torch.tensor([2, 1]))
    assert places.tolist() == [[3, 4, 5], [2, 2, 2]]
    assert inside.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("budget", [1, 6, 10, 1000])
def test_neighbours_come_together_as_long_as_they_fit(budget: int) -> None:
    lengths = [2, 1, 5, 1, 1, 9, 1]
    parts = in_order(lengths, 3, budget)
    assert [place for part in parts for place in range(len(lengths))[part]] == list(range(len(lengths)))
    for part, following in pairwise([*parts, slice(7, 7)]):
        size, longest = part.stop - part.start, max(lengths[part])
        assert size == 1 or (size <= 3 and size * longest <= budget)
        # and no one more would have fitted
        if following.stop > following.start:
            more = lengths[part.start : part.stop + 1]
            assert len(more) > 3 or len(more) * max(more) > budget
    assert in_order([], 3, budget) == []
