"""NT-ASGD against torch's own ASGD, the moving average against its formula, and what a checkpoint keeps."""

from typing import Any

import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.training.averaging import MovingAverage, NonMonotoneASGD, check_decay


def test_averaging_is_torchs_asgd_from_the_trigger_on() -> None:
    torch.manual_seed(0)
    start = torch.randn(5, dtype=torch.float64)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = NonMonotoneASGD([mine], lr=0.1, weight_decay=0.01, patience=0)
    ours.judge(1.0)
    ours.judge(2.0)
    assert ours.triggered
    peer = torch.optim.ASGD([theirs], lr=0.1, t0=0, lambd=0.0, weight_decay=0.01)
    for number in range(6):
        for parameter, optimizer in ((mine, ours), (theirs, peer)):
            optimizer.zero_grad()
            ((parameter - number) ** 4).mean().backward()
            optimizer.step()
        torch.testing.assert_close(mine, theirs)
        with ours.averaged():
            torch.testing.assert_close(mine, peer.state[theirs]["ax"])
        torch.testing.assert_close(mine, theirs)


def test_the_trigger_is_a_loss_above_the_least_before_the_last_n() -> None:
    def first(losses: list[float], patience: int | None) -> int | None:
        optimizer = NonMonotoneASGD([nn.Parameter(torch.zeros(1))], lr=1.0, patience=patience)
        for number, loss in enumerate(losses):
            optimizer.judge(loss)
            if optimizer.triggered:
                return number
        return None

    losses = [9.0, 8.0, 7.0, 7.5, 7.4, 7.3, 7.2, 7.1, 7.05]
    assert first(losses, 5) == 8 and first(losses, 0) == 3 and first(losses, 3) == 6
    assert first(losses, None) is None and first([3.0, 2.0, 1.0] * 1, 0) is None


def test_an_averaging_optimizer_comes_back_from_its_state() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = NonMonotoneASGD([parameter], lr=0.1, patience=0)
    for loss in (1.0, 2.0):
        optimizer.judge(loss)
    for _ in range(3):
        parameter.grad = torch.ones(3)
        optimizer.step()
    again = NonMonotoneASGD([nn.Parameter(parameter.detach().clone())], lr=0.1, patience=0)
    again.load_state_dict(optimizer.state_dict())
    assert again.triggered
    with optimizer.averaged(), again.averaged():
        assert torch.equal(again.param_groups[0]["params"][0], parameter)


def test_a_patience_below_0_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.patience=-1"):
        NonMonotoneASGD([nn.Parameter(torch.zeros(1))], lr=1.0, patience=-1)


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_the_moving_average_forgets_the_first_steps_sooner_and_moves_nothing(make: Any) -> None:
    torch.manual_seed(0)
    start = torch.randn(4, dtype=torch.float64)
    mine, alone = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer, peer = make([mine], lr=0.1), make([alone], lr=0.1)
    average = MovingAverage(optimizer, 0.5)
    expected = torch.zeros(0)
    for number in range(1, 9):
        for parameter, one in ((mine, optimizer), (alone, peer)):
            one.zero_grad()
            ((parameter - number) ** 2).sum().backward()
            one.step()
        average.step()
        torch.testing.assert_close(mine, alone)
        decay = min(0.5, (1 + number) / (10 + number))
        now = mine.detach().clone()
        expected = now if number == 1 else decay * expected + (1 - decay) * now
        with average.averaged():
            torch.testing.assert_close(mine.detach(), expected)
        torch.testing.assert_close(mine, alone)


def test_the_moving_average_goes_on_from_a_checkpoint() -> None:
    def made() -> tuple[nn.Parameter, torch.optim.Optimizer, MovingAverage]:
        parameter = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.Adam([parameter], lr=0.1)
        return parameter, optimizer, MovingAverage(optimizer, 0.9)

    def go(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, average: MovingAverage) -> None:
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
        average.step()

    unbroken, broken = made(), made()
    for _ in range(6):
        go(*unbroken)
    for _ in range(3):
        go(*broken)
    resumed = made()
    with torch.no_grad():
        resumed[0].copy_(broken[0])
    resumed[1].load_state_dict(broken[1].state_dict())
    resumed[2].load_state_dict(broken[2].state_dict())
    for _ in range(3):
        go(*resumed)
    with unbroken[2].averaged(), resumed[2].averaged():
        assert torch.equal(unbroken[0], resumed[0])


def test_a_decay_out_of_range_and_an_optimizer_that_averages_are_refused() -> None:
    for decay in (1.0, -0.1, float("nan")):
        with pytest.raises(UserError, match=r"ema=.*must be at least 0 and below 1"):
            check_decay(decay)
    optimizer = NonMonotoneASGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match=r"ema=0\.9: NonMonotoneASGD averages its iterates by itself"):
        MovingAverage(optimizer, 0.9)
