import math
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from common.base.errors import UserError
from common.runs.catalogue import CONF
from common.training import schedules
from common.training.schedules import Schedule


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def configured(name: str) -> Any:
    """The schedule that `schedule=NAME` gives."""
    return instantiate(OmegaConf.load(CONF / "schedule" / f"{name}.yaml"))


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


def test_warm_multistep_rises_from_0_and_drops_at_fractions_of_the_run() -> None:
    sgd = optimizer()
    settings = {"milestones": [0.5, 0.75], "factor": 0.1, "decay_until": 1.0}
    schedule = schedules.warm_multistep(sgd, 20, 5, **settings, warmup=0.2)
    expected = [0.0, 0.25, 0.5, 0.75] + [1.0] * 6 + [0.1] * 5 + [0.01] * 5
    assert rates(sgd, schedule, 20) == pytest.approx(expected)
    sgd = optimizer()
    assert rates(sgd, schedules.warm_multistep(sgd, 20, 5, **settings, warmup=0.0), 20)[:10] == [1.0] * 10


@pytest.mark.parametrize(("until", "decayed"), [(0.0, 0), (0.61, 12), (0.999, 20), (1.0, 20)])
def test_weight_decay_ends_after_its_share_of_the_run_also_where_that_is_resumed(
    until: float, decayed: int
) -> None:
    def made() -> tuple[torch.optim.Optimizer, Schedule]:
        sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5, weight_decay=0.1)
        return sgd, schedules.warm_multistep(
            sgd, 20, 5, milestones=[], factor=0.1, warmup=0.0, decay_until=until
        )

    sgd, schedule = made()
    found = []
    for step in range(20):
        if step in (3, 15):
            states = sgd.state_dict(), schedule.state_dict()
            sgd, schedule = made()
            sgd.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
        found.append(sgd.param_groups[0]["weight_decay"])
        sgd.step()
        schedule.after_step()
    assert found == [0.1] * decayed + [0.0] * (20 - decayed)


@pytest.mark.parametrize(
    "wrong", [{"warmup": 1.5}, {"decay_until": -0.1}, {"milestones": [2.0]}, {"factor": 0.0}]
)
def test_warm_multistep_refuses_what_is_no_share_of_a_run(wrong: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"milestones": [0.5], "factor": 0.1, "warmup": 0.1, "decay_until": 0.9}
    with pytest.raises(UserError, match=next(iter(wrong))):
        schedules.warm_multistep(optimizer(), 20, 5, **settings | wrong)


@pytest.mark.parametrize("total_steps", [20, 18, 3])
def test_poly_is_its_formula_in_epochs_also_where_the_last_is_a_fraction(total_steps: int) -> None:
    sgd = optimizer(0.2)
    schedule = schedules.poly(sgd, total_steps, 5, power=0.9)
    epochs = total_steps / 5
    expected = [0.2 * (1 - (e - 1) / epochs) ** 0.9 for e in (1 + step // 5 for step in range(total_steps))]
    assert rates(sgd, schedule, total_steps) == pytest.approx(expected, rel=1e-12)


def test_plateau_halves_after_a_share_of_the_run_without_progress() -> None:
    sgd = optimizer()
    # a tenth of 20 epochs of 5 steps
    schedule = schedules.plateau(sgd, 100, 5, factor=0.5, patience=0.1)
    for loss in [3.0, 2.0, 2.0, 2.0]:
        schedule.after_epoch(loss)
    assert sgd.param_groups[0]["lr"] == 1.0
    schedule.after_epoch(2.0)
    assert sgd.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("epochs", "patience"), [(500, 20), (1000, 40), (100, 4), (30, 2), (25, 1), (20, 1), (3, 1), (0.5, 1)]
)
def test_plateaus_own_patience_is_20_of_500_epochs_in_whole_ones(epochs: float, patience: int) -> None:
    schedule = configured("plateau")(optimizer(), round(epochs * 100), 100)
    assert schedule.by_loss.patience == patience


@pytest.mark.parametrize("steps", [240, 2400])
def test_noam_of_a_run_has_its_peak_at_the_same_share_of_every_run_and_of_the_same_height(steps: int) -> None:
    sgd = optimizer()
    found = rates(sgd, configured("noam")(sgd, steps, 10), steps)
    assert found.index(max(found)) + 1 == round(0.4 * steps)
    assert max(found) == pytest.approx(2.0 * 512**-0.5 * 16000**-0.5)
    assert found[-1] == pytest.approx(max(found) * 0.4**0.5)


def test_noam_of_a_run_is_the_printed_formula_where_the_run_is_as_long_as_the_authors() -> None:
    one, other = optimizer(), optimizer()
    of_run = schedules.noam_of_run(one, 40, 1, scale=2.0, width=512, printed_warmup=16, warmup=0.4)
    printed = schedules.noam(other, 40, 1, scale=2.0, width=512, warmup=16)
    assert rates(one, of_run, 40) == pytest.approx(rates(other, printed, 40), rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.001])
def test_a_warm_up_shorter_than_a_step_is_one_step(share: float) -> None:
    sgd = optimizer()
    schedule = schedules.noam_of_run(sgd, 10, 5, scale=1.0, width=1, printed_warmup=1, warmup=share)
    assert rates(sgd, schedule, 10) == pytest.approx([t**-0.5 for t in range(1, 11)])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("noam", {"scale": 1.0, "width": 4, "warmup": 0}, "schedule.warmup=0: must be positive"),
        ("noam", {"scale": math.nan, "width": 4, "warmup": 1}, "schedule.scale=nan: must be positive"),
        ("noam_of_run", {"scale": 1.0, "width": 0, "printed_warmup": 1, "warmup": 0.1}, "schedule.width=0"),
        (
            "noam_of_run",
            {"scale": 1.0, "width": 1, "printed_warmup": 1, "warmup": 16000},
            "warmup=16000: .* 0 to 1",
        ),
        ("plateau", {"factor": 0.5, "patience": 20}, "schedule.patience=20: must be from 0 to 1"),
        ("plateau", {"factor": 0.5, "patience": math.nan}, "schedule.patience=nan"),
        ("plateau", {"factor": 1.0, "patience": 0.1}, "schedule.factor=1.0: must be above 0 and below 1"),
        (
            "multistep",
            {"milestones": [0.5, 1.5], "factor": 0.1},
            "schedule.milestones=1.5: must be from 0 to 1",
        ),
        ("multistep", {"milestones": [-0.5], "factor": 0.1}, "schedule.milestones=-0.5"),
        ("multistep", {"milestones": [0.5], "factor": -0.1}, "schedule.factor=-0.1: must be positive"),
        ("cyclic_cosine", {"cycles": 0}, "schedule.cycles=0: must be at least 1"),
        ("poly", {"power": -1.0}, "schedule.power=-1.0: must be at least 0"),
        ("poly", {"power": math.inf}, "schedule.power=inf: must be at least 0 and finite"),
    ],
)
def test_what_no_schedule_can_be_made_of_is_refused_by_key(
    name: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        getattr(schedules, name)(optimizer(), 100, 10, **options)


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


def test_warm_restarts_are_torchs_in_steps_of_equal_share() -> None:
    steps = 63 * 4
    ours, theirs = (torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5) for _ in range(2))
    schedule = schedules.warm_restarts(ours, steps, 4, cycles=6, factor=2, lowest=0.002)
    peer = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, 4, 2, eta_min=0.5 * 0.002)
    for _ in range(steps):
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        ours.step()
        theirs.step()
        schedule.after_step()
        peer.step()


@pytest.mark.parametrize(
    ("metric", "values"), [("validation_bleu", [1, 2, 2, 1]), ("validation_loss", [2, 1, 1, 2])]
)
def test_a_plateau_of_a_metric_follows_what_is_measured_and_which_way_is_better(
    metric: str, values: list[float]
) -> None:
    sgd = optimizer()
    first = sgd.param_groups[0]["lr"]
    schedule = schedules.plateau_of(sgd, 100, 5, factor=0.5, patience=0.05, metric=metric)
    rates = []
    for number, value in enumerate(values):
        schedule.after_epoch(float(number))
        schedule.after_validation({metric: float(value)})
        rates.append(sgd.param_groups[0]["lr"] / first)
    assert rates == [1.0, 1.0, 1.0, 0.5]
    with pytest.raises(UserError, match=rf"schedule\.metric={metric}: not measured after an epoch"):
        schedule.after_validation({"running_loss": 1.0})
    with pytest.raises(UserError, match=r"schedule\.metric=wonder: is it better higher or lower"):
        schedules.plateau_of(sgd, 100, 5, factor=0.5, patience=0.05, metric="wonder")


def test_nmts_plateau_is_7_of_40_epochs() -> None:
    schedule = configured("plateau_validation")(optimizer(), 40 * 100, 100)
    assert schedule.by_loss is not None and schedule.by_loss.patience == 7 and schedule.by_loss.factor == 0.7
