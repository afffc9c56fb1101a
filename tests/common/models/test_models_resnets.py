"""Residual networks: published parameters and multiply-adds, pruned forms, equations, what they refuse."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.convolution import conv, conv_norm_relu
from common.models.densenet import DenseNet
from common.models.imagenet_resnet import ImageNetNetwork, ImageNetResNet
from common.models.preact_resnet import PreactNetwork, PreactResNet
from common.models.resnet import CifarResNet, grouped_bottleneck
from common.models.resnext import CifarResNeXt, ImageNetResNeXt
from common.models.senet import SEResNet
from common.models.weightless import weightless
from common.models.wide_resnet import WideResNet

CIFAR: tuple[Any, ...] = ((3, 32, 32), 10)
IMAGENET: tuple[Any, ...] = ((3, 224, 224), 1000)
TORCHVISION = "torchvision's list of weights: num_params, _ops"

# (model, data, parameters, multiply-adds, where the numbers are from)
PUBLISHED = [
    ("preact_resnet56", CIFAR, 855_578, 125_747_840, "Zhuang et al. 2018, table S5: 8.56e5, 1.26e8"),
    ("resnet164", CIFAR, 1_704_154, 247_646_720, "He et al. 2016b, table 3: 1.7M; 4.95e8 FLOPs, twice that"),
    ("resnet18_small", CIFAR, 11_173_962, 555_422_720, "by its layers"),
    ("resnet50", CIFAR, 23_520_842, 1_297_829_888, "by its layers"),
    ("wrn_28_10", CIFAR, 36_479_194, 5_243_328_768, "Zagoruyko and Komodakis 2016, table 4: 36.5M"),
    ("wrn_40_2", CIFAR, 2_243_546, 327_599_360, "Zagoruyko and Komodakis 2016, table 4: 2.2M"),
    ("densenet_bc_190_40", CIFAR, 25_624_430, 9_301_945_740, "Huang et al. 2017, table 2: 25.6M"),
    ("resnext29_8x64d", CIFAR, 34_426_698, 5_387_266_048, "Xie et al. 2017, table 7: 34.4M"),
    ("resnet18_imagenet", IMAGENET, 11_689_512, 1_814_073_344, f"{TORCHVISION}: 11689512, 1.814"),
    ("resnet34_imagenet", IMAGENET, 21_797_672, 3_663_761_408, f"{TORCHVISION}: 21797672, 3.664"),
    ("resnet50_imagenet", IMAGENET, 25_557_032, 4_089_184_256, f"{TORCHVISION}: 25557032, 4.089"),
    ("resnet101_imagenet", IMAGENET, 44_549_160, 7_801_405_440, f"{TORCHVISION}: 44549160, 7.801"),
    ("resnext50_32x4d_imagenet", IMAGENET, 25_028_904, 4_230_479_872, f"{TORCHVISION}: 25028904, 4.23"),
    (
        "se_resnet18_imagenet",
        IMAGENET,
        11_778_592,
        1_814_160_384,
        "ResNet-18 and 2 c²/16 + 17 c/16 a block of c",
    ),
]


@pytest.mark.parametrize(
    ("name", "width"), [("resnet_digits_narrow", 4), ("resnet_digits", 8), ("resnet_digits_wide", 16)]
)
def test_the_resnets_for_digits_have_the_parameters_of_their_layers(
    build_model: Callable[..., nn.Module], name: str, width: int
) -> None:
    stem = 9 * width + 2 * width
    first = 2 * 9 * width**2 + 4 * width
    second = 9 * width * 2 * width + 9 * (2 * width) ** 2 + 4 * 2 * width
    shortcut = width * 2 * width + 2 * 2 * width
    model = build_model(name, (1, 8, 8), 10)
    assert count_parameters(model) == stem + first + second + shortcut + 10 * 2 * width + 10


@pytest.mark.parametrize(("name", "data", "parameters", "macs", "source"), PUBLISHED)
def test_a_resnet_has_its_published_parameters_and_multiply_adds(
    build_model: Callable[..., nn.Module], name: str, data: Any, parameters: int, macs: int, source: str
) -> None:
    model = build_model(name, *data)
    assert all(p.is_meta for p in model.parameters())
    assert count_parameters(model) == parameters, source
    assert count_macs(model, data[0]) == macs, source


def cifar_size(n: int, width: int, extra: int, shortcuts: int) -> tuple[int, int]:
    """(weights, multiply-adds) of convolutions and classifier of three stages of n basic blocks.

    `extra`: factor of the stages' channels; `shortcuts`: how many of the stages start with a 1x1 one.
    """
    weights, macs = 27 * width, 27 * width * 32**2
    inputs = width
    for stage in range(3):
        outputs, side = extra * width * 2**stage, 32 // 2**stage
        block = 9 * inputs * outputs + (2 * n - 1) * 9 * outputs**2
        block += inputs * outputs if stage >= 3 - shortcuts else 0
        weights, macs, inputs = weights + block, macs + block * side**2, outputs
    return weights + 10 * inputs, macs + 10 * inputs


@pytest.mark.parametrize(
    ("name", "n", "extra", "shortcuts"),
    [(f"resnet{depth}", (depth - 2) // 6, 1, 0) for depth in (20, 32, 56, 110)]
    + [("preact_resnet20", 3, 1, 2), ("preact_resnet56", 9, 1, 2), ("preact_resnet110", 18, 1, 2)]
    + [("wrn_16_1", 2, 1, 2), ("wrn_40_1", 6, 1, 2), ("wrn_16_2", 2, 2, 3), ("wrn_40_2", 6, 2, 3)]
    + [("wrn_46_4", 7, 4, 3), ("wrn_28_10", 4, 10, 3)],
)
def test_a_cifar_resnet_has_the_size_of_its_closed_form(
    build_model: Callable[..., nn.Module], name: str, n: int, extra: int, shortcuts: int
) -> None:
    model = build_model(name, *CIFAR)
    weights, macs = cifar_size(n, 16, extra, shortcuts)
    norms = sum(2 * m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert count_parameters(model) == weights + norms + 10
    assert count_macs(model, CIFAR[0]) == macs


@pytest.mark.parametrize(("depth", "flops"), [(32, 1.38e8), (164, 4.95e8)])
def test_resnets_with_option_b_have_the_flops_that_one_prints(depth: int, flops: float) -> None:
    # Lan et al. 2018, "ONE", table 3: twice the multiply-adds; its ResNet-110 is the 164-layer one
    block: Any = "basic" if depth == 32 else "bottleneck"
    with weightless():
        model = CifarResNet(shape=CIFAR[0], classes=100, depth=depth, block=block, shortcut="B")
    assert float(f"{2 * count_macs(model, CIFAR[0]):.2e}") == flops


def test_se_resnet50_and_half_resnet18_have_their_published_sizes() -> None:
    common: dict[str, Any] = {"shape": IMAGENET[0], "classes": 1000}
    with weightless():
        se = SEResNet(
            **common, blocks=[3, 4, 6, 3], widths=[64, 128, 256, 512], block="bottleneck", reduction=16
        )
        half = ImageNetResNet(**common, blocks=[2, 2, 2, 2], widths=[64, 64, 128, 256], block="basic")
    assert count_parameters(se) == 28_088_024  # Hu et al. 2018, section 6.4: 28.1M
    assert round(count_parameters(half) / 1e6, 1) == 3.2  # Crowley et al. 2018, table 3: Res18-0.5


@pytest.mark.parametrize(
    ("name", "cifar10", "cifar100"),
    [
        ("wrn_40_2", 2_248_954, 2_260_564),
        ("wrn_16_2", 693_498, 705_108),
        ("wrn_40_1", 566_650, 572_500),
        ("wrn_16_1", 175_994, 181_844),
    ],
)
def test_wide_resnets_have_the_sizes_that_moonshine_prints(
    build_model: Callable[..., nn.Module], name: str, cifar10: int, cifar100: int
) -> None:
    # Crowley, Gray, Storkey 2018, table 2, rows S: running means and variances count there
    for classes, parameters in [(10, cifar10), (100, cifar100)]:
        model = build_model(name, CIFAR[0], classes)
        assert count_parameters(model, batch_norm_statistics=True) == parameters


def kept(channels: int, rate: float) -> int:
    """Channels that DCP keeps (Zhuang et al. 2018, section 5; by its tables): c - floor(rate c)."""
    return channels - math.floor(rate * channels)


def to_three_digits(number: int) -> float:
    return float(f"{number:.2e}")


@pytest.mark.parametrize(
    ("rate", "parameters", "macs"),
    [(0.0, 8.56e5, 1.26e8), (0.3, 6.08e5, 9.13e7), (0.5, 4.31e5, 6.32e7), (0.7, 2.71e5, 3.98e7)],
)
def test_preact_resnet56_with_fewer_channels_has_the_complexity_that_dcp_prints(
    rate: float, parameters: float, macs: float
) -> None:
    # table S5, three digits; bias additions count there
    def pruned(inputs: int, outputs: int, stride: int) -> nn.Module:
        inner = kept(outputs, rate)
        return nn.Sequential(*conv_norm_relu(inputs, inner, 3, stride), conv(inner, outputs, 3))

    with weightless():
        model = PreactNetwork(
            channels=3, stem=16, outputs=[16, 32, 64], blocks=[9] * 3, residual=pruned, half=True, classes=10
        )
    assert to_three_digits(count_parameters(model)) == parameters
    assert to_three_digits(count_macs(model, CIFAR[0], include=["bias"])) == macs


@pytest.mark.parametrize(
    ("depth", "rate", "parameters", "macs"),
    [
        (18, 0.0, 1.17e7, 1.81e9),
        (18, 0.3, 8.41e6, 1.32e9),
        (18, 0.5, 6.19e6, 9.76e8),
        (18, 0.7, 4.01e6, 6.49e8),
        (50, 0.0, 2.56e7, 4.09e9),
        (50, 0.3, 1.70e7, 2.63e9),
        (50, 0.5, 1.24e7, 1.82e9),
        (50, 0.7, 8.71e6, 1.18e9),
    ],
)
def test_imagenet_resnets_with_fewer_channels_have_the_complexity_that_dcp_prints(
    depth: int, rate: float, parameters: float, macs: float
) -> None:
    # table S4, three digits; bias additions count there
    def pruned(inputs: int, outputs: int, stride: int) -> nn.Module:
        if depth == 50:
            return grouped_bottleneck(inputs, kept(outputs // 4, rate), outputs, stride, groups=1)
        inner = kept(outputs, rate)
        last = [conv(inner, outputs, 3), nn.BatchNorm2d(outputs)]
        return nn.Sequential(*conv_norm_relu(inputs, inner, 3, stride), *last)

    expansion, blocks = (4, [3, 4, 6, 3]) if depth == 50 else (1, [2, 2, 2, 2])
    with weightless():
        model = ImageNetNetwork(
            name="pruned",
            shape=IMAGENET[0],
            classes=1000,
            stem=64,
            blocks=blocks,
            outputs=[expansion * width for width in (64, 128, 256, 512)],
            residual=pruned,
        )
    assert to_three_digits(count_parameters(model)) == parameters
    assert to_three_digits(count_macs(model, IMAGENET[0], include=["bias"])) == macs


@pytest.mark.parametrize(
    ("block", "n", "depth"), [("preact", 1, 8), ("preact", 3, 20), ("wide", 2, 16), ("next", 1, 11)]
)
def test_a_depth_is_the_number_of_weight_layers_as_the_papers_count(block: str, n: int, depth: int) -> None:
    data: dict[str, Any] = {"shape": CIFAR[0], "classes": 10, "depth": depth}
    with weightless():
        model: nn.Module = {
            "preact": lambda: PreactResNet(**data),
            "wide": lambda: WideResNet(**data, width=2),
            "next": lambda: CifarResNeXt(**data, cardinality=2, group_width=4),
        }[block]()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [len(stage) for stage in model.stages] == [n, n, n]
    residual = [m for name, m in model.named_modules() if m in layers and "shortcut" not in name]
    # Zagoruyko and Komodakis count two of the three shortcuts
    assert len(residual) == depth - (2 if block == "wide" else 0)


def randomise(model: nn.Module) -> nn.Module:
    """In eval mode, with running statistics that are not 0 and 1."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
    return model.eval()


def normalise(x: Tensor, norm: Any) -> Tensor:
    mean, var, scale, shift = (
        t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (var + 1e-5).sqrt() * scale + shift


def layer(x: Tensor, conv: Any, stride: int = 1, groups: int = 1) -> Tensor:
    return functional.conv2d(x, conv.weight, stride=stride, padding=conv.weight.shape[-1] // 2, groups=groups)


def preact_block(x: Tensor, block: Any, stride: int, half: bool) -> Tensor:
    first, norm, _, second = block.residual
    a = normalise(x, block.norm).clamp(min=0)
    out = layer(normalise(layer(a, first, stride), norm).clamp(min=0), second)
    if isinstance(block.shortcut, nn.Conv2d):
        return out + layer(a, block.shortcut, stride)
    return out + (a if half else x)


@pytest.mark.parametrize("kind", ["preact", "wide_1", "wide_2"])
def test_a_preactivation_net_equals_its_equations_written_out(kind: str) -> None:
    torch.manual_seed(0)
    data: dict[str, Any] = {"shape": (3, 16, 16), "classes": 10}
    model: Any = {
        "preact": lambda: PreactResNet(**data, depth=14),
        "wide_1": lambda: WideResNet(**data, depth=16, width=1),
        "wide_2": lambda: WideResNet(**data, depth=16, width=2),
    }[kind]()
    randomise(model)
    images = torch.randn(2, 3, 16, 16)
    x = layer(images, model.stem)
    for stage, i in product(range(3), range(2)):
        stride = 2 if stage > 0 and i == 0 else 1
        x = preact_block(x, model.stages[stage][i], stride, half=kind == "preact" and i == 0)
    x = normalise(x, model.norm).clamp(min=0).mean((2, 3))
    expected = x @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


def bottleneck(x: Tensor, block: Any, stride: int, groups: int) -> Tensor:
    path, gate = (block.residual, None) if len(block.residual) == 8 else block.residual
    conv1, norm1, _, conv2, norm2, _, conv3, norm3 = path
    out = normalise(layer(x, conv1), norm1).clamp(min=0)
    out = normalise(layer(out, conv2, stride, groups), norm2).clamp(min=0)
    out = normalise(layer(out, conv3), norm3)
    if gate is not None:
        squeeze, _, excite, _ = gate.excitation
        hidden = (out.mean((2, 3)) @ squeeze.weight.T + squeeze.bias).clamp(min=0)
        out = out * torch.sigmoid(hidden @ excite.weight.T + excite.bias)[..., None, None]
    if not isinstance(block.shortcut, nn.Identity):
        x = normalise(layer(x, block.shortcut[0], stride), block.shortcut[1])
    return (out + x).clamp(min=0)


@pytest.mark.parametrize("kind", ["resnet", "resnext", "se"])
def test_an_imagenet_net_equals_its_equations_written_out(kind: str) -> None:
    torch.manual_seed(0)
    data: dict[str, Any] = {"shape": (3, 40, 33), "classes": 7, "blocks": [2, 1, 1, 1]}
    widths, block = [8, 8, 16, 16], "bottleneck"
    model: Any = {
        "resnet": lambda: ImageNetResNet(**data, widths=widths, block=block),
        "resnext": lambda: ImageNetResNeXt(**data, cardinality=4, group_width=2),
        "se": lambda: SEResNet(**data, widths=widths, block=block, reduction=4),
    }[kind]()
    randomise(model)
    images = torch.randn(2, 3, 40, 33)
    x = functional.conv2d(images, model.stem[0].weight, stride=2, padding=3)
    x = functional.max_pool2d(normalise(x, model.stem[1]).clamp(min=0), 3, stride=2, padding=1)
    for number, stage in enumerate(model.stages):
        for i, part in enumerate(stage):
            x = bottleneck(x, part, 2 if number > 0 and i == 0 else 1, 4 if kind == "resnext" else 1)
    expected = x.mean((2, 3)) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


def test_the_inner_width_of_a_resnext_block_doubles_with_its_outputs() -> None:
    # Xie et al. 2017, table 1: 128, 256, 512, 1024 for 32x4d
    with weightless():
        model: Any = ImageNetResNeXt(
            shape=IMAGENET[0], classes=1000, blocks=[1] * 4, cardinality=32, group_width=4
        )
    inner = [stage[0].residual[3] for stage in model.stages]
    assert [layer.out_channels for layer in inner] == [128, 256, 512, 1024]
    assert {layer.groups for layer in inner} == {32}


def test_a_wide_resnet_takes_other_residual_paths_and_starts_without_bias() -> None:
    def pointwise(inputs: int, outputs: int, stride: int) -> nn.Module:
        return conv(inputs, outputs, 1, stride)

    plain: dict[str, Any] = {"shape": (1, 8, 8), "classes": 10, "depth": 10, "width": 1}
    model = WideResNet(**plain, residual=pointwise)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    # stem, three 1x1 paths, the two shortcuts of the same size, four BNs before them and at the end
    convolutions = 9 * 16 + 16 * 16 + 2 * (16 * 32 + 32 * 64)
    assert count_parameters(model) == convolutions + 2 * (16 + 16 + 32 + 64) + 650
    assert not model.classifier.bias.any()


@pytest.mark.parametrize(
    "name",
    [
        "resnet18_imagenet",
        "resnet50_imagenet",
        "resnext50_32x4d_imagenet",
        "se_resnet18_imagenet",
        "resnet18_small",
    ],
)
def test_imagenet_nets_take_images_of_32_pixels(build_model: Callable[..., nn.Module], name: str) -> None:
    model = build_model(name, *CIFAR)
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)


IMAGE: dict[str, Any] = {"shape": (3, 64, 64), "classes": 10}
FOUR: dict[str, Any] = {"blocks": [1] * 4, "widths": [8] * 4, "block": "basic"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PreactResNet(**IMAGE, depth=21), r"depth=21; valid: 6n \+ 2, n >= 1"),
        (lambda: PreactResNet(shape=(3, 2, 2), classes=10, depth=8), r"preact_resnet .* at least 4 pixels"),
        (lambda: PreactResNet(shape=(3, 8, 8), classes=None, depth=8), r"preact_resnet needs .* classes"),
        (lambda: WideResNet(**IMAGE, depth=20, width=1), r"depth=20; valid: 6n \+ 4, n >= 1"),
        (lambda: WideResNet(**IMAGE, depth=4, width=1), r"depth=4; valid"),
        (lambda: WideResNet(**IMAGE, depth=16, width=0), r"width=0; valid: a number >= 1"),
        (lambda: WideResNet(shape=(12,), classes=10, depth=16, width=1), r"wide_resnet .*\(12,\); valid: im"),
        (lambda: CifarResNeXt(**IMAGE, depth=30, cardinality=8, group_width=64), r"depth=30; .*9n \+ 2"),
        (lambda: CifarResNeXt(**IMAGE, depth=29, cardinality=0, group_width=64), r"cardinality=0; valid"),
        (
            lambda: ImageNetResNeXt(**IMAGE, blocks=[3, 4], cardinality=32, group_width=4),
            r"blocks=\[3, 4\]; valid: 4 numbers",
        ),
        (
            lambda: ImageNetResNeXt(**IMAGE, blocks=[1] * 4, cardinality=32, group_width=0),
            r"group_width=0; valid",
        ),
        (
            lambda: ImageNetResNet(shape=(3, 28, 28), classes=10, **FOUR),
            r"imagenet_resnet .*\(3, 28, 28\); valid: .* at least 32 pixels",
        ),
        (lambda: ImageNetResNet(shape=(3, 32, 32), classes=1, **FOUR), r"classes, this one has 1; valid"),
        (lambda: ImageNetResNet(**IMAGE, **(FOUR | {"blocks": [1, 1, 1]})), r"blocks=\[1, 1, 1\]; valid: 4"),
        (lambda: ImageNetResNet(**IMAGE, **(FOUR | {"widths": []})), r"widths=\[\]; valid: one or more"),
        (lambda: ImageNetResNet(**IMAGE, **(FOUR | {"blocks": [1, 0, 1, 1]})), r"blocks=\[1, 0, 1, 1\]"),
        (lambda: SEResNet(**IMAGE, **FOUR, reduction=16), r"reduction=16; valid: 1 to 8"),
        (lambda: SEResNet(**IMAGE, **FOUR, reduction=0), r"reduction=0; valid: 1 to 8"),
        (lambda: SEResNet(shape=(3, 8, 64), classes=2, **FOUR, reduction=8), r"se_resnet .* at least 32"),
        (lambda: DenseNet(**IMAGE, depth=191, growth=40, bc=True), r"depth=191; .* 6n \+ 4"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
