"""A feed-forward ReLU network as plain matrices, read from the graph of any module that is a chain of affine
maps and ReLUs.

x_{i+1} = relu(W_i x_i + b_i),  i = 0..L-1;   logits f(x_0) = W_L x_L + b_L        (section 2 of the paper)
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from papers.sdp_cert.graph import check_operations, read_graph

# relative difference of logits in float64 between a module and its matrices, as a part of their spread, ...
AGREES = 1e-9
# ... beside the rounding of their sums
ROUNDING = 1e3 * torch.finfo(torch.float64).eps
# random corners of a box at which a reading is checked
CORNERS = 4


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


@torch.no_grad()
def read_network(module: nn.Module, shape: tuple[int, ...]) -> ReluNetwork:
    """The matrices of a module that is a chain of affine maps and ReLUs, in evaluation mode.

    The graph of its forward is read (see graph.py). Affine layers between two ReLUs (also convolutions and
    batch normalisation) become one matrix: n_0 applications, meant for networks of a few thousand units. The
    module itself is not changed.

    Args:
        module: takes [b, *shape], gives logits [b, classes].
        shape: of one input.

    Raises:
        UserError: what is neither affine nor a ReLU, by the name of its layer; numbers that are not finite; a
            module that does more than its graph says.
    """
    source = _copy(module)
    for name, values in (*source.named_parameters(), *source.named_buffers()):
        if nn.parameter.is_lazy(values):
            raise UserError(f"{name} has no values yet; valid: a network that was called once")
        if not values.isfinite().all():
            raise UserError(f"{name} holds numbers that are not finite; the network cannot be certified")
    network = relu_network(*read_graph(source, shape))
    _runs(source, check_operations, source, shape)
    generator = torch.Generator().manual_seed(0)
    inside = torch.rand(8, network.inputs, generator=generator, dtype=torch.float64)
    outside = torch.randn(8, network.inputs, generator=generator, dtype=torch.float64)
    _compare(source, network, shape, torch.cat([inside, inside.round(), outside]))
    return network


@torch.no_grad()
def check_reading(
    module: nn.Module, network: ReluNetwork, shape: tuple[int, ...], x: Tensor, lower: Tensor, upper: Tensor
) -> None:
    """A second guard: the module gives the logits of its matrices at inputs and at corners of their boxes.

    Args:
        module, shape: see `read_network`.
        network: what it gave.
        x: inputs [e, n_0]; lower, upper: their boxes.

    Raises:
        UserError: it does not, to AGREES of the spread of the logits.
    """
    x, lower, upper = x.double().cpu(), lower.double().cpu(), upper.double().cpu()
    generator = torch.Generator().manual_seed(0)
    at = torch.rand(CORNERS, *x.shape, generator=generator) < 0.5
    corners = torch.where(at, lower, upper).flatten(0, 1)
    source = _copy(module)
    _compare(source, network.to(torch.device("cpu")), shape, torch.cat([x, lower, upper, corners]))


def _copy(module: nn.Module) -> nn.Module:
    """A copy in float64 on the CPU, in evaluation mode."""
    try:
        return copy.deepcopy(module).double().cpu().eval()
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{type(module).__name__} cannot be copied in float64 ({error})") from error


def _runs(source: nn.Module, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives that runs the module.

    Raises:
        UserError: the module cannot be run.
    """
    try:
        return function(*arguments)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{type(source).__name__} cannot be run in float64 ({error})") from error


def _compare(source: nn.Module, network: ReluNetwork, shape: tuple[int, ...], x: Tensor) -> None:
    given = _runs(source, source, x.view(-1, *shape))
    read = network(x)
    spread = (read - read.mean(1, keepdim=True)).abs().max()
    size = ReluNetwork(tuple(W.abs() for W in network.weights), tuple(b.abs() for b in network.biases))
    allowed = AGREES * spread + ROUNDING * size(x.abs())
    if given.shape != read.shape or not ((given - read).abs() <= allowed).all():
        raise UserError(
            f"{type(source).__name__} gives other logits than the layers of its graph; it cannot be certified"
        )
