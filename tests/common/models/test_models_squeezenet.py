"""SqueezeNet v1.0: its published size, its network written out, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.base.errors import UserError
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.split import split
from common.models.squeezenet import SqueezeNet

NARROW: dict[str, Any] = {
    "shape": (3, 20, 20),
    "classes": 4,
    "stem": 6,
    "stem_kernel": 3,
    "stem_stride": 1,
    "stages": [[[2, 3], [2, 4]], [[3, 5]]],
    "dropout": 0.5,
}


def test_the_sizes_are_the_published_ones(build_model: Callable[..., nn.Module]) -> None:
    # torchvision's and pytorchcv's squeezenet1_0; outputs were pytorchcv's once, with the same weights
    model = build_model("squeezenet_imagenet", (3, 224, 224), 1000)
    assert count_parameters(model) == 1_248_424
    assert count_macs(model, (3, 224, 224)) == 818_924_576
    assert count_parameters(build_model("squeezenet", (3, 32, 32), 10)) == 729_034


def test_it_is_its_layers_written_out() -> None:
    torch.manual_seed(0)
    network = SqueezeNet(**NARROW).eval()
    w = network.state_dict()

    def conv(name: str, x: torch.Tensor, padding: int = 0) -> torch.Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding).relu()

    inputs = torch.randn(2, 3, 20, 20)
    x = conv("stem.0", inputs)
    for pool, fires in ((0, (1, 2)), (3, (4,))):
        assert isinstance(network.blocks[pool], nn.MaxPool2d)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for fire in fires:
            s = conv(f"blocks.{fire}.squeeze", x)
            x = torch.cat([conv(f"blocks.{fire}.expand1", s), conv(f"blocks.{fire}.expand3", s, 1)], 1)
    logits = conv("classifier.1", x).mean((2, 3))
    torch.testing.assert_close(network(inputs), logits)
    low, high = split(network, 1)
    torch.testing.assert_close(high(low(inputs)), logits)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shape": (3, 6, 6)}, "at least 7 pixels a side"),
        ({"stages": [[[2, 3, 4]]]}, r"model.stages: \[2, 3, 4\]; valid: pairs"),
        ({"stages": [[]]}, "model.stages"),
        ({"stem": 0}, "model.stem=0"),
        ({"dropout": 1.5}, "model.dropout=1.5"),
        ({"classes": None}, "needs a data set with classes"),
    ],
)
def test_what_it_cannot_be_is_one_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        SqueezeNet(**NARROW | settings)
    assert "\n" not in str(error.value)
