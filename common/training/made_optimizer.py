"""Optimizers by any constructor of `torch.optim` or of the user's own: made, checked, and stepped."""

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from common.base.errors import UserError

VALID = "valid: an optimizer whose step() needs nothing but gradients, as torch.optim.RAdam"


def made_optimizer(
    make: Callable[..., Optimizer], parameters: list[nn.Parameter], key: str = "method"
) -> Optimizer:
    """The optimizer of these parameters, one that `step()` alone moves along their gradients.

    Args:
        make: takes the parameters: an optimizer's class with its settings, as Hydra's `_partial_` gives it,
            or a function that gives an optimizer.
        parameters: what it is to train.
        key: where a config has its settings, for what is said.

    Raises:
        UserError: no optimizer, settings that it refuses, or one that needs more than gradients: a closure
            that computes the loss again (LBFGS), or sparse gradients (SparseAdam).
    """
    target = make.func if isinstance(make, partial) else make
    if inspect.isclass(target) and not issubclass(target, Optimizer):
        schedule = "; a schedule is chosen by schedule=..." if issubclass(target, LRScheduler) else ""
        raise UserError(
            f"{key}: {target.__name__} is no optimizer (valid: a class that derives from "
            f"torch.optim.Optimizer, or a function that gives one{schedule})"
        )
    try:
        optimizer = make(parameters)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{key}: {_reason(error, make, key)}") from error
    if not isinstance(optimizer, Optimizer):
        raise UserError(
            f"{key}: {_name(make)} gives a {type(optimizer).__name__} (valid: a torch.optim.Optimizer)"
        )
    _check_step(optimizer, key)
    return optimizer


@contextmanager
def stepping(optimizer: Optimizer, make: Callable[..., Optimizer], key: str = "method") -> Iterator[None]:
    """Say in one line what one of torch's own optimizers finds wrong with its settings in a step.

    Raises:
        UserError: see above; what an optimizer of another module raises goes on as it is.
    """
    try:
        yield
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        if not type(optimizer).__module__.startswith("torch.optim."):
            raise
        raise UserError(f"{key}: {type(optimizer).__name__}.step: {_reason(error, make, key)}") from error


def _check_step(optimizer: Optimizer, key: str) -> None:
    name = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise UserError(
            f"{key}: {name} takes sparse gradients alone, and networks here have dense ones ({VALID})"
        )
    if type(optimizer).step is Optimizer.step:
        raise UserError(f"{key}: {name} has no step of its own ({VALID})")
    for parameter in inspect.signature(optimizer.step).parameters.values():
        named = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if (named or parameter.kind is parameter.KEYWORD_ONLY) and parameter.default is parameter.empty:
            closure = ", which computes the loss again within a step," if parameter.name == "closure" else ""
            raise UserError(
                f"{key}: {name}.step needs a {parameter.name}{closure} and is not supported here ({VALID})"
            )


def _reason(error: Exception, make: Callable[..., Optimizer], key: str) -> str:
    """What an optimizer said, where in code of the user's own it said it, and the settings it was given."""
    text = " ".join(str(error).split()) or "no reason given"
    if not isinstance(error, ValueError):
        text = f"{type(error).__name__}: {text}"
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if not _of_torch(make):
            text += f" ({Path(frame.filename).name}, line {frame.lineno})"
    settings: dict[str, Any] = make.keywords if isinstance(make, partial) else {}
    given = ", ".join(f"{key}.{name}={value}" for name, value in settings.items())
    return f"{text} ({given})" if given else text


def _of_torch(make: Callable[..., Optimizer]) -> bool:
    target = make.func if isinstance(make, partial) else make
    return (getattr(target, "__module__", "") or "").startswith("torch.")


def _name(make: Callable[..., Optimizer]) -> str:
    target = make.func if isinstance(make, partial) else make
    return getattr(target, "__qualname__", type(target).__name__)
