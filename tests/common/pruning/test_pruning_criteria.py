"""Criteria: the channels that weigh least go, of each group or of the whole network."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pruning_toys import IMAGE, classifier, conv, gap, pruned
from torch import nn

from common.base.errors import UserError
from common.base.method import TrainingMethod
from common.base.stages import Stage
from common.distillation.hints import AttentionTransfer
from common.distillation.losses import at_loss, attention_map
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.features import forward_features
from common.models.resnet import CifarResNet, ResNet
from common.pruning.criteria import ChannelPruning, kept_channels
from common.training.tasks import Classification

CONF = Path(__file__).parents[3] / "conf"


def chain() -> Any:
    """Two convolutions with batch normalisation whose channels weigh more from channel to channel."""
    network = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), conv(4, 8), nn.BatchNorm2d(8), nn.ReLU(), classifier(8)
    )
    for layer, norm in ((network[0], network[1]), (network[2], network[3])):
        count = len(layer.weight)
        layer.weight.data = torch.arange(1.0, count + 1).view(-1, 1, 1, 1) * torch.ones_like(layer.weight)
        norm.weight.data = torch.arange(float(count), 0, -1)
    return network


@pytest.mark.parametrize("criterion", ["weight_l1", "weight_l2"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.75, 0.99])
def test_the_lightest_channels_of_each_group_go(criterion: Any, rate: float) -> None:
    keep = kept_channels(chain(), IMAGE, criterion=criterion, rate=rate, scope="group")
    wanted = {"0": list(range(int(rate * 4), 4)), "2": list(range(int(rate * 8), 8))}
    assert keep == {name: kept for name, kept in wanted.items() if rate > 0}


def test_the_scales_of_batch_normalisation_decide_where_they_are_asked() -> None:
    keep = kept_channels(chain(), IMAGE, criterion="batch_norm_scale", rate=0.5, scope="group")
    assert keep == {"0": [0, 1], "2": [0, 1, 2, 3]}


def test_of_the_whole_network_the_lowest_scores_go_and_one_channel_of_each_group_stays() -> None:
    keep = kept_channels(chain(), IMAGE, criterion="batch_norm_scale", rate=0.5, scope="network")
    # scales 4 3 2 1 and 8 7 6 5 4 3 2 1: six go, lowest first
    assert keep == {"0": [0], "2": [0, 1, 2, 3, 4]}
    assert kept_channels(chain(), IMAGE, criterion="weight_l1", rate=0.99, scope="network") == {
        "0": [3],
        "2": [7],
    }


def test_scores_do_not_depend_on_the_unit_of_a_layers_weights() -> None:
    network = CifarResNet(shape=IMAGE, classes=3, depth=8, block="basic", shortcut="B")
    wanted = kept_channels(network, IMAGE, criterion="weight_l1", rate=0.4, scope="network")
    for factor in (1e-8, 1e8):
        for parameter in network.parameters():
            parameter.data *= factor
        assert kept_channels(network, IMAGE, criterion="weight_l1", rate=0.4, scope="network") == wanted


def test_a_residual_sum_is_judged_by_all_its_layers() -> None:
    network: Any = CifarResNet(shape=IMAGE, classes=3, depth=8, block="basic", shortcut="B")
    for layer in (network.stem[0], network.stages[0][0].residual[3]):
        layer.weight.data[2] = 0
        layer.weight.data[5] *= 0.01
    keep = kept_channels(network, IMAGE, criterion="weight_l2", rate=2 / 16, scope="group")
    assert keep["stem.0"] == [channel for channel in range(16) if channel not in (2, 5)]


def test_random_channels_follow_the_seed() -> None:
    first, again, other = (
        kept_channels(chain(), IMAGE, criterion="random", rate=0.5, scope="group", seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("name", ["chunk", "grouped convolutions", "channel shuffle"])
@pytest.mark.parametrize("scope", ["group", "network"])
def test_channels_in_parts_go_evenly(name: str, scope: Any) -> None:
    network, shape, groups = pruned(name)
    keep = kept_channels(network, shape, criterion="weight_l1", rate=0.5, scope=scope)
    for group in groups:
        if group.name in keep:
            size = group.channels // group.parts
            counts = {sum(k // size == part for k in keep[group.name]) for part in range(group.parts)}
            assert len(counts) == 1


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (16, 8), (64, 32)])
def test_each_group_of_a_group_normalisation_loses_as_many(channels: int, groups: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.GroupNorm(groups, channels), nn.ReLU(), classifier(channels)
    )
    keep = kept_channels(network, IMAGE, criterion="weight_l1", rate=0.5, scope="group")
    assert len(keep["0"]) == channels // 2 and gap(network.double(), IMAGE, keep) < 1e-12


def test_what_cannot_be_judged_is_one_line() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(UserError, match="no batch normalisation follows 0"):
        kept_channels(network, (3,), criterion="batch_norm_scale", rate=0.5, scope="group")
    with pytest.raises(
        UserError, match=r"no channels that can be pruned .0: it belongs to the network's output"
    ):
        kept_channels(nn.Sequential(nn.Linear(3, 2)), (3,), criterion="weight_l1", rate=0.5, scope="group")
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="valid: 0 <= rate < 1"):
            kept_channels(network, (3,), criterion="weight_l1", rate=rate, scope="group")
    network[0].weight.data[1] = float("nan")
    with pytest.raises(UserError, match="the weights of 0 are not finite"):
        kept_channels(network, (3,), criterion="weight_l1", rate=0.5, scope="group")


class _Data:
    shape = IMAGE
    classes = 3


def method(**keys: Any) -> ChannelPruning:
    settings: dict[str, Any] = {"criterion": "weight_l1", "rate": 0.5, "scope": "group", "seed": 0}
    return ChannelPruning(optimizer=lambda p: torch.optim.SGD(p, lr=0.1), **settings | keys)


def test_the_method_gives_the_smaller_network_and_says_how_large_it_was_and_is() -> None:
    network, pruning = chain(), method()
    smaller = pruning.attach(network, chain, _Data())  # type: ignore[arg-type]
    assert smaller.pruning == {"keep": {"0": [2, 3], "2": [4, 5, 6, 7]}}
    sizes = pruning.evaluate(smaller, _Data(), "test")  # type: ignore[arg-type]
    assert sizes == {
        "parameters_before": count_parameters(network),
        "parameters": count_parameters(smaller),
        "macs_before": count_macs(network, IMAGE),
        "macs": count_macs(smaller, IMAGE),
    }
    assert sizes["macs"] < sizes["macs_before"]
    assert pruning.evaluate(smaller, _Data(), "validation") == {}  # type: ignore[arg-type]
    assert pruning.deployed(smaller) is smaller


def test_it_is_no_inner_method_of_one_that_is_built_for_the_whole_network() -> None:
    with pytest.raises(UserError, match="ChannelPruning makes the network that the others train"):
        TrainingMethod(optimizer=lambda p: torch.optim.SGD(p, lr=0.1), inner=method())


def test_an_inner_method_gets_the_smaller_network_and_others_like_it() -> None:
    seen = []

    class Inner(TrainingMethod):
        def attach(self, student: nn.Module, make_model: Any, data: Any) -> nn.Module:
            seen.extend([student, make_model()])
            return student

    pruning = method(inner=Inner(optimizer=lambda p: torch.optim.SGD(p, lr=0.1)))
    smaller = pruning.attach(chain(), chain, _Data())  # type: ignore[arg-type]
    assert seen[0] is smaller

    def shapes(network: nn.Module) -> list[Any]:
        return [tuple(value.shape) for value in network.state_dict().values()]

    assert shapes(seen[1]) == shapes(smaller)


def resnet(width: int = 8, stages: int = 2) -> ResNet:
    return ResNet(shape=IMAGE, classes=3, blocks=[1] * stages, width=width, block="basic", shortcut="B")


def attention(teacher: nn.Module) -> AttentionTransfer:
    """Attention transfer alone, with beta 1."""
    return AttentionTransfer(
        optimizer=partial(torch.optim.SGD, lr=0.1),
        teacher=Stage(words="model=x", key="", metrics={}, model=teacher),
        beta=1.0,
        reference_pixels=None,
        reduction="mean_square",
        layers=None,
        beta_decay="none",
        ce_weight=0.0,
        kd_weight=0.0,
        temperature=4.0,
        kd_reduction="sample",
    )


def test_attention_is_transferred_from_the_unpruned_network_of_other_widths() -> None:
    torch.manual_seed(0)
    whole = resnet()
    pruning = method(inner=attention(copy.deepcopy(whole)))
    pruning.prepare(Classification(3), 1.0)
    smaller = pruning.attach(whole, resnet, _Data()).eval()  # type: ignore[arg-type]
    inputs, labels = torch.randn(4, *IMAGE), torch.tensor([0, 1, 2, 0])
    _, own = forward_features(smaller, inputs)
    _, theirs = forward_features(whole.eval(), inputs)
    assert own.keys() == theirs.keys()
    widths = [(own[name].shape[1], theirs[name].shape[1]) for name in own]
    assert widths == [(4, 8), (8, 16)]
    distances = [
        at_loss(*(attention_map(each[name]) for each in (own, theirs)), "mean_square") for name in own
    ]
    loss = pruning.loss(smaller, inputs, labels)
    assert float(loss.detach()) == pytest.approx(3 / 2 * float(sum(distances)), rel=1e-5)
    assert float(loss.detach()) > 0
    loss.backward()
    assert all(p.grad is None for p in whole.parameters())
    assert all(p.grad.isfinite().all() for p in smaller.parameters() if p.grad is not None)


def test_a_teacher_whose_features_cannot_be_compared_is_one_line_that_names_them() -> None:
    pruning = method(inner=attention(resnet(stages=3)))
    with pytest.raises(UserError, match=r"the student has 2 features \(.*\), the teacher 3") as caught:
        pruning.attach(resnet(), resnet, _Data())  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_the_file_of_the_method_names_what_it_takes() -> None:
    node = OmegaConf.load(CONF / "method/pruning/channels.yaml")
    assert {"criterion", "rate", "scope", "seed"} <= set(node)
