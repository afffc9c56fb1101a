import random

import numpy as np
import torch

from common.runs.callbacks import random_states, restore_random_states


def draws() -> list[float]:
    return [torch.rand(()).item(), float(np.random.rand()), random.random(), float(np.random.normal())]


def test_restored_random_states_draw_the_same_numbers_again() -> None:
    np.random.normal()
    states = random_states()
    first = draws()
    restore_random_states(states)
    assert draws() == first


def test_random_states_load_without_pickle(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.save(random_states(), tmp_path / "states.pt")
    restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
