"""The small ConvNet with batch normalisation: its closed form, taps, what it learns, what it refuses."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.digit_convnet import DigitConvNet
from common.models.features import forward_features

DIGITS = ((1, 8, 8), 10)
MNIST = ((1, 28, 28), 10)


@pytest.mark.parametrize(
    ("name", "data", "widths", "sides", "parameters"),
    [
        ("convnet_digits", DIGITS, [16, 16, 32, 32], [8, 8, 4, 4], 16_794),
        ("convnet_mnist", MNIST, [32, 32, 64, 64], [28, 14, 14, 7], 65_834),
    ],
)
def test_a_digit_convnet_has_the_size_of_its_closed_form(
    build_model: Callable[..., nn.Module], name: str, data: Any, widths: Any, sides: Any, parameters: int
) -> None:
    model = build_model(name, *data)
    kernels = [9 * inputs * outputs for inputs, outputs in pairwise([1, *widths])]
    assert count_parameters(model) == sum(kernels) + 2 * sum(widths) + 10 * (widths[-1] + 1) == parameters
    macs = sum(kernel * side**2 for kernel, side in zip(kernels, sides, strict=True)) + 10 * widths[-1]
    assert count_macs(model, data[0]) == macs


def test_the_features_are_the_last_layers_of_each_size(build_model: Callable[..., nn.Module]) -> None:
    model = build_model("convnet_digits", *DIGITS)
    _, features = forward_features(model, torch.empty(3, *DIGITS[0], device="meta"))
    shapes = {name: tuple(map.shape) for name, map in features.items()}
    assert shapes == {"layers.1": (3, 16, 8, 8), "layers.3": (3, 32, 4, 4)}
    model = build_model("convnet_mnist", *MNIST)
    _, features = forward_features(model, torch.empty(3, *MNIST[0], device="meta"))
    assert [map.shape[-1] for map in features.values()] == [28, 14, 7]


def test_three_epochs_on_real_digits_give_a_useful_net(build_model: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images).float().div(16).view(-1, 1, 8, 8), torch.tensor(labels)
    model = build_model("convnet_digits", *DIGITS, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for batch in torch.cat([torch.randperm(1200) for _ in range(3)]).split(30):
        optimizer.zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    accuracy = (model.eval()(x[1200:]).argmax(1) == y[1200:]).float().mean()
    assert accuracy > 0.85


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"shape": (1, 1, 8)}, r"digit_convnet .*\(1, 1, 8\); valid: images .* at least 2 pixels"),
        ({"shape": (64,)}, r"digit_convnet .*\(64,\); valid: images"),
        ({"classes": None}, r"digit_convnet needs a data set with classes"),
        ({"widths": []}, r"widths=\[\]; valid: one or more"),
        ({"widths": [4, 0]}, r"widths=\[4, 0\]; valid: .* >= 1"),
        ({"strides": [1]}, r"strides are \[1\]; valid: 2 numbers, each 1 or 2"),
        ({"strides": [1, 0]}, r"strides are \[1, 0\]; valid: 2 numbers, each 1 or 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(keys: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"shape": (1, 8, 8), "classes": 4, "widths": [4, 8], "strides": [1, 2]}
    with pytest.raises(UserError, match=message) as error:
        DigitConvNet(**(arguments | keys))
    assert "\n" not in str(error.value)
