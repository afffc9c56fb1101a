"""Optimizers of any constructor: which are refused, and in which words."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.training.made_optimizer import made_optimizer, stepping


class Picky(torch.optim.SGD):
    def __init__(self, params: Any, lr: float) -> None:
        if lr > 1:
            raise RuntimeError("too large")
        assert lr < 0.5, "not below a half"
        super().__init__(params, lr)


class Strange(torch.optim.SGD):
    def step(self, losses: Any) -> None:  # type: ignore[override]
        raise AssertionError


class Failing(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise KeyError("momentum")


class Idle(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {})


def number(parameters: list[nn.Parameter]) -> int:
    return len(parameters)


def sgd(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr)


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3))]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (torch.optim.LBFGS, "LBFGS.step needs a closure, which computes the loss again within a step"),
        (torch.optim.SparseAdam, "SparseAdam takes sparse gradients alone"),
        (torch.optim.Optimizer, "missing 1 required positional argument: 'defaults'"),
        (partial(torch.optim.Optimizer, defaults={}), "Optimizer has no step of its own"),
        (
            partial(torch.optim.lr_scheduler.StepLR, step_size=3),
            "StepLR is no optimizer .* a schedule is chosen by schedule=",
        ),
        (torch.optim.swa_utils.AveragedModel, "AveragedModel is no optimizer"),
        (nn.Linear, "Linear is no optimizer"),
        (number, "number gives a int"),
        (partial(torch.optim.SGD, lr=-1), r"Invalid learning rate: -1 \(method\.lr=-1\)"),
        (
            partial(torch.optim.Adam, betas=(0.9,)),  # type: ignore[arg-type]
            r"IndexError: tuple index out of range \(method\.betas=\(0\.9,\)\)",
        ),
        (
            partial(torch.optim.Adam, fused=True, foreach=True),
            r"`fused` and `foreach` cannot be .*\(method\.fused=True, method\.foreach=True\)",
        ),
        (
            partial(Picky, lr=2),
            r"RuntimeError: too large \(test_training_made_optimizer\.py, line \d+\) \(method\.lr=2\)",
        ),
        (partial(Picky, lr=0.7), "AssertionError: not below a half"),
        (partial(Strange, lr=0.1), "Strange.step needs a losses and is not supported here"),
        (Idle, "Idle has no step of its own"),
    ],
)
def test_what_cannot_step_along_gradients_is_refused_in_one_line(
    make: Callable[..., Any], expected: str
) -> None:
    with pytest.raises(UserError, match=f"^method: .*{expected}") as refused:
        made_optimizer(make, parameters())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    [name for name in ("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Muon",
                       "RAdam", "RMSprop", "Rprop", "SGD") if hasattr(torch.optim, name)],
)  # fmt: skip
def test_every_other_optimizer_of_torch_makes_a_step(name: str) -> None:
    trained = parameters()
    make = getattr(torch.optim, name)
    optimizer = made_optimizer(make, trained)
    trained[0].grad = torch.full((2, 3), 0.5)
    with stepping(optimizer, make):
        optimizer.step()
    assert (trained[0] != 1).all()


def test_a_function_may_give_the_optimizer() -> None:
    assert isinstance(made_optimizer(partial(sgd, lr=0.1), parameters()), torch.optim.SGD)


def test_settings_that_only_a_step_finds_wrong_are_named_by_their_keys() -> None:
    trained = parameters()
    make = partial(torch.optim.Adam, capturable=True)
    optimizer = made_optimizer(make, trained, "method.optimizer")
    trained[0].grad = torch.ones(2, 3)
    with (
        pytest.raises(
            UserError, match=r"^method\.optimizer: Adam\.step: .*method\.optimizer\.capturable=True"
        ),
        stepping(optimizer, make, "method.optimizer"),
    ):
        optimizer.step()


def test_an_error_in_a_step_of_the_users_own_keeps_its_trace() -> None:
    make = partial(Failing, lr=0.1)
    optimizer = made_optimizer(make, parameters())
    with pytest.raises(KeyError), stepping(optimizer, make):
        optimizer.step()
