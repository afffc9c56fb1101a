"""Networks of the paper as its config files have them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from papers.channelnets.network import ChannelNet

CONF = Path(__file__).parents[3] / "conf" / "model"
IMAGENET: dict[str, Any] = {"shape": (3, 224, 224), "classes": 1000}
SMALL: dict[str, Any] = {
    "shape": (3, 16, 16),
    "classes": 10,
    "widths": [8, 12, 16, 16, 16, 16, 16, 32, 32],
    "strides": [1, 1, 2, 1, 1, 1, 2, 2, 1],
    "gcw_kernel": 4,
    "dwscw_kernel": 6,
}


@pytest.fixture(scope="session")
def channelnet() -> Callable[..., ChannelNet]:
    """v1 for ImageNet on the meta device, with other settings where they are given."""

    def build(device: str = "meta", **settings: Any) -> ChannelNet:
        config = yaml.safe_load((CONF / "channelnet_v1_imagenet.yaml").read_text())
        config.pop("_target_")
        with torch.device(device):
            return ChannelNet(**{**config, **IMAGENET, **settings})

    return build


@pytest.fixture(scope="session")
def small(channelnet: Callable[..., ChannelNet]) -> Callable[..., ChannelNet]:
    """A narrow network for 16x16 images with drawn weights, normalised by the statistics of data."""

    def build(**settings: Any) -> ChannelNet:
        torch.manual_seed(0)
        network = channelnet("cpu", **{**SMALL, **settings})
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                # the mean over all batches, whatever their number
                norm.momentum = None
        with torch.no_grad():
            network(torch.randn(32, *SMALL["shape"]))
        return network.eval()

    return build
