"""ShuffleNet: its published sizes, its unit written out, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.shufflenet import ShuffleNet, ShuffleUnit
from common.models.split import split
from common.pruning.channels import channel_groups
from common.pruning.slicing import masked, sliced

NARROW: dict[str, Any] = {
    "shape": (3, 16, 16),
    "classes": 5,
    "stem": 12,
    "widths": [36, 72, 144],
    "units": [1, 2, 1],
    "groups": 3,
    "stem_stride": 1,
    "pool": False,
}
IMAGENET: dict[str, Any] = {"shape": (3, 224, 224), "classes": 1000}


@pytest.mark.parametrize(
    ("stem", "widths", "parameters", "millions"),
    [
        # pytorchcv's shufflenet_g3_w1, whose outputs were the same once, with the same weights; table 2: 140
        (24, [240, 480, 960], 1_865_728, 137),
        # table 5
        (48, [480, 960, 1920], 5_450_776, 524),
    ],
)
def test_the_sizes_are_the_published_ones(
    build_model: Callable[..., nn.Module], stem: int, widths: list[int], parameters: int, millions: int
) -> None:
    model = build_model("shufflenet_2x_g3_imagenet", IMAGENET["shape"], 1000, stem=stem, widths=widths)
    assert count_parameters(model) == parameters
    assert round(count_macs(model, IMAGENET["shape"]) / 1e6) == millions


def test_its_form_for_small_images_is_the_one_of_its_config(build_model: Callable[..., nn.Module]) -> None:
    assert count_parameters(build_model("shufflenet_2x_g3", (3, 32, 32), 10)) == 3_548_986


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)  # type: ignore[arg-type]


@pytest.mark.parametrize(("inputs", "stride", "first"), [(24, 1, False), (12, 2, False), (12, 2, True)])
def test_a_unit_is_what_the_papers_figure_says(inputs: int, stride: int, first: bool) -> None:
    torch.manual_seed(0)
    block = ShuffleUnit(inputs, 24, stride, 3, first).eval()
    reduce, depthwise, expand = block.reduce, block.depthwise, block.expand
    x = torch.randn(2, inputs, 6, 6)
    y = normed(reduce[1], F.conv2d(x, reduce[0].weight, groups=1 if first else 3)).relu()  # type: ignore[arg-type]
    # channel k of group g goes to place 3 k + g
    order = [group * 2 + k for k in range(2) for group in range(3)]
    y = normed(depthwise[1], F.conv2d(y[:, order], depthwise[0].weight, None, stride, 1, 1, 6))  # type: ignore[arg-type]
    y = normed(expand[1], F.conv2d(y, expand[0].weight, groups=3))  # type: ignore[arg-type]
    y = x + y if stride == 1 else torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1)
    torch.testing.assert_close(block(x), y.relu())


def test_its_halves_are_the_network() -> None:
    torch.manual_seed(0)
    network = ShuffleNet(**NARROW).eval()
    inputs = torch.randn(2, 3, 16, 16)
    for unshared in (1, 2):
        low, high = split(network, unshared)
        torch.testing.assert_close(high(low(inputs)), network(inputs))


def test_channels_within_units_are_pruned_where_groups_and_shuffle_allow_it() -> None:
    torch.manual_seed(0)
    network = ShuffleNet(**NARROW).eval()
    groups = {group.name: group for group in channel_groups(network, NARROW["shape"])}
    # nine runs: three groups before the shuffle, of each as many channels in each of the three after it
    group = groups["blocks.2.reduce.0"]
    assert (group.channels, group.fixed, group.parts) == (18, None, 9)
    keep = {"blocks.2.reduce.0": list(range(0, 18, 2))}
    inputs = torch.randn(2, 3, 16, 16)
    smaller, zeroed = (make(network, NARROW["shape"], keep) for make in (sliced, masked))
    torch.testing.assert_close(smaller(inputs), zeroed(inputs), rtol=1e-4, atol=1e-5)
    assert count_parameters(smaller) < count_parameters(network)
    assert "blocks.1.reduce.0: its 3 groups would keep unequal numbers" in str(groups["stem.0"].fixed)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"widths": [250, 480, 960]}, "3 groups do not divide 250 channels after 48; valid: rising"),
        ({"widths": [480, 960]}, "valid: 3 numbers, one for each stage"),
        ({"groups": 0}, "model.groups=0"),
        ({"shape": (3, 16, 16)}, "at least 32 pixels a side"),
        ({"classes": None}, "needs a data set with classes"),
    ],
)  # fmt: skip
def test_what_it_cannot_be_is_one_line(
    build_model: Callable[..., nn.Module], settings: dict[str, Any], said: str
) -> None:
    given = IMAGENET | settings
    with pytest.raises(UserError, match=said) as error:
        build_model("shufflenet_2x_g3_imagenet", given.pop("shape"), given.pop("classes"), **given)
    assert "\n" not in str(error.value)
