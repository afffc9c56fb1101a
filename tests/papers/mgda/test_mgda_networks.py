"""Networks: the specification's sizes, masks, dilation, and what they refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from torch import nn

from common.base.errors import UserError
from common.metrics.parameters import count_parameters
from papers.mgda.networks import Mask, PyramidHead

CONF = Path(__file__).parents[3] / "conf" / "model"


def build(name: str, shape: tuple[int, ...], classes: int | None, device: str = "meta", **keys: Any) -> Any:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | keys
    with torch.device(device):
        return get_object(config.pop("_target_"))(shape=shape, classes=classes, **config)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "encoder", "head", "tasks"),
    [
        ("multi_lenet", (1, 28, 28), 10, 21_330, 3_060, 2),
        ("multi_lenet_digits", (1, 11, 11), 10, 4_728, 850, 2),
        ("multi_resnet18", (3, 64, 64), 40, 11_168_832, 4_098, 40),
        ("pspnet_resnet50", (3, 256, 512), 19, 23_508_032, 23_073_792 + 19 * 513, 3),
    ],
)
def test_encoders_and_heads_have_the_specifications_sizes(
    name: str, shape: tuple[int, ...], classes: int, encoder: int, head: int, tasks: int
) -> None:
    network = build(name, shape, classes)
    assert (count_parameters(network.encoder), count_parameters(network.heads[0])) == (encoder, head)
    assert len(network.heads) == len(network.outputs_of_tasks) == tasks
    output = network.eval()(torch.empty(2, *shape, device="meta"))
    assert output.shape[:2] == (2, sum(network.outputs_of_tasks))
    if name == "multi_lenet":
        assert count_parameters(network) == 27_450
    if name == "pspnet_resnet50":
        assert output.shape[2:] == (32, 64)


def test_faces_become_2048_numbers() -> None:
    network = build("multi_resnet18", (3, 64, 64), 40)
    assert network.encoder(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 2048)


def test_the_last_stages_are_dilated_in_place_of_strides() -> None:
    small: dict[str, Any] = {"widths": [4, 4, 4, 4], "head_width": 4}
    network = build("pspnet_resnet50", (3, 64, 64), 3, "cpu", blocks=[1, 1, 2, 2], **small)
    convolutions = [m for m in network.encoder.modules() if isinstance(m, nn.Conv2d)]
    wide = [m.dilation[0] for m in convolutions if m.kernel_size == (3, 3)]
    assert wide == [1, 1, 1, 2, 2, 4]
    # stem and second stage, with its shortcut
    assert sum(m.stride == (2, 2) for m in convolutions) == 3
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 6, 8, 8)


@pytest.mark.parametrize(("dropout", "values"), [("official", {0.0, 1.0}), ("inverted", {0.0, 2.0})])
def test_masks_are_of_channels_for_all_images_or_of_every_number(dropout: Any, values: set[float]) -> None:
    torch.manual_seed(0)
    ones = torch.ones(3, 40, 2, 2)
    channels = Mask(dropout, whole_batch=True)(ones)
    assert set(channels.unique().tolist()) == values
    assert torch.equal(channels, channels[:1, :, :1, :1].expand_as(ones))
    numbers = Mask(dropout, whole_batch=False)(torch.ones(50, 40))
    assert set(numbers.unique().tolist()) == values and not torch.equal(numbers[0], numbers[1])
    assert torch.equal(Mask(dropout, whole_batch=True).eval()(ones), ones)
    assert torch.equal(Mask("none", whole_batch=True)(ones), ones)


def test_a_pyramid_head_keeps_the_size_of_its_map() -> None:
    assert PyramidHead(8, 4, 2).eval()(torch.randn(2, 8, 5, 9)).shape == (2, 2, 5, 9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build("multi_lenet", (1, 8, 8), 10), "multi_lenet cannot take inputs of shape"),
        (lambda: build("multi_lenet", (1, 28, 28), 10, tasks=0), "model.tasks=0; valid: a number >= 1"),
        (lambda: build("multi_lenet", (1, 28, 28), 10, pool=[2]), r"model.pool=\[2\]; valid: two numbers"),
        (lambda: build("multi_lenet", (1, 28, 28), None), "needs a data set with classes"),
        (lambda: build("pspnet_resnet50", (3, 60, 64), 19), "60x64 pixels; valid: sides divisible by 8"),
        (lambda: build("linear_encoder", (3, 8, 8), 10), "valid: dataset=pareto_quadratics"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
