"""Time of channel-wise layers beside torch's Conv3d, forward and backward.

Run: python -m benchmarks.channelnets_layers. Each of ours and the same convolution as Conv3d, channels as
depth, on the same inputs and weights, in turn in one process. On the CPU they are timed by the processor,
which other programs do not change.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.figures import Figure, command, seconds
from papers.channelnets.classifier import ConvolutionalClassifier
from papers.channelnets.layers import ChannelwiseConv, GroupChannelwiseConv

ROUNDS = 9
CONV3D = "torch's Conv3d, channels as depth"


def as_conv3d(layer: ChannelwiseConv, inputs: Tensor) -> Tensor:
    """The layer's outputs by Conv3d with kernels (d, 1, 1)."""
    padded = F.pad(inputs.unsqueeze(1), (0, 0, 0, 0, *layer.padding))
    kernels = layer.weight.view(layer.filters, 1, layer.kernel, 1, 1)
    outputs = F.conv3d(padded, kernels, stride=(layer.stride, 1, 1))
    return outputs.reshape(len(inputs), layer.out_channels, *inputs.shape[2:])


def classes_by_conv3d(layer: ConvolutionalClassifier, inputs: Tensor) -> Tensor:
    """The logits by Conv3d with one kernel, without padding."""
    return F.conv3d(inputs.unsqueeze(1), layer.weight[None, None]).flatten(1)


def passes(
    layer: nn.Module, run: Callable[[Tensor], Tensor], inputs: Tensor, gradient: Tensor
) -> Callable[[], None]:
    """Forward and backward, to the inputs and to the weights."""

    def step() -> None:
        inputs.grad = None
        layer.zero_grad(set_to_none=True)
        run(inputs).backward(gradient)

    return step


def ratio(ours: Callable[[], None], peer: Callable[[], None], cuda: bool, rounds: int) -> float:
    """How many times as long the peer takes, by the median of rounds after one that is not counted."""
    times = seconds({"ours": ours, "peer": peer}, cuda, rounds)
    return statistics.median(b / a for a, b in zip(times["ours"], times["peer"], strict=True))


def main(tiny: bool = False) -> dict[str, Figure]:
    """The four layers of the paper's networks."""
    rounds, small = (1, 2) if tiny else (ROUNDS, None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    # name, layer, its form by Conv3d, shape of the inputs, goal
    layers: list[tuple[str, str, Any, Callable[..., Tensor], tuple[int, ...], float]] = [
        (
            "groups_64",
            "a group channel-wise convolution of 64 channels, 2 groups, kernel 8, 16x16, batch 64",
            GroupChannelwiseConv(64, 2, 8),
            as_conv3d,
            (64, 64, 16, 16),
            3.0,
        ),
        (
            "groups_512",
            "a group channel-wise convolution of 512 channels, 2 groups, kernel 8, 14x14, batch 8",
            GroupChannelwiseConv(512, 2, 8),
            as_conv3d,
            (8, 512, 14, 14),
            1.0,
        ),
        (
            "depth_64",
            "a channel-wise convolution of 1,024 channels, kernel 64, 7x7, batch 8",
            ChannelwiseConv(1024, 64),
            as_conv3d,
            (8, 1024, 7, 7),
            4.0,
        ),
        (
            "classifier",
            "the convolutional classification layer, 1,024 features of 7x7, 1,000 classes, batch 8",
            ConvolutionalClassifier(1024, 1000, (7, 7)),
            classes_by_conv3d,
            (8, 1024, 7, 7),
            15.0,
        ),
    ]
    found = {}
    for name, what, layer, conv3d, shape, goal in layers:
        layer = layer.to(device)
        inputs = torch.randn(small or shape[0], *shape[1:], device=device, requires_grad=True)
        gradient = torch.randn_like(layer(inputs))
        ours = passes(layer, layer, inputs, gradient)
        peer = passes(layer, partial(conv3d, layer), inputs, gradient)
        value = ratio(ours, peer, device == "cuda", rounds)
        found[f"{name}_{device}"] = Figure(
            value, "x as fast", f"channelnets: {what}, forward and backward", CONV3D, at_least=goal
        )
    return found


if __name__ == "__main__":
    command(main)
