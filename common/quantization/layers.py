"""Convolutions and linear layers that quantise their inputs, weights, biases and gradients."""

from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.quantization.affine import FLOAT_BITS, quantise_within, value_range
from common.quantization.bifurcated import Convolution, LinearProduct, Operation, bifurcated
from common.quantization.integer import coded, integer_product
from common.quantization.observing import Observed
from common.quantization.precision import without_autocast
from common.quantization.ranges import ActivationRange
from common.quantization.settings import Quantisation

PlainConvolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConvolution = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
# of the constructors of float layers
ARGUMENTS = (
    *("in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "padding"),
    *("dilation", "groups", "padding_mode", "output_padding"),
)
# the smallest and the largest value of a range
Limits = tuple[Tensor, Tensor]
Plain = PlainConvolution | TransposedConvolution | nn.Linear


class QuantisedLayer(nn.Module):
    """A layer y = operation(Q(x), Q(W)) + Q(b) whose gradient is bifurcated.

    The parameters are those of the float layer, under the same names, and are trained as they are. The
    range of inputs is that of `ActivationRange`, those of weights and biases are their smallest and largest
    number. Within autocast it computes as float32.

    Args:
        layer: the float layer, whose parameters are taken over.
        settings: how.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: Plain, settings: Quantisation) -> None:
        super().__init__()
        self.settings, self.kind = settings, type(layer)
        # what the float layer was made with, but for the bias
        self.arguments: dict[str, Any] = {
            name: getattr(layer, name) for name in signature(type(layer)).parameters if name in ARGUMENTS
        }
        # a network may ask its layers for them
        for name, value in self.arguments.items():
            setattr(self, name, value)
        self.weight, self.bias = layer.weight, layer.bias
        self.activation = ActivationRange(settings.range_momentum) if settings.bits < FLOAT_BITS else None
        self.observed = Observed()

    @torch.no_grad()
    def plain(self, levels: bool) -> nn.Module:
        """The float layer again, with weights and bias of its own.

        Args:
            levels: whether they are the quantised ones; else the trained ones.
        """
        made = self.kind(**self.arguments, bias=self.bias is not None).to(self.weight)
        weight, bias = (
            (self.quantised_weight(), self.quantised_bias()) if levels else (self.weight, self.bias)
        )
        made.weight.copy_(weight)
        if bias is not None and made.bias is not None:
            made.bias.copy_(bias)
        return made.train(self.training)

    def restored(self) -> nn.Module:
        """The float layer again, with the same parameters, not copies of them."""
        made = self.plain(levels=False)
        for name in ("weight", "bias"):
            made.register_parameter(name, getattr(self, name))
        return made

    def product(self, inputs: Tensor, limits: Limits | None, operation: Operation) -> Tensor:
        """operation(Q(x), Q(W)) + Q(b).

        Args:
            inputs, limits: Q(x) and its range, as `quantised_inputs` gives them.
            operation: of the layer.
        """
        bias, settings = self.quantised_bias(), self.settings
        compute = None
        if settings.arithmetic == "integer":
            assert limits is not None
            own = coded(self.weight, *value_range(self.weight), settings.bits_weight, settings.true_zero)
            given = coded(inputs.detach(), *limits, settings.bits, settings.true_zero)
            if self.codes_alone:
                return integer_product(operation, given, own, bias)
            compute = partial(integer_product, operation, given, own, bias)
        weight = self.quantised_weight()
        tell = partial(self.observed.tell, "layer_gradients") if self.observed.listener else None
        return bifurcated(inputs, weight, bias, operation, settings.gradients, tell=tell, compute=compute)

    @property
    def codes_alone(self) -> bool:
        """Whether nothing but integers is asked for: no gradient is taken, and nobody listens."""
        integer = self.settings.arithmetic == "integer" and not self.settings.act_stochastic
        return integer and not torch.is_grad_enabled() and self.observed.listener is None

    def quantised_inputs(self, inputs: Tensor) -> tuple[Tensor, Limits | None]:
        """Q(x), and the range of x that `activation` gives; None where nothing is quantised.

        Where `codes_alone` it is x itself, which has the integers of Q(x).
        """
        if self.activation is None:
            return inputs, None
        low, high = self.activation(inputs)
        if self.codes_alone:
            return inputs, (low, high)
        found = self._quantised(inputs, low, high, self.settings.bits, self.settings.act_stochastic)
        self.observed.tell("activations", inputs, found)
        return found, (low, high)

    def quantised_weight(self) -> Tensor:
        """Q(W)."""
        found = self._quantised(self.weight, *value_range(self.weight), self.settings.bits_weight)
        self.observed.tell("weights", self.weight, found)
        return found

    def quantised_bias(self) -> Tensor | None:
        """Q(b), if there is a bias."""
        if self.bias is None:
            return None
        return self._quantised(self.bias, *value_range(self.bias), self.settings.bits_bias)

    def _quantised(
        self, values: Tensor, low: Tensor, high: Tensor, bits: int, stochastic: bool = False
    ) -> Tensor:
        return quantise_within(
            values,
            low,
            high,
            bits,
            stochastic=stochastic,
            true_zero=self.settings.true_zero,
            gradient=self.settings.clip_gradient,
        )


class QuantisedLinear(QuantisedLayer):
    """The quantised form of `nn.Linear`."""

    in_features: int
    out_features: int

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, ..., in] to [b, ..., out]."""
        with without_autocast(inputs.device):
            given, limits = self.quantised_inputs(inputs.to(self.weight.dtype))
            return self.product(given, limits, LinearProduct())

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.settings.bits}"


class QuantisedConvolution(QuantisedLayer):
    """The quantised form of `nn.Conv1d` to `nn.Conv3d`, with any padding."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    padding_mode: str

    def __init__(self, layer: PlainConvolution, settings: Quantisation) -> None:
        super().__init__(layer, settings)
        # (before, after) for each dimension
        self.sides = _sides(layer)
        padding = tuple(0 if layer.padding_mode != "zeros" else min(side) for side in self.sides)
        behind = tuple(0 if layer.padding_mode != "zeros" else max(b - a, 0) for a, b in self.sides)
        self.operation = Convolution(
            stride=tuple(layer.stride),
            padding=padding,
            dilation=tuple(layer.dilation),
            transposed=False,
            output_padding=(0,) * len(padding),
            groups=layer.groups,
            behind=behind,
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, in, ...] to [b, out, ...]."""
        with without_autocast(inputs.device):
            inputs, limits = self.quantised_inputs(inputs.to(self.weight.dtype))
            if self.padding_mode != "zeros":
                sides = [size for side in reversed(self.sides) for size in side]
                inputs = functional.pad(inputs, sides, mode=self.padding_mode)
            return self.product(inputs, limits, self.operation)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, bits={self.settings.bits}"


class QuantisedTransposed(QuantisedLayer):
    """The quantised form of `nn.ConvTranspose1d` to `nn.ConvTranspose3d`."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]

    def __init__(self, layer: TransposedConvolution, settings: Quantisation) -> None:
        super().__init__(layer, settings)
        self.operation = Convolution(
            stride=tuple(layer.stride),
            padding=tuple(int(size) for size in layer.padding),
            dilation=tuple(layer.dilation),
            transposed=True,
            output_padding=tuple(layer.output_padding),
            groups=layer.groups,
            behind=(0,) * len(layer.kernel_size),
        )

    def forward(self, inputs: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[b, in, ...] to [b, out, ...], of the given size where there is one."""
        with without_autocast(inputs.device):
            inputs, limits = self.quantised_inputs(inputs.to(self.weight.dtype))
            return self.product(inputs, limits, self._sized(inputs, output_size))

    def _sized(self, inputs: Tensor, output_size: list[int] | None) -> Convolution:
        if output_size is None:
            return self.operation
        own = self.operation
        wanted = list(output_size)[-len(own.stride) :]
        smallest = [
            (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
            for size, stride, padding, dilation, kernel in zip(
                inputs.shape[2:], own.stride, own.padding, own.dilation, self.kernel_size, strict=True
            )
        ]
        more = tuple(size - least for size, least in zip(wanted, smallest, strict=True))
        return replace(own, output_padding=more)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, bits={self.settings.bits}"


def _sides(layer: PlainConvolution) -> list[tuple[int, int]]:
    """The padding before and after each dimension, also of padding="same" and "valid"."""
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    if layer.padding == "same":
        totals = [
            dilation * (kernel - 1)
            for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True)
        ]
        return [(total // 2, total - total // 2) for total in totals]
    return [(int(size), int(size)) for size in layer.padding]
