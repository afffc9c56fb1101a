"""Sequences of different lengths: as padded rows, and where their numbers stand."""

import torch

from common.data.shared.sequences import PAD, Sequences


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
