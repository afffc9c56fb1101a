"""Bifurcated back-propagation against plain autograd, and the layers against the authors' trick."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from common.quantization.affine import quantise, quantise_gradient
from common.quantization.bifurcated import Convolution, GradientQuantiser, LinearProduct, bifurcated
from common.quantization.converter import quantise_network
from common.quantization.observing import observing
from common.quantization.settings import Quantisation

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 7), (6, 5)),
    "linear_of_sequences": (lambda: nn.Linear(5, 7, bias=False), (3, 4, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (3, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False), (3, 4, 6, 5)),
    "conv2d_groups": (lambda: nn.Conv2d(4, 6, (3, 1), dilation=(2, 1), groups=2), (3, 4, 8, 5)),
    "conv2d_same_even": (lambda: nn.Conv2d(4, 6, (4, 3), padding="same"), (3, 4, 7, 6)),
    "conv2d_valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), (3, 4, 7, 6)),
    "conv2d_reflect": (lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (3, 4, 7, 6)),
    "conv2d_circular_same": (
        lambda: nn.Conv2d(4, 6, 4, padding="same", padding_mode="circular"),
        (3, 4, 7, 6),
    ),
    "conv3d": (lambda: nn.Conv3d(2, 3, 3, padding=1), (2, 2, 4, 4, 4)),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (3, 4, 5)),
    "transposed2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (3, 4, 5, 4),
    ),
    "transposed3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2, dilation=2), (2, 2, 3, 3, 3)),
}
PLAIN = Convolution((1, 1), (1, 1), (1, 1), False, (0, 0), 1, (0, 0))


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(layer: nn.Module, inputs: Tensor) -> list[Tensor]:
    """The output of a layer, and the gradients of inputs and parameters."""
    inputs = inputs.clone().requires_grad_()
    output = layer(inputs)
    upstream = normal(*output.shape, seed=9, dtype=inputs.dtype)
    leaves = [inputs, *layer.parameters()]
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream)]


def twin(layer: nn.Module, **settings: object) -> nn.Module:
    return quantise_network(layer, Quantisation(norm="bn", **settings))


@pytest.mark.parametrize("name", list(LAYERS))
def test_with_all_bits_everything_is_plain_autograd(name: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make().double()
    inputs = normal(*shape)
    expected = gradients(layer, inputs)
    # 31 bits of a bias make a quantised layer of one that is all but float
    made = twin(layer, bits_bias=31)
    assert type(made) is not type(layer)
    for mine, theirs in zip(gradients(made, inputs), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", list(LAYERS))
def test_weights_learn_from_the_unquantised_gradient_bit_by_bit_and_inputs_from_the_quantised(
    name: str,
) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make()
    inputs = normal(*shape, dtype=torch.float32)
    output, of_inputs, *of_parameters = gradients(layer, inputs)
    made = gradients(twin(layer, grad_bits=3, grad_stochastic=False), inputs)
    assert torch.equal(made[0], output)
    assert torch.equal(made[2], of_parameters[0])
    torch.testing.assert_close(made[2:], of_parameters)

    given = inputs.clone().requires_grad_()
    plain = make()
    plain.load_state_dict(layer.state_dict())
    upstream = quantise(normal(*output.shape, seed=9, dtype=torch.float32), 3)
    (expected,) = torch.autograd.grad(plain(given), given, upstream)
    assert torch.equal(made[1], expected)
    assert not torch.equal(made[1], of_inputs)


def test_the_gradient_of_inputs_is_the_transposed_convolution_of_the_quantised_gradient() -> None:
    inputs, weight, upstream = normal(2, 3, 5, 5), normal(4, 3, 3, 3, seed=1), normal(2, 4, 5, 5, seed=2)
    inputs.requires_grad_()
    bifurcated(inputs, weight, None, PLAIN, GradientQuantiser(4, False)).backward(upstream)
    expected = nn.functional.conv_transpose2d(quantise(upstream, 4), weight, padding=1)
    torch.testing.assert_close(inputs.grad, expected)


def test_without_bifurcation_both_gradients_come_from_the_quantised_one() -> None:
    leaves = [normal(2, 3, 5, 5).requires_grad_(), normal(4, 3, 3, 3, seed=1).requires_grad_()]
    bias = normal(4, seed=3).requires_grad_()
    upstream = normal(2, 4, 5, 5, seed=2)
    output = bifurcated(*leaves, bias, PLAIN, GradientQuantiser(4, False, bifurcated=False))
    found = torch.autograd.grad(output, [*leaves, bias], upstream)
    plain = quantise_gradient(nn.functional.conv2d(*leaves, bias, padding=1), 4, stochastic=False)
    expected = torch.autograd.grad(plain, [*leaves, bias], upstream)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_it_is_the_authors_trick_of_two_forward_products() -> None:
    leaves = [normal(2, 3, 5, 5).requires_grad_(), normal(4, 3, 3, 3, seed=1).requires_grad_()]
    upstream, conv = normal(2, 4, 5, 5, seed=2), nn.functional.conv2d
    first = conv(leaves[0].detach(), leaves[1], padding=1)
    second = quantise_gradient(conv(leaves[0], leaves[1].detach(), padding=1), 4, stochastic=False)
    expected = torch.autograd.grad(first + second - first.detach(), leaves, upstream)
    output = bifurcated(*leaves, None, PLAIN, GradientQuantiser(4, False))
    for mine, theirs in zip(torch.autograd.grad(output, leaves, upstream), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_weights_may_learn_from_16_bits() -> None:
    weight, inputs = normal(4, 6).requires_grad_(), normal(8, 6, seed=1)
    upstream = normal(8, 4, seed=2)
    bifurcated(inputs, weight, None, LinearProduct(), GradientQuantiser(8, weight_bits=16)).backward(upstream)
    torch.testing.assert_close(weight.grad, quantise(upstream, 16).t() @ inputs)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_the_unit_of_the_loss_is_that_of_the_gradients(unit: float) -> None:
    found = []
    for factor in (1.0, unit):
        leaves = [normal(8, 6).requires_grad_(), normal(4, 6, seed=1).requires_grad_()]
        output = bifurcated(*leaves, None, LinearProduct(), GradientQuantiser(4, False))
        found.append(torch.autograd.grad(output, leaves, factor * normal(8, 4, seed=2)))
    for base, scaled in zip(*found, strict=True):
        torch.testing.assert_close(scaled, unit * base, rtol=1e-9, atol=0)


def test_a_gradient_of_zeros_stays_one() -> None:
    layer = twin(nn.Linear(3, 2), bits=8, bits_weight=8, bits_bias=8, grad_bits=8)
    inputs = normal(4, 3, dtype=torch.float32).requires_grad_()
    (layer(inputs) * 0).sum().backward()
    assert torch.equal(inputs.grad, torch.zeros(4, 3))
    assert torch.equal(layer.weight.grad, torch.zeros(2, 3))


def test_a_layer_has_levels_of_its_batch_in_training_and_of_its_averages_in_evaluation() -> None:
    layer = twin(nn.Linear(3, 2, bias=False), bits=2, bits_weight=3)
    seen: dict[str, Tensor] = {}
    inputs = normal(50, 3, dtype=torch.float32)
    with observing(layer, lambda name, kind, before, after: seen.update({kind: after})):
        layer(inputs)
        assert seen["activations"].unique().numel() == 4
        assert seen["weights"].unique().numel() <= 8
        low, high = inputs.amin(1).mean(), inputs.amax(1).mean()
        torch.testing.assert_close(seen["activations"].aminmax(), torch.return_types.aminmax((low, high)))
        layer.eval()(10 * inputs)
        torch.testing.assert_close(seen["activations"].amax(), high)
    layer.train()(10 * inputs)
    torch.testing.assert_close(layer.activation.high, 0.1 * high + 0.9 * 10 * high)


def test_a_layer_that_was_never_trained_takes_the_range_of_what_it_is_given() -> None:
    layer = twin(nn.Linear(3, 2), bits=8).eval()
    inputs = normal(5, 3, dtype=torch.float32)
    given = quantise(inputs, 8, low=inputs.amin(1).mean(), high=inputs.amax(1).mean())
    torch.testing.assert_close(layer(inputs), nn.functional.linear(given, layer.weight, layer.bias))
    assert int(layer.activation.batches) == 0


def test_nan_comes_out_as_nan() -> None:
    layer = twin(nn.Conv2d(1, 2, 3), bits=8, bits_weight=8, grad_bits=8)
    assert layer(torch.full((2, 1, 4, 4), float("nan"))).isnan().all()


def test_transposed_convolutions_take_an_output_size() -> None:
    plain = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    inputs = normal(1, 2, 4, 5, dtype=torch.float32)
    expected = plain(inputs, output_size=[8, 10])
    assert torch.equal(twin(plain, grad_bits=8)(inputs, output_size=[8, 10]), expected)


def test_under_autocast_it_computes_as_float32() -> None:
    layer = twin(nn.Linear(3, 2), bits=8, grad_bits=8)
    inputs = normal(5, 3, dtype=torch.float32)
    expected = layer(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(inputs)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
