"""Quantised back-propagation with bifurcation: one gradient for the weights, another for the layers below.

Banner, Hubara, Hoffer, Soudry, "Scalable Methods for 8-bit Training of Neural Networks", NeurIPS 2018
(arXiv 1805.11046), section 4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from common.quantization.affine import FLOAT_BITS, quantised, value_range


class Operation(Protocol):
    """A layer's product of inputs and weights, with its two gradients."""

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output."""

    def backward(
        self, gradient: Tensor, inputs: Tensor, weight: Tensor, mask: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of the inputs and of the weights, those that `mask` asks for."""

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        """The gradient of the bias."""


@dataclass(frozen=True)
class Convolution:
    """A convolution of 1 to 3 dimensions, or a transposed one, as `torch.ops.aten.convolution` takes it.

    Inputs [b, channels, ...]. Padding is with zeros, the same before and after; `behind` more zeros follow
    after, as padding="same" needs them for even kernels.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    behind: tuple[int, ...]

    @property
    def _settings(self) -> tuple[Any, ...]:
        spatial = self.stride, self.padding, self.dilation
        return *map(list, spatial), self.transposed, list(self.output_padding), self.groups

    def padded(self, inputs: Tensor) -> Tensor:
        """The inputs with the zeros of `behind`."""
        if not any(self.behind):
            return inputs
        return functional.pad(inputs, [size for zeros in reversed(self.behind) for size in (0, zeros)])

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.ops.aten.convolution(self.padded(inputs), weight, bias, *self._settings)

    def backward(
        self, gradient: Tensor, inputs: Tensor, weight: Tensor, mask: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        of_inputs, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, self.padded(inputs), weight, None, *self._settings, [*mask, False]
        )
        if of_inputs is not None and any(self.behind):
            of_inputs = of_inputs[(..., *(slice(0, size) for size in inputs.shape[2:]))]
        return of_inputs, of_weight

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        return gradient.sum([0, *range(2, gradient.ndim)])


@dataclass(frozen=True)
class LinearProduct:
    """x W^T + b: inputs [..., in], weights [out, in]."""

    def forward(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(inputs, weight, bias)

    def backward(
        self, gradient: Tensor, inputs: Tensor, weight: Tensor, mask: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        of_inputs = gradient @ weight if mask[0] else None
        rows, columns = gradient.reshape(-1, weight.shape[0]), inputs.reshape(-1, weight.shape[1])
        return of_inputs, rows.t() @ columns if mask[1] else None

    def bias_gradient(self, gradient: Tensor) -> Tensor:
        return gradient.reshape(-1, gradient.shape[-1]).sum(0)


@dataclass(frozen=True)
class GradientQuantiser:
    """How the gradient g of a layer's output becomes the two that go on.

    Attributes:
        bits: of the gradient that the layers below get, and without bifurcation the weights too.
        stochastic: whether it is rounded so.
        bifurcated: whether the weights learn from g itself.
        weight_bits: to which g is rounded for the weights (nearest); the paper has 16, its code 32.
    """

    bits: int = FLOAT_BITS
    stochastic: bool = True
    bifurcated: bool = True
    weight_bits: int = FLOAT_BITS

    def below(self, gradient: Tensor) -> Tensor:
        """Q(g), for the layers below."""
        return quantised(gradient, *value_range(gradient), self.bits, self.stochastic)

    def weights(self, gradient: Tensor, below: Tensor) -> Tensor:
        """What the weights and the bias learn from: g, rounded to `weight_bits`, or Q(g)."""
        if not self.bifurcated:
            return below
        if self.weight_bits == FLOAT_BITS:
            # the range of a large tensor is not looked for in vain
            return gradient
        return quantised(gradient, *value_range(gradient), self.weight_bits)


# told of (g, Q(g))
Told = Callable[[Tensor, Tensor], None]
# computes a layer's output by other means than its operation, as by integers
Compute = Callable[[], Tensor]


class _Bifurcated(Function):
    """One forward product; g_x from Q(g), g_W from g."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        operation: Operation,
        quantiser: GradientQuantiser,
        tell: Told | None,
        compute: Compute | None,
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.operation, ctx.quantiser, ctx.tell = operation, quantiser, tell
        return operation.forward(inputs, weight, bias) if compute is None else compute()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        need_inputs, need_weight, need_bias = ctx.needs_input_grad[:3]
        below = ctx.quantiser.below(gradient)
        if ctx.tell is not None:
            ctx.tell(gradient, below)
        above = ctx.quantiser.weights(gradient, below) if need_weight or need_bias else below
        operation = ctx.operation
        if above is below:
            of_inputs, of_weight = operation.backward(below, inputs, weight, (need_inputs, need_weight))
        else:
            of_inputs, of_weight = None, None
            if need_inputs:
                of_inputs, _ = operation.backward(below, inputs, weight, (True, False))
            if need_weight:
                _, of_weight = operation.backward(above, inputs, weight, (False, True))
        of_bias = operation.bias_gradient(above) if need_bias else None
        return of_inputs, of_weight, of_bias, None, None, None, None


def bifurcated(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operation: Operation,
    quantiser: GradientQuantiser,
    *,
    tell: Told | None = None,
    compute: Compute | None = None,
) -> Tensor:
    """y = operation(x, W) + b, with the gradients g_x = Q(g) W^T and g_W = x^T g of section 4.

    With g the gradient of y: the layers below get the one of Q(g), the weights and the bias learn from g.
    Where Q leaves g alone (32 bits) all is as without it. The authors' code makes two forward products to
    the same effect, here it is one.

    Args:
        inputs, weight, bias: x, W, b, quantised already.
        operation: `Convolution` or `LinearProduct`.
        quantiser: see `GradientQuantiser`.
        tell: is told of g and Q(g).
        compute: gives y in the operation's place; the gradients stay the operation's.
    """
    return _Bifurcated.apply(inputs, weight, bias, operation, quantiser, tell, compute)
