"""What optimizers refuse before a step or a saved state has changed anything."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.training.optimizer_checks import check_gradients, check_saved_state


def with_gradient(p: Tensor, gradient: Tensor | None = None) -> nn.Parameter:
    parameter = nn.Parameter(p)
    parameter.grad = torch.zeros(p.shape, dtype=p.dtype) if gradient is None else gradient
    return parameter


@pytest.mark.parametrize(
    "p",
    [
        torch.ones(()),
        torch.ones(0, 3),
        torch.ones(1).expand(1),
        torch.ones(4, 4)[:, ::2],
        torch.ones(3, 1).T,
        torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    ],
    ids=lambda p: str(tuple(p.shape)),
)
def test_any_parameter_whose_elements_are_its_own_passes(p: Tensor) -> None:
    check_gradients("it", [with_gradient(p)])


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        (with_gradient(torch.ones(1).expand(3)), r"\(3,\) is expanded"),
        (with_gradient(torch.ones(2, 1).expand(2, 3)), r"\(2, 3\) is expanded"),
        (with_gradient(torch.ones(2, dtype=torch.complex64)), r"\(2,\) is sparse or complex"),
    ],
)
def test_what_cannot_be_stepped_is_refused_in_one_line_and_passes_without_a_gradient(
    parameter: nn.Parameter, said: str
) -> None:
    with pytest.raises(UserError, match=rf"it: a .* of shape {said}.*valid: ") as caught:
        check_gradients("it", [nn.Parameter(torch.ones(2)), parameter])
    assert "\n" not in str(caught.value)
    parameter.grad = None
    check_gradients("it", [parameter])


def saved_adam(step: bool) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    parameters = [with_gradient(torch.ones(2)), nn.Parameter(torch.ones(3))]
    adam = torch.optim.Adam(parameters)
    if step:
        adam.step()
    return adam, adam.state_dict()


def test_a_state_with_the_keys_and_shapes_of_its_parameters_passes() -> None:
    for step in (False, True):
        adam, saved = saved_adam(step)
        saved["state"] = {i: {k: v for k, v in s.items() if v.ndim} for i, s in saved["state"].items()}
        check_saved_state("it", adam, saved, required=("exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize(
    ("required", "said"),
    [
        (("exp_avg", "exp_avg_sq", "m"), "missing m among its state"),
        (("exp_avg",), "unknown exp_avg_sq among its state"),
        (("exp_avg", "exp_avg_sq"), r"saved exp_avg has shape \(4,\); valid: \(2,\)"),
    ],
)
def test_states_of_other_keys_and_shapes_are_refused_in_one_line(
    required: tuple[str, ...], said: str
) -> None:
    adam, saved = saved_adam(step=True)
    del saved["state"][0]["step"]
    saved["state"][0]["exp_avg"] = torch.zeros(4)
    with pytest.raises(UserError, match=rf"it: .*{said}") as caught:
        check_saved_state("it", adam, saved, required=required)
    assert "\n" not in str(caught.value)


def test_options_and_groups_of_another_optimizer_are_refused() -> None:
    adam, saved = saved_adam(step=False)
    sgd = torch.optim.SGD(adam.param_groups[0]["params"])
    with pytest.raises(UserError, match="missing dampening, momentum, nesterov"):
        check_saved_state("it", sgd, saved, required=())
    fewer = torch.optim.Adam(adam.param_groups[0]["params"][:1])
    with pytest.raises(UserError, match=r"groups of \[2\] parameters; valid: \[1\]"):
        check_saved_state("it", fewer, saved, required=())
