"""The picture of pruned and selected channels."""

import re

import torch
from torch import nn

from papers.dcp.feature_maps import SHOWN, draw, input_maps


def titles(svg: str) -> list[str]:
    return re.findall(r">(?:<!-- )?((?:pruned|selected) \d+)(?: -->)?<", svg)


def test_the_maps_are_what_the_layer_gets_of_one_image() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    image = torch.randn(3, 6, 5)
    maps = input_maps(network, "2", image)
    assert maps is not None
    assert torch.equal(maps, network[1](network[0](image[None]))[0])
    assert not network[2]._forward_pre_hooks


def test_inputs_without_width_and_height_have_no_picture() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    assert input_maps(network, "3", torch.randn(3, 6, 6)) is None
    assert input_maps(network[:2], "1", torch.randn(3, 3, 3)) is None


def test_the_picture_names_the_strongest_channels_of_both_kinds_and_is_always_the_same() -> None:
    # channel k is everywhere k + 1, half of them below 0: strength is what it is away from 0
    maps = torch.arange(1.0, 25.0)[:, None, None] * torch.ones(24, 4, 4)
    maps[::2] *= -1
    svg = draw(torch.rand(3, 4, 4), maps, kept=range(12), layer="conv2")
    assert titles(svg) == [f"pruned {k}" for k in range(23, 23 - SHOWN, -1)] + [
        f"selected {k}" for k in range(11, 11 - SHOWN, -1)
    ]
    assert "conv2: 12 of 24 input channels pruned" in svg
    fixed = torch.linspace(0, 1, 48).view(3, 4, 4)
    assert draw(fixed, maps, range(12), "conv2") == draw(fixed, maps, range(12), "conv2")


def test_grey_images_and_few_channels_are_drawn() -> None:
    svg = draw(torch.zeros(1, 4, 4), torch.rand(3, 2, 2), kept=[0, 2], layer="conv")
    assert sorted(titles(svg)) == ["pruned 1", "selected 0", "selected 2"]
