"""Pelee's module: how biases are trained, what is timed, what is drawn."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from pelee_toys import detector, peleenet
from torch import nn

from common.base.errors import UserError
from common.models.peleenet import PeleeNet
from papers.pelee.drawing import pictures_of
from papers.pelee.module import biases_of
from papers.pelee.speed import Speed, SpeedModule


class NoData(NamedTuple):
    """What a speed is measured for of a data set."""

    shape: tuple[int, ...]


def test_biases_are_those_of_layers_and_not_of_normalisations() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1, bias=False), nn.Linear(2, 2)
    )
    assert {id(bias) for bias in biases_of(network)} == {id(network[0].bias), id(network[3].bias)}


def test_a_detectors_biases_are_in_its_extra_layers_and_heads() -> None:
    model = detector("pelee", (3, 64, 64), maps=[0, 0, 1], extras=[], scales=[10.0, 20.0, 37.0, 54.0])
    # three pairs of heads; all else is followed by a normalisation
    assert len(biases_of(model)) == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sides": [0]}, "sides=0"),
        ({"batches": [0]}, "batches=0"),
        ({"batches": []}, "batches=0"),
        ({"repeats": 0}, "repeats=0"),
    ],
)
def test_what_cannot_be_timed_is_refused(changed: dict[str, Any], said: str) -> None:
    settings: dict[str, Any] = {"sides": [8], "batches": [1], "repeats": 1, "onnx": False, "half": False}
    with pytest.raises(UserError, match=said):
        Speed(**(settings | changed))


@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_are_shown_as_the_pictures_that_they_were_made_of(channels: int) -> None:
    stored = torch.randint(0, 17, (2, channels, 4, 6)).float()
    facts = {"offset": 3.0, "scale": 0.5, "input_range": [0, 16]}
    pictures = pictures_of((stored - 3.0) * 0.5, facts)
    assert [picture.shape for picture in pictures] == [(4, 6, 3), (4, 6, 3)]
    red = torch.tensor([picture[1, 5, 0] for picture in pictures])
    assert red.tolist() == (255 * stored[:, 0, 1, 5] / 16).round().tolist()


def test_a_network_is_timed_in_all_forms_and_all_sizes(tmp_path: Path) -> None:
    shape, speed = (1, 8, 8), Speed(sides=[8, 16], batches=[1, 3], repeats=2, onnx=False, half=True)
    network = PeleeNet(shape=shape, classes=10, **peleenet("peleenet_digits"))
    module = SpeedModule(data=NoData(shape), method=speed, model=network)
    module.calls, module.trainer = module._forms(), SimpleNamespace(should_stop=False)  # type: ignore[assignment]
    while not module.trainer.should_stop:
        module.training_step(0, 0)
    found = module.results()
    sizes = ("8_1", "8_3", "16_1")
    forms = ("plain", "folded", "channels_last", "half")
    expected = {f"speed_{form}_{size}" for size in sizes for form in forms}
    assert {name for name in found if name.startswith("speed_")} == expected
    assert all(found[name] > 0 for name in expected) and found["half_over_full"] > 0
    assert (found["flops"], found["params"]) == (0.130736, 0.034946)
    resumed = SpeedModule(data=NoData(shape), method=speed, model=network)
    resumed.load_search_state(module.search_state())
    assert resumed.progress().done == 3 and resumed.results() == found
