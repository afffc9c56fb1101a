"""One model of every class: its features are what its stages gave, its multiply-adds are PyTorch's."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common.base.errors import UserError
from common.metrics.macs import macs_by_module
from common.models.features import forward_features

CIFAR = ((3, 32, 32), 10)
NARROW = {"widths": [16, 16, 32, 32]}
# one of every class, made small enough for a CPU: config, shape, classes, keys
MODELS = [
    ("mlp", *CIFAR, {}),
    ("lenet5", (1, 28, 28), 10, {}),
    ("convnet", *CIFAR, {}),
    ("convnet_digits", (1, 8, 8), 10, {}),
    ("autoencoder_digits", (1, 8, 8), 10, {}),
    ("resnet20", *CIFAR, {}),
    ("densenet_40_12", (3, 8, 8), 10, {}),
    ("preact_resnet20", *CIFAR, {}),
    ("wrn_16_1", *CIFAR, {}),
    ("resnet18_imagenet", *CIFAR, NARROW),
    ("resnext29_8x64d", (3, 8, 8), 10, {"group_width": 1}),
    ("resnext50_32x4d_imagenet", *CIFAR, {"blocks": [1, 1, 1, 1], "group_width": 1}),
    ("se_resnet18_imagenet", *CIFAR, NARROW),
    ("vgg13", *CIFAR, {}),
    ("mobilenet_v1", *CIFAR, {}),
    ("mobilenet_v2", *CIFAR, {}),
]


@pytest.mark.parametrize(("name", "shape", "classes", "keys"), MODELS)
@pytest.mark.parametrize("train", [False, True])
def test_features_are_what_the_stages_gave(
    build_model: Callable[..., nn.Module], name: str, shape: Any, classes: int, keys: Any, train: bool
) -> None:
    torch.manual_seed(0)
    model = build_model(name, shape, classes, device="cpu", **keys).train(train)
    inputs = torch.rand(2, *shape)
    expected: list[Tensor] = []
    other = copy.deepcopy(model)
    for tap in model.features:
        other.get_submodule(tap).register_forward_hook(lambda m, i, output: expected.append(output.clone()))
    torch.manual_seed(1)
    expected_output = other(inputs)
    torch.manual_seed(1)
    output, features = forward_features(model, inputs)
    assert torch.equal(output, expected_output)
    assert tuple(features) == model.features
    assert all(torch.equal(*pair) for pair in zip(features.values(), expected, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("name", "shape", "classes", "keys"), MODELS)
def test_multiply_adds_are_half_the_flops_of_pytorchs_counter(
    build_model: Callable[..., nn.Module], name: str, shape: Any, classes: int, keys: Any
) -> None:
    model = build_model(name, shape, classes, **keys).eval()
    with FlopCounterMode(display=False) as peer, torch.no_grad():
        model(torch.empty(1, *shape, device="meta"))
    by_module = macs_by_module(model, shape)
    assert 2 * sum(by_module.values()) == peer.get_total_flops() > 0
    assert all(isinstance(model.get_submodule(part), nn.Conv2d | nn.Linear) for part in by_module)


def test_gradients_flow_through_output_and_features() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model.features = ("1",)
    inputs = torch.rand(5, 3)
    output, features = forward_features(model, inputs)
    (output.sum() + features["1"].square().sum()).backward()
    joint = model[0].weight.grad.clone()
    model.zero_grad()
    hidden = model[1](model[0](inputs))
    (model[2](hidden).sum() + hidden.square().sum()).backward()
    torch.testing.assert_close(model[0].weight.grad, joint)


def test_an_output_that_a_later_layer_writes_over_is_refused_or_kept_under_inference_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True))
    model.features = ("0",)
    inputs = torch.randn(50, 3)
    with pytest.raises(UserError, match="feature 0: a later layer wrote over"):
        forward_features(model, inputs)
    with torch.inference_mode():
        _, features = forward_features(model, inputs)
        assert torch.equal(features["0"], model[0](inputs))


def test_a_module_that_runs_twice_or_never_is_refused_and_hooks_are_removed() -> None:
    class Odd(nn.Module):
        def __init__(self, features: tuple[str, ...]) -> None:
            super().__init__()
            self.twice, self.never, self.features = nn.Linear(3, 3), nn.Linear(3, 3), features

        def forward(self, inputs: Tensor) -> Tensor:
            return self.twice(self.twice(inputs))

    for tap, times in [("twice", 2), ("never", 0)]:
        model = Odd((tap,))
        with pytest.raises(UserError, match=f"feature {tap}: its module ran {times} times"):
            forward_features(model, torch.rand(1, 3))
        assert not model.get_submodule(tap)._forward_hooks


def test_hooks_are_removed_where_the_forward_pass_fails() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4))
    model.features = ("0",)
    with pytest.raises(RuntimeError):
        forward_features(model, torch.rand(1, 3))
    assert not model[0]._forward_hooks


def test_a_model_without_features_is_refused(build_model: Callable[..., nn.Module]) -> None:
    model = build_model("logistic", (5,), 2, device="cpu")
    for bare in (model, nn.Linear(3, 2)):
        with pytest.raises(UserError, match=r"names no features \(valid: a model with stages"):
            forward_features(bare, torch.rand(1, 5))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (("0", "3"), r"features=\('0', '3'\): .*`3`.* \(valid: a tuple of some of 0, 1\)"),
        ("0", "features='0': a text"),
    ],
)
def test_features_that_the_model_has_not_are_named_beside_those_that_it_has(
    features: Any, message: str
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    model.features = features
    with pytest.raises(UserError, match=message):
        forward_features(model, torch.rand(1, 3))


def test_a_feature_that_is_no_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            return inputs, inputs

    model = nn.Sequential(nn.Linear(3, 4), Pair())
    model.features = ("1",)
    with pytest.raises(UserError, match=r"gives a tuple \(valid: .*this is a Pair"):
        forward_features(model, torch.rand(1, 3))
