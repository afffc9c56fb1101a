"""The space of image designs: two cells of a convolutional network, and what trains one.

A cell has five nodes; node i adds up two operations, each on one of the two cells before or of the i nodes
before it, and the nodes that no other reads are concatenated. The space is that of NAO (Luo et al., NeurIPS
2018), as the paper's own lists were not found: 40 decisions for the normal and the reduction cell.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.architectures.objective import ArchitectureObjective, seed_of
from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from papers.transfer_automl.space import Design, DesignSpace

OPERATIONS = ("identity", "sep_conv_3", "sep_conv_5", "avg_pool_3", "max_pool_3")
CELLS = ("normal", "reduction")
NODES = 5


class CellNetworks(DesignSpace):
    """Designs of cells, and the networks and trainings that they stand for.

    Args:
        shape, classes: of the data; not used.
        cells: normal cells in each of the three stages, between which the reduction cells stand.
        filters: of the first stage; twice as many after each reduction.
        lr, momentum, weight_decay: of SGD with a cosine schedule.
        epochs: of a training in full.
        batch_size: of the trainings.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        cells: int,
        filters: int,
        lr: float,
        momentum: float,
        weight_decay: float,
        epochs: float,
        batch_size: int,
    ) -> None:
        require("at least 1", "model", cells=cells, filters=filters, batch_size=batch_size)
        require("positive", "model", lr=lr, epochs=epochs)
        require("at least 0", "model", momentum=momentum, weight_decay=weight_decay)
        super().__init__(
            {
                f"{cell}_{node}_{part}{k}": list(range(node + 2)) if part == "input" else list(OPERATIONS)
                for cell in CELLS
                for node in range(NODES)
                for k in (1, 2)
                for part in ("input", "operation")
            }
        )
        self.cells, self.filters, self.lr, self.momentum = cells, filters, lr, momentum
        self.weight_decay, self.epochs, self.batch_size = weight_decay, epochs, batch_size


class SeparableConvolution(nn.Sequential):
    """ReLU, depthwise, pointwise, batch normalisation."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )


class Fitted(nn.Sequential):
    """A map with other channels, and half the sides where they are to be: ReLU, 1x1, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(
            nn.ReLU(), nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """One of `OPERATIONS` on maps of so many channels."""
    if name == "identity":
        return nn.Identity() if stride == 1 else Fitted(channels, channels, stride)
    if name.startswith("sep_conv"):
        return SeparableConvolution(channels, int(name[-1]), stride)
    return nn.AvgPool2d(3, stride, 1) if name == "avg_pool_3" else nn.MaxPool2d(3, stride, 1)


class CellModule(nn.Module):
    """A cell with its weights.

    Args:
        nodes: for each node its (input, operation) twice; inputs 0 and 1 are the cells before, 2 + i node i.
        inputs: channels of the two cells before.
        strides: by which these two maps are made as large as the smaller one.
        channels: of each node.
        stride: 2 of a reduction cell.
    """

    def __init__(
        self,
        nodes: list[list[tuple[int, str]]],
        inputs: tuple[int, int],
        strides: tuple[int, int],
        channels: int,
        stride: int,
    ) -> None:
        super().__init__()
        self.inputs = [[source for source, _ in node] for node in nodes]
        self.fitted = nn.ModuleList(
            Fitted(width, channels, s) for width, s in zip(inputs, strides, strict=True)
        )
        # only what comes from outside is halved
        self.operations = nn.ModuleList(
            operation(name, channels, stride if source < 2 else 1) for node in nodes for source, name in node
        )
        read = {source for node in self.inputs for source in node}
        self.loose = [k + 2 for k in range(len(nodes)) if k + 2 not in read]
        self.channels = channels * len(self.loose)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        maps = [fitted(x) for fitted, x in zip(self.fitted, (before, last), strict=True)]
        for k, sources in enumerate(self.inputs):
            first, second = (self.operations[2 * k + j](maps[source]) for j, source in enumerate(sources))
            maps.append(first + second)
        return torch.cat([maps[k] for k in self.loose], 1)


class CellNetwork(nn.Module):
    """Three stages of normal cells with reduction cells between them.

    Args:
        design: its values.
        channels: of the images.
        classes: how many.
        cells, filters: see `CellNetworks`.
    """

    def __init__(self, design: dict[str, Any], channels: int, classes: int, cells: int, filters: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters)
        )
        kinds = [*["normal"] * cells, "reduction", *["normal"] * cells, "reduction", *["normal"] * cells]
        made, widths, strides = [], (filters, filters), (1, 1)
        for kind in kinds:
            nodes = [
                [
                    (int(design[f"{kind}_{node}_input{k}"]), design[f"{kind}_{node}_operation{k}"])
                    for k in (1, 2)
                ]
                for node in range(NODES)
            ]
            filters = filters * 2 if kind == "reduction" else filters
            cell = CellModule(nodes, widths, strides, filters, 2 if kind == "reduction" else 1)
            made.append(cell)
            widths = (widths[1], cell.channels)
            # the map before a reduction is twice as large as the one after
            strides = (2, 1) if kind == "reduction" else (1, 1)
        self.cells = nn.ModuleList(made)
        self.head = nn.Linear(widths[1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [b, classes] of images [b, C, H, W]."""
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.head(last.relu().mean((2, 3)))


class ImageObjective(ArchitectureObjective[Design]):
    """The validation accuracy of cells on one set of images.

    Args:
        space: of the designs.
        data: with a validation split.
        seed: of the run.
        share: of the epochs of a training in full.
    """

    def __init__(self, space: CellNetworks, data: DataSet, seed: int, share: float) -> None:
        self.space: CellNetworks = space
        self.data, self.seed, self.share = data, seed, share

    def build(self, architecture: Design) -> CellNetwork:
        assert self.data.classes is not None
        values = self.space.values(architecture.code)
        return CellNetwork(
            values, self.data.shape[0], self.data.classes, self.space.cells, self.space.filters
        )

    def count(self, architecture: Design) -> dict[str, float]:
        """parameters: of the network."""
        with torch.random.fork_rng():
            return {"parameters": float(sum(p.numel() for p in self.build(architecture).parameters()))}

    def train(self, architecture: Design, budget: int) -> dict[str, float]:
        """score and test, the shares of right answers.

        Raises:
            UserError: there is no validation split.
        """
        torch.manual_seed(seed_of(self.seed, architecture.key))
        self.data.setup()
        if not self.data.has_validation:
            name = self.data.NAME
            raise UserError(
                f"dataset.sets.{name}: has no validation split (valid: dataset.sets.{name}.validation=0.1)"
            )
        network = self.build(architecture)
        size, space = self.data.size("train"), self.space
        steps = max(1, round(self.share * space.epochs * size / space.batch_size))
        optimizer = torch.optim.SGD(
            network.parameters(), space.lr, space.momentum, weight_decay=space.weight_decay, nesterov=True
        )
        order = torch.empty(0, dtype=torch.int64)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = space.lr * (1 + math.cos(math.pi * step / steps)) / 2
            if len(order) < min(space.batch_size, size):
                order = torch.randperm(size)
            index, order = order[: space.batch_size], order[space.batch_size :]
            images, labels = self.data.batch("train", index, augment=True)
            assert labels is not None
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
        return {
            "score": _accuracy(network, self.data, "validation"),
            "test": _accuracy(network, self.data, "test"),
        }


@torch.no_grad()
def _accuracy(network: CellNetwork, data: DataSet, split: Any) -> float:
    """The share of right answers; NaN where a logit is not finite."""
    network.eval()
    right = 0
    for images, labels in data.batches(split, data.evaluation_batch):
        logits = network(images)
        if not bool(logits.isfinite().all()):
            return math.nan
        right += int((logits.argmax(1) == labels).sum())
    return right / data.size(split)
