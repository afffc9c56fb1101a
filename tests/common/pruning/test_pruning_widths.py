"""Networks that compute with their own width: sliced where that is the same computation, else refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pruning_toys import IMAGE, Forward, classifier, conv, gap, plan, randomised
from torch import Tensor, nn
from torch.nn import functional as F

from common.base.errors import UserError
from common.pruning.channels import ChannelGroup, channel_groups
from common.pruning.slicing import sliced

Run = Callable[[Any, Tensor], Any]


def width(net: Any) -> int:
    return int(net.a.out_channels)


def _filled(net: Any, x: Tensor) -> Tensor:
    ones = torch.ones(width(net), 1, 1)
    ones[3] = 5.0
    return net.head(net.a(x) * ones)


def _part_filled(net: Any, x: Tensor) -> Tensor:
    ones = torch.ones(width(net), 1, 1)
    ones[2:4].fill_(0.0)
    return net.head(net.a(x) * ones)


def _two_constants(net: Any, x: Tensor) -> Tensor:
    half = width(net) // 2
    return net.head(net.a(x) * torch.cat([torch.zeros(half, 1, 1), torch.ones(width(net) - half, 1, 1)]))


def _as_often_as_channels(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    for _ in range(width(net) // 2):
        x = x.tanh()
    return net.head(x)


def _product_of_ones(net: Any, x: Tensor) -> Tensor:
    column = net.head(net.a(x))[:, :1]
    return (column * torch.ones(1, width(net), dtype=x.dtype)) @ torch.ones(width(net), 2, dtype=x.dtype)


# by the operation that is another one once channels are removed
DIFFERS: list[tuple[str, Run]] = [
    ("pad depends", lambda net, x: net.head(F.pad(net.a(x), (0, width(net) - 2)))),
    ("pad depends", lambda net, x: net.wide(F.pad(net.a(x), (0, 0, 0, 0, 0, 16 - width(net))))),
    ("roll takes other numbers", lambda net, x: net.b(torch.roll(net.a(x), width(net) // 2, 2))),
    ("getitem takes other numbers", lambda net, x: net.b(net.a(x)[:, :, : width(net)])),
    ("getitem takes other numbers", lambda net, x: net.b(net.a(x)[:, :, [width(net) // 2 - 1]])),
    ("getitem takes other numbers", lambda net, x: net.b(net.a(x[:, :, : width(net)]))),
    ("repeat takes other numbers", lambda net, x: net.b(net.a(x).repeat(1, 1, width(net) // 4, 1))),
    ("cat depends", lambda net, x: net.head(torch.cat([net.a(x), net.a(x)], width(net) // 4))),
    ("max_pool2d depends", lambda net, x: net.head(F.max_pool2d(net.a(x), 1 + width(net) // 4))),
    ("adaptive_avg_pool2d depends", lambda net, x: net.b(F.adaptive_avg_pool2d(net.a(x), width(net) // 2))),
    ("interpolate depends", lambda net, x: net.head(F.interpolate(net.a(x), size=width(net)))),
    ("conv2d depends", lambda net, x: F.conv2d(net.a(x), net.b.weight, stride=max(1, width(net) // 4))),
    ("conv2d depends", lambda net, x: F.conv2d(net.a(x), net.b.weight, dilation=max(1, width(net) // 4))),
    ("sum depends", lambda net, x: net.head(net.a(x)) * torch.ones(width(net)).sum()),
    ("sum depends", lambda net, x: net.head(net.a(x)) * net.gate(x).expand(-1, width(net), 8, 8).sum()),
    ("matmul depends", _product_of_ones),
    ("eye depends", lambda net, x: net.head(net.a(x)) * torch.eye(width(net)).sum()),
    ("linspace depends", lambda net, x: net.head(net.a(x)) + torch.linspace(0, 1, width(net)).sum()),
    ("arange depends", lambda net, x: net.head(net.a(x)) + torch.arange(width(net)).shape[0]),
    ("full depends", lambda net, x: net.head(net.a(x)) * torch.full((1,), float(width(net)))),
    ("new_full depends", lambda net, x: net.head(net.a(x) * x.new_full((width(net), 1, 1), width(net)))),
    ("mul depends", lambda net, x: net.head(net.a(x)) * width(net) ** -0.5),
    ("mul depends", lambda net, x: net.head(net.a(x * width(net)))),
    ("div depends", lambda net, x: net.head((net.a(x) / width(net)).softmax(2))),
    ("div depends", lambda net, x: net.head(net.a(x)) / net.a(x)[0].numel()),
    ("clamp depends", lambda net, x: net.head(net.a(x).clamp(max=width(net) / 8))),
    ("dropout depends", lambda net, x: net.head(F.dropout(net.a(x), 1 / width(net)))),
    ("depends", _as_often_as_channels),
    ("an order", lambda net, x: net.head(net.a(x) * torch.eye(width(net))[0].view(-1, 1, 1))),
    ("an order", lambda net, x: net.head(net.a(x) * torch.ones(width(net), 8).tril()[:, 2, None, None])),
    ("an order", _filled),
    ("an order", _part_filled),
    ("an order", _two_constants),
]


def _joined_with_its_mean(net: nn.Module, x: Tensor) -> Tensor:
    maps = net.a(x)
    return net.wide(torch.cat([maps, maps.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)], 1))


SAME: dict[str, Run] = {
    "a mean that is expanded and joined": _joined_with_its_mean,
    "ones": lambda net, x: net.head(net.a(x) * torch.ones(width(net), 1, 1)),
    "zeros and a number": lambda net, x: net.head(net.a(x) * (torch.zeros(width(net), 1, 1) + 1)),
    "a number in full": lambda net, x: net.head(net.a(x) * x.new_full((width(net), 1, 1), 2.0)),
    "a gate that is expanded": lambda net, x: net.head(net.a(x) * net.gate(x).expand(-1, width(net), -1, -1)),
    "a gate that is repeated": lambda net, x: net.head(net.a(x) * net.gate(x).repeat(1, width(net), 1, 1)),
    "a view by sizes": lambda net, x: net.flat(net.a(x).view(-1, width(net) * 8 * 8)),
    "a roll by a number": lambda net, x: net.b(torch.roll(net.a(x), 3, 2)),
    "a flip in space": lambda net, x: net.b(net.a(x).flip(3)),
    "a mean by hand": lambda net, x: net.head(net.a(x).sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3])),
    "pieces of space": lambda net, x: net.b(torch.cat(net.a(x).chunk(2, 3)[::-1], 3)),
    "a mask with NaN": lambda net, x: net.head(net.a(x).masked_fill(torch.zeros(8, 8).bool(), float("nan"))),
}


def _network(run: Run) -> tuple[nn.Module, ChannelGroup]:
    network = randomised(
        Forward(
            run,
            a=conv(3, 8),
            b=conv(8, 4),
            gate=conv(3, 1),
            flat=nn.Linear(8 * 64, 4),
            head=classifier(8),
            wide=classifier(16),
        )
    )
    network(torch.randn(2, *IMAGE, dtype=torch.float64))
    return network, next(group for group in channel_groups(network, IMAGE) if group.name == "a")


@pytest.mark.parametrize("number", range(len(DIFFERS)))
def test_what_is_another_computation_once_channels_are_gone_is_refused_by_name(number: int) -> None:
    reason, run = DIFFERS[number]
    network, group = _network(run)
    assert group.fixed is not None and reason in group.fixed
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        sliced(network, IMAGE, {"a": [1, 4, 6]})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", SAME)
def test_what_is_the_same_computation_with_fewer_channels_is_sliced(kind: str) -> None:
    network, group = _network(SAME[kind])
    for seed in range(2):
        keep = plan([group], seed=seed)
        assert keep and gap(network, IMAGE, keep) < 1e-10


def test_a_width_that_no_trial_told_from_the_whole_one_is_refused_when_it_is_sliced() -> None:
    # 36 // 24 is 1, as it is of 21 to 47 channels
    network = randomised(
        Forward(
            lambda net, x: net.head(F.max_pool2d(net.a(x), 1 + width(net) // 24)),
            a=conv(3, 36),
            head=classifier(36),
        )
    )
    with pytest.raises(UserError, match="max_pool2d depends on the number of channels"):
        sliced(network, IMAGE, {"a": list(range(8))})
