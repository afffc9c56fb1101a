"""NT-ASGD: the mean of iterates against torch's own ASGD, the trigger, and what a checkpoint keeps."""

import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.training.averaging import NonMonotoneASGD


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
