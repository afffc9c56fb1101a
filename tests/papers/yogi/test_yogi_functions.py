"""Functions that come one a step: their values and gradients against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.models.online_function import OnlineFunction
from papers.yogi.functions import NoisyQuadratic, OnlineLinear

INPUTS = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.0, -4.0]])


@pytest.fixture
def noisy() -> NoisyQuadratic:
    torch.manual_seed(0)
    return NoisyQuadratic(shape=(3,), classes=None)


def test_the_noisy_quadratic_is_f_plus_noise_times_x(noisy: NoisyQuadratic) -> None:
    x, e = noisy.x.detach().double().numpy(), INPUTS.double().numpy()
    f = (x**2 / 2 - 0.25 * np.cos(3 * x)).sum()
    np.testing.assert_allclose(noisy(INPUTS).detach().numpy(), f + e @ x, rtol=1e-6)


def test_its_gradient_is_that_of_f_plus_the_noise(noisy: NoisyQuadratic) -> None:
    (plain,) = torch.autograd.grad(noisy(torch.zeros(1, 3)).sum(), noisy.x)
    (noised,) = torch.autograd.grad(noisy(INPUTS[:1]).sum(), noisy.x)
    torch.testing.assert_close(noised, plain + INPUTS[0])
    torch.testing.assert_close(noisy.watch(INPUTS)["mean_grad_norm_sq"], plain.square().sum())


def test_the_regret_of_the_linear_functions_is_that_against_minus_one() -> None:
    model = OnlineLinear(shape=(3,), classes=None)
    with torch.no_grad():
        model.x.copy_(torch.tensor([0.5, -1.0, 1.0]))
        values = model(INPUTS)
        regret = model.watch(INPUTS)["average_regret"]
        model.x.fill_(-1)
        torch.testing.assert_close(regret, (values - model(INPUTS)).mean())
        assert model.watch(INPUTS)["average_regret"] == 0


def test_project_puts_x_back_into_the_box_and_leaves_the_inside() -> None:
    model = OnlineLinear(shape=(3,), classes=None)
    with torch.no_grad():
        model.x.copy_(torch.tensor([-1.5, 0.25, 7.0]))
        model.project()
    assert model.x.tolist() == [-1.0, 0.25, 1.0]
    assert model.final()["x"].item() == pytest.approx(0.25 / 3)


@pytest.mark.parametrize("function", [OnlineLinear, NoisyQuadratic])
@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), None), ((3,), 2)])
def test_a_function_refuses_data(
    function: type[OnlineFunction], shape: tuple[int, ...], classes: int
) -> None:
    with pytest.raises(UserError, match="valid: dataset=online_counterexample") as error:
        function(shape=shape, classes=classes)
    assert "\n" not in str(error.value)


def test_they_are_modules_whose_only_parameter_is_the_point(noisy: NoisyQuadratic) -> None:
    assert [name for name, _ in nn.Module.named_parameters(noisy)] == ["x"]
