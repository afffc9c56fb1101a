"""Multiply-adds against closed forms, hand-computed nets and PyTorch's own FLOP counter."""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from common.base.errors import UserError
from common.metrics.macs import count_macs, macs_by_module
from common.models.weightless import weightless

CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


@st.composite
def layers(draw: Any) -> dict[str, Any]:
    """The arguments of a convolution of 1 to 3 dimensions, and the sides of an image that it can take."""
    dimensions, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    several = {"min_size": dimensions, "max_size": dimensions}
    return {
        "in_channels": groups * draw(st.integers(1, 3)),
        "out_channels": groups * draw(st.integers(1, 3)),
        "kernel_size": tuple(draw(st.lists(st.integers(1, 3), **several))),
        "stride": tuple(draw(st.lists(st.integers(1, 3), **several))),
        "padding": tuple(draw(st.lists(st.integers(0, 2), **several))),
        "dilation": tuple(draw(st.lists(st.integers(1, 2), **several))),
        "groups": groups,
        "bias": draw(st.booleans()),
        "sides": tuple(draw(st.lists(st.integers(5, 9), **several))),
    }


@settings(max_examples=60, deadline=None)
@given(layers())
def test_a_convolution_costs_its_outputs_times_the_inputs_of_each(arguments: dict[str, Any]) -> None:
    sides = arguments.pop("sides")
    layer = CONVOLUTIONS[len(sides) - 1](**arguments)
    output = layer(torch.zeros(1, layer.in_channels, *sides))
    kernel = math.prod(arguments["kernel_size"]) * layer.in_channels // layer.groups
    assert count_macs(layer, (layer.in_channels, *sides)) == output.numel() * kernel
    with_bias = output.numel() * (kernel + arguments["bias"])
    assert count_macs(layer, (layer.in_channels, *sides), include=["bias"]) == with_bias


@settings(max_examples=60, deadline=None)
@given(layers())
def test_a_transposed_convolution_costs_its_inputs_times_the_outputs_of_each(
    arguments: dict[str, Any],
) -> None:
    sides = arguments.pop("sides")
    layer = TRANSPOSED[len(sides) - 1](**arguments)
    inputs = torch.zeros(1, layer.in_channels, *sides)
    kernel = math.prod(arguments["kernel_size"]) * layer.out_channels // layer.groups
    macs = inputs.numel() * kernel
    assert count_macs(layer, tuple(inputs.shape[1:])) == macs
    with_bias = macs + arguments["bias"] * layer(inputs).numel()
    assert count_macs(layer, tuple(inputs.shape[1:]), include=["bias"]) == with_bias


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(1, 4), max_size=3), st.booleans())
def test_a_linear_layer_costs_inputs_times_outputs_at_every_position(
    inputs: int, outputs: int, positions: list[int], bias: bool
) -> None:
    layer, shape = nn.Linear(inputs, outputs, bias=bias), (*positions, inputs)
    macs = math.prod(positions) * inputs * outputs
    assert count_macs(layer, shape) == macs
    assert count_macs(layer, shape, include=["bias"]) == macs + bias * math.prod(positions) * outputs


class Functional(nn.Module):
    """A convolution, a permuted linear layer and products of every kind, none of them in a module."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(6, 2, 3, 3))
        self.weight, self.bias = nn.Parameter(torch.zeros(5, 6)), nn.Parameter(torch.zeros(5))

    def forward(self, inputs: Tensor) -> Tensor:
        maps = functional.conv2d(inputs, self.kernel, groups=2, dilation=2, padding=2)
        # not contiguous, so PyTorch makes it of a product and an addition
        rows = functional.linear(maps.permute(0, 2, 3, 1), self.weight, self.bias)
        table = rows.flatten(0, 2)
        gram = torch.einsum("pi,pj->ij", table, table)
        vector = gram @ self.bias
        return torch.dot(vector, self.bias) + torch.addmm(self.bias, gram, gram).sum()


def test_functional_layers_and_products_count_like_modules() -> None:
    convolution, linear, gram = 6 * 49 * 2 * 9, 49 * 6 * 5, 5 * 49 * 5
    macs = convolution + linear + gram + 5 * 5 + 5 + 5 * 5 * 5
    assert macs_by_module(Functional(), (4, 7, 7)) == {"": macs}
    assert count_macs(Functional(), (4, 7, 7), include=["bias"]) == macs + 49 * 5 + 5 * 5


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),  # 4x8x8 of 27
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),  # 4x4x4 of 9
        nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
        nn.AvgPool2d((2, 1)),  # 6x2x4 of 2
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.Sigmoid(),
    )


@pytest.mark.parametrize(
    ("include", "by_module"),
    [
        ((), {}),
        (("bias",), {"0": 256, "8": 5}),
        (("batch_norm",), {"1": 256, "4.1": 96}),
        (("activation",), {"2": 256, "4.2": 96, "9": 5}),
        (("pooling",), {"3": 64 * 9, "5": 48 * 2, "6": 48}),
    ],
)
def test_what_include_names_is_added_where_it_is_done(include: Any, by_module: dict[str, int]) -> None:
    layers = {"0": 256 * 27, "4.0": 96 * 4, "8": 30}
    expected = {name: layers.get(name, 0) + by_module.get(name, 0) for name in layers | by_module}
    assert macs_by_module(small_net(), (3, 8, 8), include=include) == expected
    assert count_macs(small_net(), (3, 8, 8), include=include) == sum(expected.values())


def test_a_mean_over_positions_is_pooling_and_a_mean_over_channels_is_not() -> None:
    class Mean(nn.Module):
        def __init__(self, dim: tuple[int, ...]) -> None:
            super().__init__()
            self.dim = dim

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.mean(dim=self.dim)

    for dim, macs in [((2, 3), 60), ((-1, -2), 60), ((1,), 0), ((1, 2, 3), 0)]:
        assert count_macs(Mean(dim), (3, 4, 5), include=["pooling"]) == macs


def test_modules_that_run_twice_have_the_sum_and_modules_that_do_not_run_are_left_out() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.used(self.used(inputs))

    assert macs_by_module(Twice(), (4,)) == {"used": 32}


class SelfAttention(nn.MultiheadAttention):
    def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(inputs, inputs, inputs, need_weights=False)[0]


def test_attention_and_recurrent_cells_count_by_their_products() -> None:
    width, steps, heads = 8, 5, 2
    projections, products = 4 * steps * width * width, 2 * steps * steps * width
    attention = SelfAttention(width, heads, batch_first=True)
    assert count_macs(attention, (steps, width)) == projections + products
    assert count_macs(nn.LSTM(3, 4, batch_first=True), (steps, 3)) == steps * 4 * 4 * (3 + 4)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (small_net(), (3, 8, 8)),
        (nn.Sequential(nn.Conv2d(6, 9, 3, groups=3, dilation=2), nn.Conv2d(9, 9, 3, groups=9)), (6, 12, 12)),
        (nn.Sequential(nn.Conv2d(3, 4, 2, dilation=2, padding=1), nn.Conv2d(4, 4, 2, stride=3)), (3, 9, 7)),
        (nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.ConvTranspose1d(6, 4, 4, stride=2)), (4, 16)),
        (nn.Conv2d(4, 4, 3, padding="same", dilation=2), (4, 6, 6)),
        (nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, 7), nn.Flatten(), nn.Linear(14, 2)), (6,)),
    ],
)
def test_counts_are_half_the_flops_of_pytorchs_counter(model: nn.Module, shape: tuple[int, ...]) -> None:
    with FlopCounterMode(display=False) as peer, torch.no_grad():
        copy.deepcopy(model).eval()(torch.zeros(1, *shape))
    assert 2 * count_macs(model, shape) == peer.get_total_flops()


def test_the_model_stays_as_it_was() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls, self.plain = small_net(), 0, torch.zeros(5)

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            return self.net(inputs) + self.plain

    model = Remembers().train()
    model.net[1].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert count_macs(model, (3, 8, 8)) == 256 * 27 + 96 * 4 + 30
    assert model.calls == 0
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_models_on_the_meta_device_and_of_other_precision_can_be_counted() -> None:
    with weightless():
        huge = nn.Linear(10**6, 10**6)  # 4 TB, were they there
    assert count_macs(huge, (10**6,)) == 10**12
    assert count_macs(small_net().half(), (3, 8, 8)) == count_macs(small_net().double(), (3, 8, 8))


def test_a_shape_that_does_not_fit_and_an_unknown_extra_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"Sequential cannot take one example of shape \(4, 8, 8\)") as error:
        count_macs(small_net(), (4, 8, 8))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"include=\['relu'\]; valid: .*activation"):
        count_macs(small_net(), (3, 8, 8), include=["relu"])  # type: ignore[list-item]


class Banded(nn.Module):
    """Three weights along ten channels, as a product with a whole matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10, 10))
        self.within = nn.Linear(10, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.within(inputs) @ self.weight

    def multiply_adds(self, inputs: Tensor, outputs: Tensor) -> int:
        return 3 * outputs.numel()


def test_a_layer_that_says_its_own_number_is_not_looked_into() -> None:
    network = nn.Sequential(nn.Linear(4, 10), Banded(), nn.Linear(10, 2))
    assert macs_by_module(network, (4,)) == {"0": 40, "1": 30, "2": 20}
    assert count_macs(Banded(), (10,)) == 30
