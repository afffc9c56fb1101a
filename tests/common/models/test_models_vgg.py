"""VGG: published sizes, those of pruned nets, the layers written out, feature taps, and what it refuses."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.features import forward_features
from common.models.vgg import VGG

CIFAR = ((3, 32, 32), 10)
IMAGENET = ((3, 224, 224), 1000)
STAGES = 2, 2, 4, 4, 4  # convolutions in each stage of VGG-19

# (model, data, parameters, multiply-adds, where the numbers are from)
PUBLISHED = [
    ("vgg13", CIFAR, 9_416_010, 228_267_008, "Kim et al. 2018: 9.4M; by its layers"),
    ("vgg16", CIFAR, 14_728_266, 313_201_664, "by its layers: 14.7M, 313M"),
    ("vgg19", CIFAR, 20_040_522, 398_136_320, "Zhuang et al. 2018, table S5: 20.0M, 398M"),
    ("vgg16_imagenet", IMAGENET, 138_357_544, 15_470_264_320, "torchvision: 138357544, 15.47 G"),
    ("vgg16_bn_imagenet", IMAGENET, 138_365_992, 15_470_264_320, "torchvision: 138365992, 15.47 G"),
    ("vgg19_imagenet", IMAGENET, 143_667_240, 19_632_062_464, "torchvision: 143667240, 19.63 G"),
    ("vgg19_bn_imagenet", IMAGENET, 143_678_248, 19_632_062_464, "torchvision: 143678248, 19.63 G"),
]

# input channels that DCP-Adapt keeps of VGG-19's convolutions 2..16: Zhuang et al. 2018, table S6
ADAPTED = [56, 64, 128, 115, 199, 177, 123, 52, 59, 46, 31, 37, 37, 44, 31]


def in_stages(widths: list[int]) -> list[list[int]]:
    """VGG-19's 16 widths as one list a stage."""
    rest = iter(widths)
    return [[next(rest) for _ in range(count)] for count in STAGES]


def pruned(share: float) -> list[list[int]]:
    """VGG-19's widths without a share of every convolution's inputs but the first's: c - floor(share c)."""
    full = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    return in_stages([c - math.floor(share * c) for c in full[:-1]] + [512])


def small(**keys: Any) -> VGG:
    """A net of two narrow stages for 8x8 images."""
    arguments: dict[str, Any] = {
        "shape": (3, 8, 8),
        "classes": 4,
        "widths": [[3], [4, 5]],
        "batch_norm": True,
        "last_pool": "max",
        "pixels": 1,
        "hidden": [],
        "dropout": 0.0,
    }
    return VGG(**(arguments | keys))


@pytest.mark.parametrize(("name", "data", "parameters", "macs", "source"), PUBLISHED)
def test_a_vgg_has_its_published_parameters_and_multiply_adds(
    build_model: Callable[..., nn.Module], name: str, data: Any, parameters: int, macs: int, source: str
) -> None:
    model = build_model(name, *data)
    assert count_parameters(model) == parameters, source
    assert count_macs(model, data[0]) == macs, source


@pytest.mark.parametrize(
    ("share", "parameters", "macs"), [(0.0, 2.00e7, 3.98e8), (0.3, 1.04e7, 1.99e8), (0.4, 7.83e6, 1.47e8)]
)
def test_vgg19_with_fewer_channels_has_the_complexity_that_dcp_prints(
    build_model: Callable[..., nn.Module], share: float, parameters: float, macs: float
) -> None:
    # Zhuang et al. 2018, table S5, three digits; bias additions count there
    model = build_model("vgg19", *CIFAR, widths=pruned(share))
    assert f"{count_parameters(model):.3g}" == f"{parameters:.3g}"
    assert f"{count_macs(model, CIFAR[0], include={'bias'}):.3g}" == f"{macs:.3g}"


def test_vgg19_as_dcp_adapt_prunes_it_is_smaller_by_what_the_paper_says(
    build_model: Callable[..., nn.Module],
) -> None:
    full = build_model("vgg19", *CIFAR)
    model = build_model("vgg19", *CIFAR, widths=in_stages([*ADAPTED, 512]))
    inputs = [layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert inputs == [3, *ADAPTED]
    macs = [count_macs(net, CIFAR[0], include={"bias"}) for net in (full, model)]
    assert round(macs[0] / macs[1], 2) == 2.86  # table 1
    # the counts of table S6 give 15.61, table 1 prints 15.58
    assert round(count_parameters(full) / count_parameters(model), 2) == 15.61


def test_the_features_are_the_stages_in_order_before_they_are_pooled(
    build_model: Callable[..., nn.Module],
) -> None:
    model = build_model("vgg13", *CIFAR)
    _, features = forward_features(model, torch.empty(2, *CIFAR[0], device="meta"))
    assert {name: tuple(map.shape) for name, map in features.items()} == {
        "stages.0": (2, 64, 32, 32),
        "stages.1": (2, 128, 16, 16),
        "stages.2": (2, 256, 8, 8),
        "stages.3": (2, 512, 4, 4),
        "stages.4": (2, 512, 2, 2),
    }


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("last_pool", ["max", "average"])
def test_a_vgg_equals_its_layers_written_out(last_pool: str, batch_norm: bool) -> None:
    torch.manual_seed(0)
    model = small(last_pool=last_pool, batch_norm=batch_norm, pixels=2, hidden=[6]).eval()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)

    def layer(x: Tensor, i: int) -> Tensor:
        y = functional.conv2d(x, convolutions[i].weight, convolutions[i].bias, padding=1)
        if batch_norm:
            mean, var = (s.view(1, -1, 1, 1) for s in (norms[i].running_mean, norms[i].running_var))
            y = (y - mean) / (var + 1e-5).sqrt()
        return y.clamp(min=0)

    x = torch.randn(2, 3, 8, 8)
    first = layer(x, 0)
    second = layer(layer(first.unflatten(2, (4, 2)).unflatten(4, (4, 2)).amax((3, 5)), 1), 2)
    windows = second.unflatten(2, (2, 2)).unflatten(4, (2, 2))
    pooled = windows.amax((3, 5)) if last_pool == "max" else windows.mean((3, 5))
    hidden = (pooled.flatten(1) @ linears[0].weight.T).clamp(min=0)
    output, features = forward_features(model, x)
    torch.testing.assert_close(output, hidden @ linears[1].weight.T)
    torch.testing.assert_close(list(features.values()), [first, second])


def test_weights_start_with_the_variances_that_the_docstring_gives() -> None:
    torch.manual_seed(0)
    model = small(widths=[[64, 128]], hidden=[500])
    convolution = [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1]
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)
    assert model.classifier[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not convolution.bias.any() and not model.classifier[0].bias.any()


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = small(hidden=[64], dropout=0.5)
    x = torch.rand(8, 3, 8, 8)
    model.train().stages.eval()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", ["vgg13", "vgg16", "vgg19"])
def test_a_step_on_real_photographs_is_finite(
    build_model: Callable[..., nn.Module], photographs_pass: Callable[[nn.Module], bool], name: str
) -> None:
    torch.manual_seed(0)
    assert photographs_pass(build_model(name, *CIFAR, device="cpu"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"shape": (3, 3, 8)}, r"vgg .*\(3, 3, 8\); valid: images .* at least 4 pixels"),
        ({"shape": (12,)}, r"vgg .*\(12,\); valid: images"),
        ({"classes": None}, r"vgg needs a data set with classes"),
        ({"widths": []}, r"widths=\[\]; valid: one or more"),
        ({"widths": [[8], []]}, r"widths=\[\]; valid: one or more"),
        ({"widths": [[8], [8, 0]]}, r"widths=\[8, 0\]; valid: .* >= 1"),
        ({"pixels": 0}, r"pixels=0; valid: a number >= 1"),
        ({"hidden": [0]}, r"hidden=\[0\]; valid: .* >= 1"),
        ({"hidden": [5], "dropout": 1.0}, r"dropout=1.0; valid: 0 <= dropout < 1"),
        ({"dropout": -0.1}, r"dropout=-0.1; valid: 0 <= dropout < 1"),
        ({"hidden": [5], "dropout": math.nan}, r"dropout=nan; valid: 0 <= dropout < 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        small(**keys)
    assert "\n" not in str(error.value)
