"""MobileNet v1 and v2: published sizes, those of pruned nets, blocks written out, taps, what they refuse."""

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
from common.models.mobilenet import InvertedResidual, MobileNetV1, MobileNetV2

CIFAR = ((3, 32, 32), 10)
IMAGENET = ((3, 224, 224), 1000)
V1_WIDTHS = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
V2_STAGES = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
DCP = "Zhuang et al. 2018"

# (model, data, parameters, multiply-adds, where the numbers are from)
PUBLISHED = [
    ("mobilenet_v1_imagenet", IMAGENET, 4_231_976, 568_740_352, "Howard et al. 2017, table 6: 4.2M, 569M"),
    ("mobilenet_v1", CIFAR, 3_217_226, 213_084_160, f"{DCP}, table S5: 3.22M, 213M"),
    ("mobilenet_v2_imagenet", IMAGENET, 3_504_872, 300_774_272, "torchvision: 3504872; Sandler et al.: 300M"),
    (
        "mobilenet_v2",
        CIFAR,
        2_296_922,
        91_154_944,
        "the usual net for 32x32 images: 2.3M; by its layers",
    ),
]

# outputs of each stage on its data set's images, batch of 2
FEATURES = {
    "mobilenet_v1_imagenet": {
        "blocks.0": (2, 64, 112, 112),
        "blocks.2": (2, 128, 56, 56),
        "blocks.4": (2, 256, 28, 28),
        "blocks.10": (2, 512, 14, 14),
        "blocks.12": (2, 1024, 7, 7),
    },
    "mobilenet_v1": {
        "blocks.1": (2, 128, 32, 32),
        "blocks.5": (2, 512, 16, 16),
        "blocks.11": (2, 1024, 8, 8),
        "blocks.12": (2, 1024, 4, 4),
    },
    "mobilenet_v2_imagenet": {
        "blocks.0": (2, 16, 112, 112),
        "blocks.2": (2, 24, 56, 56),
        "blocks.5": (2, 32, 28, 28),
        "blocks.12": (2, 96, 14, 14),
        "blocks.16": (2, 320, 7, 7),
    },
    "mobilenet_v2": {
        "blocks.2": (2, 24, 32, 32),
        "blocks.5": (2, 32, 16, 16),
        "blocks.12": (2, 96, 8, 8),
        "blocks.16": (2, 320, 4, 4),
    },
}


def kept(channels: int, share: float) -> int:
    """What DCP keeps of the channels: c - floor(share c)."""
    return channels - math.floor(share * channels)


def v2_hidden() -> list[int]:
    """The hidden channels of v2's 17 blocks: t times their inputs."""
    outputs = [c for _, c, n in V2_STAGES for _ in range(n)]
    factors = [t for t, _, n in V2_STAGES for _ in range(n)]
    return [t * inputs for t, inputs in zip(factors, [32, *outputs[:-1]], strict=True)]


def complexity(model: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Parameters, and multiply-adds with bias additions, as DCP counts."""
    return count_parameters(model), count_macs(model, shape, include={"bias"})


@pytest.mark.parametrize(("name", "data", "parameters", "macs", "source"), PUBLISHED)
def test_a_mobilenet_has_its_published_parameters_and_multiply_adds(
    build_model: Callable[..., nn.Module], name: str, data: Any, parameters: int, macs: int, source: str
) -> None:
    model = build_model(name, *data)
    assert count_parameters(model) == parameters, source
    assert count_macs(model, data[0]) == macs, source


@pytest.mark.parametrize(
    ("multiplier", "parameters", "macs"), [(0.75, 2.6, 325), (0.5, 1.3, 149), (0.25, 0.5, 41)]
)
def test_narrower_mobilenets_v1_have_the_millions_of_howard_et_al(
    build_model: Callable[..., nn.Module], multiplier: float, parameters: float, macs: int
) -> None:
    # Howard et al. 2017, table 6
    model = build_model("mobilenet_v1_imagenet", *IMAGENET, multiplier=multiplier)
    assert round(count_parameters(model) / 1e6, 1) == parameters
    assert round(count_macs(model, IMAGENET[0]) / 1e6) == macs


def test_mobilenet_v1_for_cifar_without_30_percent_has_the_complexity_that_dcp_prints(
    build_model: Callable[..., nn.Module],
) -> None:
    # tables S5 and 2; the last two blocks keep their outputs
    widths = [*(kept(c, 0.3) for c in V1_WIDTHS[:12]), *V1_WIDTHS[12:]]
    full = complexity(build_model("mobilenet_v1", *CIFAR), CIFAR[0])
    small = complexity(build_model("mobilenet_v1", *CIFAR, widths=widths), CIFAR[0])
    assert [f"{count:.3g}" for count in (*full, *small)] == ["3.22e+06", "2.13e+08", "2.25e+06", "1.22e+08"]
    assert [round(a / b, 2) for a, b in zip(full, small, strict=True)] == [1.43, 1.75]


V1_HALF = {"widths": [*(kept(c, 0.5) for c in V1_WIDTHS[:-1]), 1024]}  # the last block keeps its outputs
V2_HALF = {"hidden": [kept(c, 0.5) for c in v2_hidden()]}
V2_CIFAR = {"hidden": [kept(c, 0.3) for c in v2_hidden()]}


@pytest.mark.parametrize(
    ("name", "data", "form", "pruned", "ratios", "table"),
    [
        ("mobilenet_v1_imagenet", IMAGENET, {}, V1_HALF, [2.00, 3.49], "S3"),
        # the printed 1.81 fits a first block with hidden channels of its own; torchvision's has none
        ("mobilenet_v2_imagenet", IMAGENET, {"expand_always": True}, V2_HALF, [1.35, 1.81], "S3"),
        ("mobilenet_v2", CIFAR, {}, V2_CIFAR, [1.31, 1.36], "2"),
    ],
)
def test_a_pruned_mobilenet_is_smaller_by_the_factors_that_dcp_prints(
    build_model: Callable[..., nn.Module],
    name: str,
    data: Any,
    form: dict[str, Any],
    pruned: dict[str, Any],
    ratios: list[float],
    table: str,
) -> None:
    full = complexity(build_model(name, *data, **form), data[0])
    small = complexity(build_model(name, *data, **form, **pruned), data[0])
    # the paper divides rounded counts, so its last digit may be off by one
    measured = [a / b for a, b in zip(full, small, strict=True)]
    assert measured == pytest.approx(ratios, abs=0.01), f"{DCP}, table {table}"


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, data, *_ in PUBLISHED])
def test_the_features_are_the_last_blocks_of_each_size_in_order(
    build_model: Callable[..., nn.Module], name: str, data: Any
) -> None:
    output, features = forward_features(build_model(name, *data), torch.empty(2, *data[0], device="meta"))
    assert output.shape == (2, data[1])
    assert list(features) == list(FEATURES[name])
    assert {key: tuple(map.shape) for key, map in features.items()} == FEATURES[name]


def test_v1_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    model = MobileNetV1(
        shape=(1, 8, 8), classes=3, widths=[4, 6, 5], strides=[1, 2, 1], multiplier=1.0
    ).eval()
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]

    def layer(x: Tensor, i: int, stride: int, groups: int) -> Tensor:
        padding = weights[i].shape[-1] // 2
        y = functional.conv2d(x, weights[i], stride=stride, padding=padding, groups=groups)
        return (y / math.sqrt(1 + 1e-5)).clamp(min=0)

    images = torch.randn(2, 1, 8, 8)
    x = layer(images, 0, 1, 1)
    x = layer(layer(x, 1, 2, groups=4), 2, 1, 1)
    x = layer(layer(x, 3, 1, groups=6), 4, 1, 1)
    expected = x.mean((2, 3)) @ model.classifier.weight.T
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(
    ("outputs", "stride", "projection", "shortcut"),
    [(4, 1, False, "identity"), (6, 1, False, "none"), (6, 1, True, "1x1"), (4, 2, True, "none")],
)
def test_an_inverted_residual_is_linear_at_its_end_and_has_the_shortcut_that_fits(
    outputs: int, stride: int, projection: bool, shortcut: str
) -> None:
    torch.manual_seed(0)
    block = InvertedResidual(4, 12, outputs, stride, expand=True, projection=projection).eval()
    weights = [m.weight for m in block.modules() if isinstance(m, nn.Conv2d)]
    x = 4 * torch.randn(2, 4, 6, 6)
    norm = 1 / math.sqrt(1 + 1e-5)
    y = (norm * functional.conv2d(x, weights[0])).clamp(0, 6)
    y = (norm * functional.conv2d(y, weights[1], stride=stride, padding=1, groups=12)).clamp(0, 6)
    y = norm * functional.conv2d(y, weights[2])
    if shortcut == "identity":
        y = y + x
    elif shortcut == "1x1":
        y = y + norm * functional.conv2d(x, weights[3])
    torch.testing.assert_close(block(x), y)


def test_v2_has_the_shortcuts_of_its_form(build_model: Callable[..., nn.Module]) -> None:
    def shortcuts(name: str, data: Any) -> list[int]:
        blocks = [m for m in build_model(name, *data).modules() if isinstance(m, InvertedResidual)]
        return [sum(isinstance(b.shortcut, kind) for b in blocks) for kind in (nn.Identity, nn.Sequential)]

    assert shortcuts("mobilenet_v2_imagenet", IMAGENET) == [10, 0]
    assert shortcuts("mobilenet_v2", CIFAR) == [10, 4]


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_a_step_on_real_photographs_is_finite(
    build_model: Callable[..., nn.Module], photographs_pass: Callable[[nn.Module], bool], name: str
) -> None:
    torch.manual_seed(0)
    assert photographs_pass(build_model(name, *CIFAR, device="cpu"))


def v1(**keys: Any) -> MobileNetV1:
    """A v1 of two blocks."""
    arguments: dict[str, Any] = {
        "shape": (3, 8, 8),
        "classes": 4,
        "widths": [4, 8, 8],
        "strides": [1, 2, 2],
        "multiplier": 1.0,
    }
    return MobileNetV1(**(arguments | keys))


def v2(**keys: Any) -> MobileNetV2:
    """A v2 of three blocks."""
    arguments: dict[str, Any] = {
        "shape": (3, 8, 8),
        "classes": 4,
        "stages": [(1, 8, 1, 1), (6, 8, 2, 2)],
        "hidden": None,
        "stem_stride": 2,
        "expand_always": False,
        "projection": False,
        "dropout": 0.0,
    }
    return MobileNetV2(**(arguments | keys))


@pytest.mark.parametrize(
    ("make", "keys", "message"),
    [
        (v1, {"shape": (3, 3, 8)}, r"mobilenet_v1 .*\(3, 3, 8\); valid: images .* at least 4 pixels"),
        (v1, {"shape": (10,)}, r"mobilenet_v1 .*\(10,\); valid: images"),
        (v1, {"classes": None}, r"mobilenet_v1 needs a data set with classes"),
        (v1, {"widths": []}, r"widths=\[\]; valid: one or more"),
        (v1, {"widths": [4, 8, 0]}, r"widths=\[4, 8, 0\]; valid: .* >= 1"),
        (v1, {"strides": [1, 2]}, r"strides are \[1, 2\]; valid: 3 numbers, each 1 or 2"),
        (v1, {"strides": [1, 2, 3]}, r"strides are \[1, 2, 3\]; valid: 3 numbers, each 1 or 2"),
        (v1, {"multiplier": 0.1}, r"multiplier=0.1; valid: a number that leaves each width a channel"),
        (v1, {"multiplier": math.nan}, r"multiplier=nan; valid: a number"),
        (v1, {"multiplier": math.inf}, r"multiplier=inf; valid: a number"),
        (v2, {"shape": (3, 3, 8)}, r"mobilenet_v2 .*\(3, 3, 8\); valid: images .* at least 4 pixels"),
        (v2, {"classes": 1}, r"mobilenet_v2 needs a data set with classes"),
        (v2, {"stages": []}, r"stages=\[\]; valid: rows of 4 numbers"),
        (v2, {"stages": [(6, 8, 1)]}, r"stages=\[\[6, 8, 1\]\]; valid: rows of 4 numbers"),
        (v2, {"stages": [(6, 0, 1, 1)]}, r"stages=\[\[6, 0, 1, 1\]\]; valid: rows of 4 numbers >= 1"),
        (v2, {"stages": [(6, 8, 1, 4)]}, r"strides are \[2, 4\]; valid: 2 numbers, each 1 or 2"),
        (v2, {"stem_stride": 0}, r"strides are \[0, 1, 2, 1\]; valid"),
        (v2, {"hidden": [32, 5]}, r"hidden=\[32, 5\]; valid: 3 numbers, one for each block, 32 for block 0"),
        (v2, {"hidden": [30, 5, 5]}, r"hidden=\[30, 5, 5\]; valid: .* 32 for block 0"),
        (v2, {"hidden": [32, 0, 5]}, r"hidden=\[32, 0, 5\]; valid: .* >= 1"),
        (v2, {"dropout": 1.5}, r"dropout=1.5; valid: 0 <= dropout < 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make(**keys)
    assert "\n" not in str(error.value)
