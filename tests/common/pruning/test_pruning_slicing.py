"""Slicing: what is left computes what masking computes, for networks of every kind, or is refused by name."""

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pruning_toys import (
    IMAGE,
    TOYS,
    Forward,
    classifier,
    conv,
    flat,
    gap,
    numbers,
    plan,
    pruned,
    randomised,
    some,
)
from torch import Tensor, nn
from torch.nn import functional as F

from common.base.errors import UserError
from common.models.preact_resnet import PreactResNet
from common.models.resnet import CifarResNet
from common.pruning.channels import channel_groups
from common.pruning.slicing import masked, sliced


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_slicing_computes_what_masking_computes(name: str, share: float) -> None:
    network, shape, groups = pruned(name)
    keep = plan(groups, share)
    assert keep
    small = sliced(network, shape, keep)
    assert gap(network, shape, keep, small) < 1e-10
    assert numbers(small) < numbers(network)


def test_masking_makes_the_removed_channels_zero_all_the_way() -> None:
    network = randomised(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), classifier(5)))
    same = masked(network, IMAGE, {"0": [1, 3]})
    inputs = torch.randn(2, *IMAGE, dtype=torch.float64)
    hidden = same[:3](inputs)
    assert (hidden[:, [0, 2]] == 0).all() and (hidden[:, [1, 3]] != 0).any()
    assert {k: v.shape for k, v in same.state_dict().items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }


def test_the_weights_of_the_kept_channels_are_the_networks_own() -> None:
    network = randomised(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), classifier(5)))
    whole, small = network.state_dict(), sliced(network, IMAGE, {"0": [1, 3], "3": [0, 2, 4]}).state_dict()
    assert torch.equal(small["0.weight"], whole["0.weight"][[1, 3]])
    assert torch.equal(small["1.running_var"], whole["1.running_var"][[1, 3]])
    assert torch.equal(small["3.weight"], whole["3.weight"][[0, 2, 4]][:, [1, 3]])
    assert torch.equal(small["4.2.weight"], whole["4.2.weight"][:, [0, 2, 4]])


def test_layers_say_how_wide_they_are_and_the_original_is_left_alone() -> None:
    network = nn.Sequential(
        conv(3, 8), nn.PReLU(8), conv(8, 8, groups=8), nn.BatchNorm2d(8), conv(8, 6, groups=2), classifier(6)
    )
    before = copy.deepcopy(network.state_dict())
    small: Any = sliced(network.train(), IMAGE, {"0": [0, 2, 4, 6], "4": [1, 2, 4, 5]})
    assert (small[0].out_channels, small[1].num_parameters, small[3].num_features) == (4, 4, 4)
    assert (small[2].in_channels, small[2].out_channels, small[2].groups) == (4, 4, 4)
    assert (small[4].in_channels, small[4].out_channels, small[4].groups) == (4, 4, 2)
    assert small[5][2].in_features == 4
    assert small.training and all(module.training for module in small.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not hasattr(network, "pruning")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_numbers_and_what_is_trained_stay(dtype: torch.dtype) -> None:
    network = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 5), classifier(5)).to(dtype)
    network[0].weight.requires_grad_(False)
    small = sliced(network, IMAGE, {"0": [0, 1]})
    assert all(parameter.dtype == dtype for parameter in small.parameters())
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in network.parameters()]


def test_whole_groups_of_a_convolution_can_go() -> None:
    network = randomised(nn.Sequential(conv(3, 8), conv(8, 8, groups=4), nn.ReLU(), classifier(8)))
    keep = {"0": [0, 1, 4, 5], "1": [0, 1, 4, 5]}
    assert gap(network, IMAGE, keep) < 1e-10
    small: Any = sliced(network, IMAGE, keep)
    assert (small[1].groups, small[1].in_channels) == (2, 4)


def test_weights_that_two_layers_share_stay_shared() -> None:
    network: Any = Forward(
        lambda net, x: net.head(net.b(net.a(x).relu()).relu()),
        a=nn.Linear(6, 6),
        b=nn.Linear(6, 6),
        head=nn.Linear(6, 2),
    )
    network.b.weight = network.a.weight
    # its inputs are the network's and the first's outputs at once
    small = sliced(network, (6,), {})
    assert small.a.weight is small.b.weight
    with pytest.raises(UserError, match="cannot lose channels"):
        sliced(network, (6,), {"a": [0, 1]})


def test_a_network_sliced_twice_holds_the_plan_from_the_whole_one() -> None:
    network = randomised(nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 5), classifier(5)))
    once = sliced(network, IMAGE, {"0": [1, 3, 4, 5]})
    twice = sliced(once, IMAGE, {"0": [0, 2], "2": [1, 2]})
    assert twice.pruning == {"keep": {"0": [1, 4], "2": [1, 2]}}
    again = sliced(network, IMAGE, twice.pruning["keep"])
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in twice.state_dict().items())


def test_a_sliced_network_trains_and_is_copied() -> None:
    network = CifarResNet(shape=IMAGE, classes=3, depth=8, block="basic", shortcut="A")
    small = copy.deepcopy(sliced(network, IMAGE, plan(channel_groups(network, IMAGE))))
    loss = F.cross_entropy(small.train()(torch.randn(4, *IMAGE)), torch.tensor([0, 1, 2, 0]))
    gradients = torch.autograd.grad(loss, list(small.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert small.features == network.features and small.task == network.task


def _unseen(inputs: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return inputs.flip(1)


# what cannot be pruned, and words of the line that says so
REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, str]] = {
    "a view to a number": (
        lambda: Forward(lambda net, x: net.b(net.a(x).view(-1, 6 * 64)), a=conv(3, 6), b=nn.Linear(384, 4)),
        IMAGE,
        "a",
        "view fails",
    ),
    "a mean over channels": (
        lambda: Forward(lambda net, x: net.a(x).mean(1), a=conv(3, 6)),
        IMAGE,
        "a",
        "mean is over channels",
    ),
    "attention": (
        lambda: Forward(
            lambda net, x: net.b(net.at(net.a(x), net.a(x), net.a(x))[0]),
            a=nn.Linear(5, 6),
            at=nn.MultiheadAttention(6, 2, batch_first=True),
            b=nn.Linear(6, 2),
        ),
        (4, 5),
        "a",
        "at: multi_head_attention_forward is not understood",
    ),
    "a recurrent layer": (
        lambda: Forward(
            lambda net, x: net.b(net.r(net.a(x))[0]), a=nn.Linear(5, 6), r=nn.GRU(6, 4), b=nn.Linear(4, 2)
        ),
        (4, 5),
        "a",
        "r: gru is not understood",
    ),
    "a scale by the number of channels": (
        lambda: Forward(
            lambda net, x: net.b(net.a(x) * net.a(x).shape[1] ** -0.5), a=nn.Linear(5, 6), b=nn.Linear(6, 2)
        ),
        (5,),
        "a",
        "mul depends on the number of channels",
    ),
    "a tensor of the number of channels": (
        lambda: Forward(
            lambda net, x: net.b(net.a(x) / x.new_tensor(net.a(x).shape[1])),
            a=nn.Linear(5, 6),
            b=nn.Linear(6, 2),
        ),
        (5,),
        "a",
        "new_tensor depends on the number of channels",
    ),
    "numbers that count the channels": (
        lambda: Forward(
            lambda net, x: net.b(net.a(x) * torch.arange(net.a(x).shape[1])),
            a=nn.Linear(5, 6),
            b=nn.Linear(6, 2),
        ),
        (5,),
        "a",
        "numbers that have an order",
    ),
    "an operation past the functions of torch": (
        lambda: Forward(lambda net, x: net.b(_unseen(net.a(x))), a=nn.Linear(5, 6), b=nn.Linear(6, 2)),
        (5,),
        "a",
        "flip is not understood",
    ),
    "an operator by its own name": (
        lambda: Forward(
            lambda net, x: net.b(torch.ops.aten.flip.default(net.a(x), [1])),
            a=nn.Linear(5, 6),
            b=nn.Linear(6, 2),
        ),
        (5,),
        "a",
        "flip.default is not understood",
    ),
    "weights that are computed": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(5, 6)),
            nn.ReLU(),
            nn.Linear(6, 4),
            nn.Linear(4, 2),
        ),
        (5,),
        "0",
        "no group of channels is called 0",
    ),
    "a sum with the input": (
        lambda: Forward(lambda net, x: net.b(x + net.a(x)), a=conv(3, 3), b=classifier(3)),
        IMAGE,
        "a",
        "the network's input",
    ),
    "the output": (lambda: nn.Sequential(nn.Linear(5, 6)), (5,), "0", "the network's output"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_sliced_is_refused_by_name(kind: str) -> None:
    make, shape, group, message = REFUSED[kind]
    network = make()
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        sliced(network, shape, {group: [0, 2]})
    assert "\n" not in str(caught.value)
    assert all(one.fixed is not None for one in channel_groups(network, shape) if one.name == group)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"0": []}, "0 would lose all its channels"),
        ({"0": [0, 8]}, r"0 has no channel 8 \(valid: 0 to 7\)"),
        ({"0": [-1]}, "0 has no channel -1"),
        ({"0": [1, 0]}, "the channels of 0 are not ascending"),
        ({"0": [1, 1]}, "the channels of 0 are not ascending"),
        ({"4.3": [0]}, r"no group of channels is called 4.3 \(near: 4.2\)"),
        ({"4.2": [0]}, "4.2 cannot lose channels: it belongs to the network's output"),
        ({"0": [0, 1, 2, 4]}, "1: its 2 groups would keep unequal numbers of channels, 1 to 3"),
        ({"0": [0, 1]}, "1: a group would lose its inputs and keep outputs"),
    ],
)
def test_a_plan_that_does_not_fit_is_one_line(keep: dict[str, list[int]], message: str) -> None:
    network = nn.Sequential(conv(3, 8), conv(8, 8, groups=2), nn.ReLU(), nn.Identity(), classifier(8))
    for prune in (sliced, masked):
        if prune is masked and message.startswith("1: "):
            # of the same size it is no trouble
            continue
        with pytest.raises(UserError, match=message) as caught:
            prune(network, IMAGE, keep)
        assert "\n" not in str(caught.value)


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) if inputs.sum() > 0 else -self.layer(inputs)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (_Branching(), "_Branching: its channels cannot be traced: .*branches or loops over the values"),
        (nn.Sequential(nn.Linear(5, 2)), "Sequential: its channels cannot be traced: 0: RuntimeError"),
        (nn.Sequential(nn.LazyLinear(2)), "0 does not know its sizes yet"),
    ],
)
def test_a_network_that_cannot_be_traced_is_one_line(network: nn.Module, message: str) -> None:
    for use in (channel_groups, lambda one, shape: sliced(one, shape, {})):
        with pytest.raises(UserError, match=message) as caught:
            use(network, (4,))
        assert "\n" not in str(caught.value)


def test_channel_numbers_of_numpy_and_torch_are_taken_and_the_plan_is_plain() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    for kept in (np.array([0, 3]), torch.tensor([0, 3])):
        assert sliced(network, (3,), {"0": kept}).pruning == {"keep": {"0": [0, 3]}}  # type: ignore[dict-item]


@pytest.mark.parametrize("family", ["residual", "preactivation"])
def test_the_network_is_that_of_torch_pruning_where_it_prunes_the_same_channels(family: str) -> None:
    tp = pytest.importorskip(
        "torch_pruning", reason="torch-pruning is not installed: pip install -e '.[dev]'"
    )
    network = randomised(
        CifarResNet(shape=IMAGE, classes=3, depth=8, block="basic", shortcut="B")
        if family == "residual"
        else PreactResNet(shape=IMAGE, classes=3, depth=8)
    )
    groups = [group for group in channel_groups(network, IMAGE) if group.fixed is None]
    keep = plan(groups)
    peer = copy.deepcopy(network)
    graph = tp.DependencyGraph().build_dependency(peer, torch.randn(1, *IMAGE, dtype=torch.float64))
    for group in groups:
        gone = sorted(set(range(group.channels)) - set(keep[group.name]))
        layer = peer.get_submodule(group.producers[0])
        graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=gone).prune()
    ours, theirs = sliced(network, IMAGE, keep).state_dict(), peer.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


class _Random(nn.Module):
    """A network drawn from the pieces that real ones are made of."""

    def __init__(self, pieces: list[tuple[str, int]]) -> None:
        super().__init__()
        self.pieces = pieces
        layers: list[nn.Module] = []
        channels = 3
        for kind, width in pieces:
            own, channels = self.layers(kind, channels, width)
            layers.append(nn.ModuleList(own))
        self.own = nn.ModuleList(layers)
        self.head = classifier(channels)

    @staticmethod
    def layers(kind: str, c: int, width: int) -> tuple[list[nn.Module], int]:
        if kind == "conv":
            return [conv(c, width), nn.BatchNorm2d(width)], width
        if kind == "branches":
            return [conv(c, width), conv(c, width + 1, 1)], 2 * width + 1
        if kind == "sum":
            return [conv(c, c), conv(c, c, 1)], c
        if kind == "twice":
            return [], 2 * c
        if kind == "depthwise":
            return [conv(c, c, groups=c)], c
        if kind == "grouped":
            return [conv(c, 2 * width, 1), conv(2 * width, 2 * width, groups=2)], 2 * width
        if kind == "gate":
            return [nn.Linear(c, c)], c
        # two halves, each with a convolution of its own, added
        return [conv(c, 2 * width), conv(width, width), conv(width, width, 1)], width

    def forward(self, x: Tensor) -> Tensor:
        for (kind, _), own in zip(self.pieces, self.own, strict=True):
            layers: Any = own
            if kind == "conv":
                x = F.relu(layers[1](layers[0](x)))
            elif kind == "branches":
                x = torch.cat([layers[0](x), layers[1](x).relu()], 1)
            elif kind == "sum":
                x = x + layers[1](layers[0](x).relu())
            elif kind == "twice":
                x = torch.cat([x, x], 1)
            elif kind == "depthwise":
                x = layers[0](x)
            elif kind == "grouped":
                x = layers[1](layers[0](x).relu())
            elif kind == "gate":
                x = x * layers[0](x.mean((2, 3))).sigmoid()[:, :, None, None]
            else:
                low, high = layers[0](x).chunk(2, 1)
                x = layers[1](low) + layers[2](high)
        return self.head(x)


KINDS = ["conv", "branches", "sum", "twice", "depthwise", "grouped", "gate", "halves"]
PIECES = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(2, 4)), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(pieces=PIECES, data=st.data())
def test_random_networks_are_sliced_as_they_are_masked_or_refused_by_name(
    pieces: list[tuple[str, int]], data: st.DataObject
) -> None:
    network = randomised(_Random(pieces))
    groups = channel_groups(network, IMAGE)
    free = [group for group in groups if group.fixed is None and group.channels > 1]
    # equally many of each part goes; anything else goes or is refused
    assert gap(network, IMAGE, plan(free, 0.5, seed=data.draw(st.integers(0, 99)))) < 1e-10
    keep = {
        group.name: sorted(data.draw(st.sets(st.integers(0, group.channels - 1), min_size=1)))
        for group in free
    }
    try:
        small = sliced(network, IMAGE, keep)
    except UserError as error:
        assert any(group.parts > 1 for group in free) and "\n" not in str(error)
        return
    inputs = torch.randn(2, *IMAGE, dtype=torch.float64)
    left, right = flat(small(inputs)), flat(masked(network, IMAGE, keep)(inputs))
    assert (left - right).abs().max() <= 1e-10 * right.abs().max().clamp_min(1)


def test_every_channel_of_a_chain_is_its_own() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    group = channel_groups(network, (4,))[0]
    assert some(group, 0.5, torch.Generator().manual_seed(0))
    assert (group.producers, group.consumers) == (("0",), ("2",))


def _part_changed(net: Any, x: Tensor) -> Tensor:
    made = net.conv(x)
    made[:, :4].mul_(2)
    return net.head(made)


def _part_rectified(net: Any, x: Tensor) -> Tensor:
    made = net.conv(x)
    F.relu(made.narrow(1, 0, 4), inplace=True)
    return net.head(made)


def _mean_weight(net: Any, x: Tensor) -> Tensor:
    return net.head(net.conv(x)) * net.conv.weight.mean()


def _mean_of_softmax(net: Any, x: Tensor) -> Tensor:
    return net.head(net.conv(x)) * net.conv.weight.softmax(0).sum()


def _resized(net: Any, x: Tensor) -> Tensor:
    return net.head(F.interpolate(net.conv(x), size=(net.conv.out_channels, 4)))


def _last_three(net: Any, x: Tensor) -> Tensor:
    return net.head(net.conv(x)[:, -3:])


@pytest.mark.parametrize(
    ("forward", "taken", "reason"),
    [
        (_part_changed, 8, "getitem takes other numbers"),
        (_part_rectified, 8, "narrow takes other numbers"),
        (_mean_weight, 8, "mean is not understood"),
        (_mean_of_softmax, 8, "softmax is not understood"),
        (_resized, 8, "interpolate depends on the number of channels"),
        (_last_three, 3, "getitem takes other numbers"),
    ],
)
def test_what_would_be_computed_from_other_numbers_once_channels_are_gone_is_fixed(
    forward: Callable[..., Tensor], taken: int, reason: str
) -> None:
    network = randomised(Forward(forward, conv=conv(3, 8), head=classifier(taken)))
    group = next(group for group in channel_groups(network, IMAGE) if group.name == "conv")
    assert group.fixed is not None and reason in group.fixed
    with pytest.raises(UserError, match="cannot lose"):
        sliced(network, IMAGE, {"conv": [1, 3, 4, 5]})


def test_a_part_in_space_that_is_changed_in_place_is_sliced() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        made = net.conv(x)
        made[:, :, :4].mul_(2)
        return net.head(made)

    network = randomised(Forward(forward, conv=conv(3, 8), head=classifier(8)))
    assert gap(network, IMAGE, {"conv": [1, 3, 4, 5]}) < 1e-12


def test_a_layer_that_cannot_be_copied_is_named() -> None:
    network = nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(4, 6)), nn.ReLU(), nn.Linear(6, 2))
    network(torch.zeros(1, 4))
    with pytest.raises(UserError, match="0 computes its weight from other parameters"):
        sliced(network, (4,), {})
