"""ChannelNets (Gao, Wang, Ji, NeurIPS 2018, section 4): MobileNet's plan with channel-wise convolutions."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from common.base.errors import UserError
from common.models.classifier import require_dropout
from common.models.shapes import require_image, require_sizes
from common.models.split import SpatialMean, cut
from common.models.stages import require_strides, stage_ends
from papers.channelnets.blocks import (
    CodeGroupModule,
    GroupChannelwiseModule,
    GroupModule,
    Joined,
    ResidualPlace,
    SeparableChannelwiseBlock,
    SeparableConv,
    separable_pair,
)
from papers.channelnets.classifier import ConvolutionalClassifier, UnsharedClassifier, random_order
from papers.channelnets.layers import ChannelwiseConv, PositionMixingConv, require_choice

Form = Literal["paper", "official_code"]
LastLayer = Literal["dws", "dwscw"]
Head = Literal["fc", "ccl", "ccl_unshared"]
# of all weights: a truncated normal with this deviation, as in the authors' code; the paper is silent
INIT_STD = 0.09
# the layers of the plan that have a width and a stride: all but the three group modules
PLANNED = (1, 2, 3, 4, 5, 6, 7, 11, 12)


class ChannelNet(nn.Module):
    """A 3x3 stem, depthwise separable convolutions, three group modules, two last layers, logits.

    For ImageNet, layer by layer: 1 convolution 32 /2; 2 to 7 DWSConv 64, 128 /2, 128, 256 /2, 256, 512 /2;
    8 and 9 GCWM, 10 GM, all of 512; 11 DWSConv 1,024 /2; 12 DWSConv 1,024 (v1) or DWSCWConv 1,024 (v2, v3);
    pooling and a fully connected layer (v1, v2) or the convolutional classification layer (v3). v1(-) is v1
    with three GM. The stem has batch normalisation and ReLU6.

    The authors' code (`arch="official_code"`) is another network: no activation after the stem; the outputs
    of layers 1 and 2, 3 and 4, 5 and 6 are joined; a GM, then two blocks that begin with the group
    channel-wise convolution, the second of them with a residual; before v3's logits a 3x3 depthwise
    convolution. Its layer of v2 (`dwscw_impl="official_code"`) mixes all positions, and nothing follows it.

    `features`: the last block of each size.

    Args:
        shape: (channels, height, width), at least as many pixels a side as the strides multiply to.
        classes: number of logits, at least 1.
        arch: see above.
        widths: channels of the layers 1 to 7, 11 and 12; the group modules have those of layer 7.
        strides: of the same layers, 1 or 2; in the authors' code those of 2, 4 and 6 are 1.
        multiplier: every width is this times the one in `widths`, rounded.
        groups: g, of the group modules; divides the channels of layer 7.
        gcw: whether there are group channel-wise convolutions.
        gcw_kernel: d_c of these; the code has 4 g.
        gcwm_residual: see `GroupChannelwiseModule`.
        last: layer 12, "dws" or "dwscw"; the latter keeps channels and size.
        dwscw_kernel: d_c of the latter.
        dwscw_impl: see above.
        classifier: "fc", "ccl" or "ccl_unshared".
        class_order_seed: of a random order of the classes in the latter two; None for their own order.
        dropout: probability after each 1x1 and channel-wise convolution, in [0, 1).

    Raises:
        UserError: inputs that are no images or are too small, no classes, numbers out of range; what a layer
            refuses, with its place in the network.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        arch: Form,
        widths: list[int],
        strides: list[int],
        multiplier: float,
        groups: int,
        gcw: bool,
        gcw_kernel: int,
        gcwm_residual: ResidualPlace,
        last: LastLayer,
        dwscw_kernel: int,
        dwscw_impl: Form,
        classifier: Head,
        class_order_seed: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        require_dropout(dropout)
        require_strides(strides, len(PLANNED))
        plan = Plan(
            channels=require_image("channelnet", shape, smallest=math.prod(strides))[0],
            widths=_widths(widths, multiplier),
            strides=strides,
            size=_last_size(shape, strides),
            groups=groups,
            gcw_kernel=gcw_kernel if gcw else None,
            gcwm_residual=gcwm_residual,
            dwscw_kernel=dwscw_kernel if last == "dwscw" else None,
            dwscw_impl=dwscw_impl,
            dropout=dropout,
        )
        for name, value in (("arch", arch), ("dwscw_impl", dwscw_impl)):
            require_choice("model", name, value, ("paper", "official_code"))
        require_choice("model", "last", last, ("dws", "dwscw"))
        blocks = _paper_blocks(plan) if arch == "paper" else _code_blocks(plan)
        self.blocks = nn.Sequential(*(block for block, _ in blocks))
        self.features = tuple(f"blocks.{end}" for end in stage_ends([stride for _, stride in blocks]))
        with naming("classifier"):
            self.classifier = _classifier(arch, classifier, plan, classes, class_order_seed)
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Images [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.blocks(inputs))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` stages (`common.models.split`)."""
        low, high = cut(self.blocks, self.features, unshared)
        return low, nn.Sequential(high, self.classifier)


@dataclass(frozen=True)
class Plan:
    """What the blocks of a ChannelNet are built from; its names are those of `ChannelNet`.

    Attributes:
        channels: of the images.
        size: (height, width) of the last maps.
        gcw_kernel, dwscw_kernel: None where the network has no such layer.
    """

    channels: int
    widths: list[int]
    strides: list[int]
    size: tuple[int, int]
    groups: int
    gcw_kernel: int | None
    gcwm_residual: ResidualPlace
    dwscw_kernel: int | None
    dwscw_impl: Form
    dropout: float

    def separable(self, layer: int) -> SeparableConv:
        """The DWSConv that is this layer."""
        which = PLANNED.index(layer)
        inputs, outputs = self.widths[which - 1 : which + 1]
        return SeparableConv(inputs, outputs, self.strides[which], dropout=self.dropout)


# a block, and its stride
Blocks = list[tuple[nn.Module, int]]


def _paper_blocks(plan: Plan) -> Blocks:
    """Block i is layer i + 1 of the paper's table."""
    stem = nn.Sequential(*_stem(plan), nn.ReLU6(inplace=True))
    blocks: Blocks = [(stem, plan.strides[0])]
    blocks += [(plan.separable(layer), plan.strides[layer - 1]) for layer in range(2, 8)]
    for layer in (8, 9, 10):
        with naming(f"layer {layer}"):
            blocks.append((_group_module(plan, mixing=layer < 10), 1))
    return [*blocks, *_last_blocks(plan)]


def _group_module(plan: Plan, mixing: bool) -> nn.Module:
    """GCWM, or GM where the groups are not mixed."""
    if not mixing or plan.gcw_kernel is None:
        return GroupModule(plan.widths[6], plan.groups, dropout=plan.dropout)
    return GroupChannelwiseModule(
        plan.widths[6],
        plan.groups,
        plan.gcw_kernel,
        residual=plan.gcwm_residual,
        dropout=plan.dropout,
    )


def _code_blocks(plan: Plan) -> Blocks:
    """Layers 1 and 2, 3 and 4, 5 and 6 are one block each, as their outputs are joined."""
    for layer in (2, 4, 6):
        if plan.strides[layer - 1] != 1:
            raise UserError(
                f"model: layer {layer} has stride 2, and is joined with layer {layer - 1}; valid: 1"
            )
    blocks: Blocks = []
    inputs = plan.channels
    for first in (1, 3, 5):
        one, two = plan.widths[first - 1 : first + 1]
        stride = plan.strides[first - 1]
        opening = nn.Sequential(*_stem(plan)) if first == 1 else _separable(plan, inputs, one, stride)
        blocks.append((Joined(opening, _separable(plan, one, two)), stride))
        inputs = one + two
    blocks.append((_separable(plan, inputs, plan.widths[6], plan.strides[6]), plan.strides[6]))
    with naming("layer 8"):
        blocks.append((GroupModule(plan.widths[6], plan.groups, dropout=plan.dropout), 1))
    for layer, residual in ((9, False), (10, True)):
        with naming(f"layer {layer}"):
            blocks.append((_code_module(plan, residual), 1))
    return [*blocks, *_last_blocks(plan)]


def _code_module(plan: Plan, residual: bool) -> nn.Module:
    if plan.gcw_kernel is not None:
        return CodeGroupModule(
            plan.widths[6], plan.groups, plan.gcw_kernel, residual=residual, dropout=plan.dropout
        )
    if residual:
        return GroupModule(plan.widths[6], plan.groups, dropout=plan.dropout)
    return separable_pair(plan.widths[6], plan.groups, plan.dropout)


def _last_blocks(plan: Plan) -> Blocks:
    """Layers 11 and 12."""
    blocks: Blocks = [(plan.separable(11), plan.strides[7])]
    inputs, outputs = plan.widths[7:]
    if plan.dwscw_kernel is None:
        return [*blocks, (plan.separable(12), plan.strides[8])]
    if inputs != outputs or plan.strides[8] != 1:
        raise UserError(
            f"model: layer 12 is channel-wise, from {inputs} to {outputs} channels with stride "
            f"{plan.strides[8]}; valid: as many channels as layer 11, stride 1"
        )
    with naming("layer 12"):
        if plan.dwscw_impl == "paper":
            return [*blocks, (SeparableChannelwiseBlock(outputs, plan.dwscw_kernel, dropout=plan.dropout), 1)]
        depthwise = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False)
        return [
            *blocks,
            (nn.Sequential(depthwise, PositionMixingConv(outputs, plan.dwscw_kernel, plan.size)), 1),
        ]


def _separable(plan: Plan, inputs: int, outputs: int, stride: int = 1) -> SeparableConv:
    return SeparableConv(inputs, outputs, stride, dropout=plan.dropout)


def _stem(plan: Plan) -> list[nn.Module]:
    outputs = plan.widths[0]
    stem = nn.Conv2d(plan.channels, outputs, 3, plan.strides[0], padding=1, bias=False)
    return [stem, nn.BatchNorm2d(outputs)]


def _classifier(
    arch: Form, kind: Head, plan: Plan, classes: int | None, order_seed: int | None
) -> nn.Sequential:
    """From the last maps to logits."""
    if classes is None or classes < 1:
        raise UserError(f"needs a data set with classes, this one has {classes}; valid: >= 1")
    require_choice("model", "classifier", kind, ("fc", "ccl", "ccl_unshared"))
    features = plan.widths[-1]
    if kind == "fc":
        if order_seed is not None:
            raise UserError(
                f"model.class_order_seed={order_seed}: a fully connected layer has no order; valid: null"
            )
        return nn.Sequential(SpatialMean(), nn.Linear(features, classes))
    order = None if order_seed is None else random_order(classes, order_seed)
    if kind == "ccl_unshared":
        return nn.Sequential(UnsharedClassifier(features, classes, order=order))
    shared = ConvolutionalClassifier(features, classes, plan.size, order=order)
    if arch == "paper":
        return nn.Sequential(shared)
    return nn.Sequential(nn.Conv2d(features, features, 3, padding=1, groups=features, bias=False), shared)


def initialise(network: nn.Module) -> None:
    """All weights from the truncated normal of the authors' code, biases at 0."""
    layers = nn.Conv2d | nn.Linear | ChannelwiseConv | PositionMixingConv
    for module in network.modules():
        if isinstance(module, layers | ConvolutionalClassifier | UnsharedClassifier):
            nn.init.trunc_normal_(module.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Say of a layer that refuses its numbers where in the network it stands.

    Raises:
        UserError: that of the layer, with the place before it.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"model: {place}: {error}") from error


def _widths(widths: list[int], multiplier: float) -> list[int]:
    """The channels of the planned layers.

    Raises:
        UserError: not as many as there are, or a multiplier that leaves a layer none.
    """
    require_sizes("widths", widths)
    if len(widths) != len(PLANNED):
        raise UserError(
            f"model.widths={list(widths)}; valid: {len(PLANNED)} numbers, of the layers "
            f"{', '.join(map(str, PLANNED))}"
        )
    if not 0.5 < multiplier * min(widths) < math.inf:
        raise UserError(f"model.multiplier={multiplier}; valid: a number that leaves each width a channel")
    return [round(multiplier * width) for width in widths]


def _last_size(shape: tuple[int, ...], strides: list[int]) -> tuple[int, int]:
    """(height, width) of the maps before the classifier: each layer halves and rounds up where it strides."""
    height, width = shape[1:]
    for stride in strides:
        height, width = -(-height // stride), -(-width // stride)
    return height, width
