"""Backbones and whole networks: exact counts on the meta device, strides, maps, sizes that go in."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.models.weightless import weightless
from papers.dpc.backbones import MobileNetV2, Xception, make_backbone, padded, padded_side
from papers.dpc.network import DeepLab

SETTINGS: dict[str, Any] = {
    "shape": (3, 33, 33),
    "classes": 5,
    "backbone": "small",
    "width": 6,
    "output_stride": 4,
    "head": "top1",
    "filters": 8,
    "decoder": False,
    "pooling": "official",
    "pooling_crop": None,
    "dropout": 0.1,
    "momentum": 0.1,
    "weight_decay": 0.0,
    "class_weights": None,
    "test_scales": [1.0],
    "test_flip": False,
}


def network(**changes: Any) -> DeepLab:
    return DeepLab(**(SETTINGS | changes))


@pytest.mark.parametrize(
    ("backbone", "head", "stride", "billions"),
    [
        ("xception_71", "top1", 16, 502.07),
        ("xception_65", "aspp", 16, 418.64),
        # of the scales 0.75, 1 and 1.25, each as it is and mirrored
        ("xception_65", "aspp", 8, 8677.92 / (2 * (0.75**2 + 1 + 1.25**2))),
    ],
)
def test_whole_networks_count_as_the_released_ones(
    backbone: str, head: str, stride: int, billions: float
) -> None:
    with weightless():
        whole = network(
            backbone=backbone, head=head, output_stride=stride, decoder=True, filters=256, classes=19
        )
    assert count_macs(whole, (3, 1025, 2049)) / 1e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.parametrize("name", ["xception_65", "xception_71", "mobilenet_v2"])
@pytest.mark.parametrize("stride", [8, 16])
def test_maps_have_their_strides_and_channels(name: str, stride: int) -> None:
    with weightless():
        backbone = make_backbone(name, 3, stride, 1)
        found, low = backbone.maps(torch.empty(1, 3, 65, 129))
    assert low is not None
    assert found.shape == (1, backbone.channels, 64 // stride + 1, 128 // stride + 1)
    assert low.shape == (1, backbone.low_channels, 17, 33)
    assert (backbone.channels, backbone.low_channels) == (
        (320, 144) if name == "mobilenet_v2" else (2048, 256)
    )


def rates(unit: Any) -> set[int]:
    return {m.dilation[0] for m in unit.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)}


@pytest.mark.parametrize(("stride", "wanted"), [(16, [{1}, {1}, {2}]), (8, [{2}, {2}, {4}])])
def test_xceptions_last_units_are_dilated_in_place_of_their_strides(
    stride: int, wanted: list[set[int]]
) -> None:
    with weightless():
        units = Xception(71, 3, stride).units
    assert [rates(units[number]) for number in (-3, -2, -1)] == wanted
    assert len(units) == 5 + 16 + 2


@pytest.mark.parametrize(("stride", "wanted"), [(16, [{1}, {2}, {2}, {2}]), (8, [{2}, {4}, {4}, {4}])])
def test_mobilenets_last_blocks_are_dilated_in_place_of_their_strides(
    stride: int, wanted: list[set[int]]
) -> None:
    with weightless():
        blocks = MobileNetV2(3, stride).blocks
    assert [rates(blocks[number]) for number in (-4, -3, -2, -1)] == wanted


def test_dilated_maps_hold_the_strided_ones() -> None:
    """The last stride undone and what follows dilated: every second place is what the strided network
    gives."""
    torch.manual_seed(0)
    coarse, fine = (
        make_backbone("mobilenet_v2", 3, 16, 1).eval(),
        make_backbone("mobilenet_v2", 3, 8, 1).eval(),
    )
    fine.load_state_dict(coarse.state_dict())
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        torch.testing.assert_close(fine(images)[..., ::2, ::2], coarse(images), rtol=1e-4, atol=1e-4)


def test_xceptions_low_map_is_taken_before_the_next_relu() -> None:
    torch.manual_seed(0)
    backbone: Any = Xception(65, 3, 16).eval()
    seen: list[Tensor] = []
    unit = backbone.units[1]
    unit.convs[1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        low = backbone.maps(torch.randn(1, 3, 33, 33)).low
    assert low is not None and torch.equal(low, seen[0])
    assert bool((low < 0).any())


@pytest.mark.parametrize(
    ("side", "stride", "wanted"),
    [(1024, 16, 1025), (2048, 16, 2049), (513, 16, 513), (500, 16, 513), (1, 4, 5)],
)
def test_sides_are_filled_up_to_strides_and_one(side: int, stride: int, wanted: int) -> None:
    assert padded_side(side, stride) == wanted


def test_images_are_filled_up_at_the_right_and_at_the_bottom() -> None:
    found = padded(torch.ones(1, 1, 6, 9), 4)
    assert found.shape == (1, 1, 9, 9)
    assert found[..., :6, :].min() == 1.0 and found[..., 6:, :].max() == 0.0


@pytest.mark.parametrize("size", [(33, 33), (32, 32), (20, 50)])
def test_logits_have_the_size_of_the_images(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert network().eval()(torch.randn(2, 3, *size)).shape == (2, 5, *size)


def test_the_decoder_gives_maps_of_stride_four() -> None:
    with weightless():
        whole = network(backbone="mobilenet_v2", output_stride=16, decoder=True)
        assert whole(torch.empty(1, 3, 64, 64)).shape == (1, 5, 64, 64)
    decoder: Any = whole.decoder
    assert decoder.low[0].weight.shape == (48, 144, 1, 1)


def test_the_penalty_is_half_the_decay_of_all_but_depthwise_convolutions() -> None:
    whole = network(weight_decay=0.5)
    decayed = [
        parameter
        for name, parameter in whole.named_parameters()
        if parameter.dim() == 4 and parameter.shape[1] > 1
    ]
    assert float(torch.as_tensor(whole.penalty()).detach()) == pytest.approx(
        0.25 * sum(float(p.detach().square().sum()) for p in decayed), rel=1e-5
    )
    assert network().penalty() == 0.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone": "resnet"}, "backbone=resnet; valid: small"),
        ({"output_stride": 16}, "output_stride=16: valid for small: 4"),
        ({"backbone": "mobilenet_v2", "output_stride": 4}, "valid for mobilenet_v2: 8 or 16"),
        ({"decoder": True}, "small has no map of stride 4 for it"),
        ({"head": "psp"}, "valid: top1"),
        ({"dropout": 1.5}, "model.dropout=1.5"),
        ({"pooling_crop": [33]}, "give .height, width."),
        ({"shape": (10,)}, "cannot take inputs"),
        ({"classes": None}, "needs a data set with classes"),
    ],
)
def test_wrong_settings_are_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        network(**changes)
