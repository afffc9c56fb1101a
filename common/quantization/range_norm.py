"""Range batch normalisation: by the range of the values in place of their standard deviation.

Banner, Hubara, Hoffer, Soudry, "Scalable Methods for 8-bit Training of Neural Networks", NeurIPS 2018
(arXiv 1805.11046), section 3.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from common.base.errors import UserError
from common.quantization.affine import (
    FLOAT_BITS,
    quantise_gradient,
    quantise_within,
    quantised,
    value_range,
)
from common.quantization.observing import Observed
from common.quantization.precision import without_autocast
from common.quantization.ranges import ActivationRange, averaged

ScaleFactor = Literal["paper", "code", "none", "half", "double"]
SCALE_FACTORS = ("paper", "code", "none", "half", "double")


def range_factor(count: int, scale: ScaleFactor = "paper") -> float:
    """C(n), by which the range of n values stands for their standard deviation.

    "paper": C(n) = 1 / sqrt(2 ln n) (equation 2); "code": .5 * .35 * (1 + sqrt(pi ln 4)) C(n), the authors'
    code, .5402 C(n); for comparison "none": 1, "half": C(n) / 2, "double": 2 C(n).

    Raises:
        UserError: fewer than two values, or no such factor.
    """
    if count < 2:
        raise UserError(
            f"Range BN: {count} value(s) a channel and chunk have no range (valid: larger batches, or "
            "method.num_chunks=1)"
        )
    if scale not in SCALE_FACTORS:
        raise UserError(f"method.scale={scale}; valid: {', '.join(SCALE_FACTORS)}")
    paper = 1 / math.sqrt(2 * math.log(count))
    code = 0.5 * 0.35 * (1 + math.sqrt(math.pi * math.log(4)))
    return {"paper": paper, "code": code * paper, "none": 1.0, "half": paper / 2, "double": 2 * paper}[scale]


def require_chunks(values: int, chunks: int) -> int:
    """n', how many of a channel's values a chunk holds.

    Raises:
        UserError: the chunks do not divide the values.
    """
    if values % chunks:
        raise UserError(
            f"Range BN: {chunks} chunks do not divide the {values} values of a channel (valid: a "
            "dataset.batch_size that they divide, or method.num_chunks=1)"
        )
    return values // chunks


def chunk_extremes(inputs: Tensor, chunks: int, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The largest, or the smallest, value of each channel and chunk, and where it lies.

    A channel's values lie in the order of examples, then pixels; the chunks are equal parts of that. First
    come the extremes of rows, pieces of an example that lie within one chunk; only in the row that has the
    chunk's extreme is it looked for.

    Args:
        inputs: [b, channels, pixels].
        chunks: they divide b * pixels.
        largest: whether the largest is meant.

    Returns:
        Values, and their indices in the flattened inputs, both [channels, chunks].
    """
    batch, channels, pixels = inputs.shape
    length = math.gcd(pixels, batch * pixels // chunks)
    pieces = pixels // length
    rows = inputs.reshape(batch, channels, pieces, length)
    ends = rows.amax(3) if largest else rows.amin(3)
    values, chosen = extremes(ends.transpose(0, 1).reshape(channels, chunks, -1), largest)
    # the row's number among the channel's rows
    row = chosen + torch.arange(chunks, device=inputs.device) * (ends.numel() // (channels * chunks))
    channel = torch.arange(channels, device=inputs.device)[:, None]
    example, piece = row // pieces, row % pieces
    _, pixel = extremes(rows[example, channel, piece], largest)
    return values, ((example * channels + channel) * pieces + piece) * length + pixel


def extremes(rows: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
    """The largest, or smallest, value of each row and its first place, [..., n] to two of [...].

    It is looked for among the extremes of about sqrt(n) parts, then in one part: looking for a place takes
    far longer than taking an extreme.
    """
    count = rows.shape[-1]
    parts = max(size for size in range(1, math.isqrt(count) + 1) if count % size == 0)
    pieces = rows.unflatten(-1, (parts, -1))
    ends = pieces.amax(-1) if largest else pieces.amin(-1)
    values, part = ends.max(-1) if largest else ends.min(-1)
    chosen = pieces.take_along_dim(part[..., None, None], -2).squeeze(-2)
    place = chosen.argmax(-1) if largest else chosen.argmin(-1)
    return values, part * (count // parts) + place


class _RangeNorm(Function):
    """gamma (x - mu) / scale + beta of a batch, with scale = C range + eps; its backward by hand.

    With g the gradient of the output, y = (x - mu) / scale, and K chunks:

        d gamma = sum g y,   d beta = sum g,   d scale = -gamma (sum g y) / scale
        d x = gamma (g - mean g) / scale, + d scale C / K at each chunk's largest value, - at its smallest

    Of equal values one is taken. The gradient through mu is that of the mean.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        factor: float,
        chunks: int,
        eps: float,
        scale_bits: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        flat = inputs.reshape(*inputs.shape[:2], -1)
        mean = flat.mean(dim=(0, 2))
        high, at_high = chunk_extremes(flat, chunks)
        low, at_low = chunk_extremes(flat, chunks, largest=False)
        scale = factor * (high - low).mean(1) + eps
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        inverse = 1 / scale
        inverse = quantised(inverse, *value_range(inverse), scale_bits)
        ctx.save_for_backward(flat, weight, mean, scale, inverse, at_high, at_low)
        ctx.factor, ctx.chunks = factor, chunks
        ctx.mark_non_differentiable(mean, scale)
        # of the inputs' own shape, not a view of it: the next layer may write over it
        return affine(inputs, mean, weight * inverse, bias), mean, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, mean, scale, inverse, at_high, at_low = ctx.saved_tensors
        shape = gradients[0].shape
        gradient = gradients[0].reshape(flat.shape)
        _, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
            gradient, flat, weight, None, None, mean, inverse, True, 0.0, [False, True, True]
        )
        count = flat.shape[0] * flat.shape[2]
        found = affine(gradient, bias_gradient / count, weight * inverse, torch.zeros_like(weight))
        # 1/scale enters by its quantised value, and learns as if it were not
        of_scale = -weight * weight_gradient / (inverse * scale * scale)
        share = (of_scale * ctx.factor / ctx.chunks)[:, None].expand_as(at_high)
        where = torch.cat([at_high.flatten(), at_low.flatten()])
        added = torch.cat([share.flatten(), -share.flatten()])
        found.view(-1).index_add_(0, where, added)
        return found.view(shape), weight_gradient, bias_gradient, None, None, None, None


def range_norm(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    scale: ScaleFactor = "paper",
    chunks: int = 1,
    eps: float = 1e-5,
    scale_bits: int = FLOAT_BITS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Range BN of a batch: gamma (x - mu) / (C(n') range + eps) + beta, for each channel.

    range is the mean of the chunks' largest values less that of their smallest; n' is how many values a
    chunk holds. One chunk is the paper's form, 16 are the code's.

    Args:
        inputs: x, [b, channels, ...].
        weight, bias: gamma and beta, [channels].
        scale: see `range_factor`.
        chunks: K.
        eps: added to the scale; where the scale is 0 (no eps, equal values) it is taken as 1.
        scale_bits: of 1 / (C range + eps) over the channels; 32 in the authors' later code, 8 in the first.

    Returns:
        The output, and mu and scale, [channels], without gradient.

    Raises:
        UserError: chunks that do not divide the values, or hold one alone.
    """
    count = require_chunks(inputs.numel() // inputs.shape[1], chunks)
    return _RangeNorm.apply(inputs, weight, bias, range_factor(count, scale), chunks, eps, scale_bits)


def affine(inputs: Tensor, mean: Tensor, slope: Tensor, bias: Tensor) -> Tensor:
    """slope (x - mean) + bias for each channel, in one pass: batch normalisation by a variance of 1.

    Args:
        inputs: [b, channels, ...].
        mean, slope, bias: [channels].
    """
    return functional.batch_norm(inputs, mean, torch.ones_like(mean), slope, bias, eps=0.0)


def l1_norm(inputs: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """L1 BN: gamma (x - mu) / (sqrt(pi / 2) mean|x - mu| + eps) + beta; as `range_norm` otherwise."""
    dims = [0, *range(2, inputs.ndim)]
    mean = inputs.mean(dims)
    centred = inputs - _along(mean, inputs)
    scale = math.sqrt(math.pi / 2) * centred.abs().mean(dims) + eps
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    output = centred * _along(weight / scale, inputs) + _along(bias, inputs)
    return output, mean.detach(), scale.detach()


def _along(values: Tensor, inputs: Tensor) -> Tensor:
    """[channels] to the shape that is broadcast over [b, channels, ...]."""
    return values.view(-1, *[1] * (inputs.ndim - 2))


class ScaleNorm(nn.Module):
    """A batch normalisation by another scale than the standard deviation, with quantised parts.

    Its input, gamma and beta are quantised, and so is the gradient of its output. In evaluation the running
    averages of mu and of the scale stand in their place, 0 and 1 until the first training batch.

    Args:
        features: channels.
        eps: see `range_norm`.
        momentum: weight of the old averages: 0.9 as usual, 0.1 in the authors' code, where evaluation
            practically takes the last batch.
        bits: of the input.
        bits_norm: of gamma and beta.
        grad_bits: of the gradient of the output.
        grad_stochastic, act_stochastic, true_zero, range_momentum: see `Quantisation`.
    """

    running_mean: Tensor
    running_scale: Tensor
    batches: Tensor

    def __init__(
        self,
        features: int,
        *,
        eps: float,
        momentum: float,
        bits: int = FLOAT_BITS,
        bits_norm: int = FLOAT_BITS,
        grad_bits: int = FLOAT_BITS,
        grad_stochastic: bool = True,
        act_stochastic: bool = False,
        true_zero: bool = False,
        range_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = features, eps, momentum
        self.bits, self.bits_norm, self.grad_bits = bits, bits_norm, grad_bits
        self.grad_stochastic, self.act_stochastic, self.true_zero = grad_stochastic, act_stochastic, true_zero
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_scale", torch.ones(features))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.activation = ActivationRange(range_momentum) if bits < FLOAT_BITS else None
        self.observed = Observed()
        # the norm in whose place it stands
        self.kind: type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d] = nn.BatchNorm2d
        # what that was made with, but for its features
        self.arguments: dict[str, Any] = {}

    @torch.no_grad()
    def plain(self, levels: bool) -> nn.Module:
        """Batch normalisation that does in evaluation what this one does to its quantised inputs.

        Its running variance is the square of the running scale.

        Args:
            levels: whether gamma and beta are the quantised ones; else the trained ones.
        """
        bits = self.bits_norm if levels else FLOAT_BITS
        made = self.kind(self.num_features, eps=0.0).to(self.weight)
        made.weight.copy_(_quantised_vector(self.weight, bits))
        made.bias.copy_(_quantised_vector(self.bias, bits))
        assert made.running_mean is not None and made.running_var is not None
        made.running_mean.copy_(self.running_mean)
        made.running_var.copy_(self.running_scale**2)
        return made.train(self.training)

    @torch.no_grad()
    def restored(self) -> nn.Module:
        """Batch normalisation as it was made, with the averages of `plain` and the same parameters.

        The parameters are no copies. Its eps is part of the running variance, as far as that is large enough.
        """
        made = self.kind(self.num_features, **self.arguments).to(self.weight).train(self.training)
        if made.affine:
            made.weight, made.bias = self.weight, self.bias
        if made.track_running_stats:
            mean, variance, seen = made.running_mean, made.running_var, made.num_batches_tracked
            assert mean is not None and variance is not None and seen is not None
            mean.copy_(self.running_mean)
            variance.copy_((self.running_scale**2 - made.eps).clamp_(min=0))
            seen.copy_(self.batches)
        return made

    @torch.no_grad()
    def begin_averages(self, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        """Evaluate as batch normalisation does, until the first training batch; only if it has seen one."""
        if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
            return
        deviation = (norm.running_var + norm.eps).sqrt()
        seen = norm.num_batches_tracked > 0
        self.running_mean.copy_(norm.running_mean)
        self.running_scale.copy_(torch.where(seen, deviation, torch.ones_like(deviation)))

    def of_batch(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The output of a batch with its own mu and scale, and these."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """[b, channels, ...] to the same shape; within autocast as float32.

        Raises:
            UserError: a training batch that the chunks do not divide.
        """
        with without_autocast(inputs.device):
            return self._forward(self._quantised_inputs(inputs.to(self.weight.dtype)))

    def _forward(self, inputs: Tensor) -> Tensor:
        weight, bias = (_quantised_vector(vector, self.bits_norm) for vector in (self.weight, self.bias))
        if self.training:
            output, mean, scale = self.of_batch(inputs, weight, bias)
            self._track(mean, scale)
        else:
            output = affine(inputs, self.running_mean, weight / self.running_scale, bias)
        return quantise_gradient(output, self.grad_bits, self.grad_stochastic)

    def _quantised_inputs(self, inputs: Tensor) -> Tensor:
        if self.activation is None:
            return inputs
        low, high = self.activation(inputs)
        found = quantise_within(
            inputs, low, high, self.bits, stochastic=self.act_stochastic, true_zero=self.true_zero
        )
        self.observed.tell("activations", inputs, found)
        return found

    @torch.no_grad()
    def _track(self, mean: Tensor, scale: Tensor) -> None:
        self.running_mean.copy_(averaged(self.running_mean, mean, self.momentum, self.batches))
        self.running_scale.copy_(averaged(self.running_scale, scale, self.momentum, self.batches))
        self.batches += 1

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, bits={self.bits}"


class RangeNorm(ScaleNorm):
    """Range BN as a layer, see `range_norm` and `ScaleNorm`.

    Args:
        features: channels.
        scale, chunks, scale_bits: see `range_norm`.
        settings: see `ScaleNorm`.

    Raises:
        UserError: no such scale, or no chunk.
    """

    def __init__(
        self,
        features: int,
        *,
        scale: ScaleFactor = "paper",
        chunks: int = 1,
        scale_bits: int = FLOAT_BITS,
        **settings: Any,
    ) -> None:
        super().__init__(features, **settings)
        range_factor(2, scale)
        if chunks < 1:
            raise UserError(f"method.num_chunks={chunks}; valid: 1 or more (16 in the authors' code)")
        self.scale, self.chunks, self.scale_bits = scale, chunks, scale_bits

    def of_batch(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return range_norm(
            inputs,
            weight,
            bias,
            scale=self.scale,
            chunks=self.chunks,
            eps=self.eps,
            scale_bits=self.scale_bits,
        )


class L1Norm(ScaleNorm):
    """L1 BN as a layer, see `l1_norm` and `ScaleNorm`."""

    def of_batch(self, inputs: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return l1_norm(inputs, weight, bias, self.eps)


def _quantised_vector(vector: Tensor, bits: int) -> Tensor:
    """gamma or beta, quantised by its smallest and largest number."""
    return quantise_within(vector, *value_range(vector), bits) if bits < FLOAT_BITS else vector
