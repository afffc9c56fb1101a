"""Feature maps that all tasks share: a small network, or random kitchen sinks."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Generator, Tensor

from common.base.errors import UserError
from common.base.limits import require

Precision = Literal["float64", "float32"]
# of the first biases, in units of 1 / sqrt(fan-in)
FIRST_BIAS = 0.2


class Features(ABC):
    """phi: R^P -> R^D by a flat vector of parameters z, made for P inputs by `start`.

    Attributes:
        dim: D. largest: |z| stays below it.
    """

    dim: int
    largest: float = 1e3

    @abstractmethod
    def start(self, inputs: int, generator: Generator) -> Tensor:
        """The first z, float64 [k]; what is drawn once and stays fixed is drawn here, too."""

    @abstractmethod
    def map(self, z: Tensor, x: Tensor) -> Tensor:
        """phi(x), float64 [n, D], of inputs x [n, P]; differentiable in both."""


class Network(Features):
    """Layers of tanh units; those of the last one are the features.

    Args:
        width: D. layers: at least 1. precision: of the network; the features are float64.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, *, width: int, layers: int, precision: Precision) -> None:
        require("at least 1", "method.features", width=width, layers=layers)
        if precision not in ("float64", "float32"):
            raise UserError(f"method.features.precision={precision}; valid: float64, float32")
        self.dim, self.layers = width, layers
        self.dtype = torch.float64 if precision == "float64" else torch.float32

    def start(self, inputs: int, generator: Generator) -> Tensor:
        """Weights by Xavier's normal initialisation, biases uniform within 0.2 / sqrt(fan-in).

        Larger biases make features that are rough from the start, and without any the tanh units are odd.
        """
        self.sizes = [inputs, *[self.dim] * self.layers]
        parts = []
        for fan_in, fan_out in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            weight = torch.randn(fan_in * fan_out, generator=generator, dtype=torch.float64)
            bias = 2 * torch.rand(fan_out, generator=generator, dtype=torch.float64) - 1
            parts += [weight * math.sqrt(2 / (fan_in + fan_out)), FIRST_BIAS * bias / math.sqrt(fan_in)]
        return torch.cat(parts)

    def map(self, z: Tensor, x: Tensor) -> Tensor:
        shapes = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        parts = z.to(self.dtype).split([size for a, b in shapes for size in (a * b, b)])
        h = x.to(self.dtype)
        for shape, weight, bias in zip(shapes, parts[::2], parts[1::2], strict=True):
            h = torch.tanh(torch.addmm(bias, h, weight.view(shape)))
        return h.double()


class RandomKitchenSinks(Features):
    """phi(x) = sqrt(2 / D) cos(U x / sigma + b), U normal and b uniform in [0, 2 pi], drawn once.

    E[phi(x)'phi(x')] = exp(-|x - x'|^2 / (2 sigma^2)). Learned is log sigma.

    Args:
        dim: D. per_input: whether each input has its own sigma. bandwidth: sigma at the start.

    Raises:
        UserError: a value out of range.
    """

    largest = math.log(1e3)

    def __init__(self, *, dim: int, per_input: bool, bandwidth: float) -> None:
        require("at least 1", "method.features", dim=dim)
        require("positive", "method.features", bandwidth=bandwidth)
        self.dim, self.per_input, self.bandwidth = dim, per_input, bandwidth

    def start(self, inputs: int, generator: Generator) -> Tensor:
        self.U = torch.randn(inputs, self.dim, generator=generator, dtype=torch.float64)
        self.b = 2 * math.pi * torch.rand(self.dim, generator=generator, dtype=torch.float64)
        count = inputs if self.per_input else 1
        return torch.full((count,), math.log(self.bandwidth), dtype=torch.float64)

    def map(self, z: Tensor, x: Tensor) -> Tensor:
        return math.sqrt(2 / self.dim) * torch.cos((x * torch.exp(-z)) @ self.U + self.b)
