"""Which layers' input channels are selected: by rule, on the networks of the paper and on others."""

import copy

import pytest
import torch
from dcp_toys import toy_network
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.densenet import DenseNet
from common.models.digit_convnet import DigitConvNet
from common.models.imagenet_resnet import ImageNetResNet
from common.models.mlp import MLP
from common.models.mobilenet import MobileNetV1, MobileNetV2
from common.models.preact_resnet import PreactResNet
from common.models.vgg import VGG
from common.pruning.slicing import masked, sliced
from papers.dcp.cut import cached_problem
from papers.dcp.layer_problem import kept_channels
from papers.dcp.policy import prunable
from papers.dcp.selection import ChannelSelection

IMAGE = (3, 32, 32)


def vgg() -> VGG:
    widths = [[4, 4], [8, 8], [8] * 4, [8] * 4, [8] * 4]
    return VGG(
        shape=IMAGE,
        classes=10,
        widths=widths,
        batch_norm=True,
        last_pool="average",
        pixels=1,
        hidden=[],
        dropout=0.0,
    )


def mobilenet_v1() -> MobileNetV1:
    strides = [1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2]
    return MobileNetV1(shape=IMAGE, classes=10, widths=[4] * 14, strides=strides, multiplier=1.0)


def mobilenet_v2(projection: bool) -> MobileNetV2:
    return MobileNetV2(
        shape=IMAGE, classes=10, stages=[(1, 4, 1, 1), (2, 6, 2, 2), (2, 8, 1, 1)], hidden=None,
        stem_stride=1, expand_always=projection, projection=projection, dropout=0.0,
    )  # fmt: skip


def resnet(block: str, blocks: list[int]) -> ImageNetResNet:
    return ImageNetResNet(shape=IMAGE, classes=10, blocks=blocks, widths=[4, 4, 8, 8], block=block)  # type: ignore[arg-type]


def test_of_a_pre_activation_block_the_inputs_of_the_second_convolution_are_selected() -> None:
    found = prunable(PreactResNet(shape=IMAGE, classes=10, depth=20), IMAGE)
    assert list(found) == [f"stages.{i}.{j}.residual.3" for i in range(3) for j in range(3)]
    assert [group.channels for group in found.values()] == [16] * 3 + [32] * 3 + [64] * 3


def test_of_a_basic_block_the_second_and_of_a_bottleneck_the_second_and_the_third() -> None:
    basic = prunable(resnet("basic", [2, 1, 1, 2]), IMAGE)
    assert list(basic) == [
        f"stages.{i}.{j}.residual.3" for i, j in [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (3, 1)]
    ]
    deep = prunable(resnet("bottleneck", [1, 2, 1, 2]), IMAGE)
    blocks = [(i, j) for i, count in enumerate([1, 2, 1, 2]) for j in range(count)]
    assert list(deep) == [f"stages.{i}.{j}.residual.{k}" for i, j in blocks for k in (3, 6)]


def test_of_a_vgg_all_convolutions_but_the_first_and_not_the_classifier() -> None:
    network = vgg()
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    assert list(prunable(network, IMAGE)) == convolutions[1:]


def test_of_mobilenet_v1_the_pointwise_convolutions_and_what_is_kept_by_name() -> None:
    network = mobilenet_v1()
    pointwise = [f"blocks.{i}.3" for i in range(13)]
    assert list(prunable(network, IMAGE)) == pointwise
    # the paper's on CIFAR-10: the stem and the outputs of block 12 stay, those of 13 go to the classifier
    kept = prunable(network, IMAGE, keep=["stem.*", "blocks.11.*"])
    assert list(kept) == pointwise[1:12]


@pytest.mark.parametrize("projection", [True, False])
def test_of_mobilenet_v2_the_hidden_channels_alone_where_the_linear_outputs_are_kept(
    projection: bool,
) -> None:
    network = mobilenet_v2(projection)
    linear = "blocks.0.residual.6" if projection else "blocks.0.residual.3"
    found = prunable(network, IMAGE, keep=["stem.*", linear, "blocks.3.*.6"])
    hidden = range(0 if projection else 1, 4)
    assert list(found) == [f"blocks.{i}.residual.6" for i in hidden]
    assert [group.channels for group in found.values()] == [32, 8, 12, 12][0 if projection else 1 :]


def test_chains_of_any_kind_are_selected_up_to_the_last_layer() -> None:
    digits = DigitConvNet(shape=(1, 8, 8), classes=10, widths=[4, 4, 4, 4], strides=[1, 2, 1, 2])
    assert list(prunable(digits, (1, 8, 8))) == ["layers.1.0", "layers.2.0", "layers.3.0"]
    assert len(prunable(MLP(shape=(4,), classes=3, hidden=[5, 6], activation="relu"), (4,))) == 1
    dense = DenseNet(shape=IMAGE, classes=10, depth=10, growth=4, bc=True)
    layers = prunable(dense, IMAGE)
    assert layers and all(group.followers for group in layers.values())


class Joined(nn.Module):
    """All that is between its layers is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        stem = self.stem(inputs)
        return self.last((stem + self.left(stem) + self.right(stem)).mean((2, 3)))


def test_a_network_without_channels_between_two_layers_is_refused() -> None:
    with pytest.raises(UserError, match=r"^Joined: .*none can be selected \(valid: "):
        prunable(Joined(), (3, 8, 8))


def test_a_pattern_that_fits_no_layer_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"^method.keep: no layer fits block.\*.*stages.0.0"):
        prunable(toy_network()[0], (3, 8, 8), keep=["block.*"])


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_what_is_selected_is_sliced_without_another_change(eta: float) -> None:
    network, images, labels = toy_network()
    baseline, keep = copy.deepcopy(network), {}
    for layer, group in prunable(network, (3, 8, 8)).items():
        problem = cached_problem(network, baseline, layer, images, labels)
        kept = kept_channels(group.channels, eta, layer)
        direction = "backward" if eta == 0 else "forward"
        found = ChannelSelection(direction=direction).select(problem, kept)  # type: ignore[arg-type]
        with torch.no_grad():
            network.get_submodule(layer).weight.copy_(found.weight)  # type: ignore[operator]
        keep[group.name] = found.kept
    with torch.no_grad():
        small = sliced(network, (3, 8, 8), keep).eval()(images)
        torch.testing.assert_close(small, network(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            small, masked(network, (3, 8, 8), keep).eval()(images), rtol=1e-5, atol=1e-5
        )
        if eta == 0:
            torch.testing.assert_close(small, baseline(images))
        else:
            assert not torch.allclose(small, baseline(images), atol=1e-3)


class Taken(nn.Module):
    """A layer takes two layers' channels, the same ones twice, or those of each position in turn."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 3)
        self.taker = nn.Linear(4 * 36, 5) if kind == "positions" else nn.Conv2d(8, 5, 1)
        self.out = nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        low = self.first(images)
        if self.kind == "positions":
            return self.out(self.taker(self.left(low).permute(0, 2, 3, 1).flatten(1)).relu())
        left = self.left(low).relu()
        both = torch.cat([left, left if self.kind == "twice" else self.right(images)], 1)
        return self.out(self.taker(both).relu().mean((2, 3)))


@pytest.mark.parametrize("kind", ["branches", "twice", "positions"])
def test_inputs_that_are_not_one_layers_channels_in_their_order_are_not_selected(kind: str) -> None:
    found = prunable(Taken(kind), (3, 8, 8))
    assert list(found) == ["left"]
