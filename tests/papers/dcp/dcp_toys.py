"""Small layers, networks and pictures for the tests of dcp."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.preact_resnet import PreactResNet
from papers.dcp.layer_problem import LayerProblem, Rows, Tail


def toy_layer(
    channels: int = 6, outputs: int = 5, kernel: int = 3, bias: bool = True, seed: int = 0
) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=bias).double()


def toy_tail(outputs: int = 5, classes: int = 3, examples: int = 12, seed: int = 1) -> Tail:
    """A frozen head with batch normalisation, and random labels."""
    generator = torch.Generator().manual_seed(seed)
    linear = torch.randn(classes, outputs, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (examples,), generator=generator)

    def tail(found: Tensor, rows: Rows) -> Tensor:
        return functional.cross_entropy(found.relu().mean((2, 3)) @ linear.T.to(found), labels[rows])

    return tail


def toy_inputs(channels: int = 6, examples: int = 12, side: int = 4, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(examples, channels, side, side, generator=generator, dtype=torch.float64).relu()


def toy_problem(
    layer: nn.Conv2d | None = None, inputs: Tensor | None = None, **settings: object
) -> LayerProblem:
    layer = layer or toy_layer()
    inputs = toy_inputs(layer.in_channels) if inputs is None else inputs
    with torch.no_grad():
        baseline = layer(inputs)
    tail = toy_tail(layer.out_channels, examples=len(inputs))
    return LayerProblem(layer, inputs, baseline, tail, **settings)  # type: ignore[arg-type]


def toy_network(depth: int = 8, side: int = 8) -> tuple[PreactResNet, Tensor, Tensor]:
    """A pre-activation ResNet with running statistics of its own, images and labels."""
    torch.manual_seed(0)
    network = PreactResNet(shape=(3, side, side), classes=4, depth=depth)
    images, labels = torch.randn(24, 3, side, side), torch.randint(4, (24,))
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(images)
    return network.eval(), images, labels
