"""`test_limit`: validation and test on a part of each split, which is spread over it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Make = Callable[..., Any]


@pytest.mark.parametrize("name", ["digits", "imagenet", "ptb"])
def test_validation_and_test_are_judged_on_so_many_and_training_is_left_alone(make: Make, name: str) -> None:
    options = {"source": "synthetic"} if name != "digits" else {}
    options |= {"validation": 0.2} if name != "ptb" else {}
    whole, part = make(name, **options), make(name, **options)
    part.judged_on = 20
    whole.setup()
    part.setup()
    assert (part.size("validation"), part.size("test")) == (20, 20)
    assert part.size("train") == whole.size("train")


def test_those_that_are_judged_are_spread_over_the_whole_split_in_its_order(make: Make) -> None:
    whole, part = make("digits"), make("digits")
    part.judged_on = 100
    whole.setup()
    part.setup()
    places = torch.arange(100) * whole.size("test") // 100
    inputs, targets = part.batch("test", slice(None), augment=False)
    expected = whole.batch("test", slice(None), augment=False)
    assert torch.equal(inputs, expected[0][places])
    assert torch.equal(targets, expected[1][places])


def test_a_split_that_is_no_larger_is_judged_whole(make: Make) -> None:
    data = make("digits")
    data.judged_on = 100_000
    data.setup()
    assert data.judged(data.size("test")) is None
