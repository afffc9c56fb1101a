"""Context modules on a backbone's last map: the dense prediction cell, and DeepLabv3's ASPP.

Chen et al., "Searching for Efficient Multi-Scale Architectures for Dense Image Prediction", NeurIPS 2018,
section 3.1 and the official code (deeplab/core/dense_prediction_cell.py); Chen et al., "Rethinking Atrous
Convolution for Semantic Image Segmentation", arXiv 1706.05587.
"""

import sys
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.resizing import resized
from papers.dpc.cell import FEATURES, Cell, Operator, Pair

PoolingForm = Literal["official", "adaptive"]

# of TF-Slim's batch normalisation in DeepLab: decay 0.9997
EPS, MOMENTUM = 1e-5, 1 - 0.9997
# standard deviations of the initial weights, cut off at two of them (the official code)
DEPTHWISE_STD, POINTWISE_STD = 0.33, 0.06
# the output stride that the rates of a cell are meant for
RATES_AT_STRIDE = 16

# sizes of maps of which it was said that rates reach beyond them
_told: set[Pair] = set()


class HeadSettings(NamedTuple):
    """What all branches of a head share.

    Attributes:
        filters: channels of each branch, and of the head's output; 256 in the paper.
        multiplier: all rates are this times those of the cell: 2 at output stride 8.
        pooling: `official`: windows of a grid cell's size that move by 1, then bilinear up; `adaptive`: the
            text's, each grid cell averaged once.
        pooling_map: (h, w) of the map that official windows are made for; None: of the map that comes.
        momentum: of batch normalisation's running statistics, 0.0003 in the paper.
        dropout: probability, before the projection of a cell, after that of ASPP; 0.1 in the paper.
    """

    filters: int = 256
    multiplier: int = 1
    pooling: PoolingForm = "official"
    pooling_map: Pair | None = None
    momentum: float = MOMENTUM
    dropout: float = 0.1


def norm(channels: int, momentum: float, eps: float = EPS) -> nn.BatchNorm2d:
    """Batch normalisation with PyTorch's momentum, 1 - TensorFlow's decay."""
    return nn.BatchNorm2d(channels, eps=eps, momentum=momentum)


def pointwise_conv(inputs: int, outputs: int, momentum: float, std: float | None = None) -> nn.Sequential:
    """1x1, BN, ReLU; weights by Glorot's uniform rule, or with a standard deviation."""
    conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    if std is None:
        nn.init.xavier_uniform_(conv.weight)
    else:
        truncated_normal(conv.weight, std)
    return nn.Sequential(conv, norm(outputs, momentum), nn.ReLU(inplace=True))


def truncated_normal(weight: Tensor, std: float) -> None:
    """N(0, std²), cut off at two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


class AtrousSeparable(nn.Sequential):
    """Depthwise 3x3 with rates (r_h, r_w), BN, ReLU, 1x1, BN, ReLU; the map keeps its size.

    The receptive field is (2 r_h + 1) x (2 r_w + 1). Where a rate reaches beyond the map only the taps in its
    middle row or column touch data, which is legal and said once.
    """

    def __init__(self, inputs: int, outputs: int, rates: Pair, momentum: float) -> None:
        depthwise = nn.Conv2d(inputs, inputs, 3, padding=rates, dilation=rates, groups=inputs, bias=False)
        truncated_normal(depthwise.weight, DEPTHWISE_STD)
        pointwise = pointwise_conv(inputs, outputs, momentum, POINTWISE_STD)
        super().__init__(depthwise, norm(inputs, momentum), nn.ReLU(inplace=True), *pointwise)
        self.rates = rates

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h, w]."""
        beyond = [
            (rate, side) for rate, side in zip(self.rates, inputs.shape[2:], strict=True) if rate >= side
        ]
        if beyond:
            _tell_of_rates(self.rates, (inputs.shape[2], inputs.shape[3]))
        return super().forward(inputs)


class PyramidPooling(nn.Module):
    """Means over a grid of cells, 1x1, BN, ReLU, and bilinearly back to the map's size.

    The official form is no grid: means over windows of k_h x k_w, at every place where one fits, k = (H - 1)
    // g + 1 for a map of H and a grid of g. That is the official int((crop - 1) / (stride g) + 1), as nested
    floors by whole numbers are one. So a network that is judged at another size than it was trained at gets
    other windows, as the official code's does, unless `map_size` fixes them.

    Args:
        inputs, outputs: channels.
        grid: (g_h, g_w).
        settings: see `HeadSettings`.
    """

    def __init__(self, inputs: int, outputs: int, grid: Pair, settings: HeadSettings) -> None:
        super().__init__()
        self.grid, self.form, self.map_size = grid, settings.pooling, settings.pooling_map
        self.conv = pointwise_conv(inputs, outputs, settings.momentum)

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, inputs, h, w] to [b, outputs, h, w].

        Raises:
            UserError: the windows, or the adaptive grid, are larger than the map.
        """
        height, width = inputs.shape[2:]
        if self.form == "adaptive":
            if self.grid[0] > height or self.grid[1] > width:
                raise UserError(
                    f"model.pooling=adaptive: a grid of {self.grid[0]}x{self.grid[1]} is larger than the map "
                    f"of {height}x{width} (valid: larger images, smaller grids, or model.pooling=official)"
                )
            pooled = F.adaptive_avg_pool2d(inputs, self.grid)
        else:
            pooled = F.avg_pool2d(inputs, self._window(height, width), stride=1)
        return resized(self.conv(pooled), (height, width))

    def _window(self, height: int, width: int) -> Pair:
        window = pooling_window(self.map_size or (height, width), self.grid)
        if window[0] > height or window[1] > width:
            raise UserError(
                f"model.pooling_crop: pooling over {window[0]}x{window[1]} is larger than the map of "
                f"{height}x{width} (valid: null, or a crop that is no larger than the images)"
            )
        return window


def pooling_window(map_size: Pair, grid: Pair) -> Pair:
    """(k_h, k_w) of the official pooling: k = (H - 1) // g + 1."""
    return (map_size[0] - 1) // grid[0] + 1, (map_size[1] - 1) // grid[1] + 1


def map_of(crop: Pair, output_stride: int) -> Pair:
    """(H, W) of the map of a crop: H = (crop - 1) // stride + 1."""
    return (crop[0] - 1) // output_stride + 1, (crop[1] - 1) // output_stride + 1


def operator_module(operator: Operator, inputs: int, settings: HeadSettings) -> nn.Module:
    """An operator of the space as a module from `inputs` channels to `settings.filters`."""
    if operator.kind == "conv1x1":
        return pointwise_conv(inputs, settings.filters, settings.momentum)
    if operator.kind == "pool":
        return PyramidPooling(inputs, settings.filters, operator.sizes, settings)
    rows, columns = (rate * settings.multiplier for rate in operator.sizes)
    return AtrousSeparable(inputs, settings.filters, (rows, columns), settings.momentum)


class DensePredictionCell(nn.Module):
    """A cell: its branches, their concatenation, dropout, and a 1x1 projection with BN and ReLU.

    Args:
        cell: what it is.
        channels: of the backbone's map.
        settings: see `HeadSettings`.
    """

    def __init__(self, cell: Cell, channels: int, settings: HeadSettings) -> None:
        super().__init__()
        self.cell, self.outputs = cell, settings.filters
        widths = [channels if source == FEATURES else settings.filters for source, _ in cell.branches]
        self.branches = nn.ModuleList(
            operator_module(branch.operator, width, settings)
            for branch, width in zip(cell.branches, widths, strict=True)
        )
        self.dropout = nn.Dropout(settings.dropout)
        wide = len(cell.branches) * settings.filters
        self.projection = pointwise_conv(wide, settings.filters, settings.momentum)

    def forward(self, features: Tensor) -> Tensor:
        """[b, channels, h, w] to [b, filters, h, w]."""
        outputs: list[Tensor] = []
        for (source, _), branch in zip(self.cell.branches, self.branches, strict=True):
            outputs.append(branch(features if source == FEATURES else outputs[source]))
        return self.projection(self.dropout(torch.cat(outputs, 1)))

    def branch_norms(self) -> Tensor:
        """Of each branch the mean absolute weight of the projection that reads it, [B] (figure 5b)."""
        weight: Tensor = self.projection[0].weight  # type: ignore[assignment]
        return weight.detach().abs().reshape(len(weight), len(self.cell.branches), -1).mean((0, 2))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three 3x3, the map's mean; concatenated, projected, dropped out.

    Args:
        channels: of the backbone's map.
        settings: see `HeadSettings`; the rates are 6, 12 and 18 times its multiplier.
    """

    RATES = (6, 12, 18)

    def __init__(self, channels: int, settings: HeadSettings) -> None:
        super().__init__()
        filters, momentum = settings.filters, settings.momentum
        self.outputs = filters
        self.pointwise = pointwise_conv(channels, filters, momentum)
        rates = [rate * settings.multiplier for rate in self.RATES]
        self.atrous = nn.ModuleList(
            AtrousSeparable(channels, filters, (rate, rate), momentum) for rate in rates
        )
        self.image = pointwise_conv(channels, filters, momentum)
        self.projection = pointwise_conv((2 + len(rates)) * filters, filters, momentum)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, features: Tensor) -> Tensor:
        """[b, channels, h, w] to [b, filters, h, w]."""
        image = self.image(features.mean((2, 3), keepdim=True)).expand(-1, -1, *features.shape[2:])
        branches = [self.pointwise(features), *(branch(features) for branch in self.atrous), image]
        return self.dropout(self.projection(torch.cat(branches, 1)))


class Cost(NamedTuple):
    """Of the branches alone: weights of convolutions, and multiply-adds at a map's positions."""

    parameters: int
    madds: int


def table_cost(cell: Cell, channels: int, filters: int, map_size: Pair) -> Cost:
    """Parameters and multiply-adds as table 1 counts them, exactly.

    Weights of the branches' convolutions, without batch normalisation and without the projection.
    Multiply-adds: each weight once at each position, and one addition for each output of a 1x1 convolution.
    Pooling itself counts nothing; its 1x1 convolution works where its windows fit.
    """
    parameters = madds = 0
    positions = map_size[0] * map_size[1]
    for source, operator in cell.branches:
        inputs = channels if source == FEATURES else filters
        weights = inputs * filters + (9 * inputs if operator.kind == "atrous" else 0)
        places = positions
        if operator.kind == "pool":
            rows, columns = pooling_window(map_size, operator.sizes)
            places = (map_size[0] - rows + 1) * (map_size[1] - columns + 1)
        parameters += weights
        madds += (weights + filters) * places
    return Cost(parameters, madds)


def _tell_of_rates(rates: Pair, map_size: Pair) -> None:
    """Once for all rates on maps of a size."""
    if map_size not in _told:
        _told.add(map_size)
        print(
            f"[dpc] rates {rates[0]}x{rates[1]} reach beyond a map of {map_size[0]}x{map_size[1]}: only the "
            "middle taps touch it (said once for all rates)",
            file=sys.stderr,
        )
