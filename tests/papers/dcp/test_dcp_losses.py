"""Places, heads and scalings of the discrimination losses."""

import pytest
import torch
from dcp_toys import toy_network
from torch import nn
from torch.nn import functional

from common.base.errors import UserError
from common.models.digit_convnet import DigitConvNet
from common.models.imagenet_resnet import ImageNetResNet
from common.models.mlp import MLP
from common.models.mobilenet import MobileNetV1
from common.models.preact_resnet import PreactResNet
from common.models.vgg import VGG
from papers.dcp.losses import (
    AuxiliaryHead,
    block_names,
    gradient_scales,
    head_for,
    learning_rate_divisors,
    pivots,
    stage_of,
)


@pytest.mark.parametrize(
    ("blocks", "losses", "places"),
    [
        (27, 3, [7, 14, 21]),
        (8, 2, [3, 6]),
        (16, 3, [5, 10, 15]),
        (16, 2, [6, 12]),
        (13, 3, [4, 8, 12]),
        (27, 9, [3, 6, 9, 12, 15, 18, 21, 24, 26]),
        (4, 1, [3]),
        (4, 0, []),
    ],
)
def test_heads_stand_where_the_authors_code_puts_them(blocks: int, losses: int, places: list[int]) -> None:
    assert pivots(blocks, losses) == places


@pytest.mark.parametrize(("blocks", "losses"), [(8, 5), (4, 4), (1, 1), (16, -1)])
def test_a_number_of_losses_without_places_of_their_own_is_refused(blocks: int, losses: int) -> None:
    with pytest.raises(UserError, match=rf"method\.losses={losses}: {blocks} blocks .*valid: 0"):
        pivots(blocks, losses)


def test_gradients_of_the_losses_are_scaled_by_the_square_of_their_depth() -> None:
    found = gradient_scales([7, 14, 21], 2)
    assert found == pytest.approx([(15 / 43) ** 2, (29 / 43) ** 2, 1.0])
    assert learning_rate_divisors(found) == pytest.approx([sum(found), sum(found[1:]), 1.0])
    assert gradient_scales([1, 26], 2) == [pytest.approx(0.01), 1.0]
    assert gradient_scales([], 2) == learning_rate_divisors([]) == []


def test_a_head_is_normalisation_relu_global_pooling_and_a_linear_layer_without_bias_at_first() -> None:
    torch.manual_seed(0)
    head, maps = AuxiliaryHead(4, 3), torch.randn(6, 4, 5, 5)
    norm = nn.BatchNorm2d(4)
    expected = functional.relu(norm(maps)).mean((2, 3)) @ head.classifier.weight.T
    torch.testing.assert_close(head.train()(maps), expected)
    torch.testing.assert_close(head.norm.running_mean, norm.running_mean)
    torch.testing.assert_close(head.norm.running_var, norm.running_var)
    assert head(torch.randn(6, 4)).shape == (6, 3)


VGG19 = VGG(
    shape=(3, 32, 32),
    classes=10,
    widths=[[4, 4], [8, 8], [8] * 4, [8] * 4, [8] * 4],
    batch_norm=True,
    last_pool="average",
    pixels=1,
    hidden=[],
    dropout=0.0,
)
V1 = MobileNetV1(
    shape=(3, 32, 32),
    classes=10,
    widths=[4] * 14,
    strides=[1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2],
    multiplier=1.0,
)
R18 = ImageNetResNet(shape=(3, 32, 32), classes=10, blocks=[2, 2, 2, 2], widths=[4, 8, 8, 8], block="basic")
R50 = ImageNetResNet(
    shape=(3, 32, 32), classes=10, blocks=[3, 4, 6, 3], widths=[4, 4, 4, 4], block="bottleneck"
)


@pytest.mark.parametrize(
    ("network", "count", "first", "last"),
    [
        (PreactResNet(shape=(3, 8, 8), classes=10, depth=56), 27, "stages.0.0", "stages.2.8"),
        (R18, 8, "stages.0.0", "stages.3.1"),
        (R50, 16, "stages.0.0", "stages.3.2"),
        (VGG19, 16, "stages.0.0", "stages.4.10"),
        (V1, 13, "blocks.0.3", "blocks.12.3"),
        (
            DigitConvNet(shape=(1, 8, 8), classes=10, widths=[4, 4, 4, 4], strides=[1, 2, 1, 2]),
            4,
            "layers.0.0",
            "layers.3.0",
        ),
    ],
)
def test_blocks_are_found_in_order(network: nn.Module, count: int, first: str, last: str) -> None:
    found = block_names(network)
    assert (len(found), found[0], found[-1]) == (count, first, last)


def test_blocks_of_a_network_without_convolutions_are_its_linear_layers() -> None:
    found = block_names(MLP(shape=(4,), classes=3, hidden=[5, 6], activation="relu"))
    assert len(found) == 3


def test_a_layer_belongs_to_the_first_head_that_comes_after_it() -> None:
    network, images, _ = toy_network(depth=8)
    ends = ["stages.0.0", "stages.1.0"]
    stages = [stage_of(network, f"stages.{i}.0.residual.3", ends) for i in range(3)]
    assert stages == [0, 1, 2]
    assert stage_of(network, "stages.0.0.residual.3", ["stages.0.0.residual.3"]) == 0
    head = head_for(network, "stages.1.0", images, 4)
    assert head.norm.num_features == 32 and not network.training
