"""Slicing: what is left computes what masking computes, for networks of every kind, or is refused by name."""

import pytest
import torch
from pruning_toys import TOYS, gap, numbers, plan, pruned

from common.pruning.slicing import sliced


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_slicing_computes_what_masking_computes(name: str, share: float) -> None:
    network, shape, groups = pruned(name)
    keep = plan(groups, share)
    assert keep
    assert gap(network, shape, keep) < 1e-10
    assert numbers(sliced(network, shape, keep)) < numbers(network)
