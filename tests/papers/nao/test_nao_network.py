"""Networks of cells: exact counts, layers against plain formulas, dropped paths, symmetry, training."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.base.errors import UserError
from common.data.images.digits import Digits
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.weightless import weightless
from papers.nao.cell import NAMED, ConvArchitecture
from papers.nao.child_training import ChildObjective, ChildRecipe, cut_out, evaluated, train_child
from papers.nao.layers import FactorizedReduce, Pool, drop_path, layer_of
from papers.nao.network import CellLayer, Maps, NAONet
from papers.nao.operations import NAO, OPERATIONS
from papers.nao.space import ConvSpace

SETTINGS: dict[str, Any] = {
    "shape": (3, 32, 32), "classes": 10, "architecture": "naonet", "cells": 1, "filters": 4, "stem": "cifar",
    "drop_path": 0.0, "dropout": 0.0, "auxiliary": 0.0, "auxiliary_at": "reduction",
}  # fmt: skip
SMALL = ConvSpace(2, ("identity", "conv_3x3", "max_pool_3x3"), one_cell=True)


def network(**changes: Any) -> NAONet:
    torch.manual_seed(0)
    return NAONet(**(SETTINGS | changes))


# --- counts


@pytest.mark.parametrize(
    ("architecture", "cells", "filters", "parameters"),
    [
        ("naonet", 6, 128, 144_576_394),
        ("naonet_dag", 6, 128, 144_576_394),
        ("naonet", 6, 36, 11_470_150),
        ("naonet_b", 5, 36, 2_492_902),
        ("naonet_ws", 5, 36, 2_301_310),
    ],
)
def test_networks_have_the_official_codes_parameters(
    architecture: str, cells: int, filters: int, parameters: int
) -> None:
    with weightless():
        net = network(architecture=architecture, cells=cells, filters=filters)
    assert count_parameters(net) == parameters


def test_the_network_for_imagenet_has_11_35_millions_and_1244_million_multiply_adds() -> None:
    with weightless():
        net = network(shape=(3, 224, 224), classes=1000, cells=4, filters=42, stem="imagenet")
    assert count_parameters(net) == 11_353_831
    assert count_macs(net, (3, 224, 224)) / 1e6 == pytest.approx(1244, abs=0.5)


def test_a_small_network_counts_as_by_hand() -> None:
    # one node: conv3x3 of input 0 and identity of input 1; both inputs are read, the node alone leaves
    net = network(architecture="0 7 1 5 0 7 1 5", filters=4)
    stem = 3 * 12 * 9 + 2 * 12
    first = 2 * (12 * 4 + 2 * 4) + 4 * 4 * 9 + 8
    reduction = [
        # 12 and 4 channels come to 8: 1x1 both; conv and, of the identity, a factorised reduction
        (12 * 8 + 16) + (4 * 8 + 16) + (8 * 8 * 9 + 16) + (8 * 8 + 16),
        # after the first reduction its cell gets maps of another size
        (8 * 16 + 32) + (8 * 16 + 32) + (16 * 16 * 9 + 32) + (16 * 16 + 32),
    ]
    second = (4 * 8 + 16) + (8 * 8 * 9 + 16)
    third = (8 * 16 + 32) + (16 * 16 * 9 + 32)
    assert count_parameters(net) == stem + first + sum(reduction) + second + third + 16 * 10 + 10


# --- layers


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_every_operation_keeps_channels_and_divides_the_size(operation: str, stride: int, side: int) -> None:
    found = layer_of(operation, 4, stride)(torch.randn(2, 4, side, side))
    assert found.shape == (2, 4, math.ceil(side / stride), math.ceil(side / stride))


def windows(image: torch.Tensor, kernel: int, fill: float) -> torch.Tensor:
    left = (kernel - 1) // 2
    padded = functional.pad(image, (left, kernel - 1 - left) * 2, value=fill)
    return padded.unfold(2, kernel, 1).unfold(3, kernel, 1).flatten(4)


@pytest.mark.parametrize("kernel", [2, 3, 5])
def test_poolings_are_means_and_extremes_of_windows(kernel: int) -> None:
    image = torch.rand(2, 3, 6, 6, dtype=torch.float64) + 0.5
    torch.testing.assert_close(Pool("max", kernel, 1)(image), windows(image, kernel, 0.0).amax(-1))
    torch.testing.assert_close(Pool("avg", kernel, 1)(image), windows(image, kernel, 0.0).mean(-1))
    if kernel % 2:
        torch.testing.assert_close(Pool("min", kernel, 1)(image), windows(image, kernel, 9.0).amin(-1))
        ones = windows(torch.ones_like(image), kernel, 0.0).sum(-1)
        wanted = windows(image, kernel, 0.0).sum(-1) / ones
        torch.testing.assert_close(Pool("avg", kernel, 1, inside=True)(image), wanted)


def test_a_factorised_reduction_reads_even_places_and_those_beside() -> None:
    layer = FactorizedReduce(3, 4).double().eval()
    image = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    even = torch.einsum("oi,bihw->bohw", layer.even.weight[:, :, 0, 0], image[:, :, ::2, ::2])
    odd = torch.einsum("oi,bihw->bohw", layer.odd.weight[:, :, 0, 0], image[:, :, 1::2, 1::2])
    wanted = torch.cat([even, odd], 1) / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(layer(image), wanted)


def test_dropped_paths_keep_their_mean() -> None:
    torch.manual_seed(0)
    found = drop_path(torch.ones(20_000, 2, 3, 3), torch.tensor(0.8))
    assert set(found[:, 0, 0, 0].tolist()) == {0.0, 1.25}
    assert bool((found == found[:, :1, :1, :1]).all())
    assert float(found.mean()) == pytest.approx(1.0, abs=5 * 0.5 / math.sqrt(20_000))


def test_paths_are_dropped_more_often_in_later_cells_and_later_in_training() -> None:
    net = network(drop_path=0.4)
    net.progress.fill_(0.5)
    keeps = [keep for keep in net.keeps() if keep is not None]
    wanted = [1 - 0.5 * (layer / 5) * 0.4 for layer in range(1, 6)]
    torch.testing.assert_close(torch.stack(keeps), torch.tensor(wanted))


def test_a_network_is_the_same_function_when_branches_are_exchanged() -> None:
    one = NAMED["naonet"]
    other = ConvArchitecture(tuple(n.swapped for n in one.normal), tuple(n.swapped for n in one.reduction))
    nets = [network(architecture=a).double().eval() for a in (one, other)]
    for mine, theirs in zip(nets[0].layers, nets[1].layers, strict=True):
        assert isinstance(mine, CellLayer) and isinstance(theirs, CellLayer)
        order = [k ^ 1 for k in range(len(mine.operations))]
        for k, at in enumerate(order):
            theirs.operations[at].load_state_dict(mine.operations[k].state_dict())
        for name in ("first", "second", "reduced"):
            getattr(theirs, name).load_state_dict(getattr(mine, name).state_dict())
    for name in ("stem", "classifier"):
        getattr(nets[1], name).load_state_dict(getattr(nets[0], name).state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(nets[0](images), nets[1](images), rtol=0, atol=1e-6)


def test_a_cell_is_its_formula() -> None:
    """A reduction cell by hand: a pooling and a convolution, and an input that nothing reads."""
    cell = ConvSpace(1, NAO).decode((0, 6, 0, 2) * 2).normal
    torch.manual_seed(0)
    layer = CellLayer(cell, Maps(4, 0), Maps(4, 0), 4, reduction=True).double().eval()
    a, b = torch.randn(2, 2, 4, 8, 8, dtype=torch.float64)
    pooled = functional.max_pool2d(a, 3, 2, 1)
    steps: Any = layer.operations[1]
    _, conv, norm = steps
    convolved = norm(functional.conv2d(a.clamp_min(0), conv.weight, stride=2, padding=1))
    wanted = torch.cat([layer.reduced["1"](b), pooled + convolved], 1)
    torch.testing.assert_close(layer(a, b, 1.0), wanted)
    assert layer.maps == Maps(8, 1)


def test_the_second_classifier_adds_its_part_in_training_alone() -> None:
    net = network(auxiliary=0.4)
    images, targets = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    net(images)
    assert net.auxiliary_logits is not None
    wanted = 0.4 * functional.cross_entropy(net.auxiliary_logits, targets)
    assert float(torch.as_tensor(net.auxiliary_loss(targets)).detach()) == pytest.approx(
        float(wanted.detach())
    )
    net.eval()(images)
    assert net.auxiliary_loss(targets) == 0.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"filters": 5}, "model.filters=5; valid: even"),
        ({"cells": 0}, "model.cells=0"),
        ({"drop_path": 1.0}, "no path would be left"),
        ({"drop_path": -0.1}, "model.drop_path=-0.1"),
        ({"shape": (3, 16, 16), "auxiliary": 0.4}, "its maps have 4 pixels a side, it needs 8"),
        ({"shape": (4,)}, "valid: images"),
        ({"classes": None}, "needs a data set with classes"),
        ({"architecture": "0 7 9 5 0 7 1 5"}, "position 2: 9 is no source"),
    ],
)
def test_networks_refuse_what_means_nothing(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        network(**changes)


# --- training


def digits(**changes: Any) -> Digits:
    settings: dict[str, Any] = {
        "kind": "image_classification", "data_dir": "data", "seed": 0, "source": "real", "limit": 200,
        "validation": 0.25, "normalise": "standard", "verify": True, "batch_size": 30, "positive": None,
        "augment": "none",
    }  # fmt: skip
    return Digits(**(settings | changes))


def recipe(**changes: Any) -> ChildRecipe:
    fields: dict[str, Any] = {
        "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9), "horizon": 1.0, "clip": 5.0, "cutout": 0,
        "seed": 0, "score": "loss", "split": "validation", "device": "cpu",
    }  # fmt: skip
    return ChildRecipe(**(fields | changes))


def objective(**changes: Any) -> ChildObjective:
    net = network(shape=(1, 8, 8), architecture=SMALL.sample(np.random.default_rng(0)), filters=2)
    return ChildObjective(SMALL, net, digits(), recipe(**changes), True, 2)


def test_a_training_follows_from_seed_and_function_alone() -> None:
    one = SMALL.sample(np.random.default_rng(3))
    twin = ConvArchitecture(*[tuple(node.swapped for node in one.normal)] * 2)
    torch.manual_seed(1)
    found = objective().train(one, 6)
    torch.manual_seed(2)
    assert objective().train(twin, 6) == found
    assert objective(seed=1).train(one, 6) != found
    assert found["score"] == -found["loss"] and found["score"] == -found["loss@6"]
    assert found["test"] == found["test@6"] and {"accuracy@3", "loss@3"} <= found.keys()
    assert objective(score="accuracy").train(one, 6)["score"] == found["accuracy"]
    assert objective().count(one) == {"parameters": count_parameters(objective().build(one))}


def test_a_short_training_is_the_bare_loop() -> None:
    data = digits()
    data.setup()
    net, bare = (network(shape=(1, 8, 8), architecture="0 7 1 5 0 7 1 5", filters=2) for _ in range(2))
    train_child(net, data, recipe(), 5)
    optimizer = torch.optim.SGD(bare.parameters(), lr=0.1, momentum=0.9)
    bare.train()
    step = 0
    for block in data.loader(0):
        for item in block:
            inputs, targets = data.ready(item)
            assert targets is not None
            optimizer.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * step / 5)) / 2
            optimizer.zero_grad()
            functional.cross_entropy(bare(inputs), targets).backward()
            torch.nn.utils.clip_grad_norm_(bare.parameters(), 5.0)
            optimizer.step()
            step += 1
            if step == 5:
                break
        if step == 5:
            break
    for mine, theirs in zip(net.parameters(), bare.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    inputs, targets = data.batch("validation", slice(None), augment=False)
    assert targets is not None
    logits = bare.eval()(inputs)
    accuracy, loss = evaluated(net, data, "validation")
    assert accuracy == pytest.approx(100 * float((logits.argmax(1) == targets).double().mean()))
    assert loss == pytest.approx(float(functional.cross_entropy(logits, targets)), rel=1e-5)


def test_a_training_that_diverges_has_no_score() -> None:
    found = objective(optimizer=partial(torch.optim.SGD, lr=1e30), clip=1e30).train(
        SMALL.sample(np.random.default_rng(0)), 60
    )
    assert math.isnan(found["score"])


def test_cutout_blanks_one_square_of_each_image() -> None:
    torch.manual_seed(0)
    images = torch.ones(500, 2, 9, 9)
    blank = cut_out(images, 4)[:, 0] == 0
    sizes = blank.sum((1, 2))
    assert int(sizes.max()) == 16 and int(sizes.min()) >= 4
    # where the middle may be: a corner's pixel is blanked least
    share = blank.double().mean(0)
    assert float(share[4, 4]) == pytest.approx(16 / 81, abs=5 * (0.16 / 500) ** 0.5)
    assert torch.equal(cut_out(images, 0), images)
