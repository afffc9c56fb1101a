"""Groups of channels: what is tied, in which order, under which names, and what each is in."""

from typing import Any

import pytest
import torch
from pruning_toys import IMAGE, TOYS, Forward, Shuffle, classifier, conv, pruned
from torch import nn

from common.models.mobilenet import MobileNetV1, MobileNetV2
from common.models.preact_resnet import PreactResNet
from common.models.resnet import CifarResNet
from common.models.vgg import VGG
from common.pruning.channels import ChannelGroup, channel_groups


def groups_of(network: nn.Module, shape: Any = IMAGE) -> dict[str, ChannelGroup]:
    return {group.name: group for group in channel_groups(network, shape)}


def test_groups_stand_in_the_order_of_execution_with_all_that_their_channels_are_in() -> None:
    network = nn.Sequential(
        conv(3, 4), nn.BatchNorm2d(4), nn.PReLU(4), conv(4, 4, groups=4), conv(4, 5, 1), classifier(5)
    )
    groups = channel_groups(network, IMAGE)
    assert [group.name for group in groups] == ["0", "4", "5.2"]
    first = groups[0]
    assert (first.channels, first.producers, first.consumers) == (4, ("0",), ("4",))
    assert first.followers == ("1", "2", "3")
    assert [group.fixed is None for group in groups] == [True, True, False]


def test_a_pre_activation_network_has_a_group_for_each_stage_and_each_inner_convolution() -> None:
    groups = groups_of(PreactResNet(shape=(3, 32, 32), classes=10, depth=20), (3, 32, 32))
    inner = [name for name, group in groups.items() if len(group.producers) == 1 and group.fixed is None]
    assert len(inner) == 9 and all(name.endswith("residual.0") for name in inner)
    streams = [group for group in groups.values() if len(group.producers) > 1]
    assert [group.channels for group in streams] == [16, 32, 64]
    assert [len(group.producers) for group in streams] == [4, 4, 4]
    assert groups["classifier"].fixed == "it belongs to the network's output"


def test_padded_shortcuts_tie_the_first_channels_of_all_stages_and_fix_the_padded_ones() -> None:
    groups = groups_of(CifarResNet(shape=IMAGE, classes=10, depth=8, block="basic", shortcut="A"))
    assert groups["stem.0"].channels == 16 and len(groups["stem.0"].producers) == 4
    padded = [group for group in groups.values() if group.name.endswith("residual.3") and group.fixed]
    assert [group.channels for group in padded] == [16, 32]
    assert all("add joins numbers of channels that differ" in str(group.fixed) for group in padded)


def test_depthwise_convolutions_follow_their_inputs() -> None:
    v1 = groups_of(MobileNetV1(shape=IMAGE, classes=3, widths=[8, 12, 16], strides=[1, 1, 1], multiplier=1.0))
    assert {name: group.followers for name, group in v1.items()}["blocks.0.3"] == (
        "blocks.0.4",
        "blocks.1.0",
        "blocks.1.1",
    )
    v2 = groups_of(
        MobileNetV2(
            shape=IMAGE, classes=3, stages=[(1, 8, 1, 1), (2, 8, 2, 1)], hidden=None, stem_stride=1,
            expand_always=False, projection=False, dropout=0.0,
        )
    )  # fmt: skip
    assert v2["stem.0"].followers[1] == "blocks.0.residual.0"
    assert v2["blocks.1.residual.0"].consumers == ("blocks.1.residual.6",)


def test_a_chain_of_convolutions_has_a_group_for_each_of_them() -> None:
    network = VGG(
        shape=(3, 32, 32), classes=10, widths=[[4], [5], [6, 7], [8], [9]], batch_norm=True, last_pool="max",
        pixels=1, hidden=[11], dropout=0.5,
    )  # fmt: skip
    free = [group for group in channel_groups(network, (3, 32, 32)) if group.fixed is None]
    assert [group.channels for group in free] == [4, 5, 6, 7, 8, 9, 11]


def test_joined_branches_are_groups_of_their_own_with_one_consumer() -> None:
    _, _, groups = pruned("branches of unequal width joined")
    assert [(group.name, group.channels, group.consumers) for group in groups[:3]] == [
        ("a", 5, ("d",)), ("b", 2, ("d",)), ("c", 7, ("d",)),
    ]  # fmt: skip
    taken = next(slot for slot in groups[1].slots if slot.role == "consumer")
    assert taken.numbers == (-1,) * 5 + (0, 1) + (-1,) * 10


def test_a_slot_of_a_flattened_map_holds_every_position_of_a_channel() -> None:
    _, _, groups = pruned("a flatten with spatial extent")
    taken = next(slot for slot in groups[0].slots if slot.role == "consumer")
    assert taken.numbers == tuple(channel for channel in range(6) for _ in range(16))


def test_a_layer_that_is_used_twice_ties_what_it_takes_to_what_it_gives() -> None:
    _, _, groups = pruned("a layer used twice")
    assert groups[0].producers == ("stem", "twice") and groups[0].consumers == ("twice", "head.2")


@pytest.mark.parametrize(
    ("name", "parts", "paired"),
    [
        ("chunk", 2, False),
        ("grouped convolutions", 4, False),
        ("group norm with several groups", 2, False),
        ("channel shuffle", 4, True),
        ("glu", 1, False),
    ],
)
def test_channels_that_have_to_go_evenly_stand_in_parts(name: str, parts: int, paired: bool) -> None:
    _, _, groups = pruned(name)
    assert (groups[0].parts, groups[0].paired) == (parts, paired)


def test_gating_halves_are_one_channel() -> None:
    for name in ("glu", "halves that gate each other"):
        assert pruned(name)[2][0].channels == 4


def test_parts_of_a_layers_outputs_that_differ_in_their_ties_are_groups_with_their_range() -> None:
    def forward(net: Any, x: torch.Tensor) -> torch.Tensor:
        low, high = net.a(x).split(4, 1)
        return net.head(torch.cat([low + net.b(x), high], 1))

    network = Forward(forward, a=conv(3, 8), b=conv(3, 4), head=classifier(8))
    groups = channel_groups(network, IMAGE)
    assert [(group.name, group.channels) for group in groups[:2]] == [("a[0:4]", 4), ("a[4:8]", 4)]


def test_a_convolution_with_one_output_is_no_depthwise_one() -> None:
    _, _, groups = pruned("a convolution with one output channel")
    assert [(group.name, group.channels, group.followers) for group in groups[:3]] == [
        ("0", 6, ()), ("2", 1, ()), ("4", 5, ()),
    ]  # fmt: skip


def test_what_trains_alone_takes_part_too() -> None:
    def forward(net: Any, x: torch.Tensor) -> Any:
        x = net.a(x)
        return (net.head(x), net.helper(x)) if net.training else net.head(x)

    network = Forward(forward, a=conv(3, 6), head=classifier(6), helper=classifier(6))
    assert channel_groups(network.eval(), IMAGE)[0].consumers == ("head.2", "helper.2")
    assert not network.training


def test_a_network_is_left_as_it_is() -> None:
    network = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), Shuffle(), classifier(4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    channel_groups(network, IMAGE)
    assert network.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_every_toy_has_groups_whose_slots_cover_their_channels() -> None:
    for name in TOYS:
        for group in pruned(name)[2]:
            made = {number for slot in group.slots if slot.role == "producer" for number in slot.numbers}
            assert made - {-1} == set(range(group.channels)), (name, group)
