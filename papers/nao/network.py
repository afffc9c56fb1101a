"""Networks of convolutional cells: a stem, 3 N normal cells and two reduction cells, a linear classifier."""

from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.limits import require
from common.models.classifier import require_dropout
from common.models.shapes import require_classes, require_image, require_positive
from papers.nao.cell import INPUTS, Cell, ConvArchitecture, conv_architecture_of, loose_ends
from papers.nao.layers import FactorizedReduce, conv_norm, drop_path, layer_of

Stem = Literal["cifar", "imagenet"]


class Maps(NamedTuple):
    """What a cell hands on: `channels`, and how often its maps were halved."""

    channels: int
    halvings: int


def calibrated(before_last: Maps, last: Maps, channels: int) -> tuple[nn.Module, nn.Module]:
    """What brings both inputs of a cell to its channels and to the size of the last."""
    first: nn.Module = nn.Identity()
    if before_last.halvings != last.halvings:
        first = nn.Sequential(nn.ReLU(), FactorizedReduce(before_last.channels, channels))
    elif before_last.channels != channels:
        first = nn.Sequential(*conv_norm(before_last.channels, channels, 1))
    second: nn.Module = nn.Identity()
    if last.channels != channels:
        second = nn.Sequential(*conv_norm(last.channels, channels, 1))
    return first, second


class CellLayer(nn.Module):
    """One cell of a network.

    Args:
        cell: its nodes.
        before_last, last: what the outputs of the two cells before are.
        channels: of every node.
        reduction: whether what reads an input has stride 2.

    Attributes:
        maps: what it hands on: the loose ends side by side.
    """

    def __init__(self, cell: Cell, before_last: Maps, last: Maps, channels: int, reduction: bool) -> None:
        super().__init__()
        self.cell, self.ends = cell, loose_ends(cell)
        self.first, self.second = calibrated(before_last, last, channels)
        self.operations = nn.ModuleList(
            layer_of(b.operation, channels, 2 if reduction and b.source < INPUTS else 1)
            for node in cell
            for b in node
        )
        # an input that nothing reads leaves with the others, at their size
        self.reduced = nn.ModuleDict(
            {
                str(end): FactorizedReduce(channels, channels)
                for end in self.ends
                if reduction and end < INPUTS
            }
        )
        self.maps = Maps(channels * len(self.ends), last.halvings + reduction)

    def forward(self, before_last: Tensor, last: Tensor, keep: Tensor | None) -> Tensor:
        """What the two cells before gave, to [b, channels * ends, h, w]; paths stay with probability keep."""
        states = [self.first(before_last), self.second(last)]
        for number, node in enumerate(self.cell):
            halves = [
                drop_path(self.operations[2 * number + half](states[branch.source]), keep)
                for half, branch in enumerate(node)
            ]
            states.append(halves[0] + halves[1])
        for end, layer in self.reduced.items():
            states[int(end)] = layer(states[int(end)])
        return torch.cat([states[end] for end in self.ends], 1)


class AuxiliaryHead(nn.Module):
    """A second classifier in the midst of a network, for training.

    Args:
        channels: of the maps.
        stride: of the mean over 5x5: 3 for maps of 8x8, 2 for 7x7.
        classes: how many.
    """

    def __init__(self, channels: int, stride: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(768, classes),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, channels, h, w] to logits [b, classes]."""
        return cast(Tensor, self.layers(inputs))


class NAONet(nn.Module):
    """A network of cells (Luo et al., NeurIPS 2018): N normal cells, a reduction cell, N, one, N.

    The channels of a node double in each reduction cell, which also halves the maps. In training each branch
    of the cell l = 1..L is dropped with probability (l / L) drop_path t, t the share of training that is
    made.

    Args:
        shape, classes: of the data.
        architecture: its cells, as `conv_architecture_of` takes them.
        cells: N.
        filters: F, channels of a node in the first cells.
        stem: "cifar" (a 3x3 convolution to 3 F channels) or "imagenet" (three of stride 2).
        drop_path: probability, for the last cell at the end of training.
        dropout: before the classifier.
        auxiliary: weight of the second classifier's loss, 0 for none.
        auxiliary_at: it sits on the output of the second "reduction" cell, or of the "normal" cell behind it.

    Raises:
        UserError: a value out of range, maps that are too small.
    """

    task = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        architecture: Any,
        cells: int,
        filters: int,
        stem: Stem,
        drop_path: float,
        dropout: float,
        auxiliary: float,
        auxiliary_at: Literal["reduction", "normal"],
    ) -> None:
        super().__init__()
        require_positive("cells", cells)
        require_positive("filters", filters)
        require_dropout(dropout)
        require("from 0 to 1", "model", drop_path=drop_path)
        require("at least 0", "model", auxiliary=auxiliary)
        if drop_path == 1:
            raise UserError("model.drop_path=1.0: no path would be left (valid: below 1)")
        if filters % 2:
            raise UserError(f"model.filters={filters}; valid: even numbers, as two halves reduce a map")
        channels, *size = require_image("NAONet", shape, 4 if stem == "cifar" else 32)
        self.settings: dict[str, Any] = {
            "shape": shape, "classes": classes, "cells": cells, "filters": filters, "stem": stem,
            "drop_path": drop_path, "dropout": dropout, "auxiliary": auxiliary, "auxiliary_at": auxiliary_at,
        }  # fmt: skip
        self.architecture = conv_architecture_of(architecture)
        self.drop_path, self.auxiliary = drop_path, auxiliary
        classes = require_classes("NAONet", classes)
        self.stem, before_last, last = make_stem(stem, channels, filters)
        self.layers = nn.ModuleList()
        reductions = (cells, 2 * cells + 1)
        for number in range(3 * cells + 2):
            reduction = number in reductions
            filters *= 2 if reduction else 1
            chosen = self.architecture.reduction if reduction else self.architecture.normal
            layer = CellLayer(chosen, before_last, last, filters, reduction)
            self.layers.append(layer)
            before_last, last = last, layer.maps
        self.head_at = reductions[1] + (auxiliary_at == "normal")
        self.head = self._head(size, classes) if auxiliary > 0 else None
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(last.channels, classes)
        )
        # of the last pass in training, for its part of the loss
        self.auxiliary_logits: Tensor | None = None
        # the share of training that is made
        self.progress: Tensor
        self.register_buffer("progress", torch.zeros(()))
        for parameter in self.parameters():
            if parameter.dim() >= 2:
                nn.init.kaiming_normal_(parameter)

    def _head(self, size: list[int], classes: int) -> AuxiliaryHead:
        maps = cast(CellLayer, self.layers[self.head_at]).maps
        side = min(-(-pixels // 2**maps.halvings) for pixels in size)
        stride = 3 if self.settings["stem"] == "cifar" else 2
        if side < 5 + stride:
            raise UserError(
                f"model.auxiliary={self.auxiliary}: its maps have {side} pixels a side, it needs "
                f"{5 + stride} (valid here: 0.0)"
            )
        return AuxiliaryHead(maps.channels, stride, classes)

    def with_architecture(self, architecture: ConvArchitecture) -> "NAONet":
        """Another network of the same settings, with first weights of its own."""
        return NAONet(architecture=architecture, **self.settings)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, c, h, w] to logits [b, classes]."""
        before_last, last = self.stem(inputs)
        keeps = self.keeps() if self.training and self.drop_path > 0 else [None] * len(self.layers)
        self.auxiliary_logits = None
        for number, (layer, keep) in enumerate(zip(self.layers, keeps, strict=True)):
            before_last, last = last, layer(before_last, last, keep)
            if number == self.head_at and self.training and self.head is not None:
                self.auxiliary_logits = self.head(last)
        return cast(Tensor, self.classifier(last))

    def keeps(self) -> list[Tensor | None]:
        """With which probability a path of each cell stays now; as tensors, not to wait for a GPU."""
        count = len(self.layers)
        return [1 - self.progress * ((number + 1) / count * self.drop_path) for number in range(count)]

    def auxiliary_loss(self, targets: Tensor) -> Tensor | float:
        """The second classifier's part of the loss of the last pass in training; 0 without one."""
        if self.auxiliary_logits is None:
            return 0.0
        return self.auxiliary * functional.cross_entropy(self.auxiliary_logits, targets)


class CifarStem(nn.Module):
    """A 3x3 convolution and batch normalisation, whose output is both inputs of the first cell."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[b, c, h, w] to twice [b, outputs, h, w]."""
        found = self.layers(inputs)
        return found, found


class ImageNetStem(nn.Module):
    """Three 3x3 convolutions of stride 2: the second's output and the third's are the first cell's inputs."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(channels, filters // 2, 3, 2, 1, bias=False),
            nn.BatchNorm2d(filters // 2),
            *conv_norm(filters // 2, filters, 3, 2, 1),
        )
        self.second = nn.Sequential(*conv_norm(filters, filters, 3, 2, 1))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[b, c, h, w] to [b, filters, h / 4, w / 4] and [b, filters, h / 8, w / 8]."""
        first = self.first(inputs)
        return first, self.second(first)


def make_stem(stem: Stem, channels: int, filters: int) -> tuple[nn.Module, Maps, Maps]:
    """A stem, and what its two outputs are."""
    if stem == "imagenet":
        return ImageNetStem(channels, filters), Maps(filters, 2), Maps(filters, 3)
    maps = Maps(3 * filters, 0)
    return CifarStem(channels, 3 * filters), maps, maps
