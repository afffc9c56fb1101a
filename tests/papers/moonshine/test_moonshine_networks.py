"""The networks: the sizes that the paper prints, plain transcriptions of them, their features and errors."""

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
from common.models.imagenet_resnet import ImageNetResNet
from common.models.weightless import weightless
from common.models.wide_resnet import WideResNet
from common.tables.tables import Entry, entries
from papers.moonshine.blocks import parse_block
from papers.moonshine.networks import MoonshineResNet, MoonshineSmallNet, MoonshineWideResNet

CIFAR: tuple[int, ...] = (3, 32, 32)
IMAGENET: tuple[int, ...] = (3, 224, 224)
TABLE_2 = [entry for entry in entries("moonshine") if entry.table == "table2"]
# printed for CIFAR-10 BG(2,M/16) with two digits in the other's place; the CIFAR-100 column has the right one
MISPRINT, MEANT = 234_704, 243_706
RES34: dict[str, Any] = {"blocks": [3, 4, 6, 3], "widths": [64, 128, 256, 512]}
RES18: dict[str, Any] = {"blocks": [2, 2, 2, 2], "widths": [64, 128, 256, 512]}
RES18_HALF: dict[str, Any] = {"blocks": [2, 2, 2, 2], "widths": [64, 64, 128, 256]}


def wide(block: str, depth: int = 40, width: int = 2, classes: int = 10) -> nn.Module:
    with weightless():
        return MoonshineWideResNet(shape=CIFAR, classes=classes, depth=depth, width=width, block=block)


def network_of(entry: Entry) -> nn.Module:
    keys = {key.removeprefix("model."): v for key, v in entry.values.items() if key.startswith("model.")}
    return wide(**keys, classes=10 if entry.choose["dataset"] == "cifar10" else 100)


def counted(model: nn.Module) -> int:
    return count_parameters(model, batch_norm_statistics=True)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_every_params_cell_of_table_2_is_exact_but_one_misprint(dataset: str) -> None:
    rows = [entry for entry in TABLE_2 if entry.choose["dataset"] == dataset]
    assert len(rows) == 76
    assert (
        len({tuple(entry.values[f"model.{k}"] for k in ("depth", "width", "block")) for entry in rows}) == 26
    )
    for entry in rows:
        printed = entry.reported["params"]
        if entry.choose["dataset"] == "cifar10" and entry.values["model.block"] == "BG(2,M/16)":
            assert (printed, counted(network_of(entry))) == (MISPRINT, MEANT)
        else:
            assert counted(network_of(entry)) == printed, entry.name


def test_the_misprint_breaks_the_difference_that_90_more_classes_make() -> None:
    printed = {entry.row: entry.reported["params"] for entry in TABLE_2}
    for entry in TABLE_2:
        if entry.choose["dataset"] == "cifar100":
            other = printed[entry.row.replace("c100_", "c10_", 1)]
            features = 64 * entry.values["model.width"]
            differs = entry.reported["params"] - other != 90 * (features + 1)
            assert differs == (other == MISPRINT), entry.name


@pytest.mark.parametrize(
    ("keys", "block", "printed", "parameters"),
    [
        (RES34, "S", 21.8, 21_797_672),
        (RES18, "S", 11.7, 11_689_512),
        (RES34, "G(4)", 8.2, 8_146_600),
        (RES18_HALF, "S", 3.2, 3_191_976),
        (RES34, "G(N)", 3.2, 3_132_520),
    ],
)
def test_the_params_of_table_3_count_running_statistics_too(
    keys: dict[str, Any], block: str, printed: float, parameters: int
) -> None:
    with weightless():
        model = MoonshineResNet(shape=IMAGENET, classes=1000, block=block, **keys)
    assert count_parameters(model) == parameters
    assert round(counted(model) / 1e6, 1) == printed


def test_the_rows_of_table_3_report_what_the_paper_prints_in_millions() -> None:
    rows = {
        entry.row: entry.reported["params"] / 1e6 for entry in entries("moonshine") if entry.table == "table3"
    }
    printed = {"res34_teacher": 21.8, "res18": 11.7, "res34_g4": 8.2, "res18_half": 3.2, "res34_gn": 3.2}
    assert len(rows) == 9
    assert all(value == printed[row.rsplit("_", 1)[0]] for row, value in rows.items())


def test_with_standard_blocks_the_networks_are_the_common_ones() -> None:
    ours: nn.Module
    other: nn.Module
    with weightless():
        ours = MoonshineWideResNet(shape=CIFAR, classes=10, depth=16, width=2, block="S")
        other = WideResNet(shape=CIFAR, classes=10, depth=16, width=2)
        assert str(list(ours.children())) == str(list(other.children()))
        ours = MoonshineResNet(shape=IMAGENET, classes=1000, block="S", **RES34)
        other = ImageNetResNet(shape=IMAGENET, classes=1000, block="basic", **RES34)
        assert str(list(ours.children())) == str(list(other.children()))


@pytest.mark.parametrize("family", ["G({})", "BG(2,{})"])
def test_more_groups_cost_less(family: str) -> None:
    sizes = [wide(family.format(g)) for g in (1, 2, 4, 8, 16)]
    assert [counted(net) for net in sizes] == sorted((counted(net) for net in sizes), reverse=True)
    macs = [count_macs(net, CIFAR) for net in sizes]
    assert macs == sorted(macs, reverse=True)


@pytest.mark.parametrize("block", ["S", "S-2x2", "G(8)", "G(N/4)", "B(2)", "BG(2,M/4)"])
def test_the_multiply_adds_of_a_wrn_follow_from_table_1(block: str) -> None:
    """Each stage's blocks from N to N are the closed form at each pixel; the first one counts by itself."""
    shallow, deep = (count_macs(wide(block, depth), CIFAR) for depth in (16, 40))
    more = sum(4 * parse_block(block).cost(32 * 2**stage)[0] * (32 // 2**stage) ** 2 for stage in range(3))
    assert deep - shallow == more


class PlainGrouped(nn.Module):
    """G(4)'s stand-in for a convolution, as one would write it for this net alone."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=4, bias=False)
        self.bn = nn.BatchNorm2d(inputs)
        self.conv1x1 = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(functional.relu(self.bn(self.conv(x))))


class PlainBottleneck(nn.Module):
    """The path of BG(2,M/4)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 2
        self.down = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner // 4, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.up = nn.Conv2d(inner, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.down(x)))
        return self.up(functional.relu(self.bn2(self.conv(x))))


class PlainPreactBlock(nn.Module):
    """BN, ReLU, path; the input or a 1x1 convolution of what follows the first ReLU is added."""

    def __init__(self, inputs: int, outputs: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        if bottleneck:
            self.path: nn.Module = PlainBottleneck(inputs, outputs, stride)
        else:
            middle = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU())
            self.path = nn.Sequential(
                PlainGrouped(inputs, outputs, stride), middle, PlainGrouped(outputs, outputs, 1)
            )
        self.equal = inputs == outputs
        if not self.equal:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = functional.relu(self.bn1(x))
        return self.path(activated) + (x if self.equal else self.shortcut(activated))


class PlainWideResNet(nn.Module):
    """WRN-16-2 of the paper, layer by layer."""

    def __init__(self, bottleneck: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        shapes = [(16, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]
        self.blocks = nn.ModuleList([PlainPreactBlock(*shape, bottleneck) for shape in shapes])
        self.bn = nn.BatchNorm2d(128)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.blocks:
            x = block(x)
        x = functional.avg_pool2d(functional.relu(self.bn(x)), 8)
        return self.fc(x.view(-1, 128))


class PlainPostBlock(nn.Module):
    """A basic block of ResNet-34 with G(4) for its convolutions, BN after each."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = PlainGrouped(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = PlainGrouped(outputs, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs:
            down = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(down, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class PlainResNet34(nn.Module):
    """Res34-G(4) with narrow stages, to be quick."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        blocks, inputs = [], 8
        for stage, (outputs, count) in enumerate([(8, 3), (16, 4), (32, 6), (64, 3)]):
            for i in range(count):
                blocks.append(PlainPostBlock(inputs, outputs, 2 if stage and i == 0 else 1))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def grouped_wrn() -> tuple[nn.Module, nn.Module]:
    keys: dict[str, Any] = {"shape": CIFAR, "classes": 10, "depth": 16, "width": 2}
    return MoonshineWideResNet(**keys, block="G(4)"), PlainWideResNet(bottleneck=False)


def bottleneck_wrn() -> tuple[nn.Module, nn.Module]:
    keys: dict[str, Any] = {"shape": CIFAR, "classes": 10, "depth": 16, "width": 2}
    return MoonshineWideResNet(**keys, block="BG(2,M/4)"), PlainWideResNet(bottleneck=True)


def imagenet_resnet() -> tuple[nn.Module, nn.Module]:
    model = MoonshineResNet(
        shape=(3, 64, 64), classes=10, blocks=[3, 4, 6, 3], widths=[8, 16, 32, 64], block="G(4)"
    )
    return model, PlainResNet34()


@pytest.mark.parametrize("pair", [grouped_wrn, bottleneck_wrn, imagenet_resnet])
def test_a_whole_network_equals_its_plain_transcription(
    pair: Callable[[], tuple[nn.Module, nn.Module]],
) -> None:
    torch.manual_seed(0)
    ours, plain = (model.double() for model in pair())
    for tensor, other in zip(plain.state_dict().values(), ours.state_dict().values(), strict=True):
        tensor.copy_(other)
    side = 64 if pair is imagenet_resnet else 32
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    for mode in (True, False):
        mine, other = ours.train(mode)(images), plain.train(mode)(images)
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
    gradients = [
        torch.autograd.grad(net.train()(images).square().sum(), list(net.parameters()))
        for net in (ours, plain)
    ]
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("block", ["S", "S-2x2", "G(2)", "G(N)", "B(2)", "BG(2,M)"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 15, 9)])
def test_any_image_goes_through_any_block(block: str, shape: tuple[int, ...]) -> None:
    images = torch.randn(2, *shape)
    small = MoonshineSmallNet(shape=shape, classes=7, widths=[16, 32], blocks=[2, 1], block=block)
    deep = MoonshineWideResNet(shape=shape, classes=7, depth=10, width=1, block=block)
    for model, stages in ((small, 2), (deep, 3)):
        logits, features = forward_features(model, images)
        assert logits.shape == (2, 7)
        assert list(features) == [f"stages.{stage}" for stage in range(stages)]
        assert [feature.shape[1] for feature in features.values()] == [16, 32, 64][:stages]


def test_the_small_network_is_a_wide_resnet_with_two_stages() -> None:
    with weightless():
        small = MoonshineSmallNet(shape=(1, 8, 8), classes=10, widths=[16, 32], blocks=[2, 2], block="G(N)")
        deep = MoonshineWideResNet(shape=(1, 8, 8), classes=10, depth=16, width=1, block="G(N)")
    assert str(small.stages) == str(deep.stages[:2])
    assert str(small.stem) == str(deep.stem)


def test_the_classifiers_bias_starts_at_zero_and_norms_at_the_identity() -> None:
    model = MoonshineWideResNet(shape=(3, 8, 8), classes=10, depth=10, width=1, block="G(N)")
    assert not model.classifier.bias.any()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in norms)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: wide("G(64)"), r"model\.block=G\(64\): .* 16 channels cannot have 64 groups"),
        (lambda: wide("G3"), r"model\.block=G3; valid: S, S-2x2"),
        (lambda: wide("S", depth=15), r"model\.depth=15; valid: 6n \+ 4"),
        (
            lambda: MoonshineSmallNet(shape=(1, 8, 8), classes=10, widths=[8, 16], blocks=[1], block="S"),
            r"model\.blocks=\[1\]; valid: 2 numbers",
        ),
        (
            lambda: MoonshineSmallNet(shape=(1, 8, 8), classes=10, widths=[], blocks=[1], block="S"),
            r"model\.widths=\[\]; valid",
        ),
        (
            lambda: MoonshineResNet(shape=IMAGENET, classes=10, widths=[8], blocks=[1, 0], block="S"),
            r"model\.blocks=\[1, 0\]; valid",
        ),
        (
            lambda: MoonshineSmallNet(shape=(1, 1, 8), classes=10, widths=[8, 8], blocks=[1, 1], block="S"),
            r"moonshine_small cannot take inputs of shape \(1, 1, 8\); valid: .*at least 2 pixels",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
