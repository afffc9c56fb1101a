"""Every network of conf/model that has channels: sliced, it computes what it computes masked."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from pruning_toys import gap, numbers, plan, randomised
from torch import nn

from common.base.errors import UserError
from common.pruning.channels import channel_groups
from common.pruning.slicing import sliced

CONF = Path(__file__).parents[3] / "conf" / "model"
# sets, priors and functions, networks that are built upon a trained one, and those of one linear map;
# Xceptions, which are of the same parts as other backbones and take a minute each; those most of whose
# channels have an order, or pass groups and shuffles, have tests of their own
OTHERS = re.compile(
    r"\$\{teacher\}|\?\?\?|_target_: (papers\.(saddle\.sets|sdp_cert|mgda\.networks\.LinearEncoder|spider"
    r"|yogi|accelegrad|channelnets|pelee\.detector|pmf_automl|transfer_automl|nao\.recurrent|nasbot\.network\.GraphRegression)"
    r"|common\.search\.surrogate|common\.(detection|training\.answering)|common\.models\.(linear|online_function|shufflenet|char_lstm_crf|transformer))"
    r"|backbone: xception"
)
SHAPES = [((3, 32, 32), 5), ((1, 28, 28), 5), ((1, 8, 8), 5), ((20,), 3), ((20, 3), 5)]

# the same network with fewer layers or channels, by its name; the first that matches
SMALLER: list[tuple[str, dict[str, Any]]] = [
    (r"resnet164", {"depth": 20}),
    (r"(preact_)?resnet\d+$", {"depth": 14}),
    (r"wrn", {"depth": 10, "width": 2}),
    (r"peleenet_digits", {"blocks": [1, 1, 1]}),
    (r"peleenet|densenet41", {"blocks": [1, 1, 1, 1], "growth": 8, "stem": 8}),
    (r"densenet_bc", {"depth": 16, "growth": 6}),
    (r"densenet", {"depth": 10}),
    (r"resnext29", {"depth": 11, "group_width": 8}),
    (r"resnext50", {"blocks": [1, 1, 1, 1], "cardinality": 8}),
    (r"(se_)?resnet\d+_imagenet", {"blocks": [2, 1, 1, 1], "widths": [16, 16, 24, 32]}),
    (r"moonshine_resnet", {"blocks": [2, 1, 1, 1], "widths": [16, 16, 24, 32]}),
    (r"pspnet", {"blocks": [1, 1, 1, 2], "widths": [8, 8, 16, 24], "head_width": 12}),
    (r"multi_resnet18", {"width": 8}),
    (r"resnet18_small", {"width": 8}),
    (r"vgg.*_imagenet", {"widths": [[6], [6, 8], [8, 8, 12], [12], [16]], "hidden": [20, 12]}),
    (r"vgg", {"widths": [[6], [6, 8], [8, 8, 12], [12], [16]]}),
    (r"mobilenet_v1", {"multiplier": 0.125}),
    (r"mobilenet_v2", {"stages": [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 1], [6, 40, 1, 2]]}),
    (r"naonet_imagenet", {"cells": 1, "filters": 8, "auxiliary": 0.0}),
    (r"naonet", {"cells": 1, "filters": 8}),
    (r"autoencoder_mnist|autoencoder_curves", {"hidden": [40, 20, 10]}),
]
# not resnet50, a ResNet for small images that is none of CIFAR's
OWN = {"resnet50": {"blocks": [1, 2, 1, 1], "width": 8}, "moonshine_wrn": {}, "moonshine_small": {}}


def smaller(name: str) -> dict[str, Any]:
    if name in OWN:
        return OWN[name]
    return next((keys for pattern, keys in SMALLER if re.match(pattern, name)), {})


def names() -> list[str]:
    """One of those that are the same network once they have fewer layers."""
    unlike = {}
    for path in sorted(CONF.glob("*.yaml")):
        if not OTHERS.search(path.read_text()):
            settings = yaml.safe_load(path.read_text()) | smaller(path.stem)
            unlike.setdefault(json.dumps(settings, sort_keys=True), path.stem)
    return list(unlike.values())


@pytest.mark.parametrize("name", names())
def test_a_network_of_the_shelf_sliced_computes_what_it_computes_masked(
    build_model: Callable[..., nn.Module], name: str
) -> None:
    for shape, classes in SHAPES:
        with suppress(UserError):
            network = randomised(build_model(name, shape, classes, device="cpu", **smaller(name)))
            break
    groups = channel_groups(network, shape)
    keep = plan(groups, share=0.6)
    # what is left alone gives the outputs, or is joined to the input or to channels that the code adds
    said = "output|input|pad|add joins"
    assert all(re.search(said, group.fixed) for group in groups if group.fixed is not None)
    assert len(keep) >= len(groups) / 2
    small = sliced(network, shape, keep)
    assert gap(network, shape, keep, small) < 1e-10
    assert numbers(small) < 0.8 * numbers(network)
