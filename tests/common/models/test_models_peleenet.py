"""PeleeNet and DenseNet-41: published costs, shapes, a peer's outputs, layers, what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml
from model_toys import CONF
from torch import Tensor, nn

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.convolution import conv_norm_relu
from common.models.features import feature_shapes, forward_features
from common.models.peleenet import PeleeNet, StemBlock, TwoWayLayer
from common.models.weightless import weightless

IMAGENET = ((3, 224, 224), 1000)
CIFAR = ((3, 32, 32), 10)
DIGITS = ((1, 8, 8), 10)

# (model, data, parameters, multiply-adds, where the numbers are from)
PUBLISHED = [
    ("peleenet", IMAGENET, 2_802_248, 507_757_568, "table 3: 2.8M, 508M"),
    ("densenet41", IMAGENET, 1_418_440, 543_050_688, "by its layers"),
    ("peleenet_small", CIFAR, 530_490, 10_572_736, "by its layers"),
    ("densenet41_small", CIFAR, 276_141, 11_241_570, "by its layers"),
    ("peleenet_digits", DIGITS, 34_946, 130_736, "by its layers"),
]

WIDE, DYNAMIC = {"compression": 1.0}, {"bottleneck": [1, 2, 4, 4]}
STEM = {"stem_block": True, "stem": 32}
TWO_WAY = {"post_activation": True, "two_way": True, "last_transition": True}
# the columns of table 2: what is changed of DenseNet-41, millions of multiply-adds with 120 classes
CHAIN: list[tuple[dict[str, Any], int]] = [
    ({}, 543),
    (WIDE, 652),
    (WIDE | {"post_activation": True}, 652),
    (WIDE | DYNAMIC, 370),
    (WIDE | DYNAMIC | STEM, 413),
    (WIDE | DYNAMIC | STEM | TWO_WAY, 371),
    (WIDE | DYNAMIC | STEM | TWO_WAY | {"blocks": [3, 4, 8, 6]}, 507),
]


def settings(name: str, **changed: Any) -> dict[str, Any]:
    """The arguments of a file of conf/model, without its target."""
    found = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changed
    del found["_target_"]
    return found


def made(name: str, shape: tuple[int, ...] = (3, 224, 224), classes: int = 1000, **changed: Any) -> PeleeNet:
    with weightless():
        return PeleeNet(shape=shape, classes=classes, **settings(name, **changed))


@pytest.mark.parametrize(("name", "data", "parameters", "macs", "source"), PUBLISHED)
def test_models_have_their_published_cost(
    name: str, data: tuple[tuple[int, ...], int], parameters: int, macs: int, source: str
) -> None:
    model = made(name, *data)
    assert (count_parameters(model), count_macs(model, data[0])) == (parameters, macs), source


@pytest.mark.parametrize(("changed", "macs"), CHAIN)
def test_each_step_of_table_2_has_its_cost(changed: dict[str, Any], macs: int) -> None:
    assert round(count_macs(made("densenet41", classes=120, **changed), (3, 224, 224)) / 1e6) == macs


def test_densenet_41_with_120_classes_has_1_126_million_parameters() -> None:
    assert count_parameters(made("densenet41", classes=120)) == 1_126_280


def test_the_last_step_of_table_2_is_peleenet() -> None:
    last = made("densenet41", **CHAIN[-1][0])
    shapes = {name: value.shape for name, value in last.state_dict().items()}
    assert shapes == {name: value.shape for name, value in made("peleenet").state_dict().items()}


def test_peleenet_has_113_convolutions_each_with_batch_normalisation_after_it() -> None:
    kinds = [type(module) for module in made("peleenet").modules()]
    assert kinds.count(nn.Conv2d) == kinds.count(nn.BatchNorm2d) == 113


@pytest.mark.parametrize(
    ("side", "sides"), [(224, [56, 28, 14, 7]), (304, [76, 38, 19, 10]), (300, [75, 38, 19, 10])]
)
def test_stages_have_the_sides_of_table_1_before_their_pools(side: int, sides: list[int]) -> None:
    model = made("peleenet", (3, side, side), ceil_mode=True)
    found = feature_shapes(model, (3, side, side))
    channels = (128, 256, 512, 704)
    assert list(found.values()) == [(c, s, s) for c, s in zip(channels, sides, strict=True)]


def test_pools_round_down_without_ceil_mode() -> None:
    assert feature_shapes(made("peleenet"), (3, 304, 304))["stages.3"] == (704, 9, 9)


def test_sources_are_the_outputs_of_the_stages() -> None:
    shape = (3, 64, 64)
    model = PeleeNet(shape=shape, classes=3, **settings("peleenet", ceil_mode=True)).eval()
    images = torch.randn(2, *shape)
    with torch.no_grad():
        _, features = forward_features(model, images)
        sources = model.sources(images)
    assert model.source_channels == (128, 256, 512, 704)
    for source, feature in zip(sources, features.values(), strict=True):
        torch.testing.assert_close(source, feature, rtol=0, atol=0)


@pytest.mark.parametrize("side", [1, 2, 31, 33, 65])
def test_any_size_passes_with_pools_that_round_up(side: int) -> None:
    model = made("peleenet", (3, side, side), ceil_mode=True)
    assert model(torch.empty(2, 3, side, side, device="meta")).shape == (2, 1000)


def test_peleenet_gives_what_that_of_pytorchcv_gives() -> None:
    peer = pytest.importorskip(
        "pytorchcv.models.peleenet",
        reason="pytorchcv is not installed (pip install --no-deps pytorchcv: else it brings torchvision)",
    ).peleenet()
    torch.manual_seed(0)
    ours = PeleeNet(shape=(3, 224, 224), classes=1000, **settings("peleenet")).double().eval()
    peer.double().eval()
    stir_norms(ours)
    weights = ours.state_dict()
    # theirs has the convolutions' half of the stem first
    name = "stem.last.0.weight"
    weights[name] = torch.cat([weights[name][:, 32:], weights[name][:, :32]], dim=1)
    theirs = peer.state_dict()
    assert [w.shape for w in theirs.values()] == [w.shape for w in weights.values()]
    peer.load_state_dict(dict(zip(theirs, weights.values(), strict=True)))
    images = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), peer(images), rtol=1e-10, atol=1e-10)


def stir_norms(model: nn.Module) -> None:
    """Give batch normalisation other statistics and scales than its first ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


def seen(way: nn.Module, channels: int, side: int) -> int:
    """How many pixels of its input the middle of a layer's output follows from."""
    images = torch.rand(1, channels, side, side, requires_grad=True)
    # in the positive range ReLU passes all
    for module in way.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0)
    way.eval()(images)[0, 0, side // 2, side // 2].backward()
    assert images.grad is not None
    return int((images.grad[0].abs().sum(0) > 0).sum())


def test_the_ways_of_a_dense_layer_see_3x3_and_5x5_pixels() -> None:
    layer = TwoWayLayer(16, 8, 16, conv_norm_relu)
    assert (seen(layer.short, 16, 11), seen(layer.long, 16, 11)) == (9, 25)


def test_a_dense_layer_passes_its_inputs_on_as_they_are() -> None:
    images = torch.randn(2, 16, 6, 6)
    outputs = TwoWayLayer(16, 8, 16, conv_norm_relu)(images)
    assert outputs.shape == (2, 24, 6, 6)
    torch.testing.assert_close(outputs[:, :16], images, rtol=0, atol=0)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("inputs", [16, 24, 32, 64, 160])
def test_a_bottleneck_is_cut_where_it_is_more_than_half_of_the_inputs(inputs: int, width: int) -> None:
    growth = 32
    # of the authors' code: growth_rate = k // 2, inter_channel
    expected = int(growth // 2 * width / 4) * 4
    if expected > inputs / 2:
        expected = int(inputs / 8) * 4
    layer = TwoWayLayer(inputs, growth, width * growth, conv_norm_relu)
    first = layer.long[0]
    assert isinstance(first, nn.Conv2d) and first.out_channels == expected


def test_the_stem_concatenates_the_pooled_half_first() -> None:
    stem = StemBlock(3, 8, 2).eval()
    images = torch.randn(1, 3, 9, 9)
    got: list[Tensor] = []
    stem.last.register_forward_pre_hook(lambda module, inputs: got.append(inputs[0]))
    with torch.no_grad():
        stem(images)
        first = stem.first(images)
        # 9 -> 5 -> 3: both halves round up
        pooled = nn.functional.max_pool2d(first, 2, ceil_mode=True)
    torch.testing.assert_close(got[0][:, :8], pooled, rtol=0, atol=0)
    torch.testing.assert_close(got[0][:, 8:], stem.branch(first), rtol=0, atol=0)


def test_normalisation_has_the_settings_that_are_asked_for() -> None:
    model = made("peleenet", norm_eps=1e-3, norm_momentum=0.001)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.001)}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"blocks": []}, "model.blocks="),
        ({"blocks": [1, 1]}, "model.bottleneck=.*2 positive numbers"),
        ({"growth": 7}, "model.growth=7"),
        ({"growth": 0}, "model.growth=0"),
        ({"stem": 31}, "model.stem=31"),
        ({"stem_stride": 3}, "model.stem_stride=3"),
        ({"bottleneck": [1, 2, 4, 0]}, "model.bottleneck="),
        ({"compression": 0.0}, "model.compression=0"),
        ({"compression": 1.5}, "model.compression=1.5"),
        ({"dropout": 1.0}, "model.dropout=1"),
        ({"norm_eps": 0.0}, "model.norm_eps=0"),
        ({"norm_momentum": 0.0}, "model.norm_momentum=0"),
    ],
)
def test_what_makes_no_network_is_refused_by_its_key(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        made("peleenet", **changed)


@pytest.mark.parametrize(("shape", "classes"), [((3, 31, 31), 10), ((10,), 10), ((3, 32, 32), None)])
def test_inputs_that_do_not_fit_are_refused(shape: tuple[int, ...], classes: Any) -> None:
    with pytest.raises(UserError, match="peleenet"):
        made("peleenet", shape, classes)


def test_configs_build_by_name(build_model: Callable[..., nn.Module]) -> None:
    for name, (shape, classes), parameters, _, _ in PUBLISHED:
        assert count_parameters(build_model(name, shape, classes)) == parameters
