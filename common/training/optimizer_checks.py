"""What optimizers of our own refuse before a step or a saved state has changed anything."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from common.base.errors import UserError


def check_gradients(name: str, parameters: Iterable[Tensor]) -> None:
    """Refuse a step along a sparse or complex gradient, or of a parameter whose elements share memory.

    Args:
        name: of the optimizer.
        parameters: those without a gradient are passed over.

    Raises:
        UserError: the first parameter of the kind. torch itself refuses to write in place into an expanded
            tensor, but only in the middle of the step.
    """
    for p in parameters:
        if p.grad is None:
            continue
        if p.grad.is_sparse or p.is_complex():
            raise UserError(
                f"{name}: a gradient of shape {tuple(p.shape)} is sparse or complex; valid: dense and real"
            )
        if any(size > 1 and stride == 0 for size, stride in zip(p.shape, p.stride(), strict=True)):
            raise UserError(
                f"{name}: a parameter of shape {tuple(p.shape)} is expanded: several of its elements are one "
                "number in memory; valid: its clone()"
            )


def check_saved_state(
    name: str,
    optimizer: Optimizer,
    saved: dict[str, Any],
    required: Iterable[str],
    allowed: Iterable[str] = (),
) -> None:
    """Refuse a state that is another optimizer's, or of other parameters.

    Args:
        name: of the optimizer.
        optimizer: where the state is to go.
        saved: what `state_dict()` returned.
        required: the keys of every parameter's state; allowed: further ones that may be there.

    Raises:
        UserError: the first difference.
    """
    groups = [group["params"] for group in saved["param_groups"]]
    own = [group["params"] for group in optimizer.param_groups]
    if [len(group) for group in groups] != [len(group) for group in own]:
        raise UserError(
            f"{name}: the saved state has groups of {[len(group) for group in groups]} parameters; valid: "
            f"{[len(group) for group in own]}, as this optimizer has"
        )
    for group in saved["param_groups"]:
        _check_keys(name, "options", set(group), missing=set(optimizer.defaults) - set(group), unknown=set())
    needed, known = set(required), {*required, *allowed}
    for index, p in zip(chain(*groups), chain(*own), strict=True):
        state = saved["state"].get(index, {})
        if not state:
            continue
        _check_keys(name, "state", set(state), missing=needed - set(state), unknown=set(state) - known)
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape != p.shape:
                raise UserError(
                    f"{name}: the saved {key} has shape {tuple(value.shape)}; valid: {tuple(p.shape)}, as "
                    "its parameter has"
                )


def _check_keys(name: str, what: str, found: set[str], missing: set[str], unknown: set[str]) -> None:
    if missing or unknown:
        said = "missing " + ", ".join(sorted(missing)) if missing else "unknown " + ", ".join(sorted(unknown))
        raise UserError(
            f"{name}: the saved state is of another optimizer or form of it: {said} among its {what} "
            f"({', '.join(sorted(found - {'params'}))}); valid: the state_dict() of one made with the same "
            "options"
        )
