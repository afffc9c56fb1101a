"""A run that is killed at random moments, and started again until it is done, comes out bit for bit equal."""

import random
from pathlib import Path

import pytest
from calls import Calls
from kills import SHAPES, Broken

# of each shape, and of all of them in the long form
KILLS, SOAK_KILLS = 1, 210


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_killed_at_random_moments_ends_as_an_unbroken_one(
    shape: str, calls: Calls, tmp_path: Path, soak: bool
) -> None:
    broken = Broken(calls, shape, tmp_path)
    chance = random.Random(shape)
    wanted = SOAK_KILLS // len(SHAPES) if soak else KILLS
    kills = 0
    while kills < wanted:
        kills += broken.once(chance, min(wanted - kills, 8))
