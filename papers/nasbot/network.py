"""Networks of a graph's layers, in torch.

Perceptrons: each layer a linear map and its activation (crelu has twice its units as outputs). Convolutional
nets: a convolution, batch normalisation and ReLU; a residual layer is two convolutions whose sum with the
shortcut passes a ReLU; 2x2 pools. What reads images without keeping them reads their means (global average
pooling). Each decision layer is a linear map, and the output is the mean of the decision layers' outputs.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UserError
from papers.nasbot.graph import DECISIONS, POOLS, Kind, Layer, Network, read_network
from papers.nasbot.pools import initial_networks

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
}
# 1 - decay of batch normalisation, decay .997 in the released code
MOMENTUM = 0.003


class Crelu(nn.Module):
    """relu(x) and relu(-x), concatenated (Shang et al. 2016)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, -inputs], 1).relu()


class Residual(nn.Module):
    """relu(conv-BN-relu-conv-BN(x) + shortcut(x)).

    The shortcut is x itself, averaged 2x2 where the layer has stride 2, with channels of zeros added or the
    last ones left out.
    """

    def __init__(self, inputs: int, units: int, kernel: int, stride: int) -> None:
        super().__init__()
        first, second = _convolution(inputs, units, kernel, stride), _convolution(units, units, kernel, 1)
        self.layers = nn.Sequential(*first, nn.ReLU(), *second)
        self.units, self.stride = units, stride

    def forward(self, inputs: Tensor) -> Tensor:
        shortcut = inputs
        if self.stride == 2:
            shortcut = F.avg_pool2d(shortcut, 2, ceil_mode=True)
        missing = self.units - shortcut.shape[1]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, missing)) if missing > 0 else shortcut[:, : self.units]
        return (self.layers(inputs) + shortcut).relu()


class GraphNetwork(nn.Module):
    """The network of a graph.

    Args:
        graph: of its layers.
        shape: of one input, (d,) or (C, H, W).
        outputs: of each decision layer.
    """

    def __init__(self, graph: Network, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        if graph.kind == "cnn" and len(shape) != 3:
            raise UserError(f"a network of kind cnn reads images [C, H, W], not {list(shape)}")
        self.graph = graph
        flat = int(torch.Size(shape).numel())
        widths = [shape[0] if graph.kind == "cnn" else flat]
        self.layers = nn.ModuleList()
        for number in range(1, len(graph) - 1):
            layer, inputs = graph.layers[number], sum(widths[parent] for parent in graph.parents[number])
            self.layers.append(_module(layer, inputs, outputs))
            widths.append(_width(layer, inputs, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, *shape] to outputs [b, outputs]."""
        graph = self.graph
        found = [inputs if graph.kind == "cnn" else inputs.flatten(1)]
        for number, module in enumerate(self.layers, 1):
            parts = [found[parent] for parent in graph.parents[number]]
            joined = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            if joined.ndim == 4 and graph.halvings[number] is None:
                joined = joined.mean((2, 3))
            found.append(module(joined))
        return torch.stack([found[parent] for parent in graph.parents[-1]]).mean(0)


def _convolution(inputs: int, units: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, units, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(units, momentum=MOMENTUM)]


def _module(layer: Layer, inputs: int, outputs: int) -> nn.Module:
    if layer.label in DECISIONS:
        return nn.Linear(inputs, outputs)
    if layer.label in POOLS:
        pool = nn.MaxPool2d if layer.label == "max-pool" else nn.AvgPool2d
        # rounded up as a convolution of stride 2 does, so that equal halvings are equal sizes
        return pool(2, ceil_mode=True)
    assert layer.units is not None
    if layer.on_images:
        assert layer.stride is not None
        kernel = int(layer.label[-1])
        if layer.label.startswith("res"):
            return Residual(inputs, layer.units, kernel, layer.stride)
        return nn.Sequential(*_convolution(inputs, layer.units, kernel, layer.stride), nn.ReLU())
    activation = Crelu if layer.label == "crelu" else ACTIVATIONS.get(layer.label, nn.ReLU)
    return nn.Sequential(nn.Linear(inputs, layer.units), activation())


def _width(layer: Layer, inputs: int, outputs: int) -> int:
    if layer.label in POOLS:
        return inputs
    if layer.label in DECISIONS:
        return outputs
    assert layer.units is not None
    return layer.units * (2 if layer.label == "crelu" else 1)


def graph_of(kind: Kind, decision: str, told: str | list[int] | dict[str, Any] | None) -> Network:
    """The network that a config names: a JSON file, a code, plain data, or null for the pool's smallest.

    Raises:
        UserError: no such file, or no network of that kind and decision.
    """
    if told is None:
        return min(initial_networks(kind, decision, "fixed"), key=lambda network: network.masses.sum())
    if isinstance(told, str):
        graph = read_network(Path(told))
    else:
        graph = Network.from_json(told) if isinstance(told, dict) else Network.decoded(told)
    if graph.kind != kind or graph.layers[-2].label != decision:
        raise UserError(
            f"model.network is of kind {graph.kind} and decides by {graph.layers[-2].label}; "
            f"valid here: {kind} and {decision}"
        )
    return graph


class GraphClassifier(GraphNetwork):
    """A network of a graph for classes.

    Args:
        shape, classes: of the data.
        kind: `cnn` or `mlp`.
        network: a JSON file (`found.json` of a search), a code, plain data; null: the smallest of the initial
            pool.

    Raises:
        UserError: no classes, or no such network.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        kind: Kind,
        network: str | list[int] | dict[str, Any] | None,
    ) -> None:
        if classes is None:
            raise UserError(
                "model: a network of decision layers softmax needs classes (valid: model=graph_regression)"
            )
        super().__init__(graph_of(kind, "softmax", network), tuple(shape), classes)


class GraphRegression(GraphNetwork):
    """A perceptron of a graph for one number.

    Args:
        shape, classes: of the data; no classes.
        network: see `GraphClassifier`.
        loss: of training: `l1` as the released code has it, or `mse`.

    Raises:
        UserError: classes, or no such network.
    """

    task: ClassVar[Literal["regression"]] = "regression"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        network: str | list[int] | dict[str, Any] | None,
        loss: Literal["l1", "mse"],
    ) -> None:
        if classes is not None:
            raise UserError(
                "model: a network of decision layers linear is for numbers (valid: model=graph_mlp)"
            )
        super().__init__(graph_of("mlp", "linear", network), tuple(shape), 1)
        self.kind_of_loss = loss

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean absolute or squared error."""
        return F.l1_loss(outputs, targets) if self.kind_of_loss == "l1" else F.mse_loss(outputs, targets)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, *shape] to predictions [b]."""
        return super().forward(inputs)[:, 0]
