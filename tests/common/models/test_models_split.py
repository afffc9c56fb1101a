"""A network cut between its stages is the same network."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.metrics.parameters import count_parameters
from common.models.features import forward_features
from common.models.mlp import MLP
from common.models.split import check_halves, split

Build = Callable[..., nn.Module]
FAMILIES = [
    ("resnet8", 32, {}),
    ("resnet20", 32, {"shortcut": "B"}),
    ("preact_resnet20", 32, {}),
    ("wrn_16_1", 32, {}),
    ("densenet_40_12", 32, {"depth": 10, "growth": 4}),
    ("densenet_bc_100_12", 32, {"depth": 10, "growth": 4}),
    ("vgg13", 32, {}),
    ("resnext29_8x64d", 32, {"depth": 11, "group_width": 1}),
    ("mobilenet_v1", 32, {"multiplier": 0.1}),
    ("mobilenet_v2", 32, {}),
    ("resnet18_imagenet", 64, {"widths": [8, 16, 24, 32]}),
    ("resnext50_32x4d_imagenet", 64, {"blocks": [1, 1, 1, 1], "cardinality": 2}),
    ("se_resnet18_imagenet", 64, {"widths": [8, 16, 24, 32], "reduction": 4}),
    ("convnet_digits", 32, {}),
    ("convnet", 32, {}),
    ("resnet_digits", 8, {}),
    ("peleenet_digits", 8, {}),
    ("densenet41_small", 32, {}),
]


@pytest.mark.parametrize(("name", "pixels", "keys"), FAMILIES)
def test_the_high_part_of_the_low_part_is_the_network_at_every_cut(
    build_model: Build, name: str, pixels: int, keys: dict[str, object]
) -> None:
    torch.manual_seed(0)
    channels = 1 if pixels == 8 else 3
    model = build_model(name, (channels, pixels, pixels), 5, device="cpu", **keys).eval()
    inputs = torch.randn(2, channels, pixels, pixels)
    with torch.no_grad():
        logits, features = forward_features(model, inputs)
        for unshared in range(1, len(model.features)):
            low, high = split(model, unshared)
            shared = low(inputs)
            torch.testing.assert_close(shared, features[model.features[-unshared - 1]], rtol=0, atol=0)
            torch.testing.assert_close(high(shared), logits, rtol=0, atol=0)
            parts = [*low.parameters(), *high.parameters()]
            assert sorted(map(id, parts)) == sorted(map(id, model.parameters()))


def test_no_stage_and_all_stages_cannot_be_unshared(build_model: Build) -> None:
    model = build_model("resnet20", (3, 32, 32), 10)
    for unshared in (0, 3, -1):
        with pytest.raises(UserError, match=rf"unshared={unshared}; valid: 1 to 2 of 3 stages"):
            split(model, unshared)


def test_a_network_without_stages_is_refused_in_one_line() -> None:
    model = MLP(shape=(1, 8, 8), classes=10, hidden=[4], activation="relu")
    with pytest.raises(UserError, match="MLP cannot be cut between stages"):
        split(model, 1)


def test_the_resnet_for_digits_has_5122_parameters(build_model: Build) -> None:
    assert count_parameters(build_model("resnet_digits", (1, 8, 8), 10)) == 5122


class Own(nn.Module):
    """A network whose `split` gives what it is told."""

    def __init__(self, halves: str) -> None:
        super().__init__()
        self.low, self.high = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.halves = halves

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.high(self.low(inputs))

    def split(self, unshared: int) -> object:
        return {
            "right": (self.low, self.high),
            "one": self.low,
            "sequence": nn.Sequential(self.low, self.high, self.high),
            "less": (self.low, nn.Identity()),
            "more": (self.low, nn.Sequential(self.high, self.high)),
            "failing": (self.low, nn.Linear(3, 3)),
        }[self.halves]


@pytest.mark.parametrize("halves", ["one", "sequence"])
def test_a_split_that_gives_no_two_modules_is_refused(halves: str) -> None:
    with pytest.raises(UserError, match=r"Own\.split\(1\) gives a .*valid: two modules"):
        split(Own(halves), 1)


@pytest.mark.parametrize(
    ("halves", "message"),
    [("less", "another network"), ("more", "another network"), ("failing", "fail: mat1")],
)
def test_halves_that_are_not_the_network_are_refused(halves: str, message: str) -> None:
    model = Own(halves)
    with pytest.raises(UserError, match=message):
        check_halves(model, *split(model, 1), (1, 8, 8))
    right = Own("right")
    assert check_halves(right, *split(right, 1), (1, 8, 8)).shape == (1, 1, 8, 8)
