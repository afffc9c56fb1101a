"""How a network is quantised: every number of bits, and what is done with them."""

from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from common.base.errors import UserError
from common.base.limits import require
from common.quantization.affine import FLOAT_BITS, Gradient, require_bits
from common.quantization.bifurcated import GradientQuantiser
from common.quantization.range_norm import SCALE_FACTORS, ScaleFactor

Norm = Literal["range_bn", "l1_bn", "bn"]
Arithmetic = Literal["simulated", "integer"]
# the most bits of a factor of an integer product
INTEGER_BITS = 8


class Settings(TypedDict):
    """The settings of `Quantisation` as keys of a config, all of them."""

    bits: int
    bits_weight: int
    bits_bias: int
    bits_norm: int
    bits_scale: int
    grad_bits: int
    grad_weight_bits: int
    bifurcation: bool
    grad_stochastic: bool
    act_stochastic: bool
    true_zero: bool
    clip_gradient: Gradient
    range_momentum: float
    norm: Norm
    scale: ScaleFactor
    num_chunks: int
    eps: float
    norm_momentum: float
    zero_init_residual: bool
    arithmetic: Arithmetic


@dataclass(frozen=True)
class Quantisation:
    """The settings of a quantised network; 32 bits, as of all not given, are float32.

    Attributes:
        bits: of activations: the inputs of convolutions, linear layers and Range BN.
        bits_weight, bits_bias: of weights and biases of convolutions and linear layers.
        bits_norm: of gamma and beta of Range BN.
        bits_scale: of 1 / (C range) of Range BN: 8 in the authors' first code, 32 in their later one.
        grad_bits: of the gradients that the layers below get.
        grad_weight_bits: of those that the weights learn from: 16 in the paper, 32 in its code.
        bifurcation: whether these are two; otherwise the weights learn from that of `grad_bits`.
        grad_stochastic: whether gradients are rounded stochastically.
        act_stochastic: whether activations are too, also in evaluation: a slip of the authors' code.
        true_zero: whether 0 is a level of activations, weights and biases, as in GEMMLOWP.
        clip_gradient: "straight" through values outside the range (the authors' code), or "clipped" to 0.
        range_momentum: weight of the old average of activations' ranges.
        norm: what batch normalisation becomes: "range_bn", "l1_bn", or "bn": left as it is.
        scale, num_chunks, eps: see `range_norm`.
        norm_momentum: weight of the old averages of mu and of the scale.
        zero_init_residual: whether gamma of the last norm of each residual block starts at 0.
        arithmetic: whether forward products are "simulated" by floats, or of "integer" matrices.

    Raises:
        UserError: a value out of range, or more than 8 bits in integer products.
    """

    bits: int = FLOAT_BITS
    bits_weight: int = FLOAT_BITS
    bits_bias: int = FLOAT_BITS
    bits_norm: int = FLOAT_BITS
    bits_scale: int = FLOAT_BITS
    grad_bits: int = FLOAT_BITS
    grad_weight_bits: int = FLOAT_BITS
    bifurcation: bool = True
    grad_stochastic: bool = True
    act_stochastic: bool = False
    true_zero: bool = False
    clip_gradient: Gradient = "straight"
    range_momentum: float = 0.1
    norm: Norm = "range_bn"
    scale: ScaleFactor = "paper"
    num_chunks: int = 1
    eps: float = 1e-5
    norm_momentum: float = 0.9
    zero_init_residual: bool = False
    arithmetic: Arithmetic = "simulated"

    def __post_init__(self) -> None:
        require_bits(**{name: value for name, value in vars(self).items() if "bits" in name})
        require("from 0 to 1", "method", range_momentum=self.range_momentum, norm_momentum=self.norm_momentum)
        require("at least 1", "method", num_chunks=self.num_chunks)
        require("at least 0", "method", eps=self.eps)
        _require_one_of("clip_gradient", self.clip_gradient, get_args(Gradient))
        _require_one_of("norm", self.norm, get_args(Norm))
        _require_one_of("scale", self.scale, SCALE_FACTORS)
        _require_one_of("arithmetic", self.arithmetic, get_args(Arithmetic))
        if self.arithmetic == "integer" and max(self.bits, self.bits_weight) > INTEGER_BITS:
            raise UserError(
                f"method.arithmetic=integer: bits={self.bits}, bits_weight={self.bits_weight} do not fit "
                f"int8 matrices (valid: both from 1 to {INTEGER_BITS}, or arithmetic=simulated)"
            )

    @property
    def products(self) -> bool:
        """Whether anything of convolutions and linear layers is quantised."""
        own = self.bits, self.bits_weight, self.bits_bias, self.grad_bits
        return min(*own, self.grad_weight_bits if self.bifurcation else FLOAT_BITS) < FLOAT_BITS

    @property
    def gradients(self) -> GradientQuantiser:
        """The quantiser of the gradients of convolutions and linear layers."""
        return GradientQuantiser(
            self.grad_bits, self.grad_stochastic, self.bifurcation, self.grad_weight_bits
        )


def _require_one_of(name: str, value: Any, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise UserError(f"method.{name}={value}; valid: {', '.join(valid)}")
