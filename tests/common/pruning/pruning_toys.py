"""Networks of the kinds that tools of pruning get wrong, and a comparison of slicing with masking."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.pruning.channels import ChannelGroup, channel_groups
from common.pruning.slicing import masked, sliced

IMAGE = (3, 8, 8)


def conv(inputs: int, outputs: int, kernel: int = 3, **keys: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **keys)


class Forward(nn.Module):
    """A network whose layers are keywords, and whose forward is a function of it and its inputs."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """In float64 and evaluation mode, with statistics and weights that hide no channel."""
    torch.manual_seed(seed)
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.is_floating_point() and tensor.dim() < 2:
            tensor.data.uniform_(0.5, 1.5)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_()
    return network.double().eval()


def some(group: ChannelGroup, share: float, generator: torch.Generator) -> list[int]:
    """Channels drawn at random, equally many of each part, at least one."""
    size = group.channels // group.parts
    count = max(1, min(size - 1, round(share * size)))
    drawn = [torch.randperm(size, generator=generator)[:count].sort().values for _ in range(group.parts)]
    drawn = drawn[:1] * group.parts if group.paired else drawn
    return [part * size + int(k) for part, numbers in enumerate(drawn) for k in numbers]


def plan(groups: Sequence[ChannelGroup], share: float = 0.5, seed: int = 0) -> dict[str, list[int]]:
    """Of each group that can be pruned about a share of its channels."""
    generator = torch.Generator().manual_seed(seed)
    free = [group for group in groups if group.fixed is None and group.channels > 1]
    return {group.name: some(group, share, generator) for group in free}


def blank_inputs(shape: Sequence[Any], batch: int = 3) -> list[Tensor]:
    shapes = [shape] if isinstance(shape[0], int) else shape
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, *one, dtype=torch.float64, generator=generator) for one in shapes]


def flat(outputs: Any) -> Tensor:
    """All outputs of a network as one vector."""
    return torch.cat([one.flatten() for one in torch.utils._pytree.tree_leaves(outputs)])


@torch.no_grad()
def gap(
    network: nn.Module, shape: Sequence[Any], keep: dict[str, list[int]], small: nn.Module | None = None
) -> float:
    """The largest difference of what slicing and masking give, beside the largest output.

    Args:
        small: the sliced network, where it is made already.
    """
    inputs = blank_inputs(shape)
    small = sliced(network, shape, keep) if small is None else small
    same = masked(network, shape, keep)
    left, right = flat(small(*inputs)), flat(same(*inputs))
    return float((left - right).abs().max() / right.abs().max().clamp_min(1))


def numbers(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values())


class Shuffle(nn.Module):
    """A channel shuffle by reshape, transpose, reshape, with sizes that are asked of the tensor."""

    def forward(self, inputs: Tensor) -> Tensor:
        batch, channels, height, width = inputs.shape
        split = inputs.view(batch, 2, channels // 2, height, width)
        return split.transpose(1, 2).reshape(batch, channels, height, width)


def classifier(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 4))


def _shared(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.head(net.twice(net.twice(x).relu()).relu())


def _excited(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    gate = net.up(net.down(x.mean((2, 3))).relu()).sigmoid()
    return net.head(x * gate[:, :, None, None])


def _glu_by_hand(net: Any, x: Tensor) -> Tensor:
    value, gate = net.a(x).chunk(2, dim=1)
    return net.head(value * gate.sigmoid())


def _chunked(net: Any, x: Tensor) -> Tensor:
    low, high = net.a(x).chunk(2, dim=1)
    return net.head(net.b(low) + net.c(high))


def _split(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    low, high = torch.split(x, [x.shape[1] // 2, x.shape[1] - x.shape[1] // 2], dim=1)
    return net.head(net.b(low) + net.c(high))


def _padded(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    wide = net.b(x)
    return net.head(wide + F.pad(x[:, :, :, :], (0, 0, 0, 0, 0, wide.shape[1] - x.shape[1])))


def _two_words(net: Any, x: Tensor) -> Tensor:
    return net.out(net.hidden(net.words(x.long().clamp(0, 9)).flatten(1)).relu())


def _positions(net: Any, x: Tensor) -> Tensor:
    tokens = net.patches(x).flatten(2).transpose(1, 2) + net.position
    tokens = net.norm(tokens)
    tokens = tokens + net.down(F.gelu(net.up(tokens)))
    return net.head(tokens.mean(1))


def _scaled(net: Any, x: Tensor) -> Tensor:
    return net.head(net.b(net.a(x) * net.gamma).relu() + net.gamma2.view(1, -1, 1, 1))


def _unet(net: Any, x: Tensor) -> Tensor:
    high = net.down(x).relu()
    low = net.up(net.low(F.max_pool2d(high, 2)).relu())
    rest = high.size(2) - low.size(2)
    low = F.pad(low, [rest // 2, rest - rest // 2] * 2)
    return net.out(net.join(torch.cat([high, low], 1)).relu())


def _convnext(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    y = net.norm(net.depthwise(x).permute(0, 2, 3, 1))
    y = net.gamma * net.narrow(F.gelu(net.wide(y)))
    return net.head(x + y.permute(0, 3, 1, 2))


def _modulated(net: Any, x: Tensor, z: Tensor) -> Tensor:
    scale, shift = net.film(z).chunk(2, -1)
    return net.head(net.a(x) * scale[:, :, None, None] + shift[:, :, None, None])


def _maxout(net: Any, x: Tensor) -> Tensor:
    pieces = net.a(x)
    return net.out(pieces.view(pieces.size(0), -1, 2).max(-1)[0])


def _selected(net: Any, x: Tensor) -> Tensor:
    stacked = torch.stack([net.a(x), net.b(x)], 1)
    weights = torch.stack([net.c(x.mean((2, 3))), net.d(x.mean((2, 3)))], 1).softmax(1)
    return net.head((stacked * weights[..., None, None]).sum(1))


# by kind: how it is made, and the shape of its inputs
Toy = tuple[Callable[[], nn.Module], Sequence[Any]]
TOYS: dict[str, Toy] = {
    "a plain MLP": (
        lambda: nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Tanh(), nn.Dropout(), nn.Linear(7, 3)
        ),
        (6,),
    ),
    "an MLP with BatchNorm1d and LayerNorm": (
        lambda: nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 7), nn.LayerNorm(7), nn.Linear(7, 3)
        ),
        (6,),
    ),
    "a linear layer on tokens": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.GELU(), nn.Linear(8, 5)),
        (4, 6),
    ),
    "a flatten with spatial extent": (
        lambda: nn.Sequential(conv(3, 6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 16, 4)),
        IMAGE,
    ),
    "a view of channels and positions": (
        lambda: Forward(
            lambda net, x: net.b(net.a(x).relu().view(x.size(0), -1)), a=conv(3, 6), b=nn.Linear(6 * 64, 4)
        ),
        IMAGE,
    ),
    "batch, group, instance and layer norms": (
        lambda: nn.Sequential(
            conv(3, 8),
            nn.BatchNorm2d(8),
            conv(8, 6),
            nn.GroupNorm(1, 6),
            nn.PReLU(6),
            conv(6, 6),
            nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
            conv(6, 5),
            nn.InstanceNorm2d(5),
            classifier(5),
        ),
        IMAGE,
    ),
    "group norm with several groups": (
        lambda: nn.Sequential(conv(3, 8), nn.GroupNorm(2, 8), nn.ReLU(), classifier(8)),
        IMAGE,
    ),
    "a residual sum": (
        lambda: Forward(
            lambda net, x: net.head((net.a(x) + net.c(net.b(net.a(x)).relu())).relu()),
            a=conv(3, 6),
            b=conv(6, 7),
            c=conv(7, 6),
            head=classifier(6),
        ),
        IMAGE,
    ),
    "branches of unequal width joined": (
        lambda: Forward(
            lambda net, x: net.head(net.d(torch.cat([net.a(x), net.b(x), x, net.c(x)], dim=1))),
            a=conv(3, 5),
            b=conv(3, 2, 1),
            c=conv(3, 7),
            d=conv(17, 6),
            head=classifier(6),
        ),
        IMAGE,
    ),
    "the same tensor joined twice": (
        lambda: Forward(
            lambda net, x: net.head(torch.cat([net.a(x)] * 2 + [net.b(x)], 1)),
            a=conv(3, 5),
            b=conv(3, 4),
            head=classifier(14),
        ),
        IMAGE,
    ),
    "a join and then a sum with a wide layer": (
        lambda: Forward(
            lambda net, x: net.head(torch.cat([net.a(x), net.b(x)], 1) + net.c(x)),
            a=conv(3, 5),
            b=conv(3, 4),
            c=conv(3, 9),
            head=classifier(9),
        ),
        IMAGE,
    ),
    "squeeze and excitation": (
        lambda: Forward(_excited, a=conv(3, 6), down=nn.Linear(6, 3), up=nn.Linear(3, 6), head=classifier(6)),
        IMAGE,
    ),
    "a gate with one channel": (
        lambda: Forward(
            lambda net, x: net.head(net.a(x) * net.gate(net.a(x)).sigmoid()),
            a=conv(3, 6),
            gate=conv(6, 1),
            head=classifier(6),
        ),
        IMAGE,
    ),
    "a gate with one channel, expanded": (
        lambda: Forward(
            lambda net, x: net.head(net.a(x) * net.gate(x).sigmoid().expand_as(net.a(x))),
            a=conv(3, 6),
            gate=conv(3, 1),
            head=classifier(6),
        ),
        IMAGE,
    ),
    "a convolution with one output channel": (
        lambda: nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 1), nn.ReLU(), conv(1, 5), classifier(5)),
        IMAGE,
    ),
    "chunk": (
        lambda: Forward(_chunked, a=conv(3, 8), b=conv(4, 5), c=conv(4, 5), head=classifier(5)),
        IMAGE,
    ),
    "split by sizes of the tensor": (
        lambda: Forward(_split, a=conv(3, 8), b=conv(4, 5), c=conv(4, 5), head=classifier(5)),
        IMAGE,
    ),
    "halves that gate each other": (
        lambda: Forward(_glu_by_hand, a=conv(3, 8), head=classifier(4)),
        IMAGE,
    ),
    "glu": (
        lambda: nn.Sequential(conv(3, 8), nn.GLU(1), classifier(4)),
        IMAGE,
    ),
    "channel shuffle": (
        lambda: nn.Sequential(
            conv(3, 8), Shuffle(), conv(8, 8, groups=2), nn.ChannelShuffle(2), nn.ReLU(), classifier(8)
        ),
        IMAGE,
    ),
    "grouped convolutions": (
        lambda: nn.Sequential(
            conv(3, 8), nn.BatchNorm2d(8), conv(8, 12, groups=4), nn.ReLU(), classifier(12)
        ),
        IMAGE,
    ),
    "depthwise convolutions, also with a multiplier": (
        lambda: nn.Sequential(
            conv(3, 5),
            conv(5, 5, groups=5),
            nn.BatchNorm2d(5),
            conv(5, 10, groups=5),
            nn.ReLU(),
            conv(10, 4),
            classifier(4),
        ),
        IMAGE,
    ),
    "transposed convolutions": (
        lambda: nn.Sequential(
            conv(3, 6, stride=2),
            nn.ConvTranspose2d(6, 8, 2, 2),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 8, 3, groups=8),
            nn.ConvTranspose2d(8, 6, 3, groups=2),
            classifier(6),
        ),
        IMAGE,
    ),
    "convolutions in one dimension": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 6, 3),
            nn.BatchNorm1d(6),
            nn.ELU(),
            nn.AvgPool1d(2),
            nn.Conv1d(6, 5, 1),
            nn.Flatten(),
            nn.Linear(15, 3),
        ),
        (2, 9),
    ),
    "a layer used twice": (
        lambda: Forward(_shared, stem=conv(3, 6), twice=conv(6, 6), head=classifier(6)),
        IMAGE,
    ),
    "an identity that is padded with channels": (
        lambda: Forward(_padded, a=conv(3, 4), b=conv(4, 7), head=classifier(7)),
        IMAGE,
    ),
    "embedded words of two inputs": (
        lambda: Forward(_two_words, words=nn.Embedding(10, 6), hidden=nn.Linear(12, 5), out=nn.Linear(5, 3)),
        (2,),
    ),
    "two inputs": (
        lambda: Forward(
            lambda net, x, y: net.out(torch.cat([net.a(x).mean((2, 3)), net.b(y)], 1).relu()),
            a=conv(3, 5),
            b=nn.Linear(4, 6),
            out=nn.Linear(11, 3),
        ),
        (IMAGE, (4,)),
    ),
    "a bilinear layer of two inputs": (
        lambda: Forward(
            lambda net, x, y: net.out(net.both(net.a(x), net.b(y))),
            a=nn.Linear(3, 5),
            b=nn.Linear(4, 6),
            both=nn.Bilinear(5, 6, 7),
            out=nn.Linear(7, 2),
        ),
        ((3,), (4,)),
    ),
    "tokens with positions and a residual MLP": (
        lambda: Forward(
            _positions,
            patches=nn.Conv2d(3, 6, 2, 2),
            position=nn.Parameter(torch.randn(1, 16, 6)),
            norm=nn.LayerNorm(6),
            up=nn.Linear(6, 9),
            down=nn.Linear(9, 6),
            head=nn.Linear(6, 3),
        ),
        IMAGE,
    ),
    "parameters that scale and shift channels": (
        lambda: Forward(
            _scaled,
            a=conv(3, 6),
            b=conv(6, 5),
            gamma=nn.Parameter(torch.randn(1, 6, 1, 1)),
            gamma2=nn.Parameter(torch.randn(5)),
            head=classifier(5),
        ),
        IMAGE,
    ),
    "a U-Net": (
        lambda: Forward(
            _unet,
            down=conv(3, 6),
            low=conv(6, 8),
            up=nn.ConvTranspose2d(8, 5, 2, 2),
            join=conv(11, 5),
            out=conv(5, 2, 1),
        ),
        (3, 9, 9),
    ),
    "a block with its channels last": (
        lambda: Forward(
            _convnext,
            stem=nn.Conv2d(3, 6, 2, 2),
            depthwise=conv(6, 6, 7, groups=6),
            norm=nn.LayerNorm(6),
            wide=nn.Linear(6, 9),
            narrow=nn.Linear(9, 6),
            gamma=nn.Parameter(torch.rand(6)),
            head=classifier(6),
        ),
        IMAGE,
    ),
    "features scaled by another input": (
        lambda: Forward(_modulated, a=conv(3, 6), film=nn.Linear(4, 12), head=classifier(6)),
        (IMAGE, (4,)),
    ),
    "the larger of pairs": (lambda: Forward(_maxout, a=nn.Linear(5, 12), out=nn.Linear(6, 2)), (5,)),
    "branches that are stacked, weighed and added": (
        lambda: Forward(
            _selected,
            a=conv(3, 6),
            b=conv(3, 6, 5),
            c=nn.Linear(3, 6),
            d=nn.Linear(3, 6),
            head=classifier(6),
        ),
        IMAGE,
    ),
    "several outputs": (
        lambda: Forward(
            lambda net, x: {"a": net.a(net.stem(x)), "b": [net.b(net.stem(x)).mean((2, 3))]},
            stem=conv(3, 6),
            a=conv(6, 2),
            b=conv(6, 3),
        ),
        IMAGE,
    ),
    "upsampling, spatial padding and pooling with indices": (
        lambda: nn.Sequential(
            conv(3, 6),
            nn.MaxPool2d(2),
            nn.Upsample(scale_factor=2),
            nn.ZeroPad2d(1),
            nn.ReflectionPad2d(1),
            conv(6, 5, padding_mode="circular"),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(20, 3),
        ),
        IMAGE,
    ),
}


def pruned(name: str) -> tuple[nn.Module, Sequence[Any], list[ChannelGroup]]:
    """A toy, the shape of its inputs and its groups."""
    make, shape = TOYS[name]
    network = randomised(make())
    return network, shape, channel_groups(network, shape)
