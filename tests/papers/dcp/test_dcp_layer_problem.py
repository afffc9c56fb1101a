"""L of a layer and its gradient: against autograd of the formula, in chunks, for every kind of layer."""

import math
import re

import pytest
import torch
from dcp_toys import toy_inputs, toy_layer, toy_problem, toy_tail
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from papers.dcp.layer_problem import LayerProblem

LAYERS = {
    "padding": nn.Conv2d(4, 3, 3, padding=1),
    "stride and dilation": nn.Conv2d(4, 3, 3, padding=2, stride=2, dilation=2),
    "same": nn.Conv2d(4, 3, (3, 1), padding="same", dilation=2),
    "circular": nn.Conv2d(4, 3, 3, padding=(1, 2), padding_mode="circular"),
    "pointwise without bias": nn.Conv2d(4, 3, 1, bias=False),
}


def directly(
    layer: nn.Module, weight: Tensor, bias: Tensor | None, inputs: Tensor, baseline: Tensor
) -> Tensor:
    """1 / (2 Q) sum (O^b - O)^2 of the layer with other weights."""
    parameters = {"weight": weight} | ({} if bias is None else {"bias": bias})
    difference = baseline - torch.func.functional_call(layer, parameters, (inputs,))
    return difference.square().sum() / (2 * difference.numel())


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lam", [0.0, 0.5])
def test_the_loss_and_its_gradient_are_those_of_the_formula(kind: str, lam: float) -> None:
    layer, inputs = LAYERS[kind].double(), toy_inputs(4, examples=7, side=5)
    baseline = torch.randn_like(layer(inputs)).detach()
    tail = toy_tail(3, examples=7)
    problem = LayerProblem(layer, inputs, baseline, tail, mse_weight=2.0, lam=lam, chunk=3)
    weight = torch.randn_like(layer.weight).requires_grad_(True)
    bias = None if layer.bias is None else torch.randn_like(layer.bias).requires_grad_(True)
    loss = 2 * directly(layer, weight, bias, inputs, baseline)
    if lam:
        parameters = {"weight": weight} | ({} if bias is None else {"bias": bias})
        loss = loss + lam * tail(torch.func.functional_call(layer, parameters, (inputs,)), slice(None))
    loss.backward()
    found = problem.evaluate(weight.detach(), None if bias is None else bias.detach())
    assert found.loss == pytest.approx(float(loss.detach()), rel=1e-9)
    torch.testing.assert_close(found.weight_gradient, weight.grad)
    torch.testing.assert_close(found.bias_gradient, None if bias is None else bias.grad)


def test_the_mean_square_of_the_authors_code_is_twice_the_reconstruction_loss() -> None:
    problem = toy_problem()
    outputs = problem.output(problem.start / 2, problem.start_bias, slice(None))
    found = problem.evaluate(problem.start / 2, problem.start_bias).terms.reconstruction
    assert 2 * (found or 0) == pytest.approx(float(functional.mse_loss(outputs, problem.baseline)))


def test_the_gradient_of_reconstruction_is_w_a_minus_b_over_q() -> None:
    problem = toy_problem(toy_layer(kernel=1, bias=False), lam=0.0)
    features = problem.inputs.transpose(1, 3).flatten(0, 2)
    targets = problem.baseline.transpose(1, 3).flatten(0, 2)
    weight = torch.randn_like(problem.start)
    A, B = features.T @ features, targets.T @ features
    expected = (weight.flatten(1) @ A - B) / targets.numel()
    torch.testing.assert_close(problem.evaluate(weight, None).weight_gradient.flatten(1), expected)


def test_the_number_of_examples_that_pass_at_once_changes_nothing() -> None:
    whole, parts = toy_problem(chunk=100), toy_problem(chunk=5)
    one, other = whole.evaluate(whole.start / 3, None), parts.evaluate(whole.start / 3, None)
    assert one.loss == pytest.approx(other.loss)
    torch.testing.assert_close(one.weight_gradient, other.weight_gradient)


def test_patches_of_large_pictures_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = toy_problem(lam=0.0), toy_problem(lam=0.0)
    assert [rows.stop - rows.start for rows in whole.feature_chunks()] == [12]
    expected = whole.evaluate(whole.start / 3, None)
    # an example has 16 positions of 54 numbers
    monkeypatch.setattr("papers.dcp.layer_problem.PATCHES", 5 * 16 * 54 + 1)
    assert [rows.stop - rows.start for rows in parts.feature_chunks()] == [5, 5, 2]
    found = parts.evaluate(whole.start / 3, None)
    assert found.loss == pytest.approx(expected.loss)
    torch.testing.assert_close(found.weight_gradient, expected.weight_gradient)
    monkeypatch.setattr("papers.dcp.layer_problem.PATCHES", 1)
    assert len(list(parts.feature_chunks())) == 12


def test_channels_of_a_flattened_map_are_groups_of_a_linear_layers_inputs() -> None:
    convolution = nn.Conv2d(4, 3, 5, bias=False).double()
    linear = nn.Linear(4 * 25, 3, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(convolution.weight.flatten(1))
    maps = toy_inputs(4, side=5)
    baseline = torch.randn(12, 3, dtype=torch.float64)
    one = LayerProblem(convolution, maps, baseline.view(12, 3, 1, 1), lam=0.0)
    other = LayerProblem(linear, maps.flatten(1), baseline, lam=0.0, channels=4)
    gradients = [p.by_channel(p.evaluate(p.start, None).weight_gradient) for p in (one, other)]
    torch.testing.assert_close(*gradients)


def test_positions_of_a_linear_layer_count_like_those_of_a_pointwise_convolution() -> None:
    convolution, linear = nn.Conv2d(4, 3, 1).double(), nn.Linear(4, 3).double()
    linear.load_state_dict({name: value.squeeze() for name, value in convolution.state_dict().items()})
    maps = toy_inputs(4, side=5)
    baseline = torch.randn(12, 3, 5, 5, dtype=torch.float64)
    last = maps.permute(0, 2, 3, 1), baseline.permute(0, 2, 3, 1)
    one, other = LayerProblem(convolution, maps, baseline, lam=0.0), LayerProblem(linear, *last, lam=0.0)
    assert one.evaluate(one.start, one.start_bias).loss == pytest.approx(
        other.evaluate(other.start, other.start_bias).loss
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": nn.Conv2d(6, 6, 3, padding=1, groups=2).double()}, "a convolution in 2 groups"),
        ({"layer": nn.ConvTranspose2d(6, 5, 3).double()}, "channels of ConvTranspose2d are not selected"),
        ({"inputs": torch.full((12, 6, 4, 4), math.nan).double()}, "its inputs are not finite"),
        ({"inputs": torch.zeros(12, 7, 4, 4).double()}, "cannot take inputs of shape (7, 4, 4)"),
        ({"inputs": torch.zeros(0, 6, 4, 4).double()}, "0 inputs and 12 outputs"),
        ({"baseline": torch.zeros(12, 5, 2, 2).double()}, "gives outputs (5, 4, 4)"),
        ({"tail": None}, "lam=1.0 needs a discrimination loss"),
        ({"mse_weight": 0.0, "lam": 0.0}, "leave no loss"),
        ({"channels": 5}, "its inputs are not 5 channels"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_name_of_the_layer(
    change: dict[str, object], message: str
) -> None:
    layer = toy_layer()
    settings: dict[str, object] = {
        "layer": layer,
        "inputs": toy_inputs(),
        "baseline": layer(toy_inputs()).detach(),
        "tail": toy_tail(),
        "name": "stages.1.conv2",
    }
    with pytest.raises(UserError, match=rf"^layer stages\.1\.conv2: .*{re.escape(message)}"):
        LayerProblem(**(settings | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["mse_weight", "lam"])
def test_a_weight_of_the_loss_below_0_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match=rf"method\.{setting}=-1.0: must be at least 0"):
        toy_problem(**{setting: -1.0})
