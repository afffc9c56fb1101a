import math
from typing import Any

import pytest
import torch

from common.training import schedules
from common.training.schedules import Schedule


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(sgd: torch.optim.Optimizer, schedule: Schedule, steps: int) -> list[float]:
    """The learning rate of each of the steps."""
    found = []
    for _ in range(steps):
        found.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.after_step()
    return found


def test_noam_is_its_formula() -> None:
    sgd = optimizer()
    schedule = schedules.noam(sgd, 0, 0, scale=2.0, width=512, warmup=10)
    expected = [2.0 * 512**-0.5 * min(t**-0.5, t * 10**-1.5) for t in range(1, 31)]
    assert rates(sgd, schedule, 30) == pytest.approx(expected, rel=1e-12)


def test_cosine_is_its_formula() -> None:
    sgd = optimizer(0.3)
    expected = [0.15 * (1 + math.cos(math.pi * t / 40)) for t in range(40)]
    assert rates(sgd, schedules.cosine(sgd, 40, 10), 40) == pytest.approx(expected, abs=1e-12)


def test_multistep_drops_at_fractions_of_the_run() -> None:
    sgd = optimizer()
    schedule = schedules.multistep(sgd, 20, 5, milestones=[0.5, 0.75], factor=0.1)
    assert rates(sgd, schedule, 20) == pytest.approx([1.0] * 10 + [0.1] * 5 + [0.01] * 5)


@pytest.mark.parametrize("total_steps", [20, 18, 3])
def test_poly_is_its_formula_in_epochs_also_where_the_last_is_a_fraction(total_steps: int) -> None:
    sgd = optimizer(0.2)
    schedule = schedules.poly(sgd, total_steps, 5, power=0.9)
    epochs = total_steps / 5
    expected = [0.2 * (1 - (e - 1) / epochs) ** 0.9 for e in (1 + step // 5 for step in range(total_steps))]
    assert rates(sgd, schedule, total_steps) == pytest.approx(expected, rel=1e-12)


def test_plateau_halves_after_patience_epochs_without_progress() -> None:
    sgd = optimizer()
    schedule = schedules.plateau(sgd, 0, 0, factor=0.5, patience=2)
    for loss in [3.0, 2.0, 2.0, 2.0]:
        schedule.after_epoch(loss)
    assert sgd.param_groups[0]["lr"] == 1.0
    schedule.after_epoch(2.0)
    assert sgd.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("name", ["constant", "cosine", "noam", "multistep", "poly"])
def test_a_restored_schedule_goes_on_exactly(name: str) -> None:
    own: dict[str, dict[str, Any]] = {
        "noam": {"scale": 2.0, "width": 4, "warmup": 5},
        "multistep": {"milestones": [0.3], "factor": 0.1},
        "poly": {"power": 0.9},
    }

    def made() -> tuple[torch.optim.Optimizer, Schedule]:
        sgd = optimizer()
        return sgd, getattr(schedules, name)(sgd, 20, 5, **own.get(name, {}))

    unbroken = rates(*made(), 20)
    first, broken = made()
    rates(first, broken, 7)
    second, resumed = made()
    resumed.load_state_dict(broken.state_dict())
    second.load_state_dict(first.state_dict())
    assert rates(second, resumed, 13) == unbroken[7:]
