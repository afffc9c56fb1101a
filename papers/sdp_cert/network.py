"""A feed-forward ReLU network as plain matrices, read from any module that is a chain of affine maps and
ReLUs.

x_{i+1} = relu(W_i x_i + b_i),  i = 0..L-1;   logits f(x_0) = W_L x_L + b_L        (section 2 of the paper)
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.runs.errors import UserError

# layers that are affine in evaluation mode: composed into one matrix between two ReLUs
AFFINE = (
    nn.Linear,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Conv2d,
    nn.AvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
)
READABLE = ", ".join(layer.__name__ for layer in (*AFFINE, nn.ReLU))
TOLERANCE = 1e-6


@dataclass(frozen=True)
class ReluNetwork:
    """W_i [n_{i+1}, n_i] and b_i [n_{i+1}], i = 0..L, in float64."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @property
    def hidden_layers(self) -> int:
        """L, the number of ReLU layers."""
        return len(self.weights) - 1

    @property
    def inputs(self) -> int:
        """n_0."""
        return self.weights[0].shape[1]

    @property
    def classes(self) -> int:
        """How many logits."""
        return len(self.biases[-1])

    def __call__(self, x: Tensor) -> Tensor:
        """Logits [..., classes] of inputs [..., n_0]."""
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = (x @ W.mT + b).clamp_min(0)
        return x @ self.weights[-1].mT + self.biases[-1]

    def to(self, device: torch.device) -> "ReluNetwork":
        """The same on another device."""
        return ReluNetwork(
            tuple(W.to(device) for W in self.weights), tuple(b.to(device) for b in self.biases)
        )


def relu_network(weights: list[Tensor], biases: list[Tensor]) -> ReluNetwork:
    """A network from its matrices.

    Raises:
        UserError: no layer, shapes that do not follow each other, or numbers that are not finite.
    """
    if not weights or len(weights) != len(biases):
        raise UserError(f"{len(weights)} weights and {len(biases)} biases; valid: as many, at least one")
    for i, (W, b) in enumerate(zip(weights, biases, strict=True)):
        if W.ndim != 2 or b.shape != W.shape[:1] or (i and W.shape[1] != len(biases[i - 1])):
            raise UserError(f"layer {i}: weight {tuple(W.shape)}, bias {tuple(b.shape)} do not fit")
        if not (W.isfinite().all() and b.isfinite().all()):
            raise UserError(f"layer {i} holds numbers that are not finite")
    return ReluNetwork(tuple(W.double() for W in weights), tuple(b.double() for b in biases))


def _leaves(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    children = list(module.named_children())
    if not children:
        yield name, module
    for child, part in children:
        yield from _leaves(part, f"{name}.{child}" if name else child)


@torch.no_grad()
def read_network(module: nn.Module, shape: tuple[int, ...]) -> ReluNetwork:
    """The matrices of a module whose layers, in the order of their registration, are affine or ReLUs.

    Affine layers between two ReLUs (also convolutions and batch normalisation, in evaluation mode) become one
    matrix: n_0 applications, meant for networks of a few thousand units.

    Args:
        module: takes [b, *shape], gives logits [b, classes].
        shape: of one input.

    Raises:
        UserError: a layer of another kind (by name), or a module that is not the chain of its layers.
    """
    source = copy.deepcopy(module).double().cpu().eval()
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    waiting: list[nn.Module] = []
    input_shape = shape
    for name, layer in _leaves(source):
        if isinstance(layer, nn.ReLU):
            shape = _compose(waiting, shape, weights, biases)
            waiting = []
        elif isinstance(layer, AFFINE):
            waiting.append(layer)
        else:
            raise UserError(f"layer {name} ({type(layer).__name__}) cannot be certified (valid: {READABLE})")
    if not waiting:
        raise UserError("the network ends with a ReLU or has no layer; valid: its last layer gives logits")
    _compose(waiting, shape, weights, biases)
    network = relu_network(weights, biases)
    _check_chain(source, network, input_shape)
    return network


def _compose(
    layers: list[nn.Module], shape: tuple[int, ...], weights: list[Tensor], biases: list[Tensor]
) -> tuple[int, ...]:
    """Add the matrix of affine layers on inputs of a shape; gives the shape of their output."""
    size = int(torch.Size(shape).numel())
    probes = torch.cat([torch.zeros(1, size), torch.eye(size)]).double().view(-1, *shape)
    for layer in layers:
        probes = layer(probes)
    out, flat = tuple(probes.shape[1:]), probes.flatten(1)
    weights.append((flat[1:] - flat[0]).T.contiguous())
    biases.append(flat[0].clone())
    return out


def _check_chain(module: nn.Module, network: ReluNetwork, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, network.inputs, generator=generator, dtype=torch.float64)
    given = module(x.view(8, *shape))
    if not torch.allclose(given.flatten(1), network(x), rtol=TOLERANCE, atol=TOLERANCE):
        raise UserError(f"{type(module).__name__} does more than its layers in a row; it cannot be certified")
